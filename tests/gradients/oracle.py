"""One plain backward pass after another: slow, and it knows nothing of the engine."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.gradients import Meter
from suture.tasks import Classification


class Wrapped(nn.Module):
    """A layer under test, then a mean over positions and a linear head to three classes."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, x: Any) -> Tensor:
        y = self.layer(x)
        y = y[0] if isinstance(y, tuple) else y
        return self.head(torch.tanh(y).flatten(1))


def labels(n: int) -> Tensor:
    return torch.arange(n) % 3


def plain(model: nn.Module, x: Any, y: Tensor) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Squared norms (n, parameters) and each example's gradient, one backward after another."""
    twin = copy.deepcopy(model).eval()
    parameters = {n: p.requires_grad_(True) for n, p in twin.named_parameters()}
    losses = F.cross_entropy(twin(x), y, reduction="none")
    rows = []
    for loss in losses:
        grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        rows.append({
            n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), grads, strict=True)
        })  # fmt: skip
    return torch.stack([torch.stack([g.double().square().sum() for g in row.values()]) for row in rows]), rows


def agrees(model: nn.Module, x: Any, n: int, *, looped: bool = False, **options: Any) -> Meter:
    """Norms and two weighted sums are autograd's to 1e-5; whether it took one pass or many is as expected.

    In double precision, so that what differs is not the oracle's own rounding.
    """
    model, x = model.double(), x.double() if x.is_floating_point() else x
    y = labels(n)
    weights = torch.stack([(torch.arange(n) % 2).float(), torch.linspace(-1, 1, n)])
    meter = Meter(model, Classification(), **options)
    found = meter.measure((x, y), lambda verdicts: weights)
    squares, rows = plain(model, x, y)
    tiny = 1e-7 * float(squares.sqrt().amax())
    assert torch.allclose(found.squares.sqrt().double(), squares.sqrt(), rtol=1e-5, atol=tiny)
    for total, weight in zip(found.sums, weights, strict=True):
        for name, value in total.items():
            expected = torch.stack([w * row[name] for w, row in zip(weight.double(), rows, strict=True)]).sum(0)
            assert torch.allclose(value, expected, rtol=1e-5, atol=tiny * n), name
    assert bool(meter.looped) == looped, meter.looped
    return meter
