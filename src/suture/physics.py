"""SGD with momentum as a damped oscillator: critical momentum, regimes, roots, settling time.

On a quadratic of curvature λ, SGD with momentum (v ← μv − αg, θ ← θ + v) is the recurrence
θ_{t+1} − (1 + μ)θ_t + μθ_{t−1} = −αλθ_t, with characteristic polynomial z² − (1 + μ − αλ)z + μ. Its
continuous limit is an oscillator with damping γ = 1 − μ and frequency ω = √(λα) (paper, section 3).

Everything here takes floats, NumPy arrays and torch tensors alike and is elementwise: arrays broadcast,
the result has the broadcast shape. Learning rates and curvatures have reciprocal units (λα is a pure
number), momenta and regimes have none. Nothing heavier than ``math`` is imported.

``form`` says which system is meant, everywhere:

=============  ==============================  =============================================
``"paper"``    the continuous oscillator       μ_c = 1 − 2√(λα), paper, equation 5
``"exact"``    the recurrence above            μ_c = (1 − √(λα))², YellowFin's rule solved for μ
                                               (Zhang and Mitliagkas 2017, arXiv:1706.03471)
``"nesterov"`` the recurrence of Nesterov's    μ_c = (1 − √(λα)) / (1 + √(λα)), as in Nesterov's
               method                          constant-step scheme III (Introductory Lectures, 2.2)
=============  ==============================  =============================================
"""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal, TypeVar

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.registry import suggest

Quantity = TypeVar("Quantity")  # float, NumPy array or torch tensor
Form = Literal["paper", "exact", "nesterov"]
Recurrence = Literal["exact", "nesterov"]

# A difference of exactly tol is critical; floats say 0.9 - 0.85 > 0.05.
_ROUNDING = 1e-12


class Regime(StrEnum):
    """How a run is damped, in the paper's sign convention (section 3.2): underdamped means μ above μ_c."""

    underdamped = "underdamped"
    critical = "critical"
    overdamped = "overdamped"


def critical_momentum(lr: Quantity, curvature: Any = 1.0, form: Form = "paper") -> Quantity:
    """The momentum at which the two roots meet: the fastest decay without oscillation.

    The value is not clamped. From λα = 1/4 on the paper's form is negative or zero, from λα = 1 on
    Nesterov's is: no momentum in [0, 1) is critical then. The exact form is never negative; between
    λα = 1 and 4 it is still the momentum of least spectral radius, but its double root 1 − √(λα) is
    negative (the iterate changes sign at every step), and from 4 on no momentum is stable.

    Args:
        lr: learning rate α > 0.
        curvature: λ > 0, the eigenvalue of the Hessian that is meant; with lr it broadcasts.
        form: which system, see the table of this module.

    Raises:
        InvalidArgumentError: lr or curvature is not positive and finite.
        UnknownNameError: there is no such form.

    Source: paper, equation 5 and the caveat after it.

    >>> critical_momentum(0.01)
    0.8
    """
    root = _frequency(lr, curvature)
    if form == "paper":
        return 1 - 2 * root  # type: ignore[no-any-return]
    if form == "exact":
        return (1 - root) ** 2  # type: ignore[no-any-return]
    if form == "nesterov":
        return (1 - root) / (1 + root)  # type: ignore[no-any-return]
    raise _unknown_form(form, ["paper", "exact", "nesterov"])


def regime(momentum: Any, lr: Any, tol: float = 0.05, curvature: Any = 1.0, form: Form = "paper") -> Any:
    """Underdamped where μ − μ_c > tol, overdamped where μ − μ_c < −tol, else critical.

    Args:
        momentum: μ in [0, 1).
        lr: learning rate α > 0.
        tol: half width of the critical band, in units of momentum, >= 0; the edges belong to it.
        curvature: λ > 0.
        form: which system, see the table of this module.

    Returns:
        A Regime for numbers; for arrays a list of Regime, nested as deep as the array has axes.

    Raises:
        InvalidArgumentError: a value is outside its range.
        UnknownNameError: there is no such form.

    Source: paper, section 4.5 (tolerance 0.05) and Tables 6 and 15.
    """
    _check_momentum(momentum)
    if not 0 <= tol < math.inf:
        raise InvalidArgumentError(f"tol must be a number from 0 up, got {tol}; the paper uses 0.05")
    excess = momentum - critical_momentum(lr, curvature, form)
    return _classify(excess.tolist() if hasattr(excess, "tolist") else excess, tol + _ROUNDING)


def _classify(excess: Any, tol: float) -> Any:
    if isinstance(excess, list):
        return [_classify(item, tol) for item in excess]
    if excess > tol:
        return Regime.underdamped
    return Regime.overdamped if excess < -tol else Regime.critical


