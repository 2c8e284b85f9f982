"""Where treating pays: the gain of each group's own part of a brief training, on examples it did not train on."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import suture
from suture.localizers import gather
from suture.localizers.pays import GAIN, estimate
from suture.patch import base_sha256, canonical_state
from suture.tasks import Classification, evaluate
from tests import toys


def gains(model: nn.Module, data: toys.Pairs, task: object = "classification") -> pd.DataFrame:
    case = suture.Case(model, diagnose=data, task=task)  # type: ignore[arg-type]
    right = evaluate(case.model, case.splits["diagnose"], case.task, device=case.device).right
    return estimate(gather(case, right)[0])


def test_a_shift_of_the_inputs_is_mended_by_some_groups_and_by_the_same_each_time() -> None:
    model = toys.network()
    before = base_sha256(canonical_state(model))
    first, second = (gains(model, toys.data()) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert list(first.columns) == GAIN
    assert list(first.index) == ["first", "norm", "second", "last"]
    assert ((first["low"] <= first["gain"]) & (first["gain"] <= first["high"])).all()
    assert first["low"].max() > 0
    assert base_sha256(canonical_state(model)) == before


def test_gains_are_those_of_held_out_losses() -> None:
    # Labels at random: there is nothing to learn that holds for other examples.
    generator = torch.Generator().manual_seed(3)
    data = [(x, int(torch.randint(0, 3, (), generator=generator))) for x, _ in toys.points(600, seed=5)]
    model = nn.Sequential(nn.Linear(2, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.01)
    assert gains(model, data)["low"].max() < 0.005


class Idle(toys.Net):
    """With a group that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * self.idle(x).sum()


def test_each_group_is_tried_alone() -> None:
    model = Idle()
    model.load_state_dict(toys.trained(), strict=False)
    found = gains(model.eval(), toys.data())
    assert found.loc["idle"].tolist() == [0, 0, 0]
    assert (found["gain"].drop("idle") != 0).all()
    assert found["gain"].nunique() == 5


@pytest.mark.parametrize(("n", "known"), [(1, False), (2, False), (12, True)])  # of two, both train
def test_few_examples(n: int, known: bool) -> None:
    found = gains(toys.network(), toys.data()[:n])
    assert found.notna().all(axis=None) == known
    assert found.notna().any(axis=None) == known


class Steep(Classification):
    """Losses whose gradients are infinite."""

    def losses(self, outputs: Tensor, batch: object) -> Tensor:
        return super().losses(outputs, batch) + (outputs * 0).sqrt().sum(1)  # type: ignore[arg-type]


class Negative(Classification):
    """Losses that have no log(1 + loss)."""

    def losses(self, outputs: Tensor, batch: object) -> Tensor:
        return super().losses(outputs, batch) - 100  # type: ignore[arg-type]


def test_what_cannot_be_trained_or_compared_has_no_gain() -> None:
    assert np.isnan(gains(toys.network(), toys.data(), Steep())).all(axis=None)
    assert np.isnan(gains(toys.network(), toys.data(), Negative())).all(axis=None)
