"""Friction by hand, and what a training has left behind."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture.asked import Asked
from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.friction import friction_beside, friction_of, load_friction
from suture.groups import resolve
from suture.localizers import LOCALIZERS, Evidence
from suture.localizers.friction import LR, MOMENTUM, STEPS, friction_from_state
from suture.optimizers import IKFAD
from suture.tasks import Classification
from suture.training import Recipe, fit
from tests import toys, zoo
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


def test_a_training_with_ikfad_leaves_its_friction_and_localize_reads_it(tmp_path: Path) -> None:
    recipe = Recipe(optimizer="ikfad", epochs=2, batch_size=50, lr=0.05, momentum=0.9)
    fitted = fit(toys.untrained, toys.points(200, seed=1), Classification(), recipe, tmp_path / "fit")
    kept = load_friction(friction_beside(fitted.weights))
    assert kept.keys() == dict(toys.untrained().named_parameters()).keys()
    asked = Asked(model=f"{toys.__file__}:untrained", weights=str(fitted.weights), data=f"{toys.__file__}:data")
    case = asked.case()
    found = suture.localize(case, "friction", "first").scores["friction"]
    for group, names in case.groups.items():
        every = torch.cat([kept[name].flatten() for name in names])
        assert found[group] == pytest.approx(float(every.mean()), rel=1e-5)
    plain = fit(toys.untrained, toys.points(200, seed=1), Classification(), Recipe(epochs=1), tmp_path / "plain")
    assert not friction_beside(plain.weights).exists()


def test_friction_is_that_of_the_optimizer_and_of_nothing_else() -> None:
    model = zoo.build("unused")
    optimizer = trained(model, named=False)
    kept = friction_of(optimizer, model)
    assert all(torch.equal(kept[n], optimizer.state[p]["friction"]) for n, p in model.used.named_parameters("used"))
    assert friction_of(torch.optim.SGD(model.parameters(), lr=0.1), model) == {}


def test_friction_of_another_network_is_refused_and_a_case_with_some_is_another_case(tmp_path: Path) -> None:
    names = {name: torch.ones_like(p) for name, p in toys.untrained().named_parameters()}
    case = Case(toys.network(), toys.data(), friction=names)
    assert case.fingerprint != Case(toys.network(), toys.data()).fingerprint
    for wrong in ({"nowhere": torch.ones(2)}, {"first.weight": torch.ones(1)}):
        with pytest.raises(InvalidArgumentError, match="does not fit the model"):
            Case(toys.network(), toys.data(), friction=wrong)
    (tmp_path / "w.friction.safetensors").write_text("no tensors")
    with pytest.raises(InvalidArgumentError, match="no record of friction"):
        load_friction(friction_beside(tmp_path / "w.safetensors"))
