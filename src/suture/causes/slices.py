"""Slices: regions of the network's features in which it errs more often, found on one half and proved on the other.

Errors are clustered where the network decides, as in Spotlight (d'Eon et al. 2022) and Domino (Eyuboglu et al. 2022).
A cluster alone means nothing: errors always have some structure, and what is found by searching looks good on what was
searched. So a cluster becomes a region, of which every example can be a member, right or wrong; and the region counts
only if the examples of the other half that fall into it are wrong more often than those outside.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA

from suture.case import Case
from suture.causes.features import penultimate
from suture.causes.metadata import over_represented
from suture.causes.rates import RATES, error_rates, p_more_wrong
from suture.errors import DataError, NonFiniteError
from suture.splits import stratified
from suture.stats import ALPHA, holm
from suture.tasks import Outcomes

LEAST_ERRORS = 20  # in `diagnose`: two clusters of five on one half, and as many errors on the other to confirm them
LEAST_CLUSTER = 5  # errors of one half
NEIGHBOURS = 3  # whose distance is taken for density; more of them lose small clusters in noise
DIMENSIONS = 10  # at most: in more, distances to the nearest and to the furthest errors become alike
MOST_ERRORS = 5000  # of one half that are clustered; more would find the same regions, later
COVER = 0.9  # of a cluster's errors that lie within its radius of another one
PAIRS, EXEMPLARS = 3, 6

COLUMNS = ["slice", *RATES, "p", "classes"]
CONFUSIONS = ["slice", "true", "predicted", "count", "share"]


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Regions in which the network errs more often than elsewhere.

    Attributes:
        table: a row per slice, most errors first: slice (its name); n and errors, its members on the half that
            confirmed it; rate (errors / n), low, high (95 % Wilson interval); rate_outside, of that half's other
            examples; p (one-sided Fisher, Holm over the regions tried); classes, the most frequent confusions.
        confusions: among the slice's errors on that half: slice, true, predicted, count, share.
        metadata: values that its members on that half have more often than the others; see `over_represented`.
        members: slice → positions in `diagnose` of all in its region, right or wrong, of both halves.
        errors: slice → those of them that are wrong.
        exemplars: slice → the errors nearest to its centre.
        n_errors: errors in `diagnose`.
        tried: regions that were put to the test.
        why_not: why there is no slice; empty when there is one.
    """

    table: pd.DataFrame
    confusions: pd.DataFrame
    metadata: pd.DataFrame
    members: dict[str, list[int]] = field(default_factory=dict)
    errors: dict[str, list[int]] = field(default_factory=dict)
    exemplars: dict[str, list[int]] = field(default_factory=dict)
    n_errors: int
    tried: int
    why_not: str = ""


