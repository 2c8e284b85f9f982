"""Forward impact of single weights: how much of what a neuron hears comes through each of them (Arachne)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from suture.localizers.evidence import Evidence
from suture.localizers.network import Hook, Positions, batches_at, hooked
from suture.optimizers.base import state_dtype
from suture.tasks import plain_recurrence

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(eq=False)
class Impact:
    """Sums over what a layer was given, at all examples and positions.

    Attributes:
        weight: the layer's |w|.
        share: Σ |a_i w_ij| / Σ_i |a_i w_ij|, of the weight's shape.
        size: Σ |a_i w_ij|, of the weight's shape.
        slope: (out,), Σ |∂out/∂z_j|.
        rows: how many inputs were summed over.
    """

    weight: Tensor
    share: Tensor
    size: Tensor
    slope: Tensor
    rows: int = 0

    @property
    def arachne(self) -> Tensor:
        """mean(|a_i w_ij| / Σ_i |a_i w_ij|) · mean|∂out/∂z_j|, of the weight's shape."""
        slope = self.slope.view(-1, *(1,) * (self.weight.dim() - 1))
        return self.share * slope / self.rows**2

    @property
    def mean_size(self) -> Tensor:
        """mean |a_i w_ij|, of the weight's shape."""
        return self.size / self.rows


def impacts(evidence: Evidence, positions: Positions, model: nn.Module, *, slopes: bool = True) -> dict[str, Impact]:
    """Forward impact of the weights of Linear and convolution layers: parameter → sums over some examples.

    A layer that is never called is missing. ``out`` is the sum of all numbers that the task's outputs hold.

    Cost: a forward, a third of one more, and, with slopes, a backward over the examples.
    """
    layers = dict(_linear(model))
    found: dict[str, Impact] = {}
    for batch in batches_at(evidence, positions):
        calls: list[tuple[str, Tensor]] = []
        context = torch.enable_grad() if slopes else torch.no_grad()
        with context, plain_recurrence(model), hooked(model, _watch(layers, calls, found if slopes else None)):
            outputs = evidence.case.task.outputs(model, batch)
            if slopes:
                _backward(outputs)
        for name, inputs in calls:
            _add(found.setdefault(name, _empty(layers[name][1])), layers[name][1], inputs)
    return {name: impact for name, impact in found.items() if impact.rows}


def _linear(model: nn.Module) -> Iterator[tuple[str, tuple[str, nn.Module]]]:
    """Name of the weight → (path, layer)."""
    first = {id(p): name for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        plain = any(type(module).forward is cls.forward for cls in LINEAR)  # another forward may not be linear
        if plain and isinstance(module, LINEAR) and id(module.weight) in first:
            yield first[id(module.weight)], (path, module)


def _watch(
    layers: Mapping[str, tuple[str, nn.Module]], calls: list[tuple[str, Tensor]], slopes: dict[str, Impact] | None
) -> dict[str, Hook]:
    """Hooks that note the inputs of layers and, where slopes are wanted, add up the gradients of their outputs."""

    def note(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        calls.append((name, args[0].detach()))
        if slopes is not None and output.requires_grad:
            impact = slopes.setdefault(name, _empty(module))
            # On the tensor as it is now: an activation that works in place comes later.
            output.register_hook(partial(arrive, module, impact))  # type: ignore[no-untyped-call]

    def arrive(module: nn.Module, impact: Impact, grad: Tensor) -> None:
        axis = -1 if isinstance(module, nn.Linear) else 1
        impact.slope += grad.detach().abs().movedim(axis, 0).flatten(1).sum(1)

    return {path: partial(note, name) for name, (path, _) in layers.items()}


def _backward(outputs: Any) -> None:
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if tensors:
        torch.stack([leaf.sum() for leaf in tensors]).sum().backward()  # type: ignore[no-untyped-call]


def _wide(tensor: Tensor) -> Tensor:
    """Half precision is widened: sums over a data set do not fit into it."""
    return tensor.to(state_dtype(tensor))


def _empty(module: nn.Module) -> Impact:
    weight = _wide(module.get_parameter("weight").detach().abs())
    return Impact(weight, torch.zeros_like(weight), torch.zeros_like(weight), weight.new_zeros(len(weight)))


def _add(impact: Impact, module: nn.Module, inputs: Tensor) -> None:
    """Add one call: both sums are what the layer's own weight gradient is, for |a|, |w| and no bias."""
    weight = impact.weight.clone().requires_grad_()
    stand_in = {name: _wide(torch.zeros_like(p)) for name, p in module.named_parameters()} | {"weight": weight}
    with torch.enable_grad():
        heard = functional_call(module, stand_in, (_wide(inputs.abs()),))
        total = heard.detach()
        inverse = torch.where(total > 0, 1 / total, 0.0)
        (share,) = torch.autograd.grad(heard, weight, inverse, retain_graph=True)
        (size,) = torch.autograd.grad(heard, weight, torch.ones_like(total))
    impact.share += impact.weight * share
    impact.size += impact.weight * size
    impact.rows += total.numel() // len(impact.weight)
