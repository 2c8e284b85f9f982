"""Critical first, constant later."""

import math
import warnings
from typing import ClassVar

from torch.optim import Optimizer

from suture.errors import InvalidArgumentError
from suture.physics import Form
from suture.schedules.base import MomentumScheduler
from suture.schedules.checks import check_momentum
from suture.schedules.critical import CriticalMomentum, Curvature, Measure, Track

_ENOUGH = 5  # epochs; the accuracy of thousands of classes begins below 1 %


class HybridMomentum(CriticalMomentum):
    """Critical momentum for the fast early descent, then a constant one for the final refinement.

    Critical until a metric reaches the threshold, which is remembered even if the metric falls again, or
    until ``switch_epoch`` steps of this scheduler, whichever comes first. With a step per epoch, epochs 1
    to ``switch_epoch`` are critical.

    Args:
        optimizer: see MomentumScheduler.
        threshold: metric at which to switch, larger being better.
        switch_epoch: how many epochs are critical at most; None for no such limit.
        momentum: the constant one, in [0, 1).
        clamp, curvature, every, form, last_epoch, measure, window, track: see CriticalMomentum.

    Attributes:
        switched_at: first epoch (counted from 1) with constant momentum, None while it is critical. In
            Table 14, Hybrid-90 reaches 90 % in epoch 46 and has switched at 47.

    Raises:
        InvalidArgumentError: a setting makes no sense, or as CriticalMomentum.

    Source: paper, section 7.1 (Hybrid-90: threshold 0.90; Hybrid-ep52: switch_epoch 52).
    """

    _fields: ClassVar[tuple[str, ...]] = (*CriticalMomentum._fields, "switched_at")

    def __init__(
        self,
        optimizer: Optimizer,
        threshold: float = 0.90,
        switch_epoch: int | None = None,
        momentum: float = 0.9,
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
        if math.isnan(threshold):
            raise InvalidArgumentError("threshold must be a number, got nan; the paper uses 0.90")
        if switch_epoch is not None and switch_epoch < 0:
            raise InvalidArgumentError(f"switch_epoch must be at least 0, got {switch_epoch}")
        self.threshold, self.switch_epoch = threshold, switch_epoch
        self.momentum = check_momentum("momentum", momentum)
        self._fractions = 0  # metrics in a row that look like one
        self.switched_at = last_epoch + 2 if self._is_over(last_epoch + 1) else None
        super().__init__(
            optimizer, clamp, curvature, every, form, last_epoch, measure=measure, window=window, track=track
        )

    def get_momentum(self) -> list[float]:
        if self.switched_at is None:
            return super().get_momentum()
        return [self.momentum] * len(self.optimizer.param_groups)

    def step(self, metric: float | None = None) -> None:
        """Go on to the next epoch, as MomentumScheduler does, having seen a metric of the last one or none.

        Warns:
            UserWarning: the metric looks like a fraction, epoch after epoch, while the threshold is a percentage.

        Raises:
            InvalidArgumentError: the metric is a percentage while the threshold is a fraction.
        """
        if metric is not None and float(metric) > 1 >= self.threshold > 0:
            raise InvalidArgumentError(
                f"metric {float(metric):.6g} is above 1 while the threshold is {self.threshold}; give "
                "both as fractions or both as percentages"
            )
        if metric is not None and self.threshold > 1:
            self._warn(float(metric))
        reached = metric is not None and float(metric) >= self.threshold
        if self.switched_at is None and (reached or self._is_over(self.last_epoch + 1)):
            self.switched_at = self.last_epoch + 2
        super().step()

    def _warn(self, metric: float) -> None:
        """Say once that the threshold cannot be reached by a fraction; a percentage may be below 1 early on."""
        self._fractions = self._fractions + 1 if 0 <= metric <= 1 else 0
        if self._fractions == _ENOUGH:
            warnings.warn(
                f"the last {_ENOUGH} metrics were at most 1 (now {metric:.6g}) while the threshold is "
                f"{self.threshold}; give both as fractions or both as percentages, or it never switches",
                stacklevel=3,
            )

    def _is_over(self, epoch: int) -> bool:
        return self.switch_epoch is not None and epoch >= self.switch_epoch

    def _before_optimizer_step(self) -> None:
        if self.switched_at is None:
            super()._before_optimizer_step()
        else:  # nothing to measure, and no clamp to count
            MomentumScheduler._before_optimizer_step(self)
