"""Settings of schedules, checked: one number for all param groups or one for each."""

import math
from collections.abc import Sequence
from typing import Any, SupportsFloat, cast

from torch.optim import Optimizer

from suture.errors import InvalidArgumentError

PerGroup = float | list[float]


def unwrapped(optimizer: Any, purpose: str) -> Optimizer:
    """The innermost torch optimizer in the wrappers of Accelerate or DeepSpeed, which have it as ``optimizer``.

    Args:
        purpose: what it is for, as the message begins: ``DampingMonitor attaches to``.

    Raises:
        InvalidArgumentError: there is none.
    """
    found, inner = None, optimizer
    while inner is not None:  # Accelerate's is a torch optimizer too, whose constructor did not run
        found = inner if isinstance(inner, Optimizer) else found
        inner = getattr(inner, "optimizer", None)
    if found is None:
        raise InvalidArgumentError(f"{purpose} a torch optimizer, got a {type(optimizer).__name__}")
    return found


def check_momentum(name: str, value: float) -> float:
    """The momentum as a float, in [0, 1)."""
    if not 0 <= value < 1:
        raise InvalidArgumentError(f"{name} must lie in [0, 1), got {value}")
    return float(value)


def check_positive(name: str, value: float | Sequence[float], optimizer: Optimizer) -> PerGroup:
    """The value as a float or a list of floats, checked; torch's and NumPy's numbers are numbers too."""
    single = isinstance(value, SupportsFloat) and getattr(value, "ndim", 0) == 0
    checked = _plain(value) if single else [_plain(v) for v in cast("Sequence[float]", value)]
    each = spread(name, checked, len(optimizer.param_groups))
    if not all(0 < v < math.inf for v in each):
        raise InvalidArgumentError(f"{name} must be positive and finite, got {value}")
    return checked


def _plain(value: Any) -> float:
    return float(value.item() if hasattr(value, "item") else value)


def spread(name: str, value: PerGroup, groups: int) -> list[float]:
    """One value per param group; a single one stands for all."""
    values = [value] * groups if isinstance(value, float) else value
    if len(values) != groups:
        raise InvalidArgumentError(
            f"{name} must be one number or one for each of the {groups} param groups, got {len(values)}"
        )
    return values
