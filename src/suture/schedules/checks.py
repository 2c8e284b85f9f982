"""Settings of schedules, checked: one number for all param groups or one for each."""

import math
from collections.abc import Sequence

from torch.optim import Optimizer

from suture.errors import InvalidArgumentError

PerGroup = float | list[float]


def check_momentum(name: str, value: float) -> float:
    """The momentum as a float, in [0, 1)."""
    if not 0 <= value < 1:
        raise InvalidArgumentError(f"{name} must lie in [0, 1), got {value}")
    return float(value)


def check_positive(name: str, value: float | Sequence[float], optimizer: Optimizer) -> PerGroup:
    """The value as a float or a list of floats, checked."""
    checked = float(value) if isinstance(value, int | float) else [float(v) for v in value]
    each = spread(name, checked, len(optimizer.param_groups))
    if not all(0 < v < math.inf for v in each):
        raise InvalidArgumentError(f"{name} must be positive and finite, got {value}")
    return checked


def spread(name: str, value: PerGroup, groups: int) -> list[float]:
    """One value per param group; a single one stands for all."""
    values = [value] * groups if isinstance(value, float) else value
    if len(values) != groups:
        raise InvalidArgumentError(
            f"{name} must be one number or one for each of the {groups} param groups, got {len(values)}"
        )
    return values