@dataclass(frozen=True, eq=False)
class Region:
    """Everything within a radius of one of a cluster's errors.

    Attributes:
        errors: (k, d) of one half.
        radius: in the same space.
    """

    errors: NDArray[np.float64]
    radius: float

    def distances(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) to the nearest of the errors, in units of the radius: at most 1 inside."""
        return _nearest(self.errors, points, 1) / self.radius


def slices_of(case: Case, outcomes: Outcomes | None = None) -> Slices:
    """The slices of a case, in the features of `suture.causes.features.penultimate`.

    Args:
        outcomes: of the case's model on `diagnose`, where they are known.

    Raises:
        NonFiniteError: features are NaN or infinite.
    """
    split = case.splits["diagnose"]
    outcomes = case.outcomes(split) if outcomes is None else outcomes
    if why := too_few(outcomes.right):
        return _none(outcomes, why)
    features = penultimate(case, split)
    if features is None:
        return _none(outcomes, "errors have no place: the task has no features and the network no last linear layer")
    return find_slices(
        features, outcomes, hashes=split.hashes, metadata=split.metadata, class_name=case.class_name, seed=case.seed
    )


def find_slices(
    features: NDArray[np.floating[Any]],
    outcomes: Outcomes,
    *,
    hashes: Sequence[str] | None = None,
    metadata: Mapping[str, Sequence[Any]] | None = None,
    class_name: Callable[[int], str] = str,
    seed: int = 0,
) -> Slices:
    """Cluster the errors of one half by HDBSCAN (Campello et al. 2013), and keep the regions that hold on the other.

    Where being wrong has nothing to do with the features, a region's members are any draw of the other half, and
    Fisher's test with Holm's correction keeps a slice in at most 5 % of cases.

    Args:
        features: (n, d).
        outcomes: of the same examples.
        hashes: contents; equal ones stay in one half, or a copy would confirm itself.
        metadata: column → n values.

    Raises:
        NonFiniteError: features are NaN or infinite.
        DataError: there are not as many features as examples.
    """
    right = outcomes.right
    features = _checked(features, len(right))
    if why := too_few(right):
        return _none(outcomes, why)
    first, second = _halves(right, hashes, seed)
    points = _reduced(features, first, seed)
    found = regions(points[first][~right[first]], seed)
    if not found:
        return _none(outcomes, f"the {int((~right[first]).sum())} errors of one half of 'diagnose' form no cluster")
    homes = _homes(points, found)
    p = holm(np.array([p_more_wrong(homes[second] == i, right[second]) for i in range(len(found))]))
    kept = [i for i in range(len(found)) if p[i] < ALPHA]
    if not kept:
        said = (
            "the only cluster of errors on one half of 'diagnose' did not hold on the other" if len(found) == 1
            else f"of {len(found)} clusters of errors on one half of 'diagnose' none held on the other"
        )  # fmt: skip
        return _none(outcomes, said, tried=len(found))
    kept.sort(key=lambda i: -int((~right[second] & (homes[second] == i)).sum()))
    names = {f"slice {number}": i for number, i in enumerate(kept, start=1)}
    inside = {name: homes[second] == i for name, i in names.items()}
    confusions = {name: _confusions(name, outcomes, second[here], class_name) for name, here in inside.items()}
    rows = [
        [name, *error_rates(inside[name], right[second]), float(p[i]), _in_words(confusions[name])]
        for name, i in names.items()
    ]
    errors = {name: np.flatnonzero((homes == i) & ~right) for name, i in names.items()}
    values = {column: [whole[i] for i in second] for column, whole in (metadata or {}).items()}
    return Slices(
        table=pd.DataFrame(rows, columns=COLUMNS),
        confusions=pd.concat(confusions.values(), ignore_index=True),
        metadata=over_represented(values, inside),
        members={name: np.flatnonzero(homes == i).tolist() for name, i in names.items()},
        errors={name: positions.tolist() for name, positions in errors.items()},
        exemplars={name: _exemplars(points, errors[name], found[i]) for name, i in names.items()},
        n_errors=int((~right).sum()),
        tried=len(found),
    )


def too_few(right: NDArray[np.bool_]) -> str:
    """Why verdicts (n,) allow no slice, or nothing."""
    wrong = int((~right).sum())
    if wrong < LEAST_ERRORS:
        made = f"{wrong or 'no'} error{'' if wrong == 1 else 's'}"
        return f"the model makes {made} on 'diagnose', and {LEAST_ERRORS} are the fewest that slices are found from"
    return "" if right.any() else "the model is wrong on all of 'diagnose', so no part of it is worse than the rest"


def regions(errors: NDArray[np.float64], seed: int = 0) -> list[Region]:
    """Clusters of points (k, d) as regions; the rest is noise and in none.

    HDBSCAN needs two clusters to see any, unless it is allowed to see one, which is done when it has found none.
    The radius lets `COVER` of a cluster's errors find another one, as those of the other half will have to.
    """
    if len(errors) > MOST_ERRORS:
        errors = errors[np.sort(np.random.default_rng(seed).choice(len(errors), MOST_ERRORS, replace=False))]
    if len(errors) < 2 * LEAST_CLUSTER:
        return []
    labels = _clusters(errors, alone=False)
    if labels.max() < 0:
        labels = _clusters(errors, alone=True)
    found = []
    for label in range(labels.max() + 1):
        members = errors[labels == label]
        others = _nearest(members, members, 2)  # the nearest is the error itself
        found.append(Region(members, max(float(np.quantile(others, COVER)), 1e-9)))  # copies are at no distance
    return found


def _nearest(members: NDArray[np.float64], points: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """(n,): how far points are from the k-th nearest member."""
    away: NDArray[np.float64] = np.asarray(cKDTree(members).query(points, k=[k])[0], np.float64)[:, 0]
    return away


def _clusters(errors: NDArray[np.float64], *, alone: bool) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = HDBSCAN(
        LEAST_CLUSTER, min_samples=NEIGHBOURS, allow_single_cluster=alone, copy=True
    ).fit_predict(errors)
    return labels


def _checked(given: NDArray[np.floating[Any]], n: int) -> NDArray[np.float64]:
    features: NDArray[np.float64] = np.asarray(given, np.float64)
    if features.ndim != 2 or len(features) != n:
        raise DataError(f"features of shape {features.shape} do not go with {n} examples; give (examples, features)")
    bad = ~np.isfinite(features).all(1)
    if bad.any():
        raise NonFiniteError(
            f"the features of {int(bad.sum())} of {n} examples of 'diagnose' are NaN or infinite (the first is example "
            f"{int(np.argmax(bad))}); check the model's weights and the inputs' mean and standard deviation"
        )
    return features


def _halves(
    right: NDArray[np.bool_], hashes: Sequence[str] | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of two halves with as many errors each.

    Not stratified by class as well: both halves would then have as many errors *of each class*, so that a class that
    is worse by chance on the one would be worse on the other.
    """
    contents = hashes or [str(i) for i in range(len(right))]
    one, other = stratified(contents, right.astype(int).tolist(), [0.5, 0.5], seed)
    return np.array(one, int), np.array(other, int)


