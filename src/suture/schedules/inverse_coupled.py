"""Momentum against the learning rate."""

from collections.abc import Sequence
from typing import ClassVar

from torch.optim import Optimizer

from suture.errors import InvalidArgumentError
from suture.physics import clamp
from suture.schedules.base import MomentumScheduler
from suture.schedules.checks import check_momentum, check_positive, spread


class InverseCoupledMomentum(MomentumScheduler):
    """Momentum that falls linearly as lr rises: high at the lowest lr, low at the highest.

    Args:
        optimizer: see MomentumScheduler.
        low: momentum at ``lr_max`` and above, in [0, 1).
        high: momentum at ``lr_min`` and below, in [low, 1).
        lr_min: lowest lr of the run.
        lr_max: highest lr of the run, for all param groups or one each. None takes what the LR scheduler
            left in the param group (``max_lr`` of OneCycleLR, else ``initial_lr``), or, where there is none,
            the lr at construction.
        last_epoch: −1 to begin.

    Raises:
        InvalidArgumentError: a setting makes no sense, or as MomentumScheduler.

    Source: Smith and Topin's 1cycle as the paper uses it (section 4.1, Table 2: [0.85, 0.95]).
    """

    _fields: ClassVar[tuple[str, ...]] = (*MomentumScheduler._fields, "base_lrs")

    def __init__(
        self,
        optimizer: Optimizer,
        low: float = 0.85,
        high: float = 0.95,
        lr_min: float = 0.0,
        lr_max: float | Sequence[float] | None = None,
        last_epoch: int = -1,
    ) -> None:
        self.low, self.high = check_momentum("low", low), check_momentum("high", high)
        if self.low > self.high:
            raise InvalidArgumentError(f"need low <= high, got {low} and {high}; swap them")
        self.lr_min = lr_min
        self.lr_max = None if lr_max is None else check_positive("lr_max", lr_max, optimizer)
        super().__init__(optimizer, last_epoch)

    def get_momentum(self) -> list[float]:
        groups = self.optimizer.param_groups
        given = [self._top(i) for i in range(len(groups))] if self.lr_max is None else self.lr_max
        tops = spread("lr_max", given, len(groups))
        return [self._between(float(group["lr"]), top) for group, top in zip(groups, tops, strict=True)]

    def _top(self, i: int) -> float:
        group = self.optimizer.param_groups[i]
        first = self.base_lrs[i] if i < len(self.base_lrs) else group["lr"]
        return float(group.get("max_lr", group.get("initial_lr", first)))

    def _between(self, lr: float, top: float) -> float:
        if not 0 <= self.lr_min < top:
            raise InvalidArgumentError(f"need 0 <= lr_min < lr_max, got lr_min {self.lr_min:.6g} and lr_max {top:.6g}")
        share = clamp((lr - self.lr_min) / (top - self.lr_min), 0.0, 1.0)
        return self.high - (self.high - self.low) * share
