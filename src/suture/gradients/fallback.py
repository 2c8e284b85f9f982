"""Modules without a rule: their per-example gradients from their own vector-Jacobian product."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from suture.gradients.factors import Dense, Factor


def apart(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], taken: Sequence[bool],
    shapes: Mapping[int, tuple[int, ...]],
) -> bool:  # fmt: skip
    """Whether a module, given one of its examples, gives that example's part of its output.

    One that makes its output of its parameters alone, such as a parametrization of a weight, does not, whatever
    the sizes say; nor does one whose input has the examples behind another axis.

    Args:
        args, kwargs: of its forward.
        taken: for each leaf of (args, kwargs), whether it is a tensor with the examples along its first axis.
        shapes: by place among the floating-point tensors of its output, the shape that one example has.
    """
    flat, spec = tree_flatten((args, dict(kwargs)))
    if not any(taken):
        return False
    cut, options = tree_unflatten([leaf[:1] if own else leaf for leaf, own in zip(flat, taken, strict=True)], spec)
    with torch.no_grad():
        try:
            tensors = [t for t in tree_flatten(module(*cut, **options))[0] if isinstance(t, Tensor)]
        except Exception:  # whatever a module says that cannot take one example
            return False
    given = [tuple(t.shape) for t in tensors if t.is_floating_point()]
    return all(place < len(given) and given[place] == shape for place, shape in shapes.items())


def own_gradients(
    module: nn.Module, names: list[str], args: tuple[Any, ...], kwargs: Mapping[str, Any], taken: Sequence[bool],
    dy: Mapping[int, tuple[Tensor, int]], n: int,
) -> dict[str, Factor]:  # fmt: skip
    """Gradients of some of a module's parameters for each of n examples, by running its forward again.

    Args:
        names: parameters, by their names inside the module.
        args, kwargs: of its forward.
        taken: for each leaf of (args, kwargs), whether it is a tensor with the n examples along its first axis.
        dy: by place among the floating-point tensors of its output, the gradient (n, …) and the axis that the
            examples have there.
    """
    parameters = {name: module.get_parameter(name).detach() for name in names}
    flat, spec = tree_flatten((args, dict(kwargs)))
    shared = [None if own else leaf for leaf, own in zip(flat, taken, strict=True)]

    def one(leaves: list[Tensor], grads: list[Tensor]) -> dict[str, Tensor]:
        given = iter(leaves)
        filled = [next(given)[None] if own else leaf for leaf, own in zip(shared, taken, strict=True)]
        inputs, options = tree_unflatten(filled, spec)

        def forward(values: dict[str, Tensor]) -> list[Tensor]:
            output = functional_call(module, values, inputs, options)
            tensors = [t for t in tree_flatten(output)[0] if isinstance(t, Tensor) and t.is_floating_point()]
            return [tensors[place] for place in dy]

        pull = vjp(forward, parameters)[1]
        axes = [axis for _, axis in dy.values()]
        return pull([g.unsqueeze(axis) for g, axis in zip(grads, axes, strict=True)])[0]  # type: ignore[no-any-return]

    given_grads = [grad for grad, _ in dy.values()]
    taken_apart = [leaf for leaf, own in zip(flat, taken, strict=True) if own]
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # said once, by the meter
        try:
            found = vmap(one)(taken_apart, given_grads)
        except RuntimeError:  # an operation that cannot be batched, such as a fused recurrent kernel
            rows = [one([leaf[i] for leaf in taken_apart], [grad[i] for grad in given_grads]) for i in range(n)]
            found = {name: torch.stack([row[name] for row in rows]) for name in names}
    return {name: Dense(values.detach()) for name, values in found.items()}
