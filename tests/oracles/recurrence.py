"""The linear recurrences of momentum SGD on a quadratic, by companion matrix and by walking them."""

import numpy as np


def roots(momentum: float, strength: float, form: str = "exact") -> np.ndarray:
    """Both roots z of the recurrence with λα = strength, from NumPy's polynomial solver."""
    if form == "exact":
        return np.roots([1, -(1 + momentum - strength), momentum])
    return np.roots([1, -(1 - strength) * (1 + momentum), (1 - strength) * momentum])


def walk(momentum: float, lr: float, curvature: float, steps: int, nesterov: bool = False) -> np.ndarray:
    """Distance to the minimum of ½λθ², starting at 1 at rest, after 0, 1, … steps; shape (steps + 1,)."""
    x, v = 1.0, 0.0
    path = [x]
    for _ in range(steps):
        ahead = x + momentum * v if nesterov else x
        v = momentum * v - lr * curvature * ahead
        x += v
        path.append(x)
    return np.array(path)


def steps_to(tolerance: float, path: np.ndarray) -> int:
    """The first step from which on the distance stays at or below the tolerance."""
    above = np.nonzero(np.abs(path) > tolerance)[0]
    return int(above[-1]) + 1 if len(above) else 0
