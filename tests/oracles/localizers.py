"""Localizers' formulas taken literally, one example, one weight, one eigenvalue at a time."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def example_gradients(model: nn.Module, x: Tensor, y: Tensor, names: Sequence[str]) -> list[dict[str, Tensor]]:
    """One backward pass per example, by cross-entropy."""
    parameters = dict(model.named_parameters())
    rows = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        found = torch.autograd.grad(loss, [parameters[n] for n in names])
        rows.append(dict(zip(names, found, strict=True)))
    return rows


def power_law_exponent(values: Sequence[float]) -> float:
    """Clauset's fit by plain loops: for every cut the MLE, then the cut of least Kolmogorov-Smirnov distance."""
    values = sorted(values)
    found = []
    for cut in values[:-1]:
        tail = [v for v in values if v >= cut]
        total = sum(math.log(v / cut) for v in tail)
        alpha = 1 + len(tail) / total
        gaps = [abs(1 - (v / cut) ** (1 - alpha) - i / len(tail)) for i, v in enumerate(tail)]
        found.append((max(gaps), alpha))
    return min(found)[1]


def pareto_front(points: np.ndarray) -> list[bool]:
    """Every point against every other."""
    return [not any((other >= point).all() and (other > point).any() for other in points) for point in points]


def linear_impact(weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """mean |a_i w_ji| / Σ_i |a_i w_ji| and mean |a_i w_ji| over rows of inputs (n, in), for a weight (out, in)."""
    weight, inputs = weight.detach(), inputs.detach()
    share, size = torch.zeros_like(weight), torch.zeros_like(weight)
    for a in inputs:
        for j in range(weight.shape[0]):
            total = sum(abs(float(a[k] * weight[j, k])) for k in range(weight.shape[1]))
            for i in range(weight.shape[1]):
                size[j, i] += abs(float(a[i] * weight[j, i])) / len(inputs)
                share[j, i] += abs(float(a[i] * weight[j, i])) / total / len(inputs) if total else 0.0
    return share, size


def adam(weight: float, lr: float, betas: tuple[float, float], clip: float, steps: int) -> float:
    """w after some steps down (w − 1)²/2."""
    m = v = 0.0
    for t in range(1, steps + 1):
        g = max(min(weight - 1, clip), -clip)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        weight -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + 1e-8)
    return weight


def ikfad_friction(weight: float, lr: float, momentum: float, clip: float, steps: int) -> float:
    """Σ hξ on the way down (w − 1)²/2, with friction decay and mass 1."""
    h, p, xi, total = math.sqrt(lr), 0.0, 0.0, 0.0
    for _ in range(steps):
        p -= h * max(min(weight - 1, clip), -clip)
        weight += h * p
        p *= math.exp(-h * xi / 2)
        xi = math.exp(-h) * xi + (1 - math.exp(-h)) * p * p
        p *= math.exp(-h * xi / 2) * momentum
        total += h * xi
    return total
