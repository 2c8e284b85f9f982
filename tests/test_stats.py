"""Intervals and tests against formulas written out, and verdicts against their definition."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

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


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 400), st.integers(0, 400))
def test_more_examples_are_asked_for_than_were_too_few(fixed: int, broken: int, right: int, wrong: int) -> None:
    found = moves(fixed, broken, right, wrong)
    if stats.judge(found) is Verdict.CANNOT_TELL:
        assert stats.examples_needed(found) > found.n


@pytest.mark.parametrize("n", [1, 4, 5])
def test_a_handful_that_is_all_fixed_asks_for_what_the_exact_test_needs(n: int) -> None:
    few = moves(n, 0)
    assert stats.judge(few) is Verdict.CANNOT_TELL
    needed = stats.examples_needed(few)
    assert stats.mcnemar(needed, 0) < 0.05


# Fixed to broken


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_interval_of_the_ratio_is_that_of_the_share_carried_over(fixed: int, broken: int) -> None:
    found = stats.ratio_interval(fixed, broken)
    low = beta.ppf(0.025, fixed, broken + 1) if fixed else 0.0
    high = beta.ppf(0.975, fixed + 1, broken) if broken else 1.0
    assert found.low == pytest.approx(low / (1 - low), rel=1e-6)
    assert found.high == (pytest.approx(high / (1 - high), rel=1e-6) if broken else np.inf)
    if broken:
        assert found.low <= fixed / broken <= found.high


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_ratio_turned_round_has_the_interval_turned_round(fixed: int, broken: int) -> None:
    there, back = stats.ratio_interval(fixed, broken), stats.ratio_interval(broken, fixed)
    assert there.low == pytest.approx(1 / back.high, rel=1e-6)
    assert there.high == pytest.approx(1 / back.low, rel=1e-6)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0, 19.0])
@pytest.mark.parametrize("changed", [1, 8, 30])
def test_the_interval_of_the_ratio_covers_at_least_as_often_as_it_says(ratio: float, changed: int) -> None:
    # No simulation: every outcome weighed with its probability.
    share = ratio / (1 + ratio)
    intervals = [stats.ratio_interval(k, changed - k) for k in range(changed + 1)]
    covered = [i.low <= ratio <= i.high for i in intervals]
    assert binom.pmf(np.arange(changed + 1), changed, share) @ covered >= 0.95


def test_the_ratio_and_mcnemar_agree() -> None:
    # Both are exact and two-sided by halves for a fair coin, so 1 : 1 lies outside exactly when p < 0.05.
    for fixed in range(25):
        for broken in range(25):
            found = stats.ratio_interval(fixed, broken)
            assert (not found.low <= 1 <= found.high) == (stats.mcnemar(fixed, broken) < 0.05)


# The bound


@given(st.floats(1e-4, 0.9999))
def test_the_least_number_for_a_bound_is_the_least(rate: float) -> None:
    n = stats.least_for_bound(rate)
    assert n is not None
    assert stats.upper_bound(0, n) <= rate
    assert n == 1 or stats.upper_bound(0, n - 1) > rate


def test_the_least_numbers_one_knows_by_heart() -> None:
    assert [stats.least_for_bound(rate) for rate in (0.05, 0.01, 0.0, 1.0)] == [59, 299, None, 0]


# A mean


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_the_bootstrap_of_a_mean_covers_it(draw: str) -> None:
    # 300 data sets of 100: 0.95 of them, less the bootstrap's known shortfall on skewed data; ±0.04 is three standard
    # deviations, exceeded in fewer than one run of 300.
    rng = np.random.default_rng(0)
    truth = {"normal": 0.0, "exponential": 1.0}[draw]
    intervals = [stats.mean_interval(getattr(rng, draw)(size=100), seed=i, resamples=400) for i in range(300)]
    assert np.mean([i.low <= truth <= i.high for i in intervals]) == pytest.approx(0.94, abs=0.04)


def test_the_mean_of_nothing_and_of_a_constant() -> None:
    assert stats.mean_interval(np.empty(0)) == stats.Interval(0.0, 0.0)
    assert stats.mean_interval(np.full(9, 2.5)) == stats.Interval(2.5, 2.5)


# Several looks


def test_holm_rejects_what_its_steps_reject() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(rng.integers(1, 12)) ** 3
        rejected = np.zeros(len(p), bool)
        for step, place in enumerate(np.argsort(p)):  # Holm 1979, as written
            if p[place] > 0.05 / (len(p) - step):
                break
            rejected[place] = True
        assert ((stats.holm(p) <= 0.05) == rejected).all()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12))
def test_correction_only_ever_raises_p(rows: list[tuple[int, int]]) -> None:
    p, adjusted = stats.several_looks([f for f, _ in rows], [b for _, b in rows])
    assert p == pytest.approx([stats.mcnemar(f, b) for f, b in rows])
    assert ((adjusted >= p) & (adjusted <= 1)).all()


def test_rows_that_can_show_nothing_are_no_looks() -> None:
    _, alone = stats.several_looks([12], [1])
    _, among = stats.several_looks([12] + [5] * 50, [1] + [0] * 50)
    assert among[0] == alone[0] < 0.05  # fifty more rows cost nothing
    assert (among[1:] == 1).all()
    assert stats.mcnemar(stats.LEAST_FLIPS, 0) < 0.05 <= stats.mcnemar(stats.LEAST_FLIPS - 1, 0)


@pytest.mark.parametrize("shares", [0.5, 0.05], ids=["many flips", "few flips"])
def test_a_table_without_any_change_has_a_word_in_one_of_twenty_cases_at_most(shares: float) -> None:
    # 2,000 tables of 20 rows, each changed example as likely fixed as broken. More than 140 tables with a finding
    # would come of a family-wise error of 5 % in fewer than one run of 10,000; uncorrected there are 400 and more.
    rng = np.random.default_rng(0)
    changed = rng.binomial(100, shares, size=(2000, 20))
    fixed = rng.binomial(changed, 0.5)
    found = [stats.several_looks(list(f), list(c - f)) for f, c in zip(fixed, changed, strict=True)]
    assert sum((adjusted < 0.05).any() for _, adjusted in found) <= 140
    assert sum((p < 0.05).any() for p, _ in found) > (400 if shares == 0.5 else 140)
