"""The base of the momentum schedules: momentum is set again from lr whenever the optimizer steps."""

import weakref
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from suture.errors import InvalidArgumentError
from suture.schedules.checks import unwrapped


class MomentumScheduler(LRScheduler):
    """Base of the momentum schedules: a subclass gives ``get_momentum``, one value per param group.

    Args:
        optimizer: any with ``momentum`` (SGD, RMSprop, suture's own) or ``betas`` (the Adam family), or one that
            Accelerate wrapped.
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
        optimizer = unwrapped(optimizer, f"{type(self).__name__} schedules")
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

    def get_lr(self) -> list[float | Tensor]:
        """Refused: this is what ``SequentialLR`` calls to have a scheduler set lr."""
        raise InvalidArgumentError(
            f"{type(self).__name__} sets momentum and has no lr to give; keep it out of SequentialLR, beside the "
            "LR schedulers: it follows lr whoever sets it"
        )

    def _initial_step(self) -> None:  # SequentialLR's, of its first scheduler
        self.get_lr()

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