def discriminant(momentum: Any, lr: Any, curvature: Any = 1.0, form: Form = "paper") -> Any:
    """Negative where the system oscillates, zero where it is critical, positive where it creeps.

    ``"paper"``: γ² − 4ω² = (1 − μ)² − 4λα. ``"exact"``: (1 + μ − λα)² − 4μ. ``"nesterov"``:
    (1 − λα)²(1 + μ)² − 4(1 − λα)μ. Each is zero at the critical momentum of its own form.

    Args:
        momentum: μ in [0, 1).
        lr: learning rate α > 0.
        curvature: λ > 0.
        form: which system, see the table of this module.

    Raises:
        InvalidArgumentError: a value is outside its range.
        UnknownNameError: there is no such form.

    Source: paper, section 3.2.
    """
    if form == "paper":
        _check_momentum(momentum)
        return (1 - momentum) ** 2 - 4 * _frequency(lr, curvature) ** 2
    if form not in ("exact", "nesterov"):
        raise _unknown_form(form, ["paper", "exact", "nesterov"])
    total, product = _characteristic(momentum, lr, curvature, form)
    return total**2 - 4 * product


def damping_ratio(momentum: Any, lr: Any, curvature: Any = 1.0) -> Any:
    """γ / 2ω = (1 − μ) / (2√(λα)): below 1 underdamped, 1 critical, above 1 overdamped.

    Args:
        momentum: μ in [0, 1).
        lr: learning rate α > 0.
        curvature: λ > 0.

    Raises:
        InvalidArgumentError: a value is outside its range.

    Source: paper, section 3.2, in the usual form of mechanics.
    """
    _check_momentum(momentum)
    return (1 - momentum) / (2 * _frequency(lr, curvature))


def spectral_radius(momentum: Any, lr: Any, curvature: Any = 1.0, form: Recurrence = "exact") -> Any:
    """Modulus of the larger root of the discrete recurrence: the error shrinks by it at every step.

    1 or more means that the iteration does not converge. Where the roots are complex it is √μ
    (``"exact"``), whatever the curvature.

    Args:
        momentum: μ in [0, 1).
        lr: learning rate α > 0.
        curvature: λ > 0.
        form: ``"exact"`` or ``"nesterov"``; the paper's form is not a recurrence and has no roots z.

    Raises:
        InvalidArgumentError: a value is outside its range.
        UnknownNameError: there is no such recurrence.

    Source: roots of z² − (1 + μ − λα)z + μ; Nesterov: z² − (1 − λα)(1 + μ)z + (1 − λα)μ.
    """
    if form not in ("exact", "nesterov"):
        raise _unknown_form(form, ["exact", "nesterov"])
    total, product = _characteristic(momentum, lr, curvature, form)
    real = (abs(total) + _positive_part(total**2 - 4 * product) ** 0.5) / 2
    # Complex roots have modulus √product, which is then more than |total| / 2; real ones never less.
    pair = _positive_part(product) ** 0.5
    return (real + pair + abs(real - pair)) / 2


def settling_time(
    momentum: Any, lr: Any, curvature: Any = 1.0, tolerance: float = 1e-3, form: Recurrence = "exact"
) -> Any:
    """Steps until |z|^t <= tolerance for the larger root z: a real number, to be rounded up.

    The polynomial factor of a double root is left out, so that the time is a property of the roots and
    not of where the iteration starts. For several curvatures the slowest counts: take the maximum.

    Args:
        momentum: μ in [0, 1).
        lr: learning rate α > 0.
        curvature: λ > 0.
        tolerance: in (0, 1), the share of the initial error that may be left.
        form: ``"exact"`` or ``"nesterov"``.

    Returns:
        Steps; ``inf`` where the iteration does not converge, 0 where both roots are zero.

    Raises:
        InvalidArgumentError: a value is outside its range.
        UnknownNameError: there is no such recurrence.

    Source: paper, section 3.4, prediction 1, made exact for the recurrence of equation 4.
    """
    if not 0 < tolerance < 1:
        raise InvalidArgumentError(f"tolerance must lie between 0 and 1, got {tolerance}; 1e-3 is usual")

    def steps(radius: float) -> float:
        if radius >= 1:
            return math.inf
        return math.log(tolerance) / math.log(radius) if radius > 0 else 0.0

    return _elementwise(steps, spectral_radius(momentum, lr, curvature, form))


def effective_lr(lr: Quantity, momentum: Any) -> Quantity:
    """α / (1 − μ): the learning rate of momentum SGD once its velocity has built up.

    Args:
        lr: learning rate α > 0.
        momentum: μ in [0, 1).

    Raises:
        InvalidArgumentError: a value is outside its range.

    Source: geometric series of equation 1 under a constant gradient.
    """
    _check_positive("lr", lr)
    _check_momentum(momentum)
    return lr / (1 - momentum)  # type: ignore[no-any-return]


