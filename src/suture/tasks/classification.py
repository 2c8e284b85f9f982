"""One label per example: images, tables, sequences, anything a network maps to class scores."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.errors import DataError
from suture.tasks.base import TASKS, Batch


@TASKS.register("classification")
class Classification:
    """Cross-entropy on logits of shape (n, classes); right when the largest logit is the label's.

    Inputs are passed to the model as they are: a tensor, or a tuple or dict of tensors, which is spread
    over the model's arguments. Outputs may be a tensor or an object with ``.logits``.
    """

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits, shape (n, classes).

        Raises:
            DataError: the model gives something else, or a label is not one of its classes.
        """
        inputs, targets = batch
        if isinstance(inputs, dict):
            logits = model(**inputs)
        elif isinstance(inputs, list | tuple):
            logits = model(*inputs)
        else:
            logits = model(inputs)
        logits = getattr(logits, "logits", logits)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise DataError(
                f"{type(model).__name__} gave {found} where the task 'classification' needs logits of shape "
                "(examples, classes); choose another --task"
            )
        self._check_labels(targets, classes=logits.shape[1])
        return logits

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy in nats, shape (n,)."""
        return F.cross_entropy(outputs, batch[1], reduction="none")

    def verdicts(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Whether the largest logit is the label's, shape (n,); never for logits that are not finite."""
        right: Tensor = (outputs.argmax(1) == batch[1]) & outputs.isfinite().all(1)
        return right

    def predictions(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Index of the largest logit, shape (n,)."""
        return outputs.argmax(1)

    def probabilities(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Softmax of the logits, shape (n, classes)."""
        return outputs.softmax(1)

    @staticmethod
    def _check_labels(targets: Any, classes: int) -> None:
        if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.is_floating_point():
            found = f"{targets.dtype} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else targets
            raise DataError(f"labels must be integers of shape (examples,), not {found}")
        outside = targets[(targets < 0) | (targets >= classes)]
        if outside.numel():
            raise DataError(
                f"label {int(outside[0])} is outside the model's {classes} classes (0 to {classes - 1}); "
                "is this the right data, or the right model?"
            )
        if targets.dtype != torch.int64:
            raise DataError(f"labels must be int64, not {targets.dtype}; convert them with .long()")
