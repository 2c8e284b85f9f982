"""A route: two networks together, each answering where it is surer."""

from typing import Any

import torch
from torch import Tensor, nn


class Routed(nn.Module):
    """Logits of the treated network where it is surer than the original by more than a margin, else the original's.

    How sure a network is, is its largest probability. Two forward passes per call.

    Args:
        original, treated: networks that give logits (n, classes), or an object with ``.logits``.
        margin: in units of probability, in [-1, 1]; at -1 the treated network always answers.
    """

    def __init__(self, original: nn.Module, treated: nn.Module, margin: float) -> None:
        super().__init__()
        self.original, self.treated, self.margin = original, treated, margin

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Logits, (n, classes)."""
        old, new = (_logits(network(*args, **kwargs)) for network in (self.original, self.treated))
        surer = new.softmax(-1).amax(-1).double() - old.softmax(-1).amax(-1).double() > self.margin
        return torch.where(surer[..., None], new, old)


def _logits(outputs: Any) -> Tensor:
    logits: Tensor = getattr(outputs, "logits", outputs)
    return logits
