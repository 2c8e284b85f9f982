"""Inputs and targets as the examples that tasks are evaluated and trained on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from suture.errors import DataError
from suture.tasks import Batch


class Pairs:
    """Inputs and targets whose first axes count the same n examples, taken apart example by example or in batches.

    Args:
        inputs: a tensor (n, …), or a dict, tuple or list of such; for a task with `collate` also a list of n.
        targets: a tensor (n, …), or a list of n.

    Raises:
        DataError: there are no examples, or not as many inputs as targets.
    """

    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs, self.targets = inputs, targets
        if not len(targets):
            raise DataError("there are no examples")
        if isinstance(inputs, Tensor) and len(inputs) != len(targets):
            raise DataError(f"there are {len(inputs)} inputs and {len(targets)} targets; each input needs its own")

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int, /) -> Any:
        if isinstance(self.inputs, dict | tuple):
            return _take(self.inputs, position), self.targets[position]
        return self.inputs[position], self.targets[position]

    def read_batch(self, positions: Sequence[int]) -> Batch:
        """The examples at some positions, as one batch."""
        chosen = torch.as_tensor(positions)
        return _take(self.inputs, chosen), _take(self.targets, chosen)


def _take(thing: Any, chosen: Any) -> Any:
    if isinstance(thing, dict):
        return {key: _take(value, chosen) for key, value in thing.items()}
    if isinstance(thing, tuple | list):
        taken = (_take(value, chosen) for value in thing)
        return list(taken) if isinstance(thing, list) else tuple(taken)
    return thing[chosen.to(thing.device) if isinstance(chosen, Tensor) else chosen]
