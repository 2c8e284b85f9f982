"""Products of the Hessian and of the GGN with vectors, by differentiating twice."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from suture.errors import InvalidArgumentError

Vectors = list[Tensor]
"""A vector over the parameters, as one tensor per parameter and of its shape."""

Product = Callable[[Vectors], Vectors]
"""v ↦ Av, for a symmetric matrix A over the parameters."""


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Gradients on, and attention and weight norm by functions whose backward pass has the right derivative itself."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _UnfusedWeightNorm():
        yield


class _UnfusedWeightNorm(TorchFunctionMode):
    """Weight norm by its formula: the second derivative of torch's fused kernel for it is wrong (seen in 2.14)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch._weight_norm:
            return func(*args, **(kwargs or {}))
        v, g, dim = args if len(args) == 3 else (*args, (kwargs or {}).get("dim", 0))
        return v * (g / torch.norm_except_dim(v, 2, dim))


def hessian_product(loss: Tensor, parameters: Sequence[Tensor]) -> Product:
    """Products with the block of a loss's Hessian that belongs to some parameters.

    The graph of the gradient is made once and kept as long as the product is.

    Args:
        loss: a scalar with a graph.
        parameters: tensors that require gradients; the loss need not depend on them.
    """
    return slope_product(torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True), parameters)


def slope_product(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Product:
    """Products with the derivative of a gradient that was made with ``create_graph``; None counts as zero.

    Raises:
        InvalidArgumentError: a function on the way can be differentiated only once.
    """
    # A gradient without a graph is constant: the loss is linear in that parameter, or independent of it.
    curved = {i: g for i, g in enumerate(gradients) if g is not None and g.requires_grad}
    _refuse_once_differentiable(curved.values())

    def product(vectors: Vectors) -> Vectors:
        return _pull(list(curved.values()), parameters, [vectors[i] for i in curved])

    return product


def ggn_product(outputs: Any, loss: Callable[[Any], Tensor], parameters: Sequence[Tensor]) -> Product:
    """Products with a block of the GGN: v ↦ Jᵀ(H_z(Jv)).

    Jv comes from two reverse passes (the derivative of w ↦ Jᵀw, which is linear), so that whatever
    has a second derivative in torch also has a GGN.

    Args:
        outputs: a tensor with a graph, or tuples, lists and dicts of them.
        loss: outputs → scalar.
        parameters: tensors that require gradients.

    Raises:
        InvalidArgumentError: the outputs hold no tensor that depends on a parameter.
    """
    tensors = list(_differentiable(outputs))
    if not tensors:
        raise InvalidArgumentError(
            f"the GGN needs outputs that are tensors with gradients, or tuples, lists or dicts of them, and the task "
            f"gave a {type(outputs).__name__}; use kind='hessian'"
        )
    cut = [z.detach().requires_grad_() for z in tensors]
    inner = hessian_product(loss(_replaced(outputs, iter(cut))), cut)
    weights = [torch.zeros_like(z, requires_grad=True) for z in tensors]
    pulled = torch.autograd.grad(tensors, parameters, weights, create_graph=True, allow_unused=True)
    moved = {i: g for i, g in enumerate(pulled) if g is not None}
    _refuse_once_differentiable(moved.values())

    def product(vectors: Vectors) -> Vectors:
        pushed = _pull(list(moved.values()), weights, [vectors[i] for i in moved])
        return _pull(tensors, parameters, inner(pushed))

    return product


def _pull(of: Sequence[Tensor], to: Sequence[Tensor], weights: Sequence[Tensor]) -> Vectors:
    """Gradients of the weighted sum of ``of``, keeping the graph for the next product."""
    if not of:
        return [torch.zeros_like(tensor) for tensor in to]
    return list(torch.autograd.grad(of, to, weights, retain_graph=True, materialize_grads=True))


def _refuse_once_differentiable(gradients: Iterable[Tensor]) -> None:
    # Torch cuts the graph at such a function, and what depends on it would silently count as flat.
    nodes, seen = [g.grad_fn for g in gradients], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if node.name().rpartition("::")[2] == "Error":
            raise InvalidArgumentError(
                "a function of the network or of its loss can be differentiated only once (once_differentiable), so "
                "there is no curvature to be had; replace it by one that torch can differentiate twice"
            )
        seen.add(node)
        nodes += [before for before, _ in node.next_functions]


def _differentiable(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        if outputs.requires_grad:
            yield outputs
    elif isinstance(outputs, dict):
        yield from _differentiable(list(outputs.values()))
    elif isinstance(outputs, list | tuple):
        for item in outputs:
            yield from _differentiable(item)


def _replaced(outputs: Any, by: Iterator[Tensor]) -> Any:
    """The outputs with each tensor that `_differentiable` finds replaced by the next one."""
    if isinstance(outputs, Tensor):
        return next(by) if outputs.requires_grad else outputs
    if isinstance(outputs, dict):
        return {key: _replaced(value, by) for key, value in outputs.items()}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*(_replaced(item, by) for item in outputs))
    if isinstance(outputs, list | tuple):
        return type(outputs)(_replaced(item, by) for item in outputs)
    return outputs
