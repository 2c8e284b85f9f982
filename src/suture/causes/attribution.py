"""Which group has most to do with a confusion: its share of the gradients, beside its share on other confusions.

A group's share of an example's gradient is its norm over the sum of all groups' norms, so that an error with a
large loss does not count for more. A pair's errors are compared with all *other errors*: with correct examples
as the null one group owns every pair (the last layer, whose gradients vanish on what is right), and without a
null another does, whatever the errors are.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.localizers import measure
from suture.stats import ALPHA, holm

RELABELLINGS = 4999  # random choices of as many errors; the smallest p is then 1 in 5,000
RESAMPLES = 1000  # of the bootstrap of a ratio
COLUMNS = ("group", "score", "null", "ratio", "low", "high", "p", "stands_out")

Values = NDArray[np.float64]


def attribute(case: Case, pairs: Sequence[Sequence[int]], errors: Sequence[int]) -> pd.DataFrame:
    """The group that each pair's errors speak of more than other errors do.

    Args:
        pairs: the positions in `diagnose` of each pair's errors.
        errors: those of all errors; the pairs' are among them.

    Returns:
        A row per pair; see `standing_out`.
    """
    if not len(pairs):
        return pd.DataFrame(columns=list(COLUMNS))
    chosen = case.splits["diagnose"].only(errors)
    sample = measure(
        case.model, chosen, case.task, case.groups, device=case.device, batch_size=case.batch_size,
        description="gradients of the confusions",
    )  # fmt: skip
    place = {position: i for i, position in enumerate(errors)}
    members = [[place[position] for position in positions] for positions in pairs]
    return standing_out(shares(sample.norms), list(case.groups), members, case.seed)


def shares(norms: Values) -> Values:
    """(n, groups) norms → shares of each example's sum; NaN for an example without a gradient."""
    total = norms.sum(1, keepdims=True)
    found: Values = np.divide(norms, total, out=np.full_like(norms, np.nan), where=total > 0)
    return found


def standing_out(
    shares: Values, groups: Sequence[str], members: Sequence[Sequence[int]], seed: int = 0
) -> pd.DataFrame:
    """For each pair the group whose share is raised most, on the scale of its spread over all errors.

    The p-value is that of the largest rise over all groups when as many errors are drawn at random (Westfall and
    Young 1993, single step), corrected over pairs by Holm: where no pair has to do with any group, one or more is
    given to a group in at most 5 % of cases.

    Args:
        shares: (errors, groups).
        groups: their names.
        members: the rows of each pair's errors.

    Returns:
        A row per pair. Columns group; score (its mean share on the pair's errors), null (on the other errors),
        ratio (score / null), low, high (95 % bootstrap interval of the ratio); p (corrected); stands_out (p < 5 %).
        NaN, and p = 1, where there are no other errors to compare with.
    """
    generator = np.random.default_rng(seed)
    known = np.isfinite(shares.sum(axis=1))
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(shares, np.finfo(float).tiny))
    logs[~known] = 0.0
    spread = logs[known].std(0) if known.any() else np.zeros(shares.shape[1])
    scaled = np.divide(logs - (logs[known].mean(0) if known.any() else 0.0), spread, out=np.zeros_like(logs),
                       where=spread > 1e-12)  # fmt: skip
    rows = [_row(shares, scaled, groups, [i for i in each if known[i]], np.flatnonzero(known), generator)
            for each in members]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    table["p"] = holm(table["p"].to_numpy(float))
    table["stands_out"] = table["p"] < ALPHA
    return table


def _row(
    shares: Values, scaled: Values, groups: Sequence[str], own: list[int], known: NDArray[np.int64],
    generator: np.random.Generator,
) -> list[object]:  # fmt: skip
    """`COLUMNS` without stands_out, p not yet corrected over pairs."""
    others = np.setdiff1d(known, own)
    if not own or not len(others):
        return [None, *[float("nan")] * 5, 1.0]
    rise = scaled[own].mean(0)
    best = int(rise.argmax())
    at_random = np.stack([
        scaled[generator.choice(known, len(own), replace=False)].mean(0).max() for _ in range(RELABELLINGS)
    ])  # fmt: skip
    p = (1 + int((at_random >= rise[best] - 1e-12).sum())) / (1 + RELABELLINGS)
    here, there = shares[own, best], shares[others, best]
    drawn = [_drawn(here, generator) / max(_drawn(there, generator), 1e-300) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    null = float(there.mean())
    ratio = float(here.mean()) / null if null > 0 else float("nan")
    return [groups[best], float(here.mean()), null, ratio, float(low), float(high), p]


def _drawn(values: Values, generator: np.random.Generator) -> float:
    return float(generator.choice(values, len(values)).mean())
