"""Training curves as numbers: turns, falls, swings against noise, epochs to a threshold.

What a damping regime predicts about a curve can be looked for in the curve, if one knows what noise looks like. The
null here is independent noise about a trend: each epoch's value deviates from the trend by an amount that has nothing
to do with its neighbours'. Noise turns at two of three epochs (Bienaymé 1874), so neither turns nor falls mean
anything by themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

Curve = NDArray[np.float64]

LEAST = 8  # epochs below which nothing is said: even perfect alternation of 7 values is common in noise
LEVEL = 0.05  # chance at most that independent noise about a flat or monotone trend is said to fluctuate
_TURNS = 0.8 * LEVEL  # of it spent on turns, whose test is exact; noise hardly ever swings, see the tests
WINDOW = 3  # epochs averaged before swings are counted
DRAWS = 999
_CELLS = 2_000_000  # random numbers drawn for one null at most, so that long logs take seconds


class Motion(StrEnum):
    """How a curve moves, compared with independent noise about a trend."""

    fluctuates = "fluctuates"
    steady = "steady"
    noise = "as noise"
    unknown = "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Movement:
    """A stretch of a curve, measured.

    Attributes:
        n: epochs with a value.
        turns: sign changes of the differences from epoch to epoch; equal neighbours count once.
        turns_noise: turns of the same values in random order, on average.
        fall: how far the curve falls back from its running best, at most (overshoot), in units of the curve.
        fall_noise: the largest fall that noise as strong as the curve's own makes in 95 of 100 cases.
        swings: reversals of its mean over three epochs by more than noise explains; a peak or a dip is one.
        motion: what that amounts to.
    """

    n: int
    turns: int = 0
    turns_noise: float | None = None
    fall: float | None = None
    fall_noise: float | None = None
    swings: int = 0
    motion: Motion = Motion.unknown


def movement(values: Any, *, rising: bool, seed: int = 0) -> Movement:
    """Measure a curve against noise.

    It *fluctuates* when it turns more often than the same values in random order would (p <= 0.04), or when its mean
    over three epochs swings back and forth (two reversals or more) by more than noise of its own strength does in 95
    of 100 cases. It is *steady* when it turns less often than a coin would (p <= 0.04): it keeps its direction.
    Otherwise it is *as noise*; with fewer than 8 values nothing can be told. Independent noise about a flat or
    monotone trend is said to fluctuate in at most 5 of 100 cases, and hardly ever to be steady.

    The strength of the noise is read off how far single peaks and dips stand from the mean of their neighbours, which
    trends and slow swings hardly touch (after Gasser, Sroka and Jennen-Steinmetz 1986); it may change along the curve.
    Oscillation with a period of two and a half to five epochs turns about as often as noise and cannot be told from
    it. Fluctuation is not yet proof of an oscillator: noise with a memory wanders too.

    Args:
        values: (n,), one per epoch; what is not finite is left out.
        rising: whether larger is better (accuracy) or smaller (loss).
        seed: of the random orders and signs.
    """
    x = np.asarray(values, float)
    x = x[np.isfinite(x)] * (1 if rising else -1)
    if len(x) < 2:
        return Movement(n=len(x))
    measured = Movement(n=len(x), turns=int(turns(x)), fall=float(_fall(x)))
    if len(x) < LEAST:
        return measured
    rng = np.random.default_rng(seed)
    draws = max(99, min(DRAWS, _CELLS // len(x)))
    orders = np.concatenate([turns(rng.permuted(block, axis=1)) for block in _blocks(x, draws)])
    more = (1 + int((orders >= measured.turns).sum())) / (1 + draws)  # the observed order is one of them
    fewer = float(bdtr(measured.turns, len(x) - 2, 0.5))
    swings, fall_noise = _swings(x, rng, draws)
    motion = Motion.noise
    if more <= _TURNS or swings >= 2:
        motion = Motion.fluctuates
    elif fewer <= _TURNS:
        motion = Motion.steady
    return replace(
        measured, turns_noise=float(orders.mean()), fall_noise=fall_noise, swings=swings, motion=motion
    )  # fmt: skip


def turns(x: Curve) -> Any:
    """Sign changes of the differences along the last axis; a plateau counts as one value.

    Args:
        x: (…, n) finite numbers.

    Returns:
        (…) whole numbers.
    """
    signs = np.sign(np.diff(x, axis=-1))
    if not signs.shape[-1]:
        return np.zeros(x.shape[:-1], int)
    # Zeros take the sign before them, so that a plateau neither makes nor hides a turn.
    place = np.where(signs != 0, np.arange(signs.shape[-1]), 0)
    filled = np.take_along_axis(signs, np.maximum.accumulate(place, axis=-1), axis=-1)
    before, after = filled[..., :-1], filled[..., 1:]
    return ((before != after) & (before != 0)).sum(-1)


def reversals(x: Curve, least: float) -> int:
    """How often a curve (n,) reverses by more than `least`; smaller movements are ignored."""
    low = high = float(x[0])
    direction = count = 0
    for value in map(float, x[1:]):
        low, high = min(low, value), max(high, value)
        if direction >= 0 and high - value > least:
            count += direction == 1
            direction, low, high = -1, value, value
        elif direction <= 0 and value - low > least:
            count += direction == -1
            direction, low, high = 1, value, value
    return count


def first_reached(values: Any, threshold: float) -> int | None:
    """Position of the first value at or above a threshold; None when there is none."""
    reached = np.flatnonzero(np.asarray(values, float) >= threshold)
    return int(reached[0]) if reached.size else None


def held_from(values: Any, threshold: float) -> int | None:
    """Position from which on no value falls below a threshold again; None when the last one is below it."""
    x = np.asarray(values, float)
    known = np.flatnonzero(np.isfinite(x))
    below = np.flatnonzero(x < threshold)
    later = known[known > below[-1]] if below.size else known
    return int(later[0]) if later.size else None


def period(momentum: float, lr: float, curvature: float = 1.0) -> float:
    """Steps of one oscillation of SGD with momentum on a quadratic; infinite where it does not oscillate.

    Args:
        momentum: μ in [0, 1).
        lr, curvature: α and λ, positive.

    Source: 2π over the angle of the complex roots of z² − (1 + μ − λα)z + μ.
    """
    cosine = (1 + momentum - lr * curvature) / (2 * math.sqrt(momentum)) if momentum > 0 else math.inf
    return 2 * math.pi / math.acos(cosine) if -1 < cosine < 1 else math.inf


def _swings(x: Curve, rng: np.random.Generator, draws: int) -> tuple[int, float]:
    """Reversals beyond noise, and the largest fall that noise alone makes in 95 of 100 cases."""
    strength = _strength(x)
    reach = max(2, len(x) // 8)  # noise is drawn from near by, since it may grow or fade along the curve
    falls, moves = [], []
    for block in _blocks(strength, draws):
        near = np.arange(len(x)) + rng.integers(-reach, reach + 1, size=block.shape)
        noise = strength[near.clip(0, len(x) - 1)] * rng.choice([-1.0, 1.0], size=block.shape)
        mean = _averaged(noise)
        falls.append(_fall(noise))
        moves.append(np.maximum(_fall(mean), _fall(-mean)))
    least = float(np.quantile(np.concatenate(moves), 0.95)) + 1e-9 * float(np.ptp(x))  # rounding is no reversal
    return reversals(_averaged(x), least), float(np.quantile(np.concatenate(falls), 0.95))


def _strength(x: Curve) -> Curve:
    """Size of the noise at each place (n,): how far a peak or dip of one value stands from the mean of its neighbours.

    Values between their neighbours count as 0, since there a steep trend bends more than noise does; for independent
    normal noise that leaves out 5.8 % of the variance, which the factor puts back.
    """
    middle = x[1:-1] - (x[:-2] + x[2:]) / 2  # of variance 3/2 σ² for independent noise
    turns_here = (x[1:-1] - x[:-2]) * (x[1:-1] - x[2:]) > 0
    size = np.where(turns_here, np.abs(middle) * math.sqrt(2 / 3 / 0.942), 0.0)
    return np.concatenate([size[:1], size, size[-1:]])


def _fall(x: Curve) -> Any:
    """The largest fall below the best so far, along the last axis."""
    return (np.maximum.accumulate(x, axis=-1) - x).max(-1)


def _averaged(x: Curve) -> Curve:
    """Running mean over WINDOW neighbours along the last axis, which becomes shorter."""
    length = x.shape[-1] - WINDOW + 1
    return sum((x[..., i : i + length] for i in range(WINDOW)), np.zeros(1)) / WINDOW


def _blocks(x: Curve, draws: int) -> Sequence[Curve]:
    """`draws` copies of a curve, in blocks (rows, n) that fit a cache."""
    rows = max(1, 200_000 // len(x))
    return [np.tile(x, (min(rows, draws - done), 1)) for done in range(0, draws, rows)]
