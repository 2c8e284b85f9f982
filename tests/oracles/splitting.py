"""The splitting optimizers entry by entry in Python floats, from the equations of their docstrings.

Damping is written as the flows it comes from (e^{−γh} with γ = −ln(μ)/h), not as the factors that the
implementations simplify it to.
"""

import math


class Entry:
    """One scalar parameter with its momentum and auxiliary variables."""

    def __init__(self, x: float) -> None:
        self.x = x
        self.p = self.xi = self.friction = self.zeta = 0.0


def gradient(entry: Entry, g: float, weight_decay: float, maximize: bool) -> float:
    return (-g if maximize else g) + weight_decay * entry.x


def linear_damping(p: float, h: float, momentum: float) -> float:
    if momentum == 0:
        return 0.0
    gamma = -math.log(momentum) / h
    return math.exp(-gamma * h) * p


def cubic_damping(entry: Entry, g: float, lr: float, momentum: float, c: float) -> None:
    h = math.sqrt(lr)
    entry.p = entry.p - h * g
    entry.x = entry.x + h * entry.p
    entry.p = entry.p / math.sqrt(1 + 2 * c * h * entry.p**2)
    entry.p = linear_damping(entry.p, h, momentum)


def ikfad(entry: Entry, g: float, lr: float, momentum: float, friction_decay: float, mass: float) -> None:
    h, a = math.sqrt(lr), friction_decay
    entry.p = entry.p - h * g
    entry.x = entry.x + h * entry.p
    entry.p = math.exp(-h * entry.xi / 2) * entry.p
    entry.xi = math.exp(-a * h) * entry.xi + (1 - math.exp(-a * h)) * entry.p**2 / (mass * a)
    entry.p = math.exp(-h * entry.xi / 2) * entry.p
    entry.p = linear_damping(entry.p, h, momentum)
    entry.friction = entry.friction + h * entry.xi


def cadam(entry: Entry, g: float, lr: float, momentum: float, c: float, friction_decay: float, eps: float) -> None:
    h, a = math.sqrt(lr), friction_decay
    entry.p = entry.p - h * g
    entry.zeta = math.exp(-a * h) * entry.zeta + (1 - math.exp(-a * h)) / a * g**2
    entry.x = entry.x + h * entry.p / (math.sqrt(entry.zeta) + eps)
    entry.p = entry.p / math.sqrt(1 + 2 * c * h * entry.p**2)
    entry.p = linear_damping(entry.p, h, momentum)
