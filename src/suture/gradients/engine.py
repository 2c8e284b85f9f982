"""Mean gradients over examples, and per-example (per-sample) gradient norms by group."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suture.errors import DataError, InvalidArgumentError
from suture.groups import GroupSpec, resolve
from suture.tasks import TASKS, Batch, Task


@contextmanager
def differentiable(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Eval mode and gradients for every floating-point parameter; both are put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    flags = {p: p.requires_grad for p in model.parameters()}
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    try:
        model.eval()
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


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
        group: sum(float(tensors[n].double().square().sum()) for n in names if n in tensors) ** 0.5
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

    One backward pass per example over one forward of the batch, in eval mode.

    Args:
        model: any module; its parameters' ``.grad`` and ``requires_grad`` are left as found.
        inputs, targets: a batch as the task takes it, on the model's device.
        task: a name or a task.
        groups: as for `suture.groups.resolve`.

    Returns:
        (n, n_groups), float32 or the parameters' dtype if that is wider; columns in the order of
        ``suture.groups.resolve``.

    Raises:
        InvalidArgumentError: the task gives a reduced loss.
    """
    task = TASKS[task]() if isinstance(task, str) else task
    names = resolve(model, groups)
    with differentiable(model) as parameters:
        batch = (inputs, targets)
        losses = task.losses(task.outputs(model, batch), batch)
        if losses.dim() != 1:
            raise InvalidArgumentError(f"the task's losses have shape {tuple(losses.shape)}; they must be (examples,)")
        rows = []
        for i, loss in enumerate(losses):
            grads = torch.autograd.grad(
                loss, list(parameters.values()), retain_graph=i < len(losses) - 1, allow_unused=True
            )
            squares = {
                name: grad.double().square().sum()
                for name, grad in zip(parameters, grads, strict=True)
                if grad is not None
            }
            rows.append(_row(squares, names, losses))
    return torch.stack(rows) if rows else losses.new_zeros((0, len(names)))


def _row(squares: Mapping[str, Tensor], groups: Mapping[str, Sequence[str]], like: Tensor) -> Tensor:
    zero = like.new_zeros((), dtype=torch.double)
    sums = [sum((squares[n] for n in names if n in squares), zero) for names in groups.values()]
    return torch.stack(sums).sqrt().to(torch.promote_types(like.dtype, torch.float32)).detach()
