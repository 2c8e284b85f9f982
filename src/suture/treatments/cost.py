"""What a treatment costs, measured, against full fine-tuning; and an estimate before it starts."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from suture.case import Case
from suture.localizers.network import carriers, hooked
from suture.splits import Split
from suture.tasks import Task, batches, forward, plain_recurrence
from suture.training.loop import Penalty
from suture.wording import percent


@dataclass(frozen=True)
class Cost:
    """What a treatment cost, against the same epochs of full fine-tuning.

    Attributes:
        seconds: measured, on the machine it ran on.
        epochs: passes over the repair examples, or over the part that a training is given in cross-fitting; without
            one that was broken off or taken back, which is in all else.
        parameters, all_parameters: trained, and of the model.
        groups, all_groups: treated, and of the model.
        flops: measured floating-point operations of matrix products and convolutions, forward and backward, of all
            steps and of what guards compute beside them.
        full_flops: those of the same steps with every parameter trained and no guard.
        judging_seconds, judging_flops: the same of the forward passes in which candidates were judged; not among the
            above.
        one_full_flops: those of one full fine-tuning by the standard recipe on all that there is to repair with;
            0 where that is not known.
        full_seconds: an estimate of what the same steps take with every parameter trained and no guard, forward and
            backward: the number of steps times the seconds of the fastest of a few that were timed beside them; 0
            where that is not known.
    """

    seconds: float = 0.0
    epochs: int = 0
    parameters: int = 0
    all_parameters: int = 0
    groups: int = 0
    all_groups: int = 0
    flops: float = 0.0
    full_flops: float = 0.0
    judging_seconds: float = 0.0
    judging_flops: float = 0.0
    one_full_flops: float = 0.0
    full_seconds: float = 0.0

    @property
    def share(self) -> float:
        """Measured FLOPs as a share of full fine-tuning for as many epochs."""
        return self.flops / self.full_flops if self.full_flops else 0.0

    @property
    def times_full(self) -> float:
        """Measured FLOPs in units of one full fine-tuning by the standard recipe; NaN where that is not known."""
        return self.flops / self.one_full_flops if self.one_full_flops else float("nan")

    @property
    def paper_share(self) -> float:
        """The paper's formula, epochs × layers over epochs × all layers (Table 10)."""
        return self.groups / self.all_groups if self.all_groups else 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Both together: what is trained is the larger of the two, what it takes their sum.

        One full fine-tuning is the larger too: a training of cross-fitting knows only its part of the examples.
        """
        return Cost(
            self.seconds + other.seconds, self.epochs + other.epochs,
            max(self.parameters, other.parameters), max(self.all_parameters, other.all_parameters),
            max(self.groups, other.groups), max(self.all_groups, other.all_groups),
            self.flops + other.flops, self.full_flops + other.full_flops,
            self.judging_seconds + other.judging_seconds, self.judging_flops + other.judging_flops,
            max(self.one_full_flops, other.one_full_flops), self.full_seconds + other.full_seconds,
        )  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Attributes:
        seconds: on this machine, as it is now.
        flops, full_flops: as in `Cost`.
        least_flops: those of the same steps if guards and the gradients of the trained parameters themselves were free:
            forward, and back to the first layer that is trained; 0 where everything is trained.
        emulated: whether it computes in bfloat16 on a processor without it.
    """

    seconds: float = 0.0
    flops: float = 0.0
    full_flops: float = 0.0
    least_flops: float = 0.0
    emulated: bool = False

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            self.seconds + other.seconds, self.flops + other.flops, self.full_flops + other.full_flops,
            self.least_flops + other.least_flops, self.emulated or other.emulated,
        )  # fmt: skip

    def times(self, factor: float) -> "Estimate":
        """The same several times over."""
        return replace(
            self, seconds=self.seconds * factor, flops=self.flops * factor, full_flops=self.full_flops * factor,
            least_flops=self.least_flops * factor,
        )  # fmt: skip

    def __str__(self) -> str:
        share = self.flops / self.full_flops if self.full_flops else 0.0
        words = f"about {self.seconds:.0f} s, {percent(share, 0)} of the same epochs of full fine-tuning"
        if self.least_flops > FAR_BACK * self.full_flops:
            words += " (gradients have to reach early layers, so it cannot be much cheaper)"
        if self.emulated:
            words += "; this processor has no instructions for bfloat16, which will be slower than float32"
        return words


Cached = tuple[nn.Module, Callable[[list[int]], None] | None]
"""A network, and what is told which examples it gets next."""

