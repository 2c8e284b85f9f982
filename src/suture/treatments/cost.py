"""What a treatment costs, measured, against full fine-tuning; and an estimate before it starts."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from suture.case import Case
from suture.splits import Split
from suture.stats import percent
from suture.tasks import batches, forward


@dataclass(frozen=True)
class Cost:
    """What a treatment cost, against the same epochs of full fine-tuning.

    Attributes:
        seconds: measured, on the machine it ran on.
        epochs: passes over the repair examples.
        parameters, all_parameters: trained, and of the model.
        groups, all_groups: treated, and of the model.
        flops, full_flops: measured floating-point operations of matrix products and convolutions, forward
            and backward, of all steps; and of the same steps with every parameter trained.
        judging_seconds, judging_flops: the same of the forward passes in which candidates were judged; not among the
            above.
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

    @property
    def share(self) -> float:
        """Measured FLOPs as a share of full fine-tuning for as many epochs."""
        return self.flops / self.full_flops if self.full_flops else 0.0

    @property
    def paper_share(self) -> float:
        """The paper's formula, epochs × layers over epochs × all layers (Table 10)."""
        return self.groups / self.all_groups if self.all_groups else 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Both together: what is trained is the larger of the two, what it takes their sum."""
        return Cost(
            self.seconds + other.seconds, self.epochs + other.epochs,
            max(self.parameters, other.parameters), max(self.all_parameters, other.all_parameters),
            max(self.groups, other.groups), max(self.all_groups, other.all_groups),
            self.flops + other.flops, self.full_flops + other.full_flops,
            self.judging_seconds + other.judging_seconds, self.judging_flops + other.judging_flops,
        )  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Attributes:
        seconds: on this machine, as it is now.
        flops, full_flops: as in `Cost`.
    """

    seconds: float = 0.0
    flops: float = 0.0
    full_flops: float = 0.0

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            self.seconds + other.seconds, self.flops + other.flops, self.full_flops + other.full_flops
        )  # fmt: skip

    def times(self, factor: float) -> "Estimate":
        """The same several times over."""
        return Estimate(self.seconds * factor, self.flops * factor, self.full_flops * factor)

    def __str__(self) -> str:
        share = self.flops / self.full_flops if self.full_flops else 0.0
        words = f"about {self.seconds:.0f} s, {percent(share, 0)} of the same epochs of full fine-tuning"
        if ALMOST_ALL < share < 1:
            words += " (gradients have to reach early layers, so it cannot be much cheaper)"
        return words


Cached = tuple[nn.Module, Callable[[list[int]], None] | None]
"""A network, and what is told which examples it gets next."""

ALMOST_ALL = 0.8  # share of full fine-tuning from which a treatment hardly saves anything
TIMED = 3  # steps that an estimate is made from


def freeze_all_but(model: nn.Module, trained: set[str] | frozenset[str]) -> None:
    """Let gradients reach the named parameters and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def step_flops(case: Case, trained: set[str] | frozenset[str], batch_size: int, cached: Cached | None = None) -> int:
    """Floating-point operations of one forward and backward pass, counted as they are dispatched.

    Args:
        cached: the network whose frozen part is looked up, and what is told which examples it gets; by default a
            copy of the case's runs in whole.
    """
    return _step(case, trained, batch_size, 0, cached)[0]


def forward_flops(case: Case, split: Split) -> float:
    """Floating-point operations of one forward pass over a split, from those of its first batch."""
    size = min(case.batch_size, len(split))
    batch = next(batches([split[i] for i in range(size)], case.task, case.device, size))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        forward(copy.deepcopy(case.model).eval(), batch, case.task, f"the examples of '{split.name}'")
    return float(counter.get_total_flops()) / size * len(split)


def estimate(
    case: Case, trained: set[str] | frozenset[str], steps: float, batch_size: int, cached: Cached | None = None
) -> Estimate:
    """What some steps will take, from the time and the operations of a few of them.

    Args:
        cached: see `step_flops`.
    """
    everything = {name for name, _ in case.model.named_parameters()}
    flops, seconds = _step(case, trained, batch_size, TIMED, cached)
    return Estimate(seconds * steps, flops * steps, step_flops(case, everything, batch_size) * steps)


def _step(
    case: Case, trained: set[str] | frozenset[str], batch_size: int, repeats: int, cached: Cached | None = None
) -> tuple[int, float]:
    """Operations of a step, and seconds of the fastest of some; gradients are left as they were."""
    model, tell = cached or (copy.deepcopy(case.model), None)
    freeze_all_but(model, trained)
    split = case.splits["repair"]
    positions = list(range(min(batch_size, len(split))))
    batch = next(batches([split[i] for i in positions], case.task, case.device, len(positions)))

    def once() -> None:
        if tell is not None:
            tell(positions)
        loss = case.task.losses(case.task.outputs(model, batch), batch).mean()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]

    with torch.enable_grad():
        with FlopCounterMode(display=False) as counter:
            once()
        times = []
        for _ in range(repeats):
            begun = perf_counter()
            once()
            times.append(perf_counter() - begun)
    model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops()), min(times, default=0.0)
