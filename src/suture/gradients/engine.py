"""Mean gradients over examples, and per-example (per-sample) gradient norms by group.

One forward and one backward pass give the squared gradient norm of every example for every parameter, and
the gradient sums of any sets of examples, without a backward pass per example. Forward hooks keep each
layer's input; the gradient of its output arrives in the backward pass, and the layer's rule turns the two
into factors. Parameters themselves take no part in the backward pass.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suture.errors import DataError, InvalidArgumentError
from suture.gradients.capture import restored
from suture.gradients.meter import Meter
from suture.groups import GroupSpec, resolve
from suture.tasks import TASKS, Batch, Task


@contextmanager
def differentiable(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Eval mode and gradients for every floating-point parameter; both are put back afterwards."""
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    with restored(model), torch.enable_grad():
        model.eval()
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield parameters


def mean_gradients(model: nn.Module, batches: Iterable[Batch], task: Task) -> dict[str, Tensor]:
    """Gradient of the mean loss over all examples of all batches, in eval mode.

    Returns:
        Parameter name → gradient, of the parameter's shape, zero for a parameter the loss does not
        depend on. The model's own ``.grad`` and ``requires_grad`` are left as found.

    Raises:
        DataError: there are no examples.
    """
    count = 0
    with differentiable(model) as parameters:
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for batch in batches:
            losses = task.losses(task.outputs(model, batch), batch)
            grads = torch.autograd.grad(losses.sum(), list(parameters.values()), allow_unused=True)
            for name, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    total[name] += grad
            count += len(losses)
    if not count:
        raise DataError("there are no examples to take gradients of")
    return {name: tensor.detach() / count for name, tensor in total.items()}


def group_norms(tensors: Mapping[str, Tensor], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Euclidean norm of each group's tensors taken together; missing tensors count as zero."""
    return {
        group: sum(float(tensors[n].abs().double().square().sum()) for n in names if n in tensors) ** 0.5
        for group, names in groups.items()
    }


def per_example_norms(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    task: str | Task = "classification",
    groups: GroupSpec = "top",
) -> Tensor:
    """Norm of the gradient of each example's loss, for every group: per-example (per-sample) norms.

    One forward and one backward pass over the batch, in eval mode. To measure many batches of one model, keep
    a `suture.gradients.Meter`.

    Args:
        model: any module; its parameters' ``.grad`` and ``requires_grad`` are left as found.
        inputs, targets: a batch as the task takes it, on the model's device.
        task: a name or a task.
        groups: as for `suture.groups.resolve`.

    Returns:
        (n, n_groups), float32; columns in the order of ``suture.groups.resolve``.

    Raises:
        InvalidArgumentError: the task gives a reduced loss, the model mixes the examples of a batch, there are none,
            or not as many targets as inputs.
        GroupError: the model has no parameters, or the groups do not fit it.
        NonFiniteError: a gradient is NaN or infinite.
    """
    task, named = TASKS[task]() if isinstance(task, str) else task, resolve(model, groups)
    if isinstance(inputs, Tensor) and isinstance(targets, Tensor) and len(inputs) != len(targets):
        raise InvalidArgumentError(f"there are {len(inputs)} inputs and {len(targets)} targets")
    return Meter(model, task).measure((inputs, targets)).norms(named)
