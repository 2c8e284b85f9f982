"""What every localizer owes: evidence on networks of the zoo, and a model that is left as it was found."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from suture.case import Case
from suture.localizers import LOCALIZERS, Evidence
from suture.patch import base_sha256
from suture.tasks import Classification
from tests import zoo

N = 11
WRONG = np.arange(0, N, 2)
RIGHT = np.arange(1, N, 2)


def batch(n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (n, 4) and labels (n,) that follow from them, so that there is something to learn."""
    inputs, _ = zoo.batch(n)
    return inputs, inputs[:, :3].argmax(1)


def evidence(name: str, level: str = "top", *, reference: bool = True) -> Evidence:
    """Every other example taken for an error, the rest for correct; the reference is the model with noise."""
    return on(zoo.build(name), level, reference=zoo.build(name) if reference else None)


def on(
    model: nn.Module,
    level: Any = "top",
    *,
    reference: nn.Module | None = None,
    n: int = N,
    task: Any = "classification",
) -> Evidence:
    """Evidence on a network with inputs (n, 4); a reference is disturbed so that it differs."""
    inputs, targets = batch(n)
    if reference is not None:
        generator = torch.Generator().manual_seed(5)
        for parameter in reference.parameters():
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    case = Case(
        model, diagnose=list(zip(inputs, targets.tolist(), strict=True)), groups=level, batch_size=4,
        reference=reference, task=task, device="cpu",
    )  # fmt: skip
    right = np.arange(n) % 2 == 1
    return Evidence(case, case.model, right, np.flatnonzero(~right), np.flatnonzero(right))


@contextmanager
def left_as_found(found: Evidence) -> Iterator[Evidence]:
    """The evidence on a model in an awkward state, which must be the same afterwards, and so must the reference."""
    model = copy.deepcopy(found.model)
    for i, module in enumerate(model.modules()):
        module.training = i % 2 == 0
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 != 0)
        parameter.grad = torch.full_like(parameter, i) if i % 2 else None
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    reference = found.case.reference
    before = [_state(model), _state(reference)]
    random = torch.random.get_rng_state()
    yield found.of(model)
    assert [_state(model), _state(reference)] == before
    assert torch.equal(random, torch.random.get_rng_state())


def _state(model: nn.Module | None) -> Any:
    if model is None:
        return None
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return (
        base_sha256(dict(model.named_parameters())),
        base_sha256(dict(model.named_buffers())),
        [int(b) for n, b in model.named_buffers() if n.endswith("num_batches_tracked")],
        base_sha256(grads),
        [p.requires_grad for p in model.parameters()],
        [m.training for m in model.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        torch.backends.mha.get_fastpath_enabled(),
    )


class Squares:
    """Half the squared distance to the target: a task that knows no logits."""

    def outputs(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """(n, d)."""
        return model(batch[0])

    def losses(self, outputs: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """(n,)."""
        return (outputs - batch[1]).square().sum(1) / 2

    def verdicts(self, outputs: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Within 0.1, (n,)."""
        return (outputs - batch[1]).abs().amax(1) < 0.1


class Counted(Classification):
    """Counts the examples that go forward alone, and those that may go backward too."""

    forward = both = 0

    def outputs(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """(n, classes)."""
        if torch.is_grad_enabled():
            self.both += len(batch[1])
        else:
            self.forward += len(batch[1])
        return super().outputs(model, batch)


class Scalar(nn.Module):
    """w x, with w = 2 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.line.weight, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1)."""
        return self.line(x)


def parabola(n: int = 12, task: Any = None) -> Evidence:
    """(w − 1)²/2 with w = 2: n examples that are all the same, half of them taken for errors."""
    examples = [(torch.ones(1), torch.ones(1))] * n
    case = Case(Scalar(), diagnose=examples, task=task or Squares(), batch_size=5, device="cpu")
    right = np.arange(n) % 2 == 1
    return Evidence(case, case.model, right, np.flatnonzero(~right), np.flatnonzero(right))


def assert_scores(score: str, network: str) -> None:
    """Every group of a network gets a number or NaN, in order, and nothing is left behind."""
    with left_as_found(evidence(network)) as found:
        scores = LOCALIZERS[score](found)
    assert list(scores.index) == list(found.groups)
    assert not np.isinf(scores).any()
