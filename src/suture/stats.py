"""Counts in, intervals and tests out: what Verify says rests on these."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05
SMALLEST_CHANGE = 0.01  # of accuracy: a change below one point is called no change
RESAMPLES = 10_000


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
    return int(np.ceil((z_alpha * discordant**0.5 + z_beta * spread**0.5) ** 2 / change**2))


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
