"""Curvature: top eigenvalues of the Hessian and of the GGN, of a model and of each of its groups.

    from suture import curvature

    curvature.top_eigenvalue(model, batches, "classification")         # λ, unit loss per squared parameter
    curvature.by_group(model, batches, groups="top", kind="ggn")       # λ_g of each group's diagonal block
    curvature.curvature_range(model, batches)                          # both edges of the spectrum

The Hessian H is that of the mean loss over all examples. The GGN (generalized Gauss-Newton matrix) is the part
JᵀH_zJ of it that goes through the outputs z with their Jacobian J: what H would be if the outputs were linear in the
parameters. It has no negative eigenvalue where the loss is convex in the outputs, as cross-entropy is.

Neither matrix is ever formed. Eigenvalues come from ``scipy.sparse.linalg.eigsh`` (ARPACK, implicitly restarted
Lanczos) over products with vectors, which torch makes by differentiating twice (Pearlmutter 1994; for the GGN,
Schraudolph 2002). Models are measured in eval mode, batch by batch, and are left as they were found.

A ``Meter`` measures every param group of an optimizer in a training loop, for
``suture.schedules.CriticalMomentum``; ``squared_gradient`` is YellowFin's way to do so without a product.
"""

from suture.curvature.eigenvalues import Eigenvalues, eigenvalues
from suture.curvature.measures import CurvatureRange, by_group, curvature_range, top_eigenvalue, top_eigenvalues
from suture.curvature.meters import LossMeter, Meter, ModelMeter, squared_gradient
from suture.curvature.operators import Kind, operator

__all__ = [
    "CurvatureRange",
    "Eigenvalues",
    "Kind",
    "LossMeter",
    "Meter",
    "ModelMeter",
    "by_group",
    "curvature_range",
    "eigenvalues",
    "operator",
    "squared_gradient",
    "top_eigenvalue",
    "top_eigenvalues",
]
