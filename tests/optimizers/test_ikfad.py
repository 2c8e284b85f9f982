"""IKFAD against torch's SGD, and its friction as evidence."""

import math

import pytest
import torch
from torch import nn

from suture.errors import GroupError, UnknownNameError
from suture.optimizers import IKFAD
from tests.optimizers.test_base import descend, parameters


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("extra", [{}, {"weight_decay": 0.01}], ids=str)
def test_with_infinite_mass_it_is_sgd_at_constant_lr(foreach, extra):
    mine = IKFAD(parameters(), lr=0.01, momentum=0.9, mass=math.inf, foreach=foreach, **extra)
    torchs = torch.optim.SGD(parameters(), lr=0.01, momentum=0.9, **extra)
    descend(mine, 200)
    descend(torchs, 200)
    for a, b in zip(mine.param_groups[0]["params"], torchs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
        assert torch.count_nonzero(mine.state[a]["xi"]) == 0


def test_friction_is_the_running_integral_of_xi():
    optimizer = IKFAD(parameters(), lr=0.04)
    p = optimizer.param_groups[0]["params"][0]
    total = torch.zeros_like(p)
    for step in range(30):
        descend(optimizer, 1, seed=step)
        total += 0.2 * optimizer.state[p]["xi"]
    torch.testing.assert_close(optimizer.state[p]["friction"], total.detach(), rtol=1e-12, atol=0)


def test_at_convergence_xi_is_gone_and_friction_stays():
    p = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = IKFAD([p], lr=0.1)
    for _ in range(1000):
        p.grad = p.detach().clone()
        optimizer.step()
    assert optimizer.state[p]["xi"].item() < 1e-12
    assert optimizer.state[p]["friction"].item() > 0.1


def trained():
    """A network whose second layer moves most, its last one being frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 1))
    model[2].requires_grad_(False)
    optimizer = IKFAD(model.parameters(), lr=0.1)
    for _ in range(5):
        for p in model[0].parameters():
            p.grad = torch.full_like(p, 0.1)
        for p in model[1].parameters():
            p.grad = torch.full_like(p, 1.0)
        optimizer.step()
    return model, optimizer


GROUPS = {"first": ["0.weight", "0.bias"], "second": ["1.weight", "1.bias"], "third": ["2.weight", "2.bias"]}


@pytest.mark.parametrize("which", ["friction", "xi"])
def test_friction_per_parameter(which):
    model, optimizer = trained()
    found = optimizer.friction(model, which)
    assert {name: value.shape for name, value in found.items()} == {n: p.shape for n, p in model.named_parameters()}
    assert torch.equal(found["1.weight"], optimizer.state[model[1].weight][which])
    assert torch.count_nonzero(found["2.weight"]) == 0
    found["1.weight"].zero_()
    assert torch.count_nonzero(optimizer.state[model[1].weight][which]) > 0
    assert model[2].weight not in optimizer.state
    named = dict(optimizer.friction(model.named_parameters(), which))
    assert list(named) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("which", ["friction", "xi"])
def test_friction_per_group_is_the_mean_over_its_entries(which):
    model, optimizer = trained()
    found = optimizer.group_friction(model, GROUPS, which)
    assert list(found) == ["first", "second", "third"]
    assert found["second"] > found["first"] > found["third"] == 0
    values = optimizer.friction(model, which)
    flat = torch.cat([values["1.weight"].flatten(), values["1.bias"]])
    assert found["second"] == pytest.approx(flat.double().mean().item())


def test_friction_of_what_is_not_there():
    model, optimizer = trained()
    with pytest.raises(UnknownNameError, match=r"no parameter is called '1\.wieght'; did you mean '1\.weight'"):
        optimizer.group_friction(model, {"second": ["1.wieght"]})
    with pytest.raises(GroupError, match="group 'none' holds no parameters; leave it out"):
        optimizer.group_friction(model, {"none": []})
    with pytest.raises(UnknownNameError, match="no friction is called 'frction'; did you mean 'friction'"):
        optimizer.friction(model, "frction")
