"""Gradients against an oracle that knows nothing of the engine: one plain backward per example."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.errors import DataError
from suture.gradients import Meter, group_norms, mean_gradients, per_example_norms
from suture.groups import resolve
from suture.tasks import Classification
from tests import zoo

# Networks of the zoo that hold something without a rule, or use a parameter outside of its module.
pytestmark = [
    pytest.mark.filterwarnings("ignore:no rule for:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*used outside of its module:UserWarning"),
]


def oracle(model: nn.Module, inputs: Tensor, targets: Tensor, level: str) -> Tensor:
    """(n, groups): `.backward()` on one example after another."""
    model.eval()
    for p in model.parameters():
        p.requires_grad_(True)
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        model.zero_grad()
        F.cross_entropy(model(x[None]), y[None]).backward()
        grads = {n: p.grad for n, p in model.named_parameters()}
        squares = {n: 0.0 if g is None else float(g.double().pow(2).sum()) for n, g in grads.items()}
        rows.append([sum(squares[n] for n in names) ** 0.5 for names in resolve(model, level).values()])
    return torch.tensor(rows)


@pytest.mark.parametrize("level", ["top", "tensor"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_per_example_norms_are_those_of_one_backward_each(name: str, level: str) -> None:
    inputs, targets = zoo.batch()
    found = per_example_norms(zoo.build(name), inputs, targets, groups=level)
    assert torch.allclose(found, oracle(zoo.build(name), inputs, targets, level), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_mean_gradient_does_not_depend_on_batches(name: str) -> None:
    inputs, targets = zoo.batch(8)
    model = zoo.build(name)
    whole = mean_gradients(model, [(inputs, targets)], Classification())
    parts = mean_gradients(model, [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])], Classification())
    fresh = zoo.build(name).eval()
    for p in fresh.parameters():
        p.requires_grad_(True)
    F.cross_entropy(fresh(inputs), targets).backward()
    for parameter, p in fresh.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        assert torch.allclose(whole[parameter], expected, atol=1e-6)
        assert torch.allclose(parts[parameter], expected, atol=1e-6)


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_the_model_is_left_as_found(fails: bool) -> None:
    model = zoo.build("frozen").train()
    model.head.weight.grad = torch.ones(3, 4)  # type: ignore[union-attr]
    inputs, targets = zoo.batch()
    if fails:
        with pytest.raises(DataError, match="outside"):
            per_example_norms(model, inputs, targets + 5)
    else:
        per_example_norms(model, inputs, targets)
    assert model.training
    assert not model.body.weight.requires_grad  # type: ignore[union-attr]
    assert model.head.weight.requires_grad  # type: ignore[union-attr]
    assert torch.equal(model.head.weight.grad, torch.ones(3, 4))  # type: ignore[union-attr, arg-type]


def test_norms_of_groups_add_up_in_squares() -> None:
    model = zoo.build("convolutions")
    gradients = mean_gradients(model, [zoo.batch()], Classification())
    whole = sum(float(g.double().pow(2).sum()) for g in gradients.values()) ** 0.5
    for level in ("top", "block", "tensor"):
        norms = group_norms(gradients, resolve(model, level))
        assert sum(x * x for x in norms.values()) ** 0.5 == pytest.approx(whole)


def test_no_examples_are_an_error() -> None:
    with pytest.raises(DataError, match="no examples"):
        mean_gradients(zoo.build("norms"), [], Classification())


def test_nothing_keeps_a_measured_model_alive() -> None:
    model = zoo.build("convolutions")
    seen = weakref.ref(model)
    Meter(model, Classification()).measure(zoo.batch(), sets=lambda verdicts: torch.ones(1, len(verdicts)))
    del model
    gc.collect()
    assert seen() is None
