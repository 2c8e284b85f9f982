"""What Localize costs, counted where it arises."""

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suture.case import Case
from suture.tasks import Batch, Task

FORWARD = 1 / 3  # of a forward and a backward pass together: the backward pass costs two forward ones


class Passes:
    """A task that counts: the task it is made of, and the forward and backward passes it was asked for.

    What is measured once is paid for by whoever asks first.

    Attributes:
        cost: what it was for → passes, in units of one forward and backward pass over n examples.
    """

    def __init__(self, task: Task, n: int) -> None:
        self._task, self._n, self._examples = task, n, 0.0
        self.cost: dict[str, float] = {}

    def counted(self, case: Case) -> Case:
        """The same case, every pass of which is counted; the one given is left as it is."""
        return case.replace(task=self)

    @contextmanager
    def charged_to(self, name: str) -> Iterator[None]:
        """Put what is counted inside on one account."""
        before = self._examples
        try:
            yield
        finally:
            self.cost[name] = self.cost.get(name, 0.0) + (self._examples - before) / self._n

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """The task's outputs, counted."""
        self._examples += _size(batch) * (1.0 if torch.is_grad_enabled() else FORWARD)
        return self._task.outputs(model, batch)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """The task's losses."""
        return self._task.losses(outputs, batch)

    def verdicts(self, outputs: Any, batch: Batch) -> Tensor:
        """The task's verdicts."""
        return self._task.verdicts(outputs, batch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy asks for these before it has a task
            raise AttributeError(name)
        return getattr(self._task, name)  # predictions, collate and whatever else a task may offer


def _size(batch: Batch) -> int:
    """Examples in a batch."""
    for part in (batch[1], batch[0]):
        if isinstance(part, Tensor):
            return len(part) if part.dim() else 1
        if isinstance(part, Sized) and not isinstance(part, dict):
            return len(part)
    return 1
