"""Swaps: one family of features taken from another picture, and what the network makes of it.

A probe takes a feature away and weakens others with it. A swap gives the errors the feature of *correct examples of
the true class* instead; and its null is the same swap with *other errors of the pair* as donors, which does to a
picture whatever cutting and pasting does to it, and leaves the feature as such errors have it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.utils._pytree import tree_map

from suture.case import Case
from suture.causes.margins import ONE_LEVEL, Masks, Pair, shown
from suture.causes.parts import SWAPS, Parts, parts_of, swapped
from suture.causes.probes import Family
from suture.causes.ranking import LEAST, NAMED_FROM, SMALLEST_SHARE
from suture.stats import ALPHA, holm

RECIPIENTS = 12  # errors that features are given to
DONORS = 16  # of both kinds; each is a look at the feature, so that they and not the recipients are counted
LOOKED_AT = 4  # times as many examples, since only some show an object that stands out
COLUMNS = ["n_true", "n_errors", "change", "chance", "excess", "low", "high", "p", "share", "stands_out"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class _Cut:
    """Examples that could be taken apart, with their place among those that were asked for."""

    positions: list[int]
    parts: list[Parts]


def swap_features(
    case: Case,
    errors: Sequence[int],
    correct: Sequence[int],
    pair: Pair,
    masks: Masks = "standing_out",
    families: Collection[Family] = tuple(SWAPS),
) -> pd.DataFrame:
    """What each family of features of the true class does to a pair's errors.

    Donors are the sample: for each, the change of margin averaged over the errors that receive its feature. The means
    of both kinds of donors are compared by Welch's test, with the degrees of freedom of the smaller kind, and Holm's
    correction runs over the families. Where errors have the feature as correct examples do, one or more families
    stand out in at most 2.5 % of pairs.

    Args:
        errors: the pair's errors, in `diagnose`.
        correct: correct examples of the true class.
        masks: as for `suture.causes.margins.shown`.
        families: those that are asked for.

    Returns:
        Index family. Columns n_true, n_errors (donors); change (of the margin true minus predicted, nats, with
        donors of the true class), chance (with other errors as donors), excess (change − chance), low, high (95 %,
        Bonferroni over families), p (Holm); share (excess / mean distance of the errors to the border);
        stands_out. A family that changes no picture is missing; no rows where too few pictures show an object
        before a background.
    """
    generator = np.random.default_rng(case.seed)
    receive = _cut(case, errors, RECIPIENTS, masks, generator)
    from_errors = _cut(case, errors, DONORS, masks, generator)
    from_true = _cut(case, correct, DONORS, masks, generator)
    empty = pd.DataFrame(columns=COLUMNS, index=pd.Index([], name="family"))
    if min(len(each.parts) for each in (receive, from_errors, from_true)) < LEAST:
        return empty
    before = np.concatenate([
        _margins(case, pair, [own.picture], position)
        for position, own in zip(receive.positions, receive.parts, strict=True)
    ])  # fmt: skip
    rows: dict[Family, list[float]] = {}
    for family in (name for name in SWAPS if name in families):
        true, others = (_changes(case, pair, receive, donors, family, before) for donors in (from_true, from_errors))
        if true is not None and others is not None:
            rows[family] = _row(true, others, float(np.abs(before).mean()))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS[:-1]).rename_axis("family")
    if table.empty:
        return empty
    table["p"] = holm(table["p"].to_numpy(float))
    enough = min(len(each.parts) for each in (receive, from_errors, from_true)) >= NAMED_FROM
    counts = enough & (table["p"] < ALPHA) & (table["excess"] > 0) & (table["share"] >= SMALLEST_SHARE)
    return table.assign(stands_out=counts)


def _cut(case: Case, positions: Sequence[int], most: int, masks: Masks, generator: np.random.Generator) -> _Cut:
    """At most so many of the examples, drawn by lot among those that can be taken apart."""
    kept, found = [], []
    drawn = [int(i) for i in generator.permutation(np.asarray(positions, int))[: LOOKED_AT * most]]
    for batch in shown(case, drawn, masks):
        pictures, mask = batch.pictures.cpu().numpy(), batch.mask()[:, 0].cpu().numpy()
        for position, picture, inside in zip(batch.positions, pictures, mask, strict=True):
            parts = parts_of(picture, inside)
            if parts is not None:
                kept.append(position)
                found.append(parts)
    return _Cut(kept[:most], found[:most])


def _changes(case: Case, pair: Pair, receive: _Cut, donors: _Cut, family: Family, before: Values) -> Values | None:
    """(donors,): change of margin, mean over the recipients but the donor itself; None where no picture changes."""
    changes, any_moved = np.full((len(receive.parts), len(donors.parts)), np.nan), False
    for i, (position, own) in enumerate(zip(receive.positions, receive.parts, strict=True)):
        others = [j for j, donor in enumerate(donors.positions) if donor != position]
        made = [swapped(own, donors.parts[j], family) for j in others]
        any_moved = any_moved or any(np.abs(each - own.picture).max() >= ONE_LEVEL for each in made)
        changes[i, others] = _margins(case, pair, made, position) - before[i]
    if not any_moved:
        return None
    return np.asarray(np.nanmean(changes, axis=0))


def _margins(case: Case, pair: Pair, pictures: Sequence[NDArray[np.float32]], position: int) -> Values:
    """(n,) margins of pictures in place of one example."""
    batch, found = next(shown(case, [position])).batch, []
    for start in range(0, len(pictures), case.batch_size):
        some = torch.from_numpy(np.stack(pictures[start : start + case.batch_size]))
        repeated = tree_map(partial(_repeated, n=len(some)), batch)
        found.append(pair.margins(case, some, repeated))
    return np.concatenate(found)


def _repeated(leaf: Any, n: int) -> Any:
    """The only example of a batch, n times."""
    return leaf[[0] * n] if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf


def _row(true: Values, errors: Values, distance: float) -> list[float]:
    """`COLUMNS` without stands_out, p not yet corrected."""
    excess = float(true.mean() - errors.mean())
    spread = float(np.sqrt(true.var(ddof=1) / len(true) + errors.var(ddof=1) / len(errors)))
    freedom = min(len(true), len(errors)) - 1
    half = float(stats.t.ppf(1 - ALPHA / len(SWAPS) / 2, freedom)) * spread
    p = float(2 * stats.t.sf(abs(excess) / spread, freedom)) if spread > 0 else float(excess == 0)
    share = excess / distance if distance else float("nan")
    means = [float(true.mean()), float(errors.mean())]
    return [len(true), len(errors), *means, excess, excess - half, excess + half, p, share]