def _reduced(features: NDArray[np.float64], first: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """(n, k) principal components of standardised features, learnt on one half, right and wrong examples alike."""
    mean, spread = features[first].mean(0), features[first].std(0)
    used = spread > np.maximum(1e-6 * spread.max(initial=0), 1e-9 * np.abs(mean))  # what never moves has no scale
    if not used.any():
        return np.zeros((len(features), 1))
    scaled = (features[:, used] - mean[used]) / spread[used]
    pca = PCA(min(DIMENSIONS, *scaled[first].shape), random_state=seed).fit(scaled[first])
    reduced: NDArray[np.float64] = pca.transform(scaled)
    return reduced


def _homes(points: NDArray[np.float64], found: Sequence[Region]) -> NDArray[np.int64]:
    """(n,): the region that each point is in, the nearest where there are several; −1 outside all."""
    away = np.stack([region.distances(points) for region in found])
    return np.where(away.min(0) <= 1, away.argmin(0), -1)


def _confusions(
    name: str, outcomes: Outcomes, members: NDArray[np.int64], class_name: Callable[[int], str]
) -> pd.DataFrame:
    """Columns `CONFUSIONS`, most frequent first; no row for a task without labels."""
    if outcomes.targets is None or outcomes.predictions is None:
        return pd.DataFrame(columns=CONFUSIONS)
    wrong = members[~outcomes.right[members]]
    counts = Counter(zip(outcomes.targets[wrong].tolist(), outcomes.predictions[wrong].tolist(), strict=True))
    rows = [
        [name, class_name(true), class_name(predicted), count, count / len(wrong)]
        for (true, predicted), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return pd.DataFrame(rows, columns=CONFUSIONS)


def _in_words(confusions: pd.DataFrame) -> str:
    top = confusions.head(PAIRS).to_dict("records")
    return ", ".join(f"{row['true']} → {row['predicted']} ({row['count']})" for row in top)


def _exemplars(points: NDArray[np.float64], positions: NDArray[np.int64], region: Region) -> list[int]:
    away = np.linalg.norm(points[positions] - region.errors.mean(0), axis=1)
    return [int(i) for i in positions[np.argsort(away, kind="stable")[:EXEMPLARS]]]


def _none(outcomes: Outcomes, why: str, tried: int = 0) -> Slices:
    return Slices(
        table=pd.DataFrame(columns=COLUMNS), confusions=pd.DataFrame(columns=CONFUSIONS),
        metadata=over_represented({}, {}), n_errors=int((~outcomes.right).sum()), tried=tried, why_not=why,
    )  # fmt: skip
