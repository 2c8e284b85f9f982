"""Momentum schedules: what an LR scheduler is to lr, for the momentum of SGD or the betas[0] of Adam.

    lr_scheduler = CosineAnnealingLR(optimizer, epochs)
    momentum_scheduler = CriticalMomentum(optimizer)
    for epoch in range(epochs):
        train(...)                       # optimizer.step() as often as it likes
        lr_scheduler.step()
        momentum_scheduler.step()

They follow torch's ``LRScheduler`` (``step``, ``state_dict``, ``load_state_dict``, ``last_epoch``) but read
lr and never write it. Momentum is set again from the lr of the moment whenever the optimizer steps, so it
does not matter which scheduler was constructed or stepped first, nor whether they are stepped per
epoch or per batch. Keep a reference to the schedule: when it is gone, momentum stays where it is.

Two hands on one momentum are refused: by a clear error at construction where an ``OneCycleLR`` or
``CyclicLR`` with ``cycle_momentum`` shows, and at the latest when the optimizer steps and momentum is no
longer what the schedule had set.

``torch.optim.SGD`` built with ``momentum=0`` (its default) is welcome: it makes its momentum_buffer at
the first step with a momentum above 0, from that step's gradient. At a momentum of exactly 0 it leaves an
existing buffer as it was, to return when momentum does; a lower clamp above 0 avoids that.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from suture.errors import InvalidArgumentError
from suture.physics import Form, clamp, critical_momentum

Curvature = float | Sequence[float] | Callable[[Optimizer], Sequence[float]]
"""λ for all param groups, one λ per group, or a function that measures one per group."""

PerGroup = float | list[float]


class MomentumScheduler(LRScheduler):
    """Base of the momentum schedules: a subclass gives ``get_momentum``, one value per param group.

    Args:
        optimizer: any with ``momentum`` (SGD, RMSprop, suture's own) or ``betas`` (the Adam family).
        last_epoch: −1 to begin; the constructor already sets momentum for epoch 0, as torch's do.

    Attributes:
        last_epoch: how often ``step`` was called since construction (epochs counted from 0).

    Raises:
        InvalidArgumentError: the optimizer has neither momentum nor betas, or another scheduler cycles
            its momentum.
    """

    _fields: ClassVar[tuple[str, ...]] = ("last_epoch", "_last_momentum")  # what state_dict holds

    # LRScheduler's own constructor writes lr and initial_lr; an LR scheduler that is built after it
    # would start from those.
    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise InvalidArgumentError(
                f"{type(self).__name__} schedules a torch optimizer, got a {type(optimizer).__name__}"
            )
        if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
            raise InvalidArgumentError(
                f"{type(optimizer).__name__} has neither momentum nor betas, so there is nothing for "
                f"{type(self).__name__} to schedule; use SGD or one of the Adam family"
            )
        self.optimizer = optimizer
        self.last_epoch = last_epoch + 1
        self.base_lrs = [*self._lrs()]
        self._last_momentum = self._read()
        self._refuse_cycling()
        self._write(self.get_momentum())
        self._attach()

    def get_momentum(self) -> list[float]:
        """Momentum for each param group at the present lr and epoch."""
        raise NotImplementedError

    def get_last_momentum(self) -> list[float]:
        """Momentum that was last set, for each param group."""
        return list(self._last_momentum)

    def get_last_lr(self) -> list[float | Tensor]:
        """The present lr of each param group, which this scheduler only reads."""
        return list(self._lrs())

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch (or batch) and set momentum; call it after the LR scheduler's step.

        Raises:
            InvalidArgumentError: something else changed momentum since it was last set.
        """
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._refresh()

    def state_dict(self) -> dict[str, Any]:
        """The state to resume from: plain numbers and lists, without optimizer and settings."""
        return {name.lstrip("_"): copy(getattr(self, name)) for name in self._fields}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to a state that ``state_dict`` gave, momentum included; the optimizer's own may be loaded
        before or after.

        Raises:
            InvalidArgumentError: fields are missing or unknown, or made for another number of groups.
        """
        expected = [name.lstrip("_") for name in self._fields]
        if set(state_dict) != set(expected):
            raise InvalidArgumentError(
                f"a state of {type(self).__name__} has the fields {', '.join(expected)}, got "
                f"{', '.join(sorted(state_dict)) or 'none'}; was it saved by another schedule?"
            )
        groups = len(self.optimizer.param_groups)
        if len(state_dict["last_momentum"]) != groups:
            raise InvalidArgumentError(
                f"this state was saved for {len(state_dict['last_momentum'])} param groups and the optimizer "
                f"has {groups}; build the optimizer as it was"
            )
        for name in self._fields:
            setattr(self, name, copy(state_dict[name.lstrip("_")]))
        self._write(self._last_momentum)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copied or unpickled optimizer has lost its hooks.
        self.__dict__.update(state)
        self._attach()

    def _attach(self) -> None:
        """Have the optimizer call back, without its keeping this scheduler alive."""
        me = weakref.ref(self)

        def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            scheduler = me()
            if scheduler is not None:
                scheduler._before_optimizer_step()

        def after_load(optimizer: Optimizer) -> None:
            scheduler = me()
            if scheduler is not None:  # loading is no second hand on momentum
                scheduler._last_momentum = scheduler._read()

        weakref.finalize(self, self.optimizer.register_step_pre_hook(before_step).remove)
        weakref.finalize(self, self.optimizer.register_load_state_dict_post_hook(after_load).remove)

    def _before_optimizer_step(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        self._refuse_cycling()
        self._refuse_change()
        self._write(self.get_momentum())

    def _refuse_cycling(self) -> None:
        for group in self.optimizer.param_groups:
            if "base_momentum" in group and "max_momentum" in group:  # left by OneCycleLR and CyclicLR
                raise InvalidArgumentError(
                    f"an OneCycleLR or CyclicLR cycles the momentum that {type(self).__name__} is to set; "
                    "build it with cycle_momentum=False, and the optimizer anew"
                )

    def _refuse_change(self) -> None:
        # Groups that were added since are not compared.
        for i, (last, now) in enumerate(zip(self._last_momentum, self._read(), strict=False)):
            if last != now:
                raise InvalidArgumentError(
                    f"{type(self).__name__} had set the momentum of param group {i} to {last:.6g} and finds "
                    f"{now:.6g}; let one alone change it (OneCycleLR and CyclicLR: cycle_momentum=False)"
                )

    def _lrs(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _read(self) -> list[float]:
        return [float(g["betas"][0] if "betas" in g else g["momentum"]) for g in self.optimizer.param_groups]

    def _write(self, momenta: Sequence[float]) -> None:
        for group, momentum in zip(self.optimizer.param_groups, momenta, strict=True):
            if "betas" not in group:
                group["momentum"] = momentum
            elif isinstance(group["betas"][0], Tensor):  # capturable Adam: captured by reference
                group["betas"][0].fill_(momentum)
            else:
                group["betas"] = (momentum, *group["betas"][1:])
        self._last_momentum = self._read()


class ConstantMomentum(MomentumScheduler):
    """The same momentum throughout: the paper's baseline (Table 2).

    Args:
        optimizer: see MomentumScheduler.
        momentum: in [0, 1).
        last_epoch: −1 to begin.

    Raises:
        InvalidArgumentError: momentum is outside [0, 1), or as MomentumScheduler.
    """

    def __init__(self, optimizer: Optimizer, momentum: float = 0.9, last_epoch: int = -1) -> None:
        self.momentum = _momentum("momentum", momentum)
        super().__init__(optimizer, last_epoch)

    def get_momentum(self) -> list[float]:
        return [self.momentum] * len(self.optimizer.param_groups)


class CriticalMomentum(MomentumScheduler):
    """Critical damping at every learning rate: clamp(1 − 2√(λα), 0.5, 0.99) per param group.

    At lr 0 and on a flat direction (measured λ <= 0) the critical momentum is 1, which the clamp bounds.
    For the Adam family this sets betas[0]; curvature 1 means nothing there, since the preconditioner has
    rescaled the loss, so give a measured one.

    Args:
        optimizer: see MomentumScheduler.
        clamp: lowest and highest momentum, 0 <= low <= high < 1.
        curvature: λ > 0 (unit 1/lr) for all param groups, a sequence of one λ per group, or a function of
            the optimizer that measures one per group. It is called right before an optimizer step, when the
            gradients of that step are there; until the first one momentum stays as the optimizer had it.
        every: measure at every so many optimizer steps, beginning with the first.
        form: ``"paper"``, ``"exact"`` (with the smallest curvature of interest: YellowFin's rule) or
            ``"nesterov"`` for SGD(nesterov=True); see suture.physics.
        last_epoch: −1 to begin.

    Attributes:
        clamp_share: share of all (optimizer step, param group) at which the clamp ruled.
        clamp_shares: the same for each param group, over optimizer steps.

    Raises:
        InvalidArgumentError: a setting or a measured curvature makes no sense, or as MomentumScheduler.
        UnknownNameError: there is no such form.

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
    ) -> None:
        low, high = (_momentum("clamp", bound) for bound in clamp)
        if low > high:
            raise InvalidArgumentError(f"clamp needs low <= high, got {low} and {high}; swap them")
        if every < 1:
            raise InvalidArgumentError(f"every must be at least 1 optimizer step, got {every}")
        critical_momentum(1.0, form=form)  # refuses an unknown form now and not at the first step
        self.clamp, self.every, self.form = (low, high), every, form
        self.curvature = curvature if callable(curvature) else _positive("curvature", curvature, optimizer)
        self._measured: list[float] | None = None
        self._steps = 0
        self._clamped = [0] * len(optimizer.param_groups)
        super().__init__(optimizer, last_epoch)

    def get_momentum(self) -> list[float]:
        return [clamp(mu, *self.clamp) for mu in self._unclamped()] or self._read()

    @property
    def clamp_shares(self) -> list[float]:
        return [n / self._steps if self._steps else 0.0 for n in self._clamped]

    @property
    def clamp_share(self) -> float:
        return sum(self.clamp_shares) / len(self._clamped)

    def _unclamped(self) -> list[float]:
        """Critical momentum of each param group; empty as long as no curvature was measured."""
        curvature = self._measured if callable(self.curvature) else self.curvature
        if curvature is None:
            return []
        lrs = self._lrs()
        pairs = zip(lrs, _spread("curvature", curvature, len(lrs)), strict=True)
        return [critical_momentum(lr, k, self.form) if lr * k else 1.0 for lr, k in pairs]

    def _before_optimizer_step(self) -> None:
        if callable(self.curvature) and self._steps % self.every == 0:
            self._measured = self._measure(self.curvature)
        super()._before_optimizer_step()
        low, high = self.clamp
        self._clamped += [0] * (len(self.optimizer.param_groups) - len(self._clamped))
        for i, mu in enumerate(self._unclamped()):
            self._clamped[i] += not low <= mu <= high
        self._steps += 1

    def _measure(self, curvature: Callable[[Optimizer], Sequence[float]]) -> list[float]:
        measured = [float(k) for k in curvature(self.optimizer)]
        _spread("the measured curvature", measured, len(self.optimizer.param_groups))
        if not all(map(math.isfinite, measured)):
            raise InvalidArgumentError(f"the measured curvature must be finite, got {measured}; has the loss diverged?")
        return [max(k, 0.0) for k in measured]


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
        clamp, curvature, every, form, last_epoch: see CriticalMomentum.

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
    ) -> None:
        if math.isnan(threshold):
            raise InvalidArgumentError("threshold must be a number, got nan; the paper uses 0.90")
        if switch_epoch is not None and switch_epoch < 0:
            raise InvalidArgumentError(f"switch_epoch must be at least 0, got {switch_epoch}")
        self.threshold, self.switch_epoch = threshold, switch_epoch
        self.momentum = _momentum("momentum", momentum)
        self.switched_at = last_epoch + 2 if self._is_over(last_epoch + 1) else None
        super().__init__(optimizer, clamp, curvature, every, form, last_epoch)

    def get_momentum(self) -> list[float]:
        if self.switched_at is None:
            return super().get_momentum()
        return [self.momentum] * len(self.optimizer.param_groups)

    def step(self, metric: float | None = None) -> None:
        """Go on to the next epoch, as MomentumScheduler does, having seen a metric of the last one or none.

        Raises:
            InvalidArgumentError: the metric is a percentage while the threshold is a fraction.
        """
        if metric is not None and float(metric) > 1 >= self.threshold > 0:
            raise InvalidArgumentError(
                f"metric {float(metric):.6g} is above 1 while the threshold is {self.threshold}; give "
                "both as fractions or both as percentages"
            )
        reached = metric is not None and float(metric) >= self.threshold
        if self.switched_at is None and (reached or self._is_over(self.last_epoch + 1)):
            self.switched_at = self.last_epoch + 2
        super().step()

    def _is_over(self, epoch: int) -> bool:
        return self.switch_epoch is not None and epoch >= self.switch_epoch

    def _before_optimizer_step(self) -> None:
        if self.switched_at is None:
            super()._before_optimizer_step()
        else:  # nothing to measure, and no clamp to count
            MomentumScheduler._before_optimizer_step(self)


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
        self.low, self.high = _momentum("low", low), _momentum("high", high)
        if self.low > self.high:
            raise InvalidArgumentError(f"need low <= high, got {low} and {high}; swap them")
        self.lr_min = lr_min
        self.lr_max = None if lr_max is None else _positive("lr_max", lr_max, optimizer)
        super().__init__(optimizer, last_epoch)

    def get_momentum(self) -> list[float]:
        groups = self.optimizer.param_groups
        given = [self._top(i) for i in range(len(groups))] if self.lr_max is None else self.lr_max
        tops = _spread("lr_max", given, len(groups))
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


def _momentum(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise InvalidArgumentError(f"{name} must lie in [0, 1), got {value}")
    return float(value)


def _positive(name: str, value: float | Sequence[float], optimizer: Optimizer) -> PerGroup:
    """The value as a float or a list of floats, checked."""
    checked = float(value) if isinstance(value, int | float) else [float(v) for v in value]
    each = _spread(name, checked, len(optimizer.param_groups))
    if not all(0 < v < math.inf for v in each):
        raise InvalidArgumentError(f"{name} must be positive and finite, got {value}")
    return checked


def _spread(name: str, value: PerGroup, groups: int) -> list[float]:
    """One value per param group; a single one stands for all."""
    values = [value] * groups if isinstance(value, float) else value
    if len(values) != groups:
        raise InvalidArgumentError(
            f"{name} must be one number or one for each of the {groups} param groups, got {len(values)}"
        )
    return values
