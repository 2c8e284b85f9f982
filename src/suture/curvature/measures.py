"""Curvature of a model on data: top eigenvalues, overall and by group, and the edges of the spectrum."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd
from torch import nn

from suture.curvature.eigenvalues import Eigenvalues, eigenvalues
from suture.curvature.operators import Kind, operator
from suture.groups import GroupSpec, resolve
from suture.tasks import Batch, Task


@dataclass(frozen=True)
class CurvatureRange:
    """Both edges of a spectrum.

    Attributes:
        smallest, largest: the eigenvalues, unit loss per squared parameter.
        residuals: ‖Av − λv‖ of each, in that order: an eigenvalue lies at least that near.
        products: how many products with the matrix it took.
    """

    smallest: float
    largest: float
    residuals: tuple[float, float]
    products: int


def top_eigenvalue(
    model: nn.Module,
    batches: Iterable[Batch],
    task: str | Task = "classification",
    parameters: Iterable[str] | None = None,
    kind: Kind = "hessian",
    *,
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> float:
    """λ, the largest eigenvalue of the Hessian or GGN of the mean loss: the λ of ``suture.physics``.

    Largest by value: it may be negative where the loss is concave in every direction.

    Args:
        model, batches, task, parameters, kind: see `suture.curvature.operator`.
        tol, max_iterations, seed: see `suture.curvature.eigenvalues`.

    Returns:
        λ in units of loss per squared parameter, so that λ · lr is a pure number.

    Raises:
        ConvergenceError, InvalidArgumentError, UnknownNameError, DataError, NonFiniteError: as these two.

    >>> import torch
    >>> model = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> batches = [(torch.tensor([[2.0]]), torch.tensor([0]))]
    >>> top_eigenvalue(model, batches)  # x² times the top eigenvalue of diag(p) - ppᵀ at p = (½, ½)
    2.0
    """
    found = top_eigenvalues(
        model, batches, task, parameters, kind, count=1, tol=tol, max_iterations=max_iterations, seed=seed
    )
    return float(found.values[0])


def top_eigenvalues(
    model: nn.Module,
    batches: Iterable[Batch],
    task: str | Task = "classification",
    parameters: Iterable[str] | None = None,
    kind: Kind = "hessian",
    *,
    count: int = 5,
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> Eigenvalues:
    """The ``count`` largest eigenvalues, from the largest down, with their residuals; else as `top_eigenvalue`."""
    with operator(model, batches, task, parameters, kind) as matrix:
        return eigenvalues(matrix, count, "largest", tol=tol, max_iterations=max_iterations, seed=seed)


def curvature_range(
    model: nn.Module,
    batches: Iterable[Batch],
    task: str | Task = "classification",
    parameters: Iterable[str] | None = None,
    kind: Kind = "hessian",
    *,
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> CurvatureRange:
    """Smallest and largest eigenvalue, each to ``tol`` times the larger modulus of the two; else as `top_eigenvalue`.

    The smallest is no lower end to be critical for: the Hessian of a network mostly has negative eigenvalues, and its
    GGN has eigenvalue 0 as soon as there are more parameters than examples times outputs. The smallest *positive*
    eigenvalue lies inside the spectrum, where products with vectors cannot find it. YellowFin's range is another one:
    the largest and smallest top curvature over the last steps, which ``CriticalMomentum(window=…)`` tracks.
    """
    with operator(model, batches, task, parameters, kind) as matrix:
        high, low = (
            eigenvalues(matrix, 1, end, tol=tol, max_iterations=max_iterations, seed=seed)
            for end in ("largest", "smallest")
        )
    residuals = (float(low.residuals[0]), float(high.residuals[0]))
    return CurvatureRange(float(low.values[0]), float(high.values[0]), residuals, low.products + high.products)


def by_group(
    model: nn.Module,
    batches: Iterable[Batch],
    task: str | Task = "classification",
    groups: GroupSpec = "top",
    kind: Kind = "hessian",
    *,
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> "pd.Series[float]":
    """λ_g: the largest eigenvalue of each group's diagonal block. None of them exceeds that of the whole matrix.

    Args:
        groups: as for `suture.groups.resolve`; every group must have floating-point parameters.
        model, batches, task, kind, tol, max_iterations, seed: as for `top_eigenvalue`, whose errors it raises.

    Returns:
        Group → λ_g, float64, in the order of ``suture.groups.resolve``, named after the kind; 0 for a group that the
        loss does not depend on.

    Raises:
        GroupError: the groups do not partition the parameters.

    Source: paper, section 3.3 (critical momentum for each part's own curvature).
    """
    batches = list(batches) if isinstance(batches, Iterator) else batches
    found = {
        group: top_eigenvalue(
            model, batches, task, names, kind, tol=tol, max_iterations=max_iterations, seed=seed
        )
        for group, names in resolve(model, groups).items()
    }  # fmt: skip
    return pd.Series(found, name=kind, dtype=float)
