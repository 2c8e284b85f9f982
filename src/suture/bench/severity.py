"""Faults matched by what they cost: the strength that lowers accuracy by a given amount."""

import copy
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from suture.bench.examples import Pairs
from suture.bench.faults import Planting
from suture.errors import InvalidArgumentError, NonFiniteError
from suture.groups import GroupSpec, tensors_of
from suture.loading import load_task
from suture.patch import base_sha256
from suture.tasks import Task, evaluate

TOLERANCE = 0.02  # of accuracy: a search ends when it is as near as this
FACTOR = 2.0  # how many times smaller or larger than asked a drop may be
EVALUATIONS = 12  # of a search for a strength; a training is evaluated after each step
STRIDE = 4.0  # how far a search goes while its goal is not between two strengths
NARROW = 1.01  # strengths whose ratio is smaller are not told apart


@dataclass(frozen=True)
class Fault:
    """What was planted.

    Attributes:
        group, kind, seed: as asked.
        strength: in the kind's unit.
        accuracy_before, accuracy_after: share of right verdicts, of the model and of the damaged copy.
        tensors: state names of what changed, in state order.
    """

    group: str
    kind: str
    seed: int
    strength: float
    accuracy_before: float
    accuracy_after: float
    tensors: tuple[str, ...]

    @property
    def drop(self) -> float:
        """Accuracy lost, as a fraction."""
        return self.accuracy_before - self.accuracy_after


@dataclass(frozen=True)
class Planted:
    """A damaged copy and what was done to it."""

    model: nn.Module
    fault: Fault


def plant_to_drop(
    model: nn.Module,
    group: str,
    kind: str,
    drop: float,
    inputs: Any,
    targets: Any,
    seed: int,
    *,
    groups: GroupSpec = "top",
    task: str | Task = "classification",
    examples: tuple[Any, Any] | None = None,
    tolerance: float = TOLERANCE,
    batch_size: int = 256,
) -> nn.Module:
    """A damaged copy whose accuracy on some examples is lower by a given amount: ``calibrate(...).model``."""
    return calibrate(
        model, group, kind, drop, inputs, targets, seed,
        groups=groups, task=task, examples=examples, tolerance=tolerance, batch_size=batch_size,
    ).model  # fmt: skip


def calibrate(
    model: nn.Module,
    group: str,
    kind: str,
    drop: float,
    inputs: Any,
    targets: Any,
    seed: int,
    *,
    groups: GroupSpec = "top",
    task: str | Task = "classification",
    examples: tuple[Any, Any] | None = None,
    tolerance: float = TOLERANCE,
    batch_size: int = 256,
) -> Planted:
    """Find the strength at which a fault costs a given accuracy, and plant it.

    Bisection between strengths that cost too little and too much, on a logarithmic scale, over at most 12
    evaluations; a kind that trains is evaluated after each step until it costs enough. The nearest drop wins.

    Args:
        model, group, kind, seed, groups, task: as for `suture.bench.plant`.
        drop: accuracy to lose, a fraction of all examples such as 0.15.
        inputs, targets: n examples, first axes (n, …), that accuracy is measured on, in eval mode.
        examples: (inputs, targets) that ``finetune`` trains on; without them it trains on those it is measured
            on, and part of the drop is then wrong labels learnt by heart.
        tolerance: the search ends when the drop is as near as this.
        batch_size: of the evaluations.

    Raises:
        InvalidArgumentError: the kind does not apply to the group, the drop or tolerance means nothing, or the
            nearest drop is more than twice or less than half of what was asked.
        UnknownNameError, GroupError, DataError: as for `suture.bench.plant`.
        NonFiniteError: the model's own outputs are not finite.
    """
    measured = Pairs(inputs, targets)
    task = load_task(task)
    planting = Planting(model, group, kind, seed, groups, task, Pairs(*examples) if examples else measured)
    if not tolerance >= 0:
        raise InvalidArgumentError(f"the tolerance must be a fraction of at least 0, not {tolerance}")
    search = _Search(planting, measured, task, batch_size, drop, tolerance)
    if not 0 < drop <= search.before:
        raise InvalidArgumentError(
            f"the drop must be above 0 and at most the accuracy on these examples, {search.before:.3g}, not {drop}"
        )
    search.train() if planting.how.trains else search.bisect()
    return search.result()


