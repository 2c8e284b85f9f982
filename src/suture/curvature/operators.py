"""Hessian and GGN of a model as ``scipy.sparse.linalg.LinearOperator``, streaming over batches."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from suture.curvature.products import Product, Vectors, ggn_product, hessian_product, twice_differentiable
from suture.errors import DataError, InvalidArgumentError, NonFiniteError, UnknownNameError
from suture.gradients.engine import differentiable
from suture.registry import suggest
from suture.tasks import TASKS, Batch, Task

Kind = Literal["hessian", "ggn"]
KINDS = ("hessian", "ggn")


class CurvatureOperator(LinearOperator):
    """A product over tensors as a symmetric operator over float64 arrays: parameters flattened and joined.

    Args:
        product: v ↦ Av.
        parameters: the tensors that give order, shapes, dtypes and devices; at least one.

    Raises:
        NonFiniteError: when it is applied, a product is NaN or infinite.
    """

    def __init__(self, product: Product, parameters: Sequence[Tensor]) -> None:
        self._product, self._parameters = product, list(parameters)
        n = sum(p.numel() for p in parameters)
        super().__init__(np.dtype(np.float64), (n, n))  # type: ignore[call-arg]  # the stubs lack it

    def _matvec(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        found = self._product(self._split(x))
        y: NDArray[np.float64] = torch.cat([t.detach().reshape(-1).cpu().double() for t in found]).numpy()
        if not np.isfinite(y).all():
            raise NonFiniteError(
                "the product of the curvature with a vector is not finite although the loss is; look for an operation "
                "with an infinite derivative, such as a square root at 0, or use float32 or wider"
            )
        return y

    def _adjoint(self) -> "CurvatureOperator":
        return self

    def _split(self, x: NDArray[np.float64]) -> Vectors:
        pieces = torch.split(torch.from_numpy(np.array(x).reshape(-1)), [p.numel() for p in self._parameters])
        # The dtype first: not every device knows float64.
        return [
            piece.to(p.dtype).to(p.device).view_as(p) for piece, p in zip(pieces, self._parameters, strict=True)
        ]  # fmt: skip


class MeanProduct:
    """Products with the curvature of the mean loss over the examples of all batches.

    The graph of a single batch is kept between products; several batches are gone through anew in each.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Batch], task: Task, parameters: Sequence[Tensor], kind: Kind
    ) -> None:
        if kind not in KINDS:
            raise UnknownNameError(f"no curvature is called '{kind}'; {suggest(str(kind), list(KINDS))}")
        self._model, self._task, self._parameters, self._kind = model, task, parameters, kind
        self._batches = list(batches) if isinstance(batches, Iterator) else batches
        self._examples: int | None = None
        single = isinstance(self._batches, Sequence) and len(self._batches) == 1
        self._kept = list(self._pieces()) if single else None

    def __call__(self, vectors: Vectors) -> Vectors:
        total, count = [torch.zeros_like(v) for v in vectors], 0
        for product, examples in self._pieces() if self._kept is None else self._kept:
            for sum_, term in zip(total, product(vectors), strict=True):
                sum_ += term
            count += examples
        self._count(count)
        return [t / count for t in total]

    def _pieces(self) -> Iterator[tuple[Product, int]]:
        """For each batch, the product with the curvature of its summed loss, and how many examples it has."""
        for item in self._batches:
            batch = _pair(item)
            outputs = self._task.outputs(self._model, batch)
            losses = self._task.losses(outputs, batch)
            self._check(losses)
            yield self._product(outputs, losses, batch), len(losses)

    def _product(self, outputs: Any, losses: Tensor, batch: Batch) -> Product:
        if self._kind == "hessian":
            return hessian_product(losses.sum(), self._parameters)
        return ggn_product(outputs, lambda z: self._task.losses(z, batch).sum(), self._parameters)

    def _check(self, losses: Tensor) -> None:
        if losses.dim() != 1:
            raise InvalidArgumentError(f"the task's losses have shape {tuple(losses.shape)}; they must be (examples,)")
        if not losses.isfinite().all():
            raise NonFiniteError("the loss is not finite on some examples, so it has no curvature; check the weights")
        if not losses.requires_grad:
            raise InvalidArgumentError("the task's losses do not depend on any parameter; are its outputs detached?")

    def _count(self, count: int) -> None:
        if not count:
            raise DataError("there are no examples to measure the curvature on")
        if self._examples is not None and count != self._examples:
            raise DataError(
                f"the batches gave {self._examples} examples at first and {count} now; every pass must give the same, "
                "so put them in a list"
            )
        self._examples = count


@contextmanager
def operator(
    model: nn.Module,
    batches: Iterable[Batch],
    task: str | Task = "classification",
    parameters: Iterable[str] | None = None,
    kind: Kind = "hessian",
) -> Iterator[CurvatureOperator]:
    """The Hessian or GGN of the mean loss, or its block for some parameters, as a SciPy operator.

    To be used inside the ``with`` block, during which the model is in eval mode and must not be changed; afterwards
    its mode, ``requires_grad`` and ``.grad`` are as they were.

    Args:
        model: any module.
        batches: pairs (inputs, targets) on the model's device. They are gone through once per product, so every pass
            must give the same examples; an iterator is read into a list. A single batch keeps its graph, which makes
            products about twice as quick.
        task: a name or a task.
        parameters: names as in ``named_parameters``, such as a group of `suture.groups.resolve`; None for all that
            are floating-point, frozen ones too.
        kind: ``"hessian"`` or ``"ggn"``.

    Returns:
        Operator of shape (n, n), float64, n the number of entries of the parameters in the order given; products are
        computed in the parameters' own dtype.

    Raises:
        InvalidArgumentError: there is nothing to measure, or the losses are no vector that depends on parameters.
        UnknownNameError: there is no such parameter, task or kind.
        DataError: there are no examples, or not the same number in every pass.
        NonFiniteError: a loss, or a product, is NaN or infinite.
    """
    task = TASKS[task]() if isinstance(task, str) else task
    with differentiable(model) as known, twice_differentiable():
        chosen = [_find(known, name) for name in (known if parameters is None else parameters)]
        if not chosen:
            raise InvalidArgumentError("there are no floating-point parameters to measure the curvature of")
        yield CurvatureOperator(MeanProduct(model, batches, task, chosen, kind), chosen)


def _pair(batch: Any) -> Batch:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise DataError(
            f"batches must hold pairs (inputs, targets), not a {type(batch).__name__}; "
            "for a single batch give [(inputs, targets)]"
        )
    return batch[0], batch[1]


def _find(known: dict[str, nn.Parameter], name: str) -> nn.Parameter:
    if name not in known:
        raise UnknownNameError(f"no floating-point parameter is called '{name}'; {suggest(name, list(known))}")
    return known[name]
