"""Friction by hand, and what a training has left behind."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from suture.errors import InvalidArgumentError
from suture.groups import resolve
from suture.localizers import LOCALIZERS, Evidence
from suture.localizers.friction import LR, MOMENTUM, STEPS, friction_from_state
from suture.optimizers import IKFAD
from tests import zoo
from tests.localizers.contract import assert_scores, evidence, parabola
from tests.oracles import localizers as oracle


@pytest.mark.parametrize("network", zoo.ZOO)
def test_every_group_is_scored_and_nothing_is_left_behind(network: str) -> None:
    assert_scores("friction", network)


def test_by_hand() -> None:
    expected = oracle.ikfad_friction(2.0, LR, MOMENTUM, clip=1.0, steps=STEPS)
    assert expected > 0
    assert LOCALIZERS["friction"](parabola())["line"] == pytest.approx(expected, rel=1e-4)


def test_without_errors_there_is_none_and_unused_groups_have_none() -> None:
    found = evidence("unused")
    assert LOCALIZERS["friction"](found)["idle"] == 0
    without = Evidence(found.case, found.model, found.right, found.wrong_at[:0], found.correct_at)
    assert LOCALIZERS["friction"](without).isna().all()


def trained(model: nn.Module, *, named: bool) -> IKFAD:
    optimizer = IKFAD(model.named_parameters() if named else model.parameters(), lr=0.1)
    inputs, targets = zoo.batch()
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("named", [False, True])
def test_friction_of_an_optimizer_and_of_its_state_agree(named: bool) -> None:
    model = zoo.build("unused")
    optimizer, groups = trained(model, named=named), resolve(model)
    of_optimizer = friction_from_state(optimizer, model, groups)
    of_state = friction_from_state(copy.deepcopy(optimizer.state_dict()), model, groups)
    every = torch.cat([optimizer.state[p]["friction"].flatten() for p in model.used.parameters()])
    assert of_optimizer["used"] == pytest.approx(float(every.mean()))
    assert of_optimizer["idle"] == 0
    assert of_state.to_dict() == pytest.approx(of_optimizer.to_dict())


def test_names_in_the_state_decide_whose_friction_it_is() -> None:
    model = zoo.build("nested")
    backwards = list(model.named_parameters())[::-1]
    optimizer = IKFAD(backwards, lr=0.1)
    nn.functional.cross_entropy(model(zoo.batch()[0]), zoo.batch()[1]).backward()
    optimizer.step()
    groups = resolve(model)
    found = friction_from_state(optimizer.state_dict(), model, groups)
    assert found.to_dict() == pytest.approx(friction_from_state(optimizer, model, groups).to_dict())
    assert np.isfinite(found).all()


def test_a_state_of_something_else_is_refused() -> None:
    model = zoo.build("nested")
    groups = resolve(model)
    with pytest.raises(InvalidArgumentError, match="holds no friction"):
        friction_from_state(torch.optim.SGD(model.parameters()).state_dict(), model, groups)
    other = zoo.build("unused")
    with pytest.raises(InvalidArgumentError, match="this model's training"):
        friction_from_state(trained(other, named=True).state_dict(), model, groups)
    with pytest.raises(InvalidArgumentError, match="has shape"):
        friction_from_state(trained(other, named=False).state_dict(), model, groups)