def clamp(value: Quantity, low: float, high: float) -> Quantity:
    """The value, or the bound it passed; NaN stays NaN.

    Raises:
        InvalidArgumentError: low is above high.

    Source: paper, section 4.1 (momentum clamped to [0.5, 0.99]).
    """
    if not low <= high:
        raise InvalidArgumentError(f"clamp needs low <= high, got {low} and {high}; swap them")
    if hasattr(value, "clip"):
        return value.clip(low, high)  # type: ignore[no-any-return]
    return min(max(value, low), high)  # type: ignore[call-overload,no-any-return]


def cosine_lr(epoch: Quantity, epochs: int, lr_max: float, lr_min: float = 0.0) -> Quantity:
    """Learning rate that epoch ``epoch`` (counted from 1) trains with under cosine annealing.

    α = α_min + ½(α_max − α_min)(1 + cos(πt/T)) with t = epoch − 1 and T = epochs: what
    ``torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, lr_min)`` gives when it is stepped at
    the end of every epoch. The last epoch is thus one step above α_min, which epoch T + 1 would have.

    Args:
        epoch: from 1 to epochs + 1; may be fractional, for use within an epoch.
        epochs: T, at least 1.
        lr_max: learning rate of epoch 1.
        lr_min: learning rate at t = T.

    Raises:
        InvalidArgumentError: epoch is outside the run, or not 0 <= lr_min <= lr_max.

    Source: paper, section 4.1; the convention is the one that reproduces its Tables 6 and 16.

    >>> round(cosine_lr(100, 200, 0.1, 1e-4), 5)
    0.05083
    """
    if not epochs >= 1:
        raise InvalidArgumentError(f"epochs must be at least 1, got {epochs}")
    if not 0 <= lr_min <= lr_max < math.inf:
        raise InvalidArgumentError(f"need 0 <= lr_min <= lr_max, got lr_min {lr_min} and lr_max {lr_max}")
    inside = (epoch >= 1) & (epoch <= epochs + 1)  # type: ignore[operator]
    if not _everywhere(inside):
        found = _first(epoch, inside)
        raise InvalidArgumentError(f"epoch must lie between 1 and {epochs} + 1, got {found}; epochs count from 1")
    half = (lr_max - lr_min) / 2

    def lr(e: float) -> float:
        return lr_min + half * (1 + math.cos(math.pi * (e - 1) / epochs))

    return _elementwise(lr, epoch)  # type: ignore[no-any-return]


def _characteristic(momentum: Any, lr: Any, curvature: Any, form: Recurrence) -> tuple[Any, Any]:
    """Sum and product of the two roots of the recurrence."""
    _check_momentum(momentum)
    strength = _frequency(lr, curvature) ** 2
    if form == "exact":
        # "+ 0 * strength" gives the product the broadcast shape of the sum.
        return 1 + momentum - strength, momentum + 0 * strength
    return (1 - strength) * (1 + momentum), (1 - strength) * momentum


def _frequency(lr: Any, curvature: Any) -> Any:
    """ω = √(λα), after both were checked."""
    _check_positive("lr", lr)
    _check_positive("curvature", curvature)
    return (lr * curvature) ** 0.5


def _positive_part(x: Any) -> Any:
    return (x + abs(x)) / 2


def _elementwise(function: Callable[[float], float], x: Any) -> Any:
    """The function of a number, or of each entry, in an array or tensor like ``x``."""
    values = x.tolist() if hasattr(x, "tolist") else x
    if not isinstance(values, list):
        return function(values)

    def nested(v: Any) -> Any:
        return [nested(item) for item in v] if isinstance(v, list) else function(v)

    result = x * 1.0
    result[...] = result.new_tensor(nested(values)) if hasattr(result, "new_tensor") else nested(values)
    return result


def _everywhere(condition: Any) -> bool:
    return bool(condition.all() if hasattr(condition, "all") else condition)


def _first(value: Any, condition: Any) -> Any:
    """The first entry at which the condition fails, for a message."""
    return value[~condition].tolist()[0] if hasattr(condition, "all") else value


def _check_positive(name: str, value: Any) -> None:
    fine = (value > 0) & (value < math.inf)
    if not _everywhere(fine):
        raise InvalidArgumentError(f"{name} must be positive and finite, got {_first(value, fine)}")


def _check_momentum(momentum: Any) -> None:
    fine = (momentum >= 0) & (momentum < 1)
    if not _everywhere(fine):
        raise InvalidArgumentError(f"momentum must lie in [0, 1), got {_first(momentum, fine)}")


def _unknown_form(form: str, known: list[str]) -> UnknownNameError:
    return UnknownNameError(f"no form is called '{form}'; {suggest(str(form), known)}")
