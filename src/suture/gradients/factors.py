"""Factors: what a layer's per-example gradients are made of, before anything is multiplied out.

A per-example (per-sample) gradient of a linear map is a sum of outer products, Σ_t δ_t a_tᵀ. Its norm can be
had from the factors without forming it (the Gram form), and the choice is made in the engine. A parameter
used several times has the sum of several such gradients, whose squared norm is the sum of the inner products
of all pairs: so an inner product for each pair of kinds is all there is.

Shapes: n examples, g independent blocks (groups of a convolution; 1 otherwise), t positions, o outputs,
i inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outer:
    """Σ_t delta[:, :, :, t] a[:, :, :, t]ᵀ, of shape (n, g, o, i), viewed as the parameter's shape.

    Attributes:
        delta: (n, g, o, t).
        source: gives a, (n, g, i, t); called only where it is needed, as patches of a convolution are large.
        inputs: i.
        shape: of the parameter.
        transposed: the parameter stores (i, o), as transformers' Conv1D does.
        form: a quicker way to the gradients (n, *shape), where there is one.
        weigh: a quicker way from weights (n,) to their weighted sum, where there is one.
    """

    delta: Tensor
    source: Callable[[], Tensor]
    inputs: int
    shape: tuple[int, ...]
    transposed: bool = False
    form: Callable[[], Tensor] | None = None
    weigh: Callable[[Tensor], Tensor] | None = None

    @property
    def a(self) -> Tensor:
        """(n, g, i, t)."""
        return self.source()

    def dense(self) -> Tensor:
        """The gradients themselves, (n, *shape)."""
        if self.form is not None:
            return self.form()
        left, right = (self.a, self.delta) if self.transposed else (self.delta, self.a)
        return (left @ right.mT).reshape(len(self.delta), *self.shape)

    def total(self, weights: Tensor) -> Tensor:
        """Σ_n weights[n] · gradient n, of the parameter's shape, without forming the gradients."""
        if self.weigh is not None:
            return self.weigh(weights)
        rows = weights.nonzero().squeeze(1)
        delta, a = _picked(self.delta, rows) * weights[rows, None, None, None], _picked(self.a, rows)
        left, right = (a, delta) if self.transposed else (delta, a)
        flat = [part.permute(1, 2, 0, 3).flatten(2) for part in (left, right)]  # (g, o or i, n t)
        return (flat[0] @ flat[1].mT).reshape(self.shape)

    @property
    def gram_cost(self) -> int:
        """Multiply-adds per example of the squared norm in Gram form."""
        _, g, o, t = self.delta.shape
        return int(g * t * t * (o + self.inputs))

    @property
    def dense_cost(self) -> int:
        """Multiply-adds per example of forming the gradient."""
        _, g, o, t = self.delta.shape
        return int(g * t * o * self.inputs)

    @property
    def size(self) -> int:
        """Numbers in one gradient."""
        _, g, o, _ = self.delta.shape
        return int(g * o * self.inputs)


def _picked(tensor: Tensor, rows: Tensor) -> Tensor:
    """Some rows, laid out as they were: to turn them around on the way costs more than the product they are for."""
    return tensor.mT[rows].mT if tensor.mT.is_contiguous() else tensor[rows]


@dataclass(frozen=True)
class Rows:
    """Row index[n, t] of the gradient gets values[n, t]: an embedding.

    Attributes:
        values: (n, t, d).
        index: (n, t), which row.
        shape: (rows, d), of the parameter.
    """

    values: Tensor
    index: Tensor
    shape: tuple[int, ...]

    def dense(self) -> Tensor:
        """The gradients themselves, (n, rows, d)."""
        out = self.values.new_zeros(len(self.values), *self.shape)
        return out.scatter_add_(1, self.index[:, :, None].expand_as(self.values), self.values)

    def total(self, weights: Tensor) -> Tensor:
        """Σ_n weights[n] · gradient n, (rows, d)."""
        values = (self.values * weights[:, None, None]).flatten(0, 1)
        return values.new_zeros(self.shape).index_add_(0, self.index.flatten(), values)


@dataclass(frozen=True)
class Dense:
    """Gradients that are formed already: small, or of a module without a rule.

    Attributes:
        values: (n, *shape).
    """

    values: Tensor

    def dense(self) -> Tensor:
        """The gradients themselves, (n, *shape)."""
        return self.values

    def total(self, weights: Tensor) -> Tensor:
        """Σ_n weights[n] · gradient n, of the parameter's shape."""
        summed: Tensor = torch.tensordot(weights, self.values, dims=1)
        return summed


Factor = Outer | Rows | Dense


def inner(a: Factor, b: Factor) -> Tensor:
    """Inner product of the gradients of two factors of one parameter, example by example: (n,)."""
    if isinstance(a, Outer) and isinstance(b, Outer) and a.transposed == b.transposed:
        first = a.a
        second = first if a is b else b.a
        return ((a.delta.mT @ b.delta) * (first.mT @ second)).sum((1, 2, 3))
    if isinstance(a, Rows) and isinstance(b, Rows):
        same = a.index[:, :, None] == b.index[:, None, :]
        return ((a.values @ b.values.mT) * same).sum((1, 2))
    if isinstance(a, Rows) and isinstance(b, Outer) and not b.transposed:
        # Tied input and output embeddings: row index[t] of Σ_s δ_s a_sᵀ is Σ_s δ_s[index[t]] a_s.
        picked = torch.gather(b.delta[:, 0], 1, a.index[:, :, None].expand(-1, -1, b.delta.shape[3]))
        return (picked * (a.values @ b.a[:, 0])).sum((1, 2))
    if isinstance(a, Outer) and isinstance(b, Rows):
        return inner(b, a)
    if a is b:
        norms: Tensor = torch.linalg.vector_norm(_flat(a), dim=1)
        return norms.square()
    return (_flat(a) * _flat(b)).sum(1)


def _flat(factor: Factor) -> Tensor:
    """(n, entries), of a parameter with or without axes."""
    dense = factor.dense()
    return dense.reshape(len(dense), -1)
