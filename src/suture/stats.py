"""Counts in, intervals and tests out: what Verify says rests on these."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05
SMALLEST_CHANGE = 0.01  # of accuracy: a change below one point is called no change
RESAMPLES = 10_000
LEAST_FLIPS = 6  # changed examples without which no exact McNemar p lies below 0.05: 2 / 2⁶ = 0.03


class Verdict(StrEnum):
    """What a comparison on held-out data allows one to say."""

    BETTER = "better"
    WORSE = "worse"
    NO_CHANGE = "no measurable change"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Interval:
    """An interval with its nominal coverage of 95 %."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Flips:
    """How `n` examples moved between right and wrong.

    Attributes:
        fixed: wrong before, right after.
        broken: right before, wrong after (negative flips; Yan et al. 2021).
        both_right: right before and after.
        both_wrong: wrong before and after.
    """

    fixed: int
    broken: int
    both_right: int
    both_wrong: int

    @property
    def n(self) -> int:
        """How many examples were looked at."""
        return self.fixed + self.broken + self.both_right + self.both_wrong

    @property
    def net(self) -> int:
        """Fixed minus broken."""
        return self.fixed - self.broken

    @property
    def right_before(self) -> int:
        """How many were right before."""
        return self.both_right + self.broken

    @property
    def right_after(self) -> int:
        """How many are right after."""
        return self.both_right + self.fixed

    @property
    def negative_flip_rate(self) -> float:
        """broken / n."""
        return self.broken / self.n if self.n else 0.0

    @property
    def regression_rate(self) -> float:
        """broken / right before, which is 1 − backward trust compatibility (Bansal et al. 2019)."""
        return self.broken / self.right_before if self.right_before else 0.0


