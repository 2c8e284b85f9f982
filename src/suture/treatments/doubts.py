"""What may be wrong with the data that a treatment learns from: said, not mended."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.stats import binom, fisher_exact

from suture.case import Case
from suture.class_order import missing_folders
from suture.splits import Split
from suture.stats import holm
from suture.tasks import Outcomes
from suture.training import Augment
from suture.treatments.plan import Plan
from suture.wording import percent, several

SURE = 1e-6  # two-sided p below which two accuracies are not those of one task
APART = 0.2  # and at least so far apart
SURE_OF_A_CLASS = 1e-3  # of all classes together (Holm), below which those of a label are not of one task
SURE_OF_ONE = 1e-2  # p of one class in a circle, of which each member has to pass
LEFT = 0.5  # and of the share that is right in `diagnose` less than so much
NAMED = 3  # classes that are named in a sentence


def doubts_of(case: Case) -> list[str]:
    """Sentences on the repair examples, none where they look sound."""
    repair = case.splits["repair"]
    found = [*missing_folders(case, "repair"), *_contradictions(case)]
    failing, trained_on = case.outcomes("diagnose"), case.outcomes("repair")
    found += [*_missing_classes(case, repair, failing), *_other_names(case, repair, trained_on, failing)]
    tables = _by_label(repair, trained_on, failing)
    odd = _odd_labels(tables)
    if len(odd) > len(tables) / 2 or not odd:
        return [*found, *_other_meaning(trained_on, failing)]
    return [*found, _other_labels(case, {label: tables[label] for label in odd})]


def crops_of(plan: Plan, case: Case) -> list[str]:
    """Crops that lose much of a picture, in any training of a plan."""
    inputs = case.splits["repair"][0][0]
    return list(dict.fromkeys(filter(None, (augment.doubt(inputs) for augment in _augments(plan)))))


def common_augment(plan: Plan) -> Augment | None:
    """What happens to pictures in all trainings of a plan; None where they differ, or none has pictures to change."""
    found = list(_augments(plan))
    return found[0] if found and all(each == found[0] for each in found) else None


def _augments(part: BaseModel) -> Iterator[Augment]:
    """What happens to pictures in the trainings of a plan: its own word in place of its recipes'."""
    own = part if isinstance(part, Augment) else getattr(part, "augment", None)
    if own is not None:
        yield own
        return
    for _, value in part:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, BaseModel):
                yield from _augments(each)


def _other_meaning(trained_on: Outcomes, failing: Outcomes) -> list[str]:
    """So much more wrong in `repair` than in `diagnose` that the labels of all classes are in doubt."""
    counts = np.array([[each.right.sum(), (~each.right).sum()] for each in (trained_on, failing)])
    if failing.accuracy - trained_on.accuracy <= APART or fisher_exact(counts).pvalue >= SURE:
        return []
    return [
        f"the model is right on {percent(trained_on.accuracy, 0)} of 'repair' and on {percent(failing.accuracy, 0)} of "
        "'diagnose': their labels may not mean the same; check the order of the classes"
    ]


Counts = Mapping[int, NDArray[np.int64]]
"""Label → (2, 2) counts of examples: wrong and right, in `repair` and in `diagnose`."""


def _by_label(repair: Split, trained_on: Outcomes, failing: Outcomes) -> Counts:
    """What is wrong and right of each label; nothing where targets are no labels.

    Further examples do not count: they may well be of the hard kind.
    """
    if trained_on.targets is None or failing.targets is None:
        return {}
    own = np.isin(repair.indices, repair.without_extra().indices)
    tables = {}
    for label in map(int, np.unique(trained_on.targets[own])):
        verdicts = trained_on.right[own & (trained_on.targets == label)], failing.right[failing.targets == label]
        tables[label] = np.array([[(~right).sum(), right.sum()] for right in verdicts])
    return tables


def _odd_labels(tables: Counts) -> list[int]:
    """Labels of which clearly more is wrong in `repair`: Fisher's exact test, one-sided, Holm over labels."""
    p_values = np.array([fisher_exact(table, alternative="greater").pvalue for table in tables.values()], float)
    sure = (label for label, p in zip(tables, holm(p_values), strict=True) if p < SURE_OF_A_CLASS)
    return [label for label in sure if _few_left(tables[label])]


