"""Evidence: what is measured on a set of examples, once, for all localizers to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from suture.gradients import group_norms, mean_gradients
from suture.tasks import Examples, Task, batches


@dataclass(frozen=True)
class Evidence:
    """Gradients of one set of examples, by group.

    Attributes:
        groups: group → parameter names, in model order.
        n: how many examples.
        mean_gradient: parameter → gradient of the mean loss, of the parameter's shape.
        norm_of_mean: per group, norm of the mean gradient.
        weight_norm: per group, norm of the parameters.
        size: per group, how many parameters.
    """

    groups: Mapping[str, Sequence[str]]
    n: int
    mean_gradient: Mapping[str, Tensor]
    norm_of_mean: pd.Series
    weight_norm: pd.Series
    size: pd.Series


def gather(
    model: nn.Module,
    examples: Examples,
    task: Task,
    groups: Mapping[str, Sequence[str]],
    *,
    device: torch.device,
    batch_size: int = 128,
    description: str | None = None,
) -> Evidence:
    """Measure the gradients of `examples` (n pairs) in eval mode."""
    gradient = mean_gradients(model, batches(examples, task, device, batch_size, description), task)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return Evidence(
        groups=groups,
        n=len(examples),
        mean_gradient=gradient,
        norm_of_mean=pd.Series(group_norms(gradient, groups)),
        weight_norm=pd.Series(group_norms(weights, groups)),
        size=pd.Series({g: sum(weights[n].numel() for n in names) for g, names in groups.items()}),
    )
