"""Modules without a rule: their per-example gradients from their own vector-Jacobian product."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from suture.gradients.factors import Dense, Factor


def own_gradients(
    module: nn.Module, names: list[str], args: tuple[Any, ...], kwargs: Mapping[str, Any], dy: list[Tensor], n: int
) -> dict[str, Factor]:
    """Gradients of some of a module's parameters for each of n examples, by running its forward again.

    Args:
        names: parameters, by their names inside the module.
        args, kwargs: of its forward; tensors whose first axis has n entries are taken apart.
        dy: gradients of the tensors in its output, in order; their first axis has n entries.
    """
    parameters = {name: module.get_parameter(name).detach() for name in names}
    flat, spec = tree_flatten((args, dict(kwargs)))
    split = [isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == n for leaf in flat]
    shared = [None if taken else leaf for leaf, taken in zip(flat, split, strict=True)]

    def one(leaves: list[Tensor], grads: list[Tensor]) -> dict[str, Tensor]:
        given = iter(leaves)
        filled = [next(given)[None] if taken else leaf for leaf, taken in zip(shared, split, strict=True)]
        inputs, options = tree_unflatten(filled, spec)

        def forward(values: dict[str, Tensor]) -> list[Tensor]:
            output = functional_call(module, values, inputs, options)
            return [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)][: len(grads)]

        _, pull = vjp(forward, parameters)
        return pull([grad[None] for grad in grads])[0]  # type: ignore[no-any-return]

    taken_apart = [leaf for leaf, taken in zip(flat, split, strict=True) if taken]
    with torch.enable_grad():
        try:
            found = vmap(one)(taken_apart, dy)
        except RuntimeError:  # an operation that cannot be batched, such as a fused recurrent kernel
            rows = [one([leaf[i] for leaf in taken_apart], [grad[i] for grad in dy]) for i in range(n)]
            found = {name: torch.stack([row[name] for row in rows]) for name in names}
    return {name: Dense(values.detach()) for name, values in found.items()}
