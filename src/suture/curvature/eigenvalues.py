"""Extreme eigenvalues of a symmetric operator by ARPACK's restarted Lanczos method, with their residuals."""

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from suture.errors import ConvergenceError, InvalidArgumentError, UnknownNameError
from suture.registry import suggest

End = Literal["largest", "smallest"]
Array = NDArray[np.float64]

# ARPACK builds 20 vectors before it looks at a single eigenvalue: as many products as give a small matrix in full.
BASIS = 20


@dataclass(frozen=True)
class Eigenvalues:
    """Some eigenvalues λ of a symmetric matrix A.

    Attributes:
        values: (count,) float64, in order from the end that was asked for.
        residuals: (count,) ‖Av − λv‖ for the unit vectors v found: an eigenvalue of A lies at least that near to
            each value. That none further out was missed is as good as certain (the start is random), not proved.
        products: how many products with A it took.
    """

    values: Array
    residuals: Array
    products: int


class _Counted:
    """An operator that remembers how often it was applied."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator, self.n, self.products = operator, int(operator.shape[0]), 0

    def __call__(self, x: Array) -> Array:
        self.products += 1
        return np.asarray(self.operator.matvec(x), dtype=np.float64).reshape(-1)


def eigenvalues(
    operator: LinearOperator,
    count: int = 1,
    end: End = "largest",
    *,
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> Eigenvalues:
    """The largest or the smallest eigenvalues (by value, not by modulus).

    Up to 20 rows, or where half of all eigenvalues are wanted, the matrix is formed and solved in full.

    Args:
        operator: symmetric, (n, n).
        count: how many, from 1 to n.
        end: ``"largest"`` or ``"smallest"``.
        tol: residual that is allowed, as a share of the largest modulus of an eigenvalue. The values are then that
            exact too, and those that stand alone much more so. In float32 nothing below about 1e-6 can be reached.
        max_iterations: restarts of Lanczos, each of which takes up to 20 products (2 · count if that is more).
        seed: of the start vector; the same seed gives the same numbers.

    Memory: 20 float64 vectors of n entries (2 · count + 1 if that is more), on the CPU.

    Raises:
        ConvergenceError: ``tol`` was not reached within ``max_iterations``.
        InvalidArgumentError: an argument makes no sense.
        UnknownNameError: there is no such end.
    """
    a = _Counted(operator)
    _check(a.n, count, end, tol, max_iterations)
    sign = 1.0 if end == "largest" else -1.0
    if a.n <= max(BASIS, 2 * count):
        values, vectors = _dense(a)
    else:
        values, vectors = _lanczos(a, count, sign, tol, max_iterations, seed)
    order = np.argsort(-sign * values)[:count]
    values, vectors = values[order], vectors[:, order]
    residuals = [float(np.linalg.norm(a(v) - w * v)) for w, v in zip(values, vectors.T, strict=True)]
    return Eigenvalues(values, np.array(residuals), a.products)


def _dense(a: _Counted) -> tuple[Array, Array]:
    matrix = np.stack([a(column) for column in np.eye(a.n)])
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values, vectors


def _lanczos(a: _Counted, count: int, sign: float, tol: float, max_iterations: int, seed: int) -> tuple[Array, Array]:
    start = np.random.default_rng(seed).standard_normal(a.n)
    if not a(start).any():  # nothing curved at all: Lanczos has no second vector
        return np.zeros(count), np.eye(a.n, count)
    how = {"v0": start, "tol": tol, "maxiter": max_iterations, **_restart_seed(seed)}
    values, vectors = _eigsh(a, 0.0, 1.0, 1, how)
    if count == 1 and sign * values[0] >= 0:
        return values, vectors
    # ARPACK's tolerance is relative to each eigenvalue, which those near zero never meet. Shifted by twice the
    # modulus m of the dominant one, all lie between m and 3m, and those that are wanted are the largest.
    shift = 2 * abs(float(values[0]))
    values, vectors = _eigsh(a, shift, sign, count, how | {"tol": tol / 3})
    return sign * (values - shift), vectors


def _eigsh(a: _Counted, shift: float, sign: float, count: int, how: dict[str, Any]) -> tuple[Array, Array]:
    """The eigenvalues of largest modulus of ``shift + sign * A``, with their vectors as columns."""
    matrix = LinearOperator((a.n, a.n), matvec=lambda x: shift * x.reshape(-1) + sign * a(x), dtype=np.float64)
    try:
        values, vectors = eigsh(matrix, count, which="LM", **how)
    except ArpackNoConvergence:
        raise ConvergenceError(
            f"Lanczos did not find the eigenvalue to the given tol within {how['maxiter']} iterations "
            f"({a.products} products); allow a larger tol or more max_iterations, or compute in float64"
        ) from None
    return values, vectors


def _restart_seed(seed: int) -> dict[str, Any]:
    """Where Lanczos ends early (a matrix of low rank) ARPACK goes on from a random vector: SciPy 1.17 lets one seed
    it; before, values of such matrices may differ in the last digit from call to call."""
    return {"rng": np.random.default_rng(seed)} if "rng" in inspect.signature(eigsh).parameters else {}


def _check(n: int, count: int, end: str, tol: float, max_iterations: int) -> None:
    if end not in ("largest", "smallest"):
        raise UnknownNameError(f"no end is called '{end}'; {suggest(str(end), ['largest', 'smallest'])}")
    if not 1 <= count <= n:
        raise InvalidArgumentError(f"count must lie between 1 and the {n} entries of the parameters, got {count}")
    if not 0 < tol < 1:
        raise InvalidArgumentError(f"tol must lie between 0 and 1, got {tol}; 1e-3 is usual")
    if max_iterations < 1:
        raise InvalidArgumentError(f"max_iterations must be at least 1, got {max_iterations}")
