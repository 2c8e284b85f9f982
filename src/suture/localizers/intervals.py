"""How sure a score is: bootstrap intervals, how often a group comes first, and what exceeds its null.

Replicates draw the blocks of `suture.localizers.Sample` again, so none of them runs the network.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from suture.localizers.evidence import Evidence
from suture.localizers.registry import Localizer
from suture.stats import ALPHA

REPLICATES = 200
FEWEST = 4  # blocks; from fewer nothing is said
EXCESS = ["difference", "low", "first"]

Draws = NDArray[np.float64]
"""(replicates, groups)."""


def replicates(
    localizers: Mapping[str, Localizer], evidence: Evidence, seed: int, n: int = REPLICATES
) -> dict[str, Draws]:
    """Scores of every localizer on n bootstrap replicates of the gradients; equal seeds give equal draws.

    They must have been scored on the evidence itself before: replicates share what was measured then.
    """
    generator, twin = np.random.default_rng(seed), _as_measured(evidence)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in localizers}
    if blocks(evidence) < FEWEST:
        return {name: np.full((n, len(evidence.groups)), np.nan) for name in localizers}
    for _ in range(n):
        drawn = twin.resampled(generator)
        for name, score in localizers.items():
            found[name].append(score(drawn).to_numpy(float))
    return {name: np.stack(rows) for name, rows in found.items()}


def blocks(evidence: Evidence) -> int:
    """How many blocks the bootstrap draws from; 0 without errors."""
    return len(evidence.errors.draws) if len(evidence.wrong_at) else 0


def _as_measured(evidence: Evidence) -> Evidence:
    """Without correct examples that nothing has read: they would be measured only to be drawn again."""
    if "correct" in vars(evidence):
        return evidence
    twin = replace(evidence, correct_at=evidence.correct_at[:0])
    vars(twin).update({name: value for name, value in vars(evidence).items() if name != "correct_at"})
    return twin


def bounds(scores: pd.Series, draws: Draws) -> pd.DataFrame:
    """Columns low, high: 95 % interval of each score; NaN where it cannot be known.

    The norm of a mean is biased upward by the scatter of the examples, and the norm of a resampled mean is so
    once more, so that percentiles of the replicates lie too high and may leave out the score itself. The basic
    interval turns them round the score, which takes the bias out (Efron and Tibshirani 1993, chapter 13;
    Davison and Hinkley 1997, section 5.2); on the log scale, where norms are positive and skewed, it is
    θ²/q₉₇.₅ to θ²/q₂.₅. For the same reason it may lie below its score: then most of the score is scatter.
    Scores that are not all positive get it on their own scale, 2θ − q.
    """
    theta = scores.to_numpy(float)
    low_q, high_q = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    positive = (theta > 0) & (draws > 0).all(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(positive, theta**2 / high_q, 2 * theta - high_q)
        high = np.where(positive, theta**2 / low_q, 2 * theta - low_q)
    return pd.DataFrame({"low": low, "high": high}, index=scores.index)


def first_share(draws: Draws, groups: list[str]) -> pd.Series:
    """Share of replicates in which each group comes first: how stable the ranking is; ties count for the earliest."""
    known = np.isfinite(draws).any(axis=1)
    if not known.any():
        return pd.Series(np.nan, index=groups)
    leaders = np.where(np.isfinite(draws), draws, -np.inf)[known].argmax(axis=1)
    return pd.Series(np.bincount(leaders, minlength=len(groups)) / known.sum(), index=groups)


def excess(
    scores: pd.Series, draws: Draws, null: pd.Series, null_draws: Draws, n_blocks: tuple[int, int], *, paired: bool
) -> pd.DataFrame:
    """By how much each group's share of the score exceeds its share in the null.

    Shares, because errors have larger gradients in all groups; scores that cannot be shares are compared as
    they are. `low` is the bootstrap-t bound d − t·s with the replicates' deviation s, one-sided at 5 % for all
    groups together (Bonferroni): percentiles that far out would take thousands of replicates, and with
    about ten blocks a deviation has about nine degrees of freedom a side (Welch 1947), which a normal
    quantile would ignore. Blocks also make s too small by (K − 1)/K, which is put back.

    Args:
        draws, null_draws: replicates of both.
        n_blocks: K of both.
        paired: whether row r of both drew the same examples.

    Returns:
        Index group; columns difference, low (it exceeds the null where this is positive), and first: the share of
        replicates in which its difference is the largest.
    """
    groups = [str(group) for group in scores.index]
    nothing = pd.DataFrame(np.nan, index=groups, columns=EXCESS)
    ours, theirs = scores.to_numpy(float), null.to_numpy(float)
    if min(n_blocks) < FEWEST or not (np.isfinite(ours).any() and np.isfinite(theirs).any()):
        return nothing
    positive = all(bool((x[np.isfinite(x)] >= 0).all() and np.nansum(x) > 0) for x in (ours, theirs))
    ours, theirs, draws, null_draws = (_shares(x) if positive else x for x in (ours, theirs, draws, null_draws))
    difference = ours - theirs
    tested = max(int(np.isfinite(difference).sum()), 1)
    k, k_null = n_blocks
    if paired:
        variance, freedom = (draws - null_draws).var(axis=0) * k / (k - 1), np.full(len(groups), k - 1.0)
    else:
        a, b = draws.var(axis=0) * k / (k - 1), null_draws.var(axis=0) * k_null / (k_null - 1)
        variance = a + b
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.nan_to_num(variance**2 / (a**2 / (k - 1) + b**2 / (k_null - 1)), nan=1.0)
    low = difference - stats.t.ppf(1 - ALPHA / tested, np.maximum(freedom, 1)) * np.sqrt(variance)
    first = first_share(draws - null_draws, groups)
    return pd.DataFrame({"difference": difference, "low": low, "first": first.to_numpy()}, index=groups)


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row as parts of its sum."""
    total = np.nansum(values, axis=-1, keepdims=True)
    return np.asarray(values / np.where(total > 0, total, np.nan))
