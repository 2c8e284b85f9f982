"""A confusion goes to a group where its errors speak of it more than others do, and to none by chance."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from suture.case import Case
from suture.causes import attribute
from suture.causes.attribution import RELABELLINGS, shares, standing_out
from tests import toys

GROUPS = ["first", "second", "third", "fourth"]


def drawn(n: int, seed: int) -> NDArray[np.float64]:
    """Shares of unlike groups, with nothing that sets one error apart from another."""
    return np.random.default_rng(seed).dirichlet([1.0, 4.0, 10.0, 2.0], n)


def test_a_group_that_was_raised_is_named_and_only_for_its_pair() -> None:
    found = drawn(120, 0)
    found[:15, 0] *= 3
    found /= found.sum(1, keepdims=True)
    table = standing_out(found, GROUPS, [list(range(15)), list(range(15, 40))])
    assert table["stands_out"].tolist() == [True, False]
    first = table.iloc[0]
    assert first["group"] == "first"
    assert first["ratio"] == pytest.approx(first["score"] / first["null"])
    assert 1 < first["low"] < first["ratio"] < first["high"]
    assert first["p"] == pytest.approx(2 / (1 + RELABELLINGS))  # the smallest there is, times two pairs


def test_chance_gives_a_pair_to_a_group_in_at_most_one_of_twenty_cases() -> None:
    # 60 cases of six pairs without any structure. At a true rate of 5 %, more than 8 alarms have p = 0.003.
    members = [list(range(8 * i, 8 * i + 8)) for i in range(6)]
    alarms = sum(standing_out(drawn(80, seed), GROUPS, members, seed)["stands_out"].any() for seed in range(60))
    assert alarms <= 8


def test_where_there_is_nothing_to_compare_with_no_group_is_named() -> None:
    everything = standing_out(drawn(6, 1), GROUPS, [list(range(6))]).iloc[0]
    assert not everything["stands_out"]
    assert everything["p"] == 1
    assert np.isnan(everything["ratio"])
    equal = standing_out(np.full((9, 4), 0.25), GROUPS, [[0, 1, 2]]).iloc[0]
    assert equal["p"] == 1
    assert equal["ratio"] == 1
    nothing = np.full((9, 4), np.nan)
    assert not standing_out(nothing, GROUPS, [[0, 1, 2]])["stands_out"].any()


def test_shares_add_up_and_an_example_without_gradient_has_none() -> None:
    found = shares(np.array([[3.0, 1.0], [0.0, 0.0]]))
    assert found[0].tolist() == [0.75, 0.25]
    assert np.isnan(found[1]).all()


class Halves(nn.Module):
    """Two branches, each of which alone sees one half of the inputs, and decides where the other is zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x[:, :4]) + self.right(x[:, 4:])


def test_the_branch_that_sees_a_confusion_is_named() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(80, 8, generator=generator)
    x[:20, :4] *= 6  # the first twenty are loud on the left, the others on the right
    x[20:, 4:] *= 6
    case = Case(Halves(), diagnose=[(row, i % 3) for i, row in enumerate(x)], device="cpu")
    found = attribute(case, [list(range(20)), list(range(20, 50))], list(range(80)))
    assert found["group"].tolist() == ["left", "right"]
    assert found["stands_out"].all()
    assert attribute(toys.case(), [], []).empty
