"""Critical momentum, at a curvature that is given or measured."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from torch import Tensor
from torch.optim import Optimizer

from suture.curvature import LossMeter, Meter
from suture.errors import InvalidArgumentError, UnknownNameError
from suture.physics import Form, clamp, critical_momentum
from suture.registry import suggest
from suture.schedules.base import MomentumScheduler
from suture.schedules.checks import PerGroup, check_momentum, check_positive, spread

Curvature = float | Sequence[float] | Callable[[Optimizer], Sequence[float]] | Literal["measure"]
"""λ for all param groups, one λ per group, a function that measures one per group, or ``"measure"``."""

Measure = Callable[[], Tensor] | Meter
"""What ``curvature="measure"`` measures: a function that returns the loss, or a meter."""

Track = Literal["largest", "smallest", "range"]
TRACKS = ("largest", "smallest", "range")


class CriticalMomentum(MomentumScheduler):
    """Critical damping at every learning rate: clamp(1 − 2√(λα), 0.5, 0.99) per param group.

    At lr 0 and on a flat direction (measured λ <= 0) the critical momentum is 1, which the clamp bounds.
    For the Adam family this sets betas[0]; curvature 1 means nothing there, since the preconditioner has
    rescaled the loss, and neither does the curvature of the loss itself: give a preconditioned one.

    To measure the curvature of each param group every 100 optimizer steps, on the batch of that step::

        momentum = CriticalMomentum(
            optimizer, curvature="measure", measure=lambda: criterion(model(inputs), targets), every=100
        )

    With a top eigenvalue λ the paper's form lies below 0.5 as soon as λα > 1/16, while full-batch training at
    constant lr drives λα up to 2(1 + μ) (Cohen et al. 2021, arXiv:2103.00065): look at ``clamp_share``, which
    says how often it was the clamp that chose. Alternatives are ``form="exact"``; the smallest of the curvatures
    tracked over a window, which with the exact form is YellowFin's rule for μ at a given lr (Zhang and
    Mitliagkas 2017, arXiv:1706.03471; ``suture.curvature.squared_gradient`` is its measurement); both ends of
    the tracked range; and the curvature along the gradient (``suture.curvature.Meter``).

    Args:
        optimizer: see MomentumScheduler.
        clamp: lowest and highest momentum, 0 <= low <= high < 1.
        curvature: λ > 0 (unit 1/lr) for all param groups, a sequence of one λ per group, a function of
            the optimizer that measures one per group, or ``"measure"``. It is measured right before an
            optimizer step, when the gradients of that step are there; until the first one momentum stays as the
            optimizer had it.
        every: measure at every so many optimizer steps, beginning with the first.
        form: ``"paper"``, ``"exact"`` or ``"nesterov"`` for SGD(nesterov=True); see suture.physics.
        last_epoch: −1 to begin.
        measure: for ``curvature="measure"``: a function without arguments that returns the scalar loss, of whose
            Hessian each group's top eigenvalue is taken (``suture.curvature.LossMeter``), or a meter with settings
            of its own, such as ``ModelMeter(model, batches, kind="ggn")``.
        window: how many of the last measurements are tracked.
        track: the tracked curvature to be critical for: ``"largest"``, ``"smallest"``, or ``"range"``, the larger
            momentum of both ends, at which (exact form) no tracked curvature is overdamped.

    Attributes:
        clamp_share: share of all (optimizer step, param group) at which the clamp ruled.
        clamp_shares: the same for each param group, over optimizer steps.
        tracked: smallest and largest tracked curvature of each param group, None before the first.

    Raises:
        InvalidArgumentError: a setting or a measured curvature makes no sense, or as MomentumScheduler.
        UnknownNameError: there is no such form or track.

    Source: paper, equation 5, sections 3.3 (curvature) and 4.1 (clamp).
    """

    _fields: ClassVar[tuple[str, ...]] = (*MomentumScheduler._fields, "_steps", "_clamped", "_measured")

    def __init__(
        self,
        optimizer: Optimizer,
        clamp: tuple[float, float] = (0.5, 0.99),
        curvature: Curvature = 1.0,
        every: int = 1,
        form: Form = "paper",
        last_epoch: int = -1,
        *,
        measure: Measure | None = None,
        window: int = 1,
        track: Track = "largest",
    ) -> None:
        low, high = (check_momentum("clamp", bound) for bound in clamp)
        if low > high:
            raise InvalidArgumentError(f"clamp needs low <= high, got {low} and {high}; swap them")
        if every < 1:
            raise InvalidArgumentError(f"every must be at least 1 optimizer step, got {every}")
        if window < 1:
            raise InvalidArgumentError(f"window must be at least 1 measurement, got {window}")
        if track not in TRACKS:
            raise UnknownNameError(f"nothing to track is called '{track}'; {suggest(str(track), list(TRACKS))}")
        critical_momentum(1.0, form=form)  # refuses an unknown form now and not at the first step
        self.clamp, self.every, self.form = (low, high), every, form
        self.window, self.track = window, track
        self.curvature = _curvature(curvature, measure, optimizer)
        self._measured: list[list[float]] | None = None  # the last `window` measurements, oldest first
        self._steps = 0
        self._clamped = [0] * len(optimizer.param_groups)
        super().__init__(optimizer, last_epoch)

    def get_momentum(self) -> list[float]:
        """Critical momentum, clamped; as it was where no curvature was measured yet."""
        pairs = zip(self._unclamped(), self._read(), strict=True)
        return [now if mu is None else clamp(mu, *self.clamp) for mu, now in pairs]

    @property
    def clamp_shares(self) -> list[float]:
        return [n / self._steps if self._steps else 0.0 for n in self._clamped]

    @property
    def clamp_share(self) -> float:
        return sum(self.clamp_shares) / len(self._clamped)

    @property
    def tracked(self) -> list[tuple[float, float] | None]:
        return [(min(values), max(values)) if values else None for values in self._curvatures()]

    def _curvatures(self) -> list[list[float]]:
        """The tracked curvatures of each param group; none for a group added since the last measurement."""
        groups = len(self.optimizer.param_groups)
        if callable(self.curvature):
            return [[row[i] for row in self._measured or [] if i < len(row)] for i in range(groups)]
        return [[value] for value in spread("curvature", self.curvature, groups)]

    def _unclamped(self) -> list[float | None]:
        """Critical momentum of each param group, None as long as no curvature was measured."""
        return [self._critical(lr, tracked) for lr, tracked in zip(self._lrs(), self.tracked, strict=True)]

    def _critical(self, lr: float, tracked: tuple[float, float] | None) -> float | None:
        if tracked is None:
            return None
        ends = {"smallest": tracked[:1], "largest": tracked[1:], "range": tracked}[self.track]
        return max(critical_momentum(lr, k, self.form) if lr * k else 1.0 for k in ends)

    def _before_optimizer_step(self) -> None:
        if callable(self.curvature) and self._is_due():
            self._measured = [*(self._measured or []), self._measure(self.curvature)][-self.window :]
        super()._before_optimizer_step()
        low, high = self.clamp
        self._clamped += [0] * (len(self.optimizer.param_groups) - len(self._clamped))
        for i, mu in enumerate(self._unclamped()):
            self._clamped[i] += mu is not None and not low <= mu <= high
        self._steps += 1

    def _is_due(self) -> bool:
        added = not self._measured or len(self._measured[-1]) < len(self.optimizer.param_groups)
        return added or self._steps % self.every == 0

    def _measure(self, curvature: Callable[[Optimizer], Sequence[float]]) -> list[float]:
        measured = [float(k) for k in curvature(self.optimizer)]
        spread("the measured curvature", measured, len(self.optimizer.param_groups))
        if not all(map(math.isfinite, measured)):
            raise InvalidArgumentError(f"the measured curvature must be finite, got {measured}; has the loss diverged?")
        return [max(k, 0.0) for k in measured]


def _curvature(
    curvature: Curvature, measure: Measure | None, optimizer: Optimizer
) -> PerGroup | Callable[[Optimizer], Sequence[float]]:
    """Numbers, checked, or the function that measures them."""
    if (isinstance(curvature, str) and curvature == "measure") != (measure is not None):
        raise InvalidArgumentError(
            "curvature='measure' and measure= go together; give for example "
            "curvature='measure', measure=lambda: criterion(model(inputs), targets)"
        )
    if measure is not None:
        return measure if isinstance(measure, Meter) else LossMeter(measure)
    if isinstance(curvature, str):
        raise InvalidArgumentError(
            f"curvature must be a number, one for each param group, a function or 'measure', got '{curvature}'"
        )
    return curvature if callable(curvature) else check_positive("curvature", curvature, optimizer)
