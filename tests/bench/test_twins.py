"""Twins: overlaps counted right, beside what chance and random weights give."""

import itertools

import pandas as pd
import pytest

from suture.bench.twins import PAIRS, cell, compared
from suture.errors import InvalidArgumentError

SEVEN = pd.Series({g: float(7 - i) for i, g in enumerate("abcdefg")})


def test_the_same_ranking_is_the_same() -> None:
    found = compared(SEVEN, 3 * SEVEN)
    assert (found["overlap"], found["same"], found["left"]) == (3, True, "a b c")
    assert found["rank_correlation"] == pytest.approx(1)
    assert (found["expected"], found["chance"]) == (pytest.approx(9 / 7), pytest.approx(1 / 35))


def test_the_opposite_ranking_shares_nothing() -> None:
    found = compared(SEVEN, -SEVEN)
    assert (found["overlap"], found["same"], found["right"]) == (0, False, "g f e")
    assert found["rank_correlation"] == pytest.approx(-1)


def test_chance_and_expected_overlap_are_those_of_all_rankings() -> None:
    found = []
    for three in itertools.combinations("abcdefg", 3):
        found.append(compared(SEVEN, pd.Series({g: float(g in three) + SEVEN[g] / 100 for g in SEVEN.index})))
    assert sum(one["same"] for one in found) / len(found) == pytest.approx(found[0]["chance"])
    assert sum(one["overlap"] for one in found) / len(found) == pytest.approx(found[0]["expected"])


def test_too_few_scores_are_said() -> None:
    with pytest.raises(InvalidArgumentError, match="only 2 groups have a score"):
        compared(SEVEN, SEVEN.where(SEVEN > 5))


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_is_compared_over_seven_groups(pair: str) -> None:
    (row,) = cell(pair, 0, epochs=2)
    assert row["localizer"] == "grad_norm"
    assert row["chance"] == pytest.approx(1 / 35)
    assert row["overlap"] == len({*row["left"].split()} & {*row["right"].split()})
    assert row["same"] == (row["overlap"] == 3)
    assert cell(pair, 0, epochs=2) == [row]


def test_networks_at_random_weights_agree_by_architecture_alone() -> None:
    rows = [row for seed in range(4) for row in cell("random, random", seed)]
    assert len({row["left"] for row in rows} | {row["right"] for row in rows}) <= 6
    assert sum(row["overlap"] for row in rows) / len(rows) > 2  # chance gives 9/7


def test_a_misspelt_pair_is_said() -> None:
    with pytest.raises(InvalidArgumentError, match="no pair of twins is called 'sgd adam'; did you mean 'sgd, adam'"):
        cell("sgd adam", 0)
