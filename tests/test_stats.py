"""Intervals and tests against formulas written out, and verdicts against their definition."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suture import stats
from suture.stats import Flips, Verdict


def moves(fixed: int, broken: int, both_right: int = 0, both_wrong: int = 0) -> Flips:
    return Flips(fixed=fixed, broken=broken, both_right=both_right, both_wrong=both_wrong)


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_flips_count_every_example_once(pairs: list[tuple[bool, bool]]) -> None:
    before = np.array([a for a, _ in pairs], bool)
    after = np.array([b for _, b in pairs], bool)
    found = stats.flips(before, after)
    assert found.n == len(pairs)
    assert found.right_before == before.sum()
    assert found.right_after == after.sum()
    assert found.net == int(after.sum()) - int(before.sum())
    assert found.fixed == sum(b and not a for a, b in pairs)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1595, 1979)])
def test_wilson_is_wilson_s_formula(k: int, n: int) -> None:
    z = 1.959963984540054
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = stats.wilson(k, n)
    assert found.low == pytest.approx(max(centre - half, 0), abs=1e-9)
    assert found.high == pytest.approx(min(centre + half, 1), abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_sum_over_discordant_pairs(fixed: int, broken: int) -> None:
    n = fixed + broken
    as_likely = [comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, fixed)]
    assert stats.mcnemar(fixed, broken) == pytest.approx(min(sum(as_likely) / 2**n, 1.0))


def test_the_paper_s_best_repair_and_its_five_together() -> None:
    assert stats.mcnemar(62, 40) == pytest.approx(0.037, abs=0.001)
    assert stats.mcnemar(358, 358) == 1.0


def test_no_regression_among_59_is_the_least_that_bounds_the_rate_by_five_percent() -> None:
    assert stats.upper_bound(0, 59) <= 0.05 < stats.upper_bound(0, 58)


def test_the_bootstrap_of_net_agrees_with_its_normal_approximation() -> None:
    interval = stats.net_interval(moves(130, 50, 1500, 300), seed=1)
    half = 1.96 * sqrt(130 + 50 - (80**2) / 1980)
    assert interval.low == pytest.approx(80 - half, abs=2)
    assert interval.high == pytest.approx(80 + half, abs=2)


@pytest.mark.parametrize(
    ("flips", "verdict"),
    [
        (moves(30, 5, 900, 65), Verdict.BETTER),
        (moves(5, 30, 900, 65), Verdict.WORSE),
        (moves(2, 2, 9000, 996), Verdict.NO_CHANGE),
        (moves(0, 0, 900, 100), Verdict.NO_CHANGE),
        (moves(0, 0, 20, 5), Verdict.CANNOT_TELL),
        (moves(4, 3, 30, 3), Verdict.CANNOT_TELL),
        (moves(0, 0), Verdict.CANNOT_TELL),
    ],
    ids=["better", "worse", "same", "untouched", "few", "noisy", "none"],
)
def test_verdicts(flips: Flips, verdict: Verdict) -> None:
    assert stats.judge(flips) is verdict


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400), st.integers(0, 400))
def test_better_is_never_said_without_significance(fixed: int, broken: int, right: int, wrong: int) -> None:
    found = stats.judge(moves(fixed, broken, right, wrong))
    if found in (Verdict.BETTER, Verdict.WORSE):
        assert stats.mcnemar(fixed, broken) < 0.05
        assert (found is Verdict.BETTER) == (fixed > broken)


def test_the_number_of_examples_that_would_do_gives_the_power_it_promises() -> None:
    # Flip rates .06 and .04: simulate McNemar's test at the size that is named. 400 tests at power 0.8:
    # outside 0.8 ± 0.08 in fewer than one run of 10,000.
    few = moves(6, 4, 80, 10)
    n = stats.examples_needed(few)
    rng = np.random.default_rng(0)
    discordant = 11 / 102  # the rate used, add-one
    net = few.net / few.n
    shares = [(discordant + net) / 2, (discordant - net) / 2, 1 - discordant]
    hits = [stats.mcnemar(int(f), int(b)) < 0.05 for f, b, _ in rng.multinomial(n, shares, size=400)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.08)
