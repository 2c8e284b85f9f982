"""Intervals and rank stability: their coverage, and what they say of samples too small for them."""

import warnings

import numpy as np
import pandas as pd
import pytest

from suture.case import Case
from suture.localizers import LOCALIZERS, Evidence, localizer
from suture.localizers.intervals import blocks, bounds, excess, first_share, replicates
from suture.localizers.sample import measure
from tests import toys
from tests.localizers.samples import GROUPS, evidence, gradients

NORM = {"grad_norm": LOCALIZERS["grad_norm"]}


def test_the_norm_s_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 0.5  # a mean of length 0.5 in 5 dimensions, among scatter of length 1
    covered, percentile = 0, 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        found = evidence([truth / 5**0.5 + generator.standard_normal((60, 5)) / 5**0.5])
        draws = replicates(NORM, found, seed, n=100)["grad_norm"]
        low, high = bounds(LOCALIZERS["grad_norm"](found), draws).iloc[0]
        covered += low <= truth <= high
        percentile += np.quantile(draws, 0.025) <= truth <= np.quantile(draws, 0.975)
    assert 48 <= covered <= 60  # of 60: ten blocks make it somewhat narrow, never useless
    assert covered >= percentile


def test_the_bias_of_a_norm_that_is_all_scatter_is_taken_out() -> None:
    found = evidence([np.random.default_rng(0).standard_normal((60, 500))])
    score = LOCALIZERS["grad_norm"](found)
    draws = replicates(NORM, found, 1)["grad_norm"]
    interval = bounds(score, draws).iloc[0]
    assert np.quantile(draws, 0.025) > score.iloc[0]  # percentiles would leave the score below them
    assert interval["high"] < score.iloc[0]


def test_bounds_by_hand() -> None:
    draws = np.column_stack([np.linspace(1, 3, 201), np.linspace(-2, 2, 201), np.zeros(201)])
    found = bounds(pd.Series([2.0, -1.0, 0.0], index=list("abc")), draws)
    low, high = np.quantile(draws[:, 0], [0.025, 0.975])
    assert found.loc["a"].tolist() == pytest.approx([4 / high, 4 / low])
    assert found.loc["b"].tolist() == pytest.approx([-2 - 1.9, -2 + 1.9])
    assert found.loc["c"].tolist() == [0, 0]


def test_replicates_repeat_by_seed_and_run_nothing() -> None:
    found = evidence(gradients(np.random.default_rng(0), 40))
    first, same, other = (replicates(NORM, found, seed)["grad_norm"] for seed in (1, 1, 2))
    assert first.shape == (200, len(GROUPS))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_correct_examples_are_drawn_again_where_they_were_read_and_not_measured_where_not() -> None:
    found = evidence(gradients(np.random.default_rng(0), 40))
    aware = Evidence(found.case, found.model, found.right, found.wrong_at, np.arange(40))
    vars(aware)["errors"] = found.errors
    assert np.isfinite(replicates(NORM, aware, 0)["grad_norm"]).all()  # measuring would fail: there is no network
    vars(aware)["correct"] = found.errors
    contrast = {"contrast": LOCALIZERS["contrast"]}
    assert replicates(contrast, aware, 0)["contrast"].std(axis=0).min() > 0


def test_first_share_counts_who_leads() -> None:
    draws = np.array([[1.0, 2, 0], [3, 2, 0], [1, 2, 0], [np.nan, 1, 0], [np.nan] * 3, [2, 2, 0]])
    assert first_share(draws, list("abc")).to_dict() == pytest.approx({"a": 2 / 5, "b": 3 / 5, "c": 0})
    assert first_share(np.full((3, 2), np.nan), ["a", "b"]).isna().all()


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_a_handful_of_examples_gives_no_interval(n_blocks: int) -> None:
    found = evidence(gradients(np.random.default_rng(0), n_blocks), n_blocks)
    assert blocks(found) == n_blocks
    draws = replicates(NORM, found, 0)["grad_norm"]
    assert bounds(LOCALIZERS["grad_norm"](found), draws).isna().all(axis=None)
    assert first_share(draws, GROUPS).isna().all()


def test_scores_that_cannot_be_shares_are_compared_as_they_are() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = pd.Series([5.0, -1.0], index=["a", "b"]), pd.Series([1.0, -1.0], index=["a", "b"])
    draws, null = (s.to_numpy() + 0.1 * generator.standard_normal((200, 2)) for s in (ours, theirs))
    found = excess(ours, draws, theirs, null, (10, 10), paired=False)
    assert found["difference"].tolist() == [4, 0]
    assert 3 < found.loc["a", "low"] < 4
    assert found.loc["b", "low"] < 0
    assert found["first"].tolist() == [1, 0]


def test_pairs_are_told_apart_better() -> None:
    generator = np.random.default_rng(0)
    shared = generator.standard_normal((200, 2))
    ours, theirs = pd.Series([5.0, 5.0], index=["a", "b"]), pd.Series([4.0, 6.0], index=["a", "b"])
    draws, null = ours.to_numpy() + shared, theirs.to_numpy() + shared
    assert excess(ours, draws, theirs, null, (10, 10), paired=True)["low"].max() > 0
    assert excess(ours, draws, theirs, null, (10, 10), paired=False)["low"].max() < 0


def test_a_localizer_of_ones_own_gets_intervals_too() -> None:
    @localizer("median norm for a test")
    def median(found: Evidence) -> pd.Series:
        return pd.Series(np.median(found.errors.norms, axis=0) * found.errors.n, index=list(found.groups))

    try:
        found = evidence(gradients(np.random.default_rng(0), 40))
        draws = replicates({"own": LOCALIZERS["median norm for a test"]}, found, 0)["own"]
        assert draws.shape == (200, len(GROUPS))
    finally:
        del LOCALIZERS._things["median norm for a test"]


def test_too_few_blocks_for_an_interval_are_said_with_the_memory_that_would_do() -> None:
    case = Case(toys.network(), diagnose=toys.points(60, seed=1))
    size = sum(p.numel() * p.element_size() for p in case.model.parameters())
    with pytest.warns(UserWarning, match=r"kept in 4 blocks, which makes intervals too narrow; give 1 MB of memory"):
        found = measure(case.model, case.splits["diagnose"], case.task, case.groups, device=case.device, max_memory=1)
    assert len(found.sums) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = measure(
            case.model, case.splits["diagnose"], case.task, case.groups, device=case.device, max_memory=8 * size
        )
    assert len(enough.sums) == 8
