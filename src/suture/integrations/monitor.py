"""A live monitor of an optimizer: what Scan needs, recorded while a user's own loop trains."""

import math
import weakref
from typing import Any, Self, SupportsFloat

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.optim import Optimizer

from suture.errors import DataError, InvalidArgumentError
from suture.history import History, Log, to_history
from suture.schedules.checks import unwrapped
from suture.stages.scan import Scan, scan

CURVES = ("loss", "accuracy", "curvature")


class _Series:
    """Numbers, one by one; tensors of another device stay there until they are asked for, so nothing waits."""

    BLOCK = 1024  # tensors of one number each are joined by so many

    def __init__(self) -> None:
        self._done: list[float | Tensor] = []
        self._waiting: list[Tensor] = []

    def append(self, value: Any) -> None:
        if isinstance(value, Tensor):
            value = value.detach()
        if isinstance(value, Tensor) and value.device.type != "cpu":
            self._waiting.append(value.double().reshape(()).clone())
            if len(self._waiting) == self.BLOCK:
                self._done, self._waiting = [*self._done, torch.stack(self._waiting)], []
        else:
            self._done += self._waiting
            self._waiting.clear()
            self._done.append(float(value.item() if isinstance(value, np.ndarray) else value))

    def values(self) -> list[float]:
        """All numbers as floats; this is where a device is waited for."""
        numbers: list[float] = []
        for part in [*self._done, *self._waiting]:
            numbers += part.reshape(-1).tolist() if isinstance(part, Tensor) else [part]
        self._done, self._waiting = list(numbers), []
        return numbers


