"""Meters: one curvature for each param group of an optimizer, measured while it trains.

They are functions of the optimizer, as ``CriticalMomentum(optimizer, curvature=…)`` takes them, and have no state:
the same parameters, loss and seed give the same numbers. In a distributed training all processes must measure the
same examples, or their momenta part.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from suture.curvature.eigenvalues import eigenvalues
from suture.curvature.operators import CurvatureOperator, Kind, MeanProduct
from suture.curvature.products import Product, slope_product, twice_differentiable
from suture.errors import InvalidArgumentError, NonFiniteError
from suture.gradients.engine import differentiable
from suture.tasks import TASKS, Batch, Task

Along = Literal["top", "gradient"]
Products = Callable[[Sequence[Tensor]], Product]
"""Some parameters → the products with their diagonal block."""


@dataclass(frozen=True, kw_only=True)
class Meter(ABC):
    """Base of the meters: a subclass says which matrix is meant.

    Args:
        along: ``"top"``, the largest eigenvalue of each param group's block A, or ``"gradient"``, gᵀAg / gᵀg with g
            the group's ``.grad``: the curvature of the direction in which SGD moves, never above the top one, for
            one product in place of twenty and more.
        tol, max_iterations, seed: see `suture.curvature.eigenvalues`.

    Raises:
        InvalidArgumentError: along is neither.
    """

    along: Along = "top"
    tol: float = 1e-3
    max_iterations: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.along not in ("top", "gradient"):
            raise InvalidArgumentError(f"along must be 'top' or 'gradient', got '{self.along}'")

    @abstractmethod
    def products(self, parameters: Sequence[Tensor]) -> AbstractContextManager[Products]:
        """The products with the matrix over all parameters of the optimizer, for use inside a ``with`` block."""

    def __call__(self, optimizer: Optimizer) -> list[float]:
        """λ of each param group; 0 for one without trainable parameters.

        Raises:
            ConvergenceError: an eigenvalue was not found to ``tol``.
            NonFiniteError: the loss or a product is NaN or infinite.
        """
        groups = [[p for p in group["params"] if p.requires_grad] for group in optimizer.param_groups]
        if not any(groups):
            return [0.0] * len(groups)
        with self.products([p for group in groups for p in group]) as products:
            return [self._measure(products(group), group) if group else 0.0 for group in groups]

    def _measure(self, product: Product, parameters: Sequence[Tensor]) -> float:
        if self.along == "gradient":
            return _along_gradient(product, parameters)
        matrix = CurvatureOperator(product, parameters)
        found = eigenvalues(matrix, tol=self.tol, max_iterations=self.max_iterations, seed=self.seed)
        return float(found.values[0])


@dataclass(frozen=True)
class LossMeter(Meter):
    """Measures the Hessian of a loss as the training sees it: the batch, the mode and the penalties of the moment.

    Args:
        loss: function without arguments that returns the scalar loss with its graph, without calling ``backward``:
            ``lambda: criterion(model(inputs), targets)`` follows the loop's own ``inputs`` and ``targets``. It is
            called once per measurement, and the training's random numbers go on as if it had not been. A BatchNorm
            in train mode does update its running statistics once more.
    """

    loss: Callable[[], Tensor]

    @contextmanager
    def products(self, parameters: Sequence[Tensor]) -> Iterator[Products]:
        """See Meter; one graph serves all param groups.

        Raises:
            InvalidArgumentError: the function gives no scalar with a graph that leads to the parameters.
            NonFiniteError: the loss is NaN or infinite.
        """
        devices = {p.device for p in parameters if p.device.type == "cuda"}
        with twice_differentiable():
            with torch.random.fork_rng(devices=list(devices)):
                loss = self.loss()
            _check(loss)
            gradients = dict(zip(parameters, _gradients(loss, parameters), strict=True))
            yield lambda block: slope_product([gradients[p] for p in block], block)


@dataclass(frozen=True)
class ModelMeter(Meter):
    """Measures the Hessian or GGN of the mean loss over given examples, in eval mode, leaving the model as it is.

    Args:
        model: the one that the optimizer trains.
        batches: pairs (inputs, targets) on its device; gone through once per product, see `suture.curvature.operator`.
        task: a name or a task.
        kind: ``"hessian"`` or ``"ggn"``.
    """

    model: nn.Module
    batches: Iterable[Batch]
    task: str | Task = "classification"
    kind: Kind = "hessian"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.batches, Iterator):  # it could be gone through once only
            object.__setattr__(self, "batches", list(self.batches))

    @contextmanager
    def products(self, parameters: Sequence[Tensor]) -> Iterator[Products]:
        """See Meter; raises what `suture.curvature.operator` raises, and InvalidArgumentError when the optimizer has
        none of the model's parameters."""
        if not set(parameters) & set(self.model.parameters()):
            raise _foreign()
        task = TASKS[self.task]() if isinstance(self.task, str) else self.task
        with differentiable(self.model), twice_differentiable():
            yield lambda block: MeanProduct(self.model, self.batches, task, block, self.kind)


def squared_gradient(optimizer: Optimizer) -> list[float]:
    """‖g‖² of each param group: YellowFin's estimate of curvature along the gradient, which costs nothing.

    It stands for gᵀFg / gᵀg with F = ggᵀ, and for curvature only where the loss is a negative log-likelihood. With
    the smallest of the last 20 steps this is YellowFin's rule for momentum at a given lr, by param group and without
    its smoothing:

        CriticalMomentum(optimizer, curvature=squared_gradient, window=20, track="smallest", form="exact")

    Source: Zhang and Mitliagkas 2017, arXiv:1706.03471, its curvature range.
    """
    return [
        sum(float(p.grad.detach().double().square().sum()) for p in group["params"] if p.grad is not None)
        for group in optimizer.param_groups
    ]


def _along_gradient(product: Product, parameters: Sequence[Tensor]) -> float:
    gradient = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in parameters]
    square = sum(float(g.double().square().sum()) for g in gradient)
    if square == 0:
        return 0.0
    pairs = zip(gradient, product(gradient), strict=True)
    return sum(float((g.double() * h.detach().double()).sum()) for g, h in pairs) / square


def _check(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise InvalidArgumentError(
            f"the loss to measure must be a scalar tensor that depends on parameters, got {_described(loss)}; "
            "return criterion(model(inputs), targets) itself"
        )
    if not loss.isfinite():
        raise NonFiniteError(f"the loss to measure is {loss.item()}, so it has no curvature; has it diverged?")


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    try:
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise InvalidArgumentError(
            "the loss to measure has been through backward() already; return it without calling backward"
        ) from None
    if all(gradient is None for gradient in gradients):
        raise _foreign()
    return gradients


def _foreign() -> InvalidArgumentError:
    return InvalidArgumentError(
        "what is to be measured depends on none of the optimizer's parameters; is it another model?"
    )


def _described(loss: object) -> str:
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    return f"one of shape {tuple(loss.shape)}" + ("" if loss.requires_grad else " without a graph")
