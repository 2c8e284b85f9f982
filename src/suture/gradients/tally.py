"""The sums of one pass: squared norms of every example and parameter, and gradient sums, as gradients arrive."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from suture.errors import InvalidArgumentError
from suture.gradients.capture import Call, Layout, Watch, factors_of
from suture.gradients.factors import Factor, Outer, inner

if TYPE_CHECKING:
    from suture.gradients.meter import Meter

TRAFFIC = 24  # multiply-adds that writing and reading one number costs, roughly, where it does not stay in cache


class Tally:
    """Sums of one pass, filled as gradients arrive."""

    def __init__(self, meter: Meter, watch: Watch, losses: Tensor, weights: Tensor) -> None:
        self.meter, self.watch, self.losses, self.weights = meter, watch, losses, weights
        self.n = len(losses)
        self.squares = torch.zeros(self.n, len(meter.names), device=losses.device)
        parameters = dict(meter.model.named_parameters())
        self.sums = [{name: torch.zeros_like(parameters[name]) for name in meter.names} for _ in weights]
        uses = Counter(name for call in watch.calls for name in call.layer.names.values())
        self._shared = {name for name, count in uses.items() if count > 1}
        self._waiting: list[Call] = []
        self.missed: set[str] = set()  # parameters with a call that does not have the examples apart

    def backward(self) -> None:
        """The backward pass; each layer is done when its gradients are there, and forgotten."""
        self.watch.on_complete, self.watch.backward = self._complete, True
        if self.watch.calls and self.losses.requires_grad:
            parameters = dict(self.meter.model.named_parameters())
            # Behind a parameter that is differentiated itself, outputs lead to it, and need not lead to `zero`.
            ends = [self.watch.zero, *(parameters[name] for name in self.meter.looped)]
            keep = bool(self.meter.looped)
            try:
                torch.autograd.grad(self.losses.sum(), ends, retain_graph=keep, allow_unused=True)
            except RuntimeError as error:
                if "use_reentrant" in str(error):
                    raise InvalidArgumentError(
                        "the model checkpoints with use_reentrant=True, which hides its layers; set use_reentrant=False"
                    ) from error
                raise
        done = set(map(id, self._waiting))
        partial = [c for c in self.watch.calls if c.dy and id(c) not in done and len(c.dy) < c.outputs]
        for call in partial:
            self._complete(call)
        for name in sorted(self._shared):
            self._take([call for call in self._waiting if name in call.layer.names.values()], {name})
        self.watch.on_complete = None  # the passes of `loop` are of one example each

    def loop(self) -> None:
        """One backward pass per example for the parameters that need it."""
        names = self.meter.looped
        if not names:
            return
        parameters = dict(self.meter.model.named_parameters())
        for i, loss in enumerate(self.losses):
            grads = torch.autograd.grad(loss, [parameters[n] for n in names], retain_graph=True, allow_unused=True)
            for name, grad in zip(names, grads, strict=True):
                place = self.meter.place[name]
                self.squares[i, place] = 0.0 if grad is None else grad.abs().float().square().sum()
                for total, weight in zip(self.sums, self.weights[:, i], strict=True):
                    if grad is not None and weight:
                        total[name] += weight * grad

    def _complete(self, call: Call) -> None:
        mine = set(call.layer.names.values())
        if mine & self._shared:
            self._waiting.append(call)
        self._take([call], mine - self._shared)
        if not mine & self._shared:
            call.args, call.kwargs, call.outputs, call.dy = (), {}, 0, {}

    def _take(self, calls: list[Call], names: set[str]) -> None:
        """Add what some calls say about some parameters, a chunk of examples at a time."""
        names = names - set(self.meter.looped)
        layouts = [self.meter.layout(call, self.n) for call in calls]
        if not names or not calls:
            return
        known = [layout for layout in layouts if layout is not None]
        if len(known) < len(layouts):
            self.missed |= names
            return
        step = self._step(calls, known)
        for start in range(0, self.n, step):
            chunk = slice(start, min(start + step, self.n))
            found: dict[str, list[Factor]] = {}
            for call, layout in zip(calls, known, strict=True):
                for name, factor in factors_of(call, self.n, chunk, layout).items():
                    if name in names:
                        found.setdefault(name, []).append(factor)
            for name, factors in found.items():
                self._add(name, factors, chunk)

    def _add(self, name: str, factors: list[Factor], chunk: slice) -> None:
        weights = self.weights[:, chunk]
        only = factors[0]
        if len(factors) == 1 and isinstance(only, Outer) and _form(only, summed=len(weights) > 0):
            dense = only.dense().flatten(1)
            squares = torch.linalg.vector_norm(dense, dim=1).square()  # one pass, which einsum would not do
            sums = list((weights.to(dense) @ dense).reshape(len(weights), *only.shape))
        else:
            squares = torch.stack([inner(a, b) for a in factors for b in factors]).sum(0)
            sums = [torch.stack([f.total(w.to(squares)) for f in factors]).sum(0) for w in weights]
        self._record(name, chunk, squares, sums)

    def _record(self, name: str, chunk: slice, squares: Tensor, sums: list[Tensor]) -> None:
        self.squares[chunk, self.meter.place[name]] = squares.detach().float()
        for total, value in zip(self.sums, sums, strict=True):
            total[name] += value.detach().view_as(total[name])

    def _step(self, calls: list[Call], layouts: list[Layout]) -> int:
        """Examples per chunk, so that factors stay within the bound; measured on one example, once per shape."""
        key = (calls[0].layer.name, tuple(grad.shape for grad in calls[0].dy.values()))
        if key not in self.meter.chunks:
            factors: list[Factor] = []
            for call, layout in zip(calls, layouts, strict=True):
                factors += factors_of(call, self.n, slice(0, 1), layout).values()
            size = sum(_numbers(factor, summed=len(self.weights) > 0) for factor in factors)
            self.meter.chunks[key] = max(1, self.meter.max_memory // (4 * max(size, 1)))
        return self.meter.chunks[key]


def _form(factor: Outer, *, summed: bool) -> bool:
    """Whether to form gradients: the sums need as many multiplications, and the Gram form comes on top."""
    if summed:
        return TRAFFIC * factor.size < 2 * factor.gram_cost
    return factor.dense_cost + TRAFFIC * factor.size < 2 * factor.gram_cost


def _numbers(factor: Factor, *, summed: bool) -> int:
    if isinstance(factor, Outer):
        if _form(factor, summed=summed):
            return factor.delta.numel() + factor.size
        _, groups, _, positions = factor.delta.shape
        return factor.delta.numel() + groups * positions * (factor.inputs + 2 * positions)
    return factor.dense().numel() if not hasattr(factor, "index") else factor.values.numel()