class DampingMonitor:
    """Records the learning rate and momentum of every optimizer step, and what it is told besides.

    ::

        with DampingMonitor(optimizer) as monitor:
            for epoch in range(epochs):
                for batch in loader:
                    ...                                  # optimizer.step() as always
                monitor.log(loss=mean_loss, accuracy=test_accuracy)
        monitor.scan().plot()

    It hooks into ``optimizer.step``, reads two numbers and keeps them where they changed: a microsecond per step,
    nothing is copied from a GPU and nothing waited for. Neither keeps the other alive. A monitor that is pickled
    or copied keeps its record and is attached to nothing; ``attach`` goes on with it.

    Args:
        optimizer: any torch optimizer, or one that Accelerate wrapped; None to attach later.
        steps_per_epoch: optimizer steps per epoch. Without it an epoch ends at each call of ``log``.
        group: param group whose lr and momentum are recorded (betas[0] for the Adam family).

    Attributes:
        steps: optimizer steps seen.
        groups: param groups of the optimizer.

    Raises:
        InvalidArgumentError: it is no optimizer, or a number makes no sense.
    """

    _fields = ("steps", "steps_per_epoch", "group", "groups", "optimizer", "preconditioned", "nesterov")

    def __init__(self, optimizer: Any = None, *, steps_per_epoch: int | None = None, group: int = 0) -> None:
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise InvalidArgumentError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        self.steps_per_epoch, self.group = steps_per_epoch, group
        self.steps = 0
        self.groups = 1
        self.optimizer: str | None = None
        self.preconditioned = self.nesterov = False
        self._begins: list[int] = []  # steps, counted from 0, at which lr or momentum changed
        self._lr, self._momentum = _Series(), _Series()
        self._last: tuple[Any, Any] | None = None
        self._logged_at: list[int] = []  # steps done when something was logged
        self._curves = {name: _Series() for name in CURVES}
        self._finalizer: Any = None
        if optimizer is not None:
            self.attach(optimizer)

    def attach(self, optimizer: Any) -> Self:
        """Record the steps of an optimizer from now on; an earlier one is let go.

        Raises:
            InvalidArgumentError: it is no optimizer, or has no such param group.
        """
        optimizer = unwrapped(optimizer, "DampingMonitor attaches to")
        if not 0 <= self.group < len(optimizer.param_groups):
            raise InvalidArgumentError(
                f"there is no param group {self.group}; the optimizer has {len(optimizer.param_groups)}, counted from 0"
            )
        self.detach()
        self.groups = len(optimizer.param_groups)
        settings = optimizer.param_groups[self.group]
        self.optimizer = type(optimizer).__name__
        self.preconditioned = "betas" in settings
        self.nesterov = bool(settings.get("nesterov", False))
        self._last = None
        me = weakref.ref(self)

        def after_step(stepped: Optimizer, args: Any, kwargs: Any) -> None:
            monitor = me()
            if monitor is not None:
                monitor._record(stepped.param_groups[monitor.group])

        # After the step: momentum schedules set theirs right before it, and what was used is still there.
        self._finalizer = weakref.finalize(self, optimizer.register_step_post_hook(after_step).remove)
        return self

    def detach(self) -> None:
        """Take the hook off; what was recorded stays."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def log(self, *, loss: Any = None, accuracy: Any = None, curvature: Any = None) -> None:
        """Record what was measured since the last call.

        Without ``steps_per_epoch`` this ends an epoch: call it once for each, after its last step. With it, call it
        whenever there is something; losses and curvatures of an epoch are averaged and its last accuracy counts. A
        loss or accuracy from before the first step belongs to no epoch and is left out.

        Args:
            loss, accuracy: numbers or tensors of one; accuracy as a share or in per cent.
            curvature: λ as it was measured in the epoch, see `suture.curvature`.

        Raises:
            InvalidArgumentError: a value is no number.
        """
        for name, value in (("loss", loss), ("accuracy", accuracy), ("curvature", curvature)):
            if value is not None and not _is_one(value):
                raise InvalidArgumentError(f"{name} must be one number, got {type(value).__name__}")
        self._logged_at.append(self.steps)
        for name, value in (("loss", loss), ("accuracy", accuracy), ("curvature", curvature)):
            self._curves[name].append(math.nan if value is None else value)

    def history(self) -> History:
        """The record, epoch by epoch.

        Raises:
            DataError: no step was recorded.
        """
        if not self.steps:
            raise DataError("the DampingMonitor has seen no optimizer step; attach it before the training")
        rows = self._rows()
        log = Log(
            rows, "DampingMonitor", {str(role): str(role) for role in rows}, optimizer=self.optimizer,
            preconditioned=self.preconditioned or None, held_out=True,
        )  # fmt: skip
        if self.nesterov:
            log.notes.append("Nesterov's momentum was on; its own critical momentum is form='nesterov'")
        if self.groups > 1:
            log.notes.append(f"of {self.groups} param groups, the lr and momentum of group {self.group} are scanned")
        if self._early():
            log.notes.append("a loss or accuracy from before the first step belongs to no epoch and was left out")
        return to_history(log)

    def scan(self, **settings: Any) -> Scan:
        """`suture.scan` of the history, with its settings.

        Raises:
            DataError: no step was recorded.
        """
        return scan(self.history(), **settings)

    def state_dict(self) -> dict[str, Any]:
        """The record as plain numbers and lists, for a checkpoint."""
        return {name: getattr(self, name) for name in self._fields} | {
            "begins": list(self._begins),
            "lr": self._lr.values(),
            "momentum": self._momentum.values(),
            "logged_at": list(self._logged_at),
            "curves": {name: series.values() for name, series in self._curves.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a record that ``state_dict`` gave; what was recorded since is forgotten.

        Raises:
            InvalidArgumentError: it is no such state.
        """
        state = {"groups": 1, **state} if state else state  # one of an earlier version lacks it
        expected = {*self._fields, "begins", "lr", "momentum", "logged_at", "curves"}
        if set(state) != expected or set(state["curves"]) != set(CURVES):
            raise InvalidArgumentError(
                f"a state of DampingMonitor has the fields {', '.join(sorted(expected))}, got "
                f"{', '.join(sorted(map(str, state))) or 'none'}"
            )
        attached = self._finalizer is not None
        for name in self._fields:
            if not (attached and name in ("optimizer", "preconditioned", "nesterov", "group", "groups")):
                setattr(self, name, state[name])
        self._begins, self._logged_at = list(state["begins"]), list(state["logged_at"])
        self._lr, self._momentum = _filled(state["lr"]), _filled(state["momentum"])
        self._curves = {name: _filled(state["curves"][name]) for name in CURVES}
        self._last = None

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        DampingMonitor.__init__(self)
        self.load_state_dict(state)

    def _record(self, settings: dict[str, Any]) -> None:
        lr = settings["lr"]
        momentum = settings["betas"][0] if "betas" in settings else settings.get("momentum", 0.0)
        # A tensor is compared by nothing but its value, which may be on a GPU: it is kept at every step.
        plain = not isinstance(lr, Tensor) and not isinstance(momentum, Tensor)
        if not plain or (lr, momentum) != self._last:
            self._begins.append(self.steps)
            self._lr.append(lr)
            self._momentum.append(momentum)
            self._last = (lr, momentum) if plain else None
        self.steps += 1

    def _early(self) -> list[int]:
        """Calls of ``log`` before the first step that gave a loss or an accuracy."""
        curves = [self._curves[name].values() for name in ("loss", "accuracy")]
        early = [i for i, step in enumerate(self._logged_at) if step == 0]
        return [i for i in early if any(math.isfinite(values[i]) for values in curves)]

    def _rows(self) -> pd.DataFrame:
        """A row where lr, momentum or the epoch changed, and one where something was logged."""
        ends = sorted({step for step in self._logged_at if step}) if self.steps_per_epoch is None else []
        every = self.steps_per_epoch
        starts = ends if every is None else range(0, self.steps, every)
        changes = pd.DataFrame(
            {"lr": self._lr.values(), "momentum": self._momentum.values()}, index=self._begins, dtype=float
        )
        wanted = sorted(step for step in {0, *self._begins, *starts} if step < self.steps)
        rows = changes.reindex(changes.index.union(wanted)).ffill().loc[wanted]
        rows["at"] = [step + 0.5 for step in wanted]
        logged = pd.DataFrame({name: series.values() for name, series in self._curves.items()}, dtype=float)
        logged = logged.where(logged.abs() < math.inf)
        logged.loc[self._early(), ["loss", "accuracy"]] = math.nan  # λ of the start is λ of the first epoch
        logged["at"] = [float(step) for step in self._logged_at]
        # What is logged after step n belongs to the epoch of that step; a row of step n stands at n + ½.
        table = pd.concat([rows, logged], ignore_index=True).sort_values("at", kind="stable")
        bounds = ends if every is None else list(range(every, self.steps + every, every))
        table.insert(0, "epoch", 1.0 + pd.Series(bounds, dtype=float).searchsorted(table["at"].to_numpy(float)))
        return table.drop(columns="at").dropna(axis="columns", how="all").reset_index(drop=True)


def _is_one(value: Any) -> bool:
    """Whether it is one number: a plain one, or a tensor or array that holds one."""
    if isinstance(value, Tensor):
        return value.numel() == 1
    return value.size == 1 if isinstance(value, np.ndarray) else isinstance(value, SupportsFloat)


def _filled(values: list[float]) -> _Series:
    series = _Series()
    for value in values:
        series.append(value)
    return series
