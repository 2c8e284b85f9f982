"""Activation patching on networks of which it is known what each group carries."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suture.case import Case
from suture.causes import Probe, UnchangedError, find_causes, share_of_groups
from tests.causes import scenes


class Branches(nn.Module):
    """Logits are a sum: one branch reads redness, one roughness, and one is never called."""

    def __init__(self, rough: float = 0.0) -> None:
        super().__init__()
        self.red = scenes.Reader(scenes.redness)
        self.rough = scenes.Reader(scenes.roughness, weight=rough)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.red(x) + self.rough(x)


class Row(nn.Module):
    """Three layers one after the other, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.first(x))  # in place, which must not reach into what was recorded
        return self.last(self.middle(torch.relu_(self.middle(x))).mean((2, 3)))


def branches(rough: float) -> tuple[Case, list[int]]:
    """The errors of a network that reads redness, and roughness as much as asked."""
    return scenes.case(scenes.redness, scenes.coloured, model=Branches(rough))


def test_the_branch_that_reads_it_carries_all() -> None:
    case, errors = branches(rough=0.0)
    groups = share_of_groups(case, errors, 0, 1, "gray")
    assert groups.index.tolist() == list(case.groups)
    assert groups.loc["red", "share"] == pytest.approx(1.0, abs=1e-4)
    assert groups.loc["red", "low"] > 0
    assert groups.loc["red", "excess_low"] > 0
    assert groups.loc["rough", "share"] == pytest.approx(0.0, abs=1e-4)
    assert groups.loc["idle"].isna().all()


def test_branches_add_up_to_the_whole_change() -> None:
    case, errors = branches(rough=10.0)
    change = find_causes(case, errors, 0, 1, probes=["contrast"]).probes.loc["contrast", "change"]
    for probe in ("contrast", "silhouette", "noise"):
        groups = share_of_groups(case, errors, 0, 1, probe)
        assert groups["share"].sum() == pytest.approx(1.0, abs=1e-3), probe
    assert share_of_groups(case, errors, 0, 1, "contrast")["effect"].sum() == pytest.approx(change, abs=1e-3)


def test_groups_in_a_row_all_carry_it_and_the_null_differs() -> None:
    torch.manual_seed(0)
    case, errors = scenes.case(scenes.redness, scenes.coloured, model=Row())
    state = {name: value.clone() for name, value in case.model.state_dict().items()}
    groups = share_of_groups(case, errors, 0, 1, "gray")
    assert groups.index.tolist() == ["first", "middle", "last"]
    assert np.allclose(groups["share"], 1.0, atol=1e-3)
    assert (groups["random"].abs() < groups["effect"].abs()).all()
    assert all(torch.equal(value, state[name]) for name, value in case.model.state_dict().items())
    assert not any(module._forward_hooks for module in case.model.modules())
    again = share_of_groups(case, errors, 0, 1, "gray")
    assert groups.equals(again)


def test_nothing_changed_is_an_error() -> None:
    case, errors = branches(rough=0.0)
    same = Probe("same", "other", lambda pictures, strength, generator: pictures)
    with pytest.raises(UnchangedError, match="changed none of 16 pictures"):
        share_of_groups(case, errors, 0, 1, same)