def flips(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Flips:
    """Count the moves between two verdict vectors of shape (n,), True = right."""
    before, after = np.asarray(before, bool), np.asarray(after, bool)
    return Flips(
        fixed=int((~before & after).sum()),
        broken=int((before & ~after).sum()),
        both_right=int((before & after).sum()),
        both_wrong=int((~before & ~after).sum()),
    )


def wilson(successes: int, n: int) -> Interval:
    """Wilson score interval of a share (Wilson 1927); (0, 1) when n = 0."""
    if n == 0:
        return Interval(0.0, 1.0)
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=1 - ALPHA, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def upper_bound(events: int, n: int, confidence: float = 0.95) -> float:
    """One-sided exact (Clopper-Pearson) upper bound on a rate; 1 when n = 0."""
    if n == 0:
        return 1.0
    test = stats.binomtest(events, n, alternative="less")
    return float(test.proportion_ci(confidence_level=confidence, method="exact").high)


def least_for_bound(rate: float, confidence: float = 0.95) -> int | None:
    """The fewest examples whose `upper_bound` is at most `rate` when none shows the event; None for rate 0.

    With no event among n the bound is 1 − (1 − confidence)^(1/n): 59 examples for 5 %.
    """
    if rate <= 0:
        return None
    if rate >= 1:
        return 0
    n = int(np.ceil(np.log1p(-confidence) / np.log1p(-rate)))
    return n if upper_bound(0, n, confidence) <= rate else n + 1  # rounding of the logarithms


def ratio_interval(fixed: int, broken: int) -> Interval:
    """Exact 95 % interval of fixed : broken, given how many changed.

    The Clopper-Pearson interval (1934) of the share fixed / (fixed + broken) carried over by p / (1 − p), so its
    coverage is at least 95 %. The upper end is infinite when nothing broke; (0, ∞) when nothing changed.
    """
    if fixed + broken == 0:
        return Interval(0.0, float("inf"))
    share = stats.binomtest(fixed, fixed + broken).proportion_ci(confidence_level=1 - ALPHA, method="exact")
    return Interval(
        float(share.low) / (1 - float(share.low)),
        float(share.high) / (1 - float(share.high)) if broken else float("inf"),
    )


def mcnemar(fixed: int, broken: int) -> float:
    """Two-sided exact McNemar test: the binomial test of the discordant pairs; 1 when there are none."""
    if fixed + broken == 0:
        return 1.0
    return float(stats.binomtest(fixed, fixed + broken, 0.5).pvalue)


def net_interval(moves: Flips, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of net = fixed − broken over examples.

    Resampling n examples whose outcome is +1, −1 or 0 is a multinomial draw, so that is what is drawn.
    """
    if moves.n == 0:
        return Interval(0.0, 0.0)
    shares = np.array([moves.fixed, moves.broken, moves.both_right + moves.both_wrong]) / moves.n
    draws = np.random.default_rng(seed).multinomial(moves.n, shares, size=RESAMPLES)
    low, high = np.quantile(draws[:, 0] - draws[:, 1], [ALPHA / 2, 1 - ALPHA / 2])
    return Interval(float(low), float(high))


def mean_interval(values: NDArray[np.float64], seed: int = 0, resamples: int = 2000) -> Interval:
    """Percentile bootstrap interval of a mean over examples, values of shape (n,); (0, 0) when n = 0."""
    if not len(values):
        return Interval(0.0, 0.0)
    rng, n = np.random.default_rng(seed), len(values)
    means = [values[rng.integers(n, size=n)].mean() for _ in range(resamples)]  # one at a time: n may be large
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return Interval(float(low), float(high))


def examples_needed(moves: Flips, power: float = 0.8) -> int:
    """How many examples would settle the question, at the rates seen.

    The larger share of examples that flips, the more it takes to tell fixed from broken. The smallest
    change that counts is one point of accuracy; the normal approximation to McNemar's test (Connor 1987)
    gives n = (z_α √ψ + z_β √(ψ − δ²))² / δ², with ψ the flip rate and δ the net rate.
    """
    discordant = (moves.fixed + moves.broken + 1) / (moves.n + 2)  # add-one: none seen is not none
    change = max(abs(moves.net) / moves.n if moves.n else 0.0, SMALLEST_CHANGE)
    z_alpha, z_beta = stats.norm.ppf(1 - ALPHA / 2), stats.norm.ppf(power)
    spread = max(discordant - change**2, 0.0)
    normal = (z_alpha * discordant**0.5 + z_beta * spread**0.5) ** 2 / change**2
    return int(np.ceil(max(normal, LEAST_FLIPS / discordant)))  # the exact test needs its least number of flips


def judge(moves: Flips) -> Verdict:
    """The verdict that held-out outcomes allow.

    `better` and `worse` need an exact McNemar p below 0.05. Otherwise the change is called not measurable
    when the interval of the net rate lies within one point of accuracy either way, the exact bound
    standing in where nothing flipped; else there were too few examples to tell.
    """
    if moves.n == 0:
        return Verdict.CANNOT_TELL
    if mcnemar(moves.fixed, moves.broken) < ALPHA:
        return Verdict.BETTER if moves.net > 0 else Verdict.WORSE
    if moves.fixed + moves.broken == 0:
        largest = upper_bound(0, moves.n)
    else:
        interval = net_interval(moves)
        largest = max(abs(interval.low), abs(interval.high)) / moves.n
    return Verdict.NO_CHANGE if largest <= SMALLEST_CHANGE else Verdict.CANNOT_TELL


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down adjustment (Holm 1979): reject where it is below the level, family-wise error kept."""
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def several_looks(fixed: Sequence[int], broken: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact McNemar p of each row of a table, as they are and corrected for the number of rows.

    Holm's step-down keeps the probability of one or more false findings in the table at 5 %, however the rows
    depend on each other. Rows in which too few examples changed for any split of them to be significant are no
    looks: given how many changed, they cannot give a false finding (Tarone 1990); their corrected p is 1.

    Args:
        fixed, broken: examples of each row that went either way, k numbers each.

    Returns:
        p and corrected p, shape (k,) each.
    """
    one, other = np.array(fixed, int), np.array(broken, int)
    # The binomial of a fair coin is symmetric, so both tails are twice the smaller; `mcnemar` row by row is slow.
    p = np.minimum(2 * stats.binom.cdf(np.minimum(one, other), one + other, 0.5), 1.0)
    adjusted = np.ones(len(p))
    could = one + other >= LEAST_FLIPS
    adjusted[could] = holm(p[could])
    return p, adjusted
