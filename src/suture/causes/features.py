"""Features: what the network makes of an example just before it decides."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from suture.case import Case
from suture.localizers.network import hooked
from suture.splits import Split
from suture.tasks import batches, forward
from suture.treatments.where import last_linear


def penultimate(case: Case, examples: Split) -> NDArray[np.float64] | None:
    """(n, d) features of examples in their order: the task's own, else the inputs of the last linear layer.

    None where there are no such features: no linear layer, one that is called several times or not at all, or inputs
    that are no vector (or sequence of vectors, of which the mean is taken) per example.

    Raises:
        DataError: the network cannot take the examples.
    """
    own = getattr(case.task, "features", None)
    found: list[Tensor] = []
    path = None if own is not None else last_linear(case.model)
    if own is None and path is None:
        return None
    calls: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
        calls.extend(each.detach().clone() for each in args[:1])

    with torch.no_grad(), hooked(case.model, {path: note} if path is not None else {}):
        for batch in batches(examples, case.task, case.device, case.batch_size):
            calls.clear()
            if own is not None:
                calls.append(own(case.model, batch))
            else:
                forward(case.model, batch, case.task, f"the examples of '{examples.name}'")
            if len(calls) != 1 or calls[0].dim() < 2:
                return None
            found.append(calls[0].float().flatten(1, -2).mean(1) if calls[0].dim() > 2 else calls[0].float())
    n = sum(map(len, found))
    return torch.cat(found).cpu().double().numpy() if n == len(examples) and n else None
