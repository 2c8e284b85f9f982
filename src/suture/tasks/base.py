"""The contract between a stage and the kind of work a network does.

A task turns a batch into outputs, per-example (per-sample) losses and per-example verdicts. Everything
else in the package is written against this contract, so images appear in no stage.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from suture.registry import Registry

Batch = tuple[Any, Any]
"""(inputs, targets); what they are is the task's business. Anything with ``.to`` is moved to the device."""


class Examples(Protocol):
    """Pairs (input, target) with a length and positions: a list, a split, a map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Any: ...


@runtime_checkable
class Task(Protocol):
    """What a stage needs to know about a kind of work; n is the number of examples in the batch.

    A task may also offer ``predictions(outputs, batch) -> (n,) integers`` (confusion pairs),
    ``probabilities(outputs, batch) -> (n, classes)``, ``features(model, batch) -> (n, d)`` and
    ``collate(examples) -> Batch``; what is missing skips its panel.
    """

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """One forward pass; it serves both methods below."""
        ...

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Differentiable, unreduced losses, shape (n,)."""
        ...

    def verdicts(self, outputs: Any, batch: Batch) -> Tensor:
        """Right or wrong, shape (n,), bool, True = right."""
        ...


TASKS: Registry[Callable[[], Task]] = Registry("task")
