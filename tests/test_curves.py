"""How curves move: counts by hand, and how often noise is taken for more than it is."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suture import curves
from suture.curves import LEAST, LEVEL, Motion, movement

T = np.arange(60)
SMOOTH = 1 - np.exp(-T / 15)
FINITE = st.floats(-1e6, 1e6)


def noise(seed: int, n: int = len(T)) -> Any:
    return np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize(
    ("values", "turns"),
    [
        ([], 0), ([1], 0), ([1, 2], 0), ([1, 2, 3], 0), ([1, 2, 1], 1), ([1, 2, 1, 2], 2), ([1, 1, 1], 0),
        ([1, 2, 2, 3], 0), ([1, 2, 2, 1], 1), ([2, 2, 1, 1, 2, 2], 1), ([3, 1, 2, 2, 2, 1, 5], 3),
    ],
)  # fmt: skip
def test_turns_are_changes_of_direction(values: list[float], turns: int) -> None:
    assert curves.turns(np.array(values, float)) == turns
    assert curves.turns(-np.array([values, values], float)).tolist() == [turns, turns]


@settings(max_examples=100, deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=30))
def test_turns_agree_with_a_plain_loop(values: list[float]) -> None:
    steps = [b - a for a, b in pairwise(values) if b != a]
    assert curves.turns(np.array(values)) == sum((a > 0) != (b > 0) for a, b in pairwise(steps))


@pytest.mark.parametrize(
    ("values", "least", "count"),
    [
        ([0, 1, 2, 3], 0.5, 0), ([0, 3, 0, 3], 0.5, 2), ([0, 3, 0, 3], 3, 0), ([0, 3, 2.6, 4, 0], 0.5, 1),
        ([5], 0, 0), ([3, 0, 3], 1, 1), ([0, 1, 2, 1.9, 3, 2.95, 0, 5], 1, 2),
    ],
)  # fmt: skip
def test_reversals_ignore_what_is_smaller(values: list[float], least: float, count: int) -> None:
    assert curves.reversals(np.array(values, float), least) == count


def test_a_fall_is_measured_from_the_best_so_far() -> None:
    assert movement([0.1, 0.5, 0.4, 0.6, 0.3], rising=True).fall == pytest.approx(0.3)
    assert movement([3.0, 1.0, 1.5, 0.5, 0.9], rising=False).fall == pytest.approx(0.5)
    assert movement([1.0, 2.0, 3.0], rising=True).fall == 0


def test_too_few_epochs_cannot_tell() -> None:
    for n in range(LEAST):
        found = movement(np.arange(n) % 2, rising=True)
        assert (found.n, found.motion) == (n, Motion.unknown)
    assert movement([np.nan] * 50, rising=True).motion is Motion.unknown
    assert movement(np.arange(LEAST), rising=True).motion is Motion.steady


def test_missing_epochs_are_left_out() -> None:
    holed = np.where(T % 7 == 0, np.nan, SMOOTH)
    assert movement(holed, rising=True) == movement(SMOOTH[T % 7 != 0], rising=True)


MOVES: dict[str, tuple[Any, Motion]] = {
    "monotone": (SMOOTH, Motion.steady),
    "monotone with a little noise": (SMOOTH + 0.001 * noise(1), Motion.steady),
    "constant": (np.ones(60), Motion.steady),
    "a peak and a decline": (-((T - 30.0) ** 2), Motion.steady),
    "swings": (np.sin(2 * np.pi * T / 12) + 0.2 * noise(2), Motion.fluctuates),
    "slow swings": (np.sin(2 * np.pi * T / 30) + 0.2 * noise(3), Motion.fluctuates),
    "damped swings": (1 - np.exp(-T / 30) * np.cos(2 * np.pi * T / 10) + 0.02 * noise(4), Motion.fluctuates),
    "alternation": ((-1.0) ** T + 0.3 * noise(5), Motion.fluctuates),
    "noise": (noise(6), Motion.noise),
    "trend and noise": (SMOOTH + 0.2 * noise(7), Motion.noise),
    "noise that fades": (SMOOTH + 0.2 * noise(8) * np.exp(-T / 20), Motion.noise),
    "one spike": (noise(9) + 30 * (T == 20), Motion.noise),
}


@pytest.mark.parametrize("name", MOVES)
def test_motions(name: str) -> None:
    values, motion = MOVES[name]
    found = movement(values, rising=True)
    assert found.motion is motion
    assert movement(-values, rising=False) == found
    assert movement(7 * values + 3, rising=True).motion is motion


@pytest.mark.parametrize("n", [12, 40, 90])
@pytest.mark.parametrize("kind", ["flat", "rising", "fading", "heavy", "rounded"])
def test_noise_is_rarely_said_to_fluctuate_or_to_be_steady(n: int, kind: str) -> None:
    """The level of the statement: at most 5 of 100 for each kind of independent noise, within counting error."""
    rng = np.random.default_rng(n)
    runs, t = 100, np.arange(n)
    draw = {
        "flat": lambda: rng.normal(size=n),
        "rising": lambda: 3 * (1 - np.exp(-t / n * 4)) + 0.5 * rng.normal(size=n),
        "fading": lambda: rng.normal(size=n) * np.linspace(1, 0.05, n),
        "heavy": lambda: rng.standard_t(2, size=n),
        "rounded": lambda: np.round(rng.normal(size=n)),
    }[kind]
    found = [movement(draw(), rising=True, seed=i).motion for i in range(runs)]
    error = 3 * math.sqrt(LEVEL * (1 - LEVEL) / runs)
    assert found.count(Motion.fluctuates) / runs <= LEVEL + error
    assert kind == "rising" or found.count(Motion.steady) / runs <= 0.02 + error


def test_the_null_turns_at_two_of_three_values() -> None:
    found = movement(noise(0, 300), rising=True)
    assert found.turns_noise == pytest.approx(2 / 3 * 298, rel=0.02)
    assert found.fall_noise == pytest.approx(found.fall, rel=0.3)


def test_a_steep_start_is_no_noise() -> None:
    found = movement(3 * np.exp(-T / 1.5) + 0.01 * noise(4), rising=False)
    assert found.fall_noise == pytest.approx(0.05, rel=0.4)
    assert movement(np.exp(-T / 2), rising=False).fall_noise == 0


def test_the_same_curve_gives_the_same_numbers() -> None:
    assert movement(noise(3), rising=True) == movement(noise(3), rising=True)


def test_long_curves_are_measured_too() -> None:
    assert movement(noise(0, 50_000), rising=True).motion is Motion.noise


def test_thresholds() -> None:
    values = [0.1, np.nan, 0.8, 0.7, 0.85, 0.9]
    assert curves.first_reached(values, 0.8) == 2
    assert curves.held_from(values, 0.8) == 4
    assert curves.first_reached(values, 0.95) is curves.held_from(values, 0.95) is None
    assert curves.held_from(values, 0.05) == 0
    assert curves.held_from([0.9, 0.9, np.nan], 0.8) == 0
    assert curves.held_from([np.nan], 0.8) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1))
def test_a_threshold_is_first_reached_and_then_held(values: list[float], threshold: float) -> None:
    first, held = curves.first_reached(values, threshold), curves.held_from(values, threshold)
    assert (first is None) == (max(values) < threshold)
    assert (held is None) == (values[-1] < threshold)
    if first is not None and held is not None:
        assert first <= held
        assert all(v >= threshold for v in values[held:])
        assert all(v < threshold for v in values[:first])


@pytest.mark.parametrize(("momentum", "lr", "curvature"), [(0.9, 0.1, 1.0), (0.9, 0.001, 3.0), (0.5, 0.2, 2.0)])
def test_the_period_is_that_of_the_recurrence(momentum: float, lr: float, curvature: float) -> None:
    """Zeros of a simulated oscillation lie half a period apart."""
    x, before = [1.0, 1.0], 1.0
    for _ in range(4000):
        before = x[-1] + momentum * (x[-1] - x[-2]) - lr * curvature * x[-1]
        x.append(before)
    half = curves.period(momentum, lr, curvature) / 2
    crossings = [i for i in range(1, int(20 * half)) if (x[i] > 0) != (x[i - 1] > 0)]
    assert len(crossings) >= 18
    assert np.mean(np.diff(crossings)) == pytest.approx(half, rel=0.05)


def test_what_does_not_oscillate_has_no_period() -> None:
    assert curves.period(0.0, 0.1) == curves.period(0.3, 0.1) == math.inf
