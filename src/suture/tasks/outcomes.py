"""Run a model over examples and keep what happened to each: the pass every stage begins with."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from suture.errors import DataError, InvalidArgumentError, NonFiniteError, SutureError
from suture.progress import track
from suture.tasks.base import Batch, Examples, Task


@dataclass(frozen=True)
class Outcomes:
    """What a model did on n examples, in their order.

    Attributes:
        right: verdicts, (n,) bool.
        losses: (n,) float64.
        predictions: (n,) int64, or None for a task without predictions.
        targets: (n,) int64, or None where targets are not one integer per example.
    """

    right: NDArray[np.bool_]
    losses: NDArray[np.float64]
    predictions: NDArray[np.int64] | None
    targets: NDArray[np.int64] | None

    @property
    def accuracy(self) -> float:
        """Share of right verdicts."""
        return float(self.right.mean()) if len(self.right) else 0.0

    @property
    def errors(self) -> NDArray[np.int64]:
        """Positions of the wrong examples."""
        return np.flatnonzero(~self.right)

    @property
    def correct(self) -> NDArray[np.int64]:
        """Positions of the right examples."""
        return np.flatnonzero(self.right)


def to_device(thing: Any, device: torch.device) -> Any:
    """Move tensors inside dicts, lists and tuples, and anything else that has ``.to``."""
    if isinstance(thing, Mapping):
        return {key: to_device(value, device) for key, value in thing.items()}
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*(to_device(item, device) for item in thing))
    if isinstance(thing, list | tuple):
        return type(thing)(to_device(item, device) for item in thing)
    return thing.to(device) if hasattr(thing, "to") else thing


def collate(examples: list[Any], task: Task) -> Batch:
    """Examples (input, target) → batch, the task's way where it has one.

    Raises:
        DataError: they are no pairs, or make no batch.
    """
    own = getattr(task, "collate", None)
    if own is None:
        _refuse_sizes(examples)
    batch: Batch = own(examples) if own is not None else _stacked(examples)
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise DataError(f"an example must be a pair (input, target), not {type(examples[0]).__name__}")
    return batch[0], batch[1]


def _stacked(examples: list[Any]) -> Batch:
    try:
        batch: Batch = default_collate(examples)
    except (TypeError, RuntimeError, ValueError, KeyError) as error:  # whatever torch makes of what is no number
        pairs = [example for example in examples if isinstance(example, tuple | list) and len(example) == 2]
        kinds = dict.fromkeys(type(target).__name__ for _, target in pairs)
        said = f"; their labels are of type {' and '.join(list(kinds)[:3])}" if kinds else ""
        raise DataError(
            f"examples make no batch ({' '.join(str(error).split())[:120]}){said}; an example is a pair (input, "
            "label), for classification a tensor and an integer"
        ) from error
    return batch


def _refuse_sizes(examples: list[Any]) -> None:
    inputs = [example[0] for example in examples if isinstance(example, tuple | list) and example]
    shapes = dict.fromkeys(each.shape for each in inputs if isinstance(each, Tensor))
    if len(shapes) > 1:
        first, second = ("x".join(map(str, shape)) for shape in list(shapes)[:2])
        raise DataError(
            f"inputs differ in size (one is {first}, another {second}), so they make no batch; give --size, which "
            "resizes the pictures of folders, or let the function that --data names resize its own"
        )


def fetch(examples: Examples, positions: Sequence[int], task: Task) -> Batch:
    """The batch of some examples: from their own ``read_batch`` where they have one, else collated one by one."""
    whole = None if hasattr(task, "collate") else getattr(examples, "read_batch", None)
    if whole is not None:
        batch: Batch = whole(positions)
        return batch
    return collate([examples[i] for i in positions], task)


def batches(
    examples: Examples, task: Task, device: torch.device, batch_size: int, description: str | None = None
) -> Iterator[Batch]:
    """Batches of examples in their order, on the device; a bar when a description is given."""
    starts = range(0, len(examples), batch_size)
    for start in track(starts, description) if description else starts:
        positions = list(range(start, min(start + batch_size, len(examples))))
        yield to_device(fetch(examples, positions, task), device)


def forward(model: nn.Module, batch: Batch, task: Task, name: str) -> Any:
    """The task's outputs; what a model raises on inputs it was not made for is said in one sentence.

    Raises:
        DataError: the model cannot take the batch, or memory does not suffice.
    """
    try:
        return task.outputs(model, batch)
    except SutureError:
        raise
    except torch.OutOfMemoryError as error:
        raise DataError(f"{name} do not fit into memory; give a smaller --batch-size") from error
    except Exception as error:
        shape = f" of shape {tuple(batch[0].shape)}" if isinstance(batch[0], Tensor) else ""
        raise DataError(
            f"{type(model).__name__} cannot take {name}, inputs{shape} ({' '.join(str(error).split())[:160]}); "
            "are --size, --mean and --std those it was trained with?"
        ) from error


NEEDED = {  # method of a task → what it must give for each example
    "verdicts": "one bool per example, True = right",
    "losses": "one loss per example, unreduced (reduction='none' of torch's losses)",
}


def _checked(method: str, values: Any, n: int) -> Tensor:
    """What a method of a task gave for n examples, (n,).

    Raises:
        InvalidArgumentError: it has another shape, or verdicts are not bool.
    """
    if isinstance(values, Tensor) and values.shape == (n,) and (method != "verdicts" or values.dtype == torch.bool):
        return values
    found = type(values).__name__
    if isinstance(values, Tensor):
        found = f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"
    raise InvalidArgumentError(
        f"the task's method '{method}' gave {found} for {n} examples; it must give a tensor of shape ({n},): "
        f"{NEEDED[method]}"
    )


class _Column(list[Tensor]):
    """Pieces of one measurement, batch by batch."""

    def array(self) -> NDArray[Any]:
        array: NDArray[Any] = torch.cat(list(self)).cpu().numpy()
        return array

    def optional(self) -> NDArray[Any] | None:
        return self.array() if self else None


def evaluate(
    model: nn.Module,
    examples: Examples,
    task: Task,
    *,
    device: torch.device,
    batch_size: int = 128,
    name: str = "examples",
) -> Outcomes:
    """Verdict, loss and prediction of every example, in eval mode and without gradients.

    Args:
        model: left in the mode it is found in.
        examples: n pairs (input, target).
        name: what the examples are called in errors and on the bar.

    Raises:
        InvalidArgumentError: a method of the task does not give one value per example, or verdicts that are not bool.
        NonFiniteError: an output is NaN or infinite, so that no verdict means anything.
    """
    right, losses, predictions, targets = _Column(), _Column(), _Column(), _Column()
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for i, batch in enumerate(batches(examples, task, device, batch_size, f"evaluating {name}")):
                n = min(batch_size, len(examples) - i * batch_size)
                outputs = forward(model, batch, task, name)
                right.append(_checked("verdicts", task.verdicts(outputs, batch), n))
                losses.append(_checked("losses", task.losses(outputs, batch), n).double())
                if hasattr(task, "predictions"):
                    predictions.append(task.predictions(outputs, batch))
                if isinstance(batch[1], Tensor) and batch[1].dim() == 1 and not batch[1].is_floating_point():
                    targets.append(batch[1])
    finally:
        model.train(training)
    if not right:
        raise DataError(f"there are no {name}")
    outcomes = Outcomes(right.array(), losses.array(), predictions.optional(), targets.optional())
    finite = np.isfinite(outcomes.losses)
    if not finite.all():
        raise NonFiniteError(
            f"the model's loss is not finite on {int((~finite).sum())} of {len(finite)} of {name} (the first is "
            f"example {int(np.argmin(finite))}); check its weights and the inputs' mean and standard deviation"
        )
    return outcomes


def plain_recurrence(model: nn.Module) -> AbstractContextManager[Any]:
    """Without cuDNN where a model has recurrent layers: it gives them no gradients in eval mode."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