def _other_names(case: Case, repair: Split, trained_on: Outcomes, failing: Outcomes) -> list[str]:
    """Further examples whose labels went round in a circle, as those of two classes that were swapped.

    Most of each class are predicted to be the next of the circle, and not in `diagnose`. Being hard seldom does that.
    """
    further = ~np.isin(repair.indices, repair.without_extra().indices)
    if trained_on.targets is None or failing.targets is None or not further.any():
        return []
    taken, elsewhere = _taken_for(trained_on, further, SURE_OF_ONE), _taken_for(failing, failing.targets >= 0)
    taken = {label: other for label, other in taken.items() if elsewhere.get(label) != other}
    circle = [label for label in taken if _comes_back(label, taken)]
    if not circle:
        return []
    named = [f"'{case.class_name(label)}' for '{case.class_name(taken[label])}'" for label in circle[:NAMED]]
    more = [several(len(circle) - NAMED, "more class", "more classes")] if len(circle) > NAMED else []
    return [
        f"most of the further examples of {several(len(circle), 'class', 'classes')} are taken for one another's class "
        f"({', '.join(named + more)}): their labels may not mean the same; check the order of the classes"
    ]


def _taken_for(outcomes: Outcomes, among: NDArray[np.bool_], level: float = 1.0) -> dict[int, int]:
    """Label → another one that more than half of its examples are predicted to be, and that with a p below a level."""
    if outcomes.targets is None or outcomes.predictions is None:
        return {}
    labels = [int(label) for label in np.unique(outcomes.targets[among])]
    seen = [np.unique(outcomes.predictions[among & (outcomes.targets == t)], return_counts=True) for t in labels]
    p_values = np.array([binom.sf(n.max() - 1, n.sum(), 0.5) for _, n in seen], float)
    most = [2 * n.max() > n.sum() and p < level for (_, n), p in zip(seen, p_values, strict=True)]
    top = {t: int(names[n.argmax()]) for t, (names, n), is_top in zip(labels, seen, most, strict=True) if is_top}
    return {label: other for label, other in top.items() if label != other}


def _comes_back(label: int, taken: Mapping[int, int]) -> bool:
    """Whether going from a label to what it is taken for, and on, leads back to it."""
    at = taken.get(label)
    for _ in taken:
        if at is None or at == label:
            break
        at = taken.get(at)
    return at == label


def _few_left(table: NDArray[np.int64]) -> bool:
    """Whether of the share that is right in `diagnose` less than half is right in `repair`."""
    here, there = table[:, 1] / table.sum(axis=1)
    return bool(here < LEFT * there)


def _other_labels(case: Case, odd: Counts) -> str:
    """Single classes whose examples are wrong in `repair` and right in `diagnose`, such as two that were swapped."""
    named = list(odd.items())[:NAMED]
    here = [f"{t[0, 0]} of {t[0].sum()} examples labelled '{case.class_name(label)}'" for label, t in named]
    there = [f"{t[1, 0]} of {t[1].sum()}" for _, t in named]
    more = len(odd) - len(named)
    others = f" (and so in {several(more, 'more class', 'more classes')})" if more else ""
    return (
        f"{' and '.join(here)} in 'repair' are predicted otherwise, where {' and '.join(there)} are in 'diagnose'"
        f"{others}: check those labels"
    )


def _contradictions(case: Case) -> list[str]:
    """Equal inputs with different labels: one of them is wrong, and training cannot fit both."""
    labels: dict[str, set[int | None]] = defaultdict(set)
    for name in ("diagnose", "repair", "select"):
        if name in case.splits:
            for content, label in zip(case.splits[name].hashes, case.splits[name].strata, strict=True):
                labels[content].add(label)
    parts = [(name, case.splits[name]) for name in ("repair", "select") if name in case.splits]
    counts = {name: sum(len(labels[content]) > 1 for content in split.hashes) for name, split in parts}
    odd, where = sum(counts.values()), " and ".join(f"'{name}'" for name, count in counts.items() if count)
    have = f"{several(odd, 'example')} of {where} {'has' if odd == 1 else 'have'}"
    return [f"{have} a twin with another label; check those labels"] if odd else []


def _missing_classes(case: Case, repair: Split, failing: Outcomes) -> list[str]:
    """Classes with errors that treatment has no example of."""
    if failing.targets is None or None in repair.strata:
        return []
    missing = sorted({int(t) for t in np.unique(failing.targets[~failing.right])} - set(repair.strata))
    if not missing:
        return []
    names = ", ".join(case.class_name(label) for label in missing[:5]) + (" and others" if len(missing) > 5 else "")
    return [f"'repair' has no example of {names}, where the model fails; such errors cannot be learnt from it"]