class _Search:
    """Evaluates strengths and remembers the one whose drop is nearest to the goal."""

    def __init__(
        self, planting: Planting, measured: Pairs, task: Task, batch_size: int, goal: float, tolerance: float
    ) -> None:
        self.planting, self.measured, self.task, self.batch_size = planting, measured, task, batch_size
        self.goal, self.tolerance = goal, tolerance
        self.device = next(planting.model.parameters()).device
        self.before = self._accuracy(planting.model)
        self.known: dict[str, float] = {}  # hash of the damaged tensors → drop: shares of few channels repeat
        self.best: tuple[float, float, dict[str, Tensor]] | None = None  # drop, strength, state

    def bisect(self) -> None:
        """Try strengths until one is near enough or there is nothing between too little and too much."""
        how = self.planting.how
        low, high, strength = 0.0, float("inf"), how.first
        least = how.first * 1e-6
        while len(self.known) < EVALUATIONS and high > low * NARROW and strength >= least:
            drop = self._try(strength)
            if abs(drop - self.goal) <= self.tolerance:
                return
            if drop < self.goal:
                low = strength
            else:
                high = strength
            if low == how.most:
                return
            strength = _between(low, high, how.most)

    def train(self) -> None:
        """Step on until accuracy has fallen far enough."""
        try:
            for step, damaged in enumerate(self.planting.steps(self.planting.how.most), start=1):
                if self._measure(damaged, step) >= self.goal - self.tolerance:
                    return
        except NonFiniteError:
            return  # what was reached before remains

    def result(self) -> Planted:
        """The nearest.

        Raises:
            InvalidArgumentError: it is not near.
        """
        planting = self.planting
        drop, strength, state = self.best or (0.0, 0.0, {})
        if not self.goal / FACTOR <= drop <= self.goal * FACTOR:
            raise InvalidArgumentError(
                f"a '{planting.kind}' fault in '{planting.group}' cannot lower accuracy by {self.goal:.3g} "
                f"(reaches {drop:.3g})"
            )
        damaged = copy.deepcopy(planting.model).eval()
        damaged.load_state_dict(state, strict=False)
        fault = Fault(
            planting.group, planting.kind, planting.seed, strength, self.before, self.before - drop,
            planting.changed(damaged),
        )  # fmt: skip
        return Planted(damaged, fault)

    def _try(self, strength: float) -> float:
        """The drop that a strength costs; infinite where weights or outputs are no longer finite."""
        try:
            (damaged,) = self.planting.steps(strength)
        except NonFiniteError:
            return float("inf")
        return self._measure(damaged, strength)

    def _measure(self, damaged: nn.Module, strength: float) -> float:
        state = damaged.state_dict()
        tensors = {name: state[name] for name in tensors_of(damaged, self.planting.parameters)}
        digest = base_sha256(tensors)
        if digest not in self.known:
            try:
                self.known[digest] = self.before - self._accuracy(damaged)
            except NonFiniteError:
                self.known[digest] = float("inf")
        drop = self.known[digest]
        if math.isfinite(drop) and (self.best is None or abs(drop - self.goal) < abs(self.best[0] - self.goal)):
            self.best = (drop, strength, {name: tensor.clone() for name, tensor in tensors.items()})
        return drop

    def _accuracy(self, model: nn.Module) -> float:
        outcomes = evaluate(
            model, self.measured, self.task,
            device=self.device, batch_size=self.batch_size, name="the examples of the fault",
        )  # fmt: skip
        return outcomes.accuracy


def _between(low: float, high: float, most: float) -> float:
    """The next strength to try: the middle on a logarithmic scale, or one stride on from the only end known."""
    if math.isinf(high):
        return min(low * STRIDE, most)
    return math.sqrt(low * high) if low else high / STRIDE
