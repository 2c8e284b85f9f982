"""The decision on numbers alone: power where there is a cause, false alarms where there is none."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from suture.causes import ranking

PROBES = 20
Draw = Callable[[np.random.Generator, int], np.ndarray]


def decided(
    rng: np.random.Generator, draw: Draw, *, n: int, effect: float = 0.0, beyond_chance: float = 0.0
) -> str | None:
    """One pair: none of `PROBES` probes has an effect on errors that correct examples lack, but the first.

    `beyond_chance` is what each does more than a random change of its size, to errors and correct examples alike.
    """
    rows = []
    for i in range(PROBES):
        errors, chance = draw(rng, n) + effect * (i == 0), draw(rng, n) - beyond_chance
        found = ranking.difference(errors, chance, [draw(rng, 30), draw(rng, 12)], looks=PROBES)
        rows.append({"family": "shape", "n": n, "excess": found.value, "p": found.p, "share": found.value, "energy": i})
    return ranking.cause(ranking.corrected(pd.DataFrame(rows, index=[f"p{i}" for i in range(PROBES)])))


@pytest.mark.parametrize("beyond_chance", [0.0, 9.0])  # then one null alone guards, which is the worst case
@pytest.mark.parametrize("n", [5, 25])
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.standard_t(3, size=n),
        lambda rng, n: rng.exponential(size=n) - 1,
    ],
    ids=["normal", "heavy tails", "skewed"],
)
def test_false_alarms_stay_below_five_percent(draw: Draw, n: int, beyond_chance: float) -> None:
    rng = np.random.default_rng(0)
    alarms = sum(decided(rng, draw, n=n, beyond_chance=beyond_chance) is not None for _ in range(30))
    assert alarms <= stats.binom.ppf(0.99, 30, 0.05), f"{alarms} of 30"


def test_a_clear_cause_is_found() -> None:
    rng = np.random.default_rng(1)
    found = [decided(rng, lambda r, n: r.normal(size=n), n=16, effect=3.0) for _ in range(20)]
    assert found.count("p0") >= 18


def test_the_difference_is_the_weaker_of_a_paired_test_and_a_careful_welch() -> None:
    rng = np.random.default_rng(2)
    errors, chance, correct = rng.normal(1, 1, 9), rng.normal(0, 2, 9), rng.normal(0.8, 0.9, 20)
    paired = stats.ttest_rel(errors, chance)
    clear = ranking.difference(errors, chance, [correct - 50], looks=1)
    interval = paired.confidence_interval(0.95)
    assert (clear.p, clear.low, clear.high) == pytest.approx((paired.pvalue, interval.low, interval.high))
    welch = stats.ttest_ind(errors, correct, equal_var=False)
    found = ranking.difference(errors, chance - 50, [correct, np.zeros(0)], looks=1)
    assert found.value == pytest.approx(errors.mean() - correct.mean())
    assert found.p >= welch.pvalue
    assert found.high - found.low >= np.ptp(welch.confidence_interval(0.95))


def test_an_effect_on_correct_examples_too_is_none() -> None:
    rng = np.random.default_rng(3)
    errors, correct = rng.normal(5, 0.1, 20), rng.normal(5, 0.1, 40)
    found = ranking.difference(errors, np.zeros(20), [correct], looks=1)
    assert found.p > 0.01
    assert abs(found.value) < 0.2


def test_numbers_without_spread_and_without_a_null() -> None:
    same = ranking.difference(np.ones(5), np.zeros(5), [np.zeros(4), np.zeros(4)], looks=3)
    assert (same.value, same.low, same.high, same.p) == (1.0, 1.0, 1.0, 0.0)
    none = ranking.difference(np.zeros(5), np.zeros(5), [np.zeros(4)], looks=3)
    assert (none.value, none.p) == (0.0, 1.0)
    alone = ranking.difference(np.ones(5), np.zeros(5), [np.ones(1)], looks=3)
    assert np.isnan(alone.value)
    assert alone.p == 1.0


def test_among_equals_a_feature_and_then_the_gentlest() -> None:
    table = pd.DataFrame(
        {
            "family": ["other", "colour", "shape", "texture", "texture"],
            "share": [2.0, 1.5, 0.9, 0.5, 0.9],
            "energy": [0.1, 0.4, 0.3, 0.01, 0.02],
            "stands_out": [True, True, True, True, False],
        },
        index=["edges", "hue", "tiles", "blur", "noise"],
    )
    assert ranking.cause(table) == "tiles"
    assert ranking.cause(table.drop(index=["hue", "tiles"])) == "edges"
    assert ranking.cause(table.assign(stands_out=False)) is None


def test_a_small_but_certain_change_and_one_of_few_errors_are_no_cause() -> None:
    table = pd.DataFrame({"n": [9, 9, 4], "excess": [0.01, 1.0, 1.0], "p": [0.0] * 3, "share": [0.01, 0.5, 0.5]})
    assert ranking.corrected(table)["stands_out"].tolist() == [False, True, False]