# Of a full step a third is forward, a third goes back through the layers and a third is for the weights. So the way to
# the last layer alone is a third of it, that to the first two thirds, and above the middle most of the way is needed.
FAR_BACK = 1 / 2
TIMED = 3  # steps that an estimate is made from


def freeze_all_but(model: nn.Module, trained: set[str] | frozenset[str]) -> None:
    """Let gradients reach the named parameters and no others."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() or parameter.is_complex():  # integers have no gradients
            parameter.requires_grad_(name in trained)


def step_flops(
    case: Case,
    trained: set[str] | frozenset[str],
    batch_size: int,
    cached: Cached | None = None,
    penalty: Penalty | None = None,
) -> int:
    """Floating-point operations of one forward and backward pass, counted as they are dispatched.

    Args:
        cached: the network whose frozen part is looked up, and what is told which examples it gets; by default a
            copy of the case's runs in whole.
        penalty: what is added to the loss.
    """
    return _step(case, trained, batch_size, cached, penalty)[0]


def full_step(case: Case, batch_size: int) -> tuple[int, float]:
    """Floating-point operations of a step with every parameter trained, and seconds of the fastest of a few."""
    everything = {name for name, _ in case.model.named_parameters()}
    return _step(case, everything, batch_size, repeats=TIMED)


def forward_flops(case: Case, split: Split) -> float:
    """Floating-point operations of one forward pass over a split, from those of its first batch."""
    size = min(case.batch_size, len(split))
    batch = next(batches([split[i] for i in range(size)], case.task, case.device, size))
    # Under inference mode the counter fails on a layer that is given a parameter: it would follow its gradient.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(copy.deepcopy(case.model).eval(), batch, case.task, f"the examples of '{split.name}'")
    return float(counter.get_total_flops()) / size * len(split)


def estimate(
    case: Case,
    trained: set[str] | frozenset[str],
    steps: float,
    batch_size: int,
    cached: Cached | None = None,
    penalty: Penalty | None = None,
    task: Task | None = None,
) -> Estimate:
    """What some steps will take, from the time and the operations of a few of them.

    Args:
        cached, penalty: see `step_flops`.
        task: in place of the case's own, such as in another precision.
    """
    everything = {name for name, _ in case.model.named_parameters()}
    flops, seconds = _step(case, trained, batch_size, cached, penalty, task=task, repeats=TIMED)
    least = 0 if trained >= everything else _step(case, trained, batch_size, cached, free=True)[0]
    return Estimate(seconds, flops, step_flops(case, everything, batch_size), least).times(steps)


def _step(
    case: Case,
    trained: set[str] | frozenset[str],
    batch_size: int,
    cached: Cached | None = None,
    penalty: Penalty | None = None,
    *,
    task: Task | None = None,
    free: bool = False,
    repeats: int = 0,
) -> tuple[int, float]:
    """Operations of a step, and seconds of the fastest of some; gradients are left as they were.

    Args:
        free: go back to what is trained, but do not compute its gradients.
    """
    model, tell = cached or (copy.deepcopy(case.model), None)
    task = task or case.task
    freeze_all_but(model, set() if free else trained)
    split = case.splits["repair"]
    positions = list(range(min(batch_size, len(split))))
    batch = next(batches([split[i] for i in positions], case.task, case.device, len(positions)))

    def once() -> None:
        if tell is not None:
            tell(positions)
        outputs = task.outputs(model, batch)
        loss = task.losses(outputs, batch).mean()
        if penalty is not None:
            loss = loss + penalty(model, batch, outputs)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        if case.device.type == "cuda":
            torch.cuda.synchronize(case.device)  # else the clock stops while it still computes

    with torch.enable_grad(), plain_recurrence(model), _asked_at(model, trained) if free else nullcontext():
        with FlopCounterMode(display=False) as counter:
            once()
        times = []
        for _ in range(repeats):
            begun = perf_counter()
            once()
            times.append(perf_counter() - begun)
    model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops()), min(times, default=0.0)


def _asked_at(model: nn.Module, trained: set[str] | frozenset[str]) -> AbstractContextManager[None]:
    """Let gradients be asked for at the outputs of the layers that own some parameters, where all are frozen."""

    def ask(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return tree_map(_asked, output)

    return hooked(model, dict.fromkeys(carriers(model, trained, layers=True), ask))


def _asked(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.requires_grad or not value.is_floating_point():
        return value
    return value.requires_grad_().clone()  # the next layer may work in place, which a leaf does not allow
