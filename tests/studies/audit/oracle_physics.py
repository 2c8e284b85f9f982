"""Learning rates, momenta and regimes as torch's scheduler and the schedules of this package set them."""

from collections.abc import Callable

import numpy as np
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from suture.schedules import ConstantMomentum, CriticalMomentum, InverseCoupledMomentum, MomentumScheduler
from tests.studies.audit.expected import AGREES, DIFFERS, UNDECIDED, Expected, network, place


def trained(build: Callable[..., MomentumScheduler], epochs: int = 200, lr: float = 0.1) -> np.ndarray:
    """(epochs, 2): learning rate and momentum that torch and a schedule of this package set, epoch by epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    rates = CosineAnnealingLR(optimizer, epochs, 1e-4)
    momenta = build(optimizer)
    seen = []
    for _ in range(epochs):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))
        optimizer.step()
        rates.step()
        momenta.step()
    return np.array(seen)


def regimes(run: np.ndarray) -> str:
    excess = run[:, 1] - (1 - 2 * np.sqrt(run[:, 0]))
    under, over = int((excess > 0.05).sum()), int((excess < -0.05).sum())
    return f"{under}/{len(run) - under - over}/{over}"


@place("Table 1")
def table_1() -> Expected:
    # torch's own SGD on λθ²/2: equation 4 leaves nothing over for an external force.
    theta = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], lr=0.02, momentum=0.8)
    x = []
    for _ in range(60):
        x.append(theta.item())
        theta.grad = 2.5 * theta.detach()
        optimizer.step()
    walk = np.array(x)
    left = np.diff(walk, 2) + 0.2 * np.diff(walk)[:-1] + 0.02 * 2.5 * walk[1:-1]
    force = "0" if np.abs(left).max() < 1e-12 else "something else"
    return {
        "damping coefficient γ": ("1 - μ", AGREES),
        "natural frequency ω": ("√(λα), ∝ √α at fixed λ", AGREES),
        "external force F(t)": (force, DIFFERS),
    }


@place("Section 3.3")
def section_3_3() -> Expected:
    # The momentum in a fine grid at which the spectral radius of equation 4 is least.
    grid = np.linspace(0.3, 0.9, 6001)
    radius = np.abs(np.array([np.roots([1, -(1 + mu - 0.1), mu]) for mu in grid])).max(axis=1)
    best = grid[np.argmin(radius)]
    return {
        "critical μ of equation 3": ("1 - 2√α", AGREES),
        "critical μ of equation 4 at α = 0.1": (f"{best:.3f}", DIFFERS),
    }


@place("Section 3.5")
def section_3_5() -> Expected:
    return {
        "critical μ at α = 0.01": (f"{1 - 2 * 0.1:.2f}", AGREES),
        "μ = 0.9 at α = 0.01": (f"underdamped by {0.9 - (1 - 2 * 0.1):.2f}", AGREES),
        "critical μ at small α": (f"{1 - 2 * 0.01:.2f} at α = 0.0001", AGREES),
    }


@place("Section 4.1")
def section_4_1() -> Expected:
    run = trained(CriticalMomentum)
    clamped = np.flatnonzero(run[:, 1] == 0.5) + 1
    critical = 1 - 2 * np.sqrt(0.1)
    rates = ", ".join(f"{0.1 / (1 - mu):.2f}" for mu in (0.9, 0.85, 0.5))
    millions = sum(p.numel() for p in network().parameters()) / 1e6
    return {
        "raw μ at α = 0.1": (f"{critical:.4f}", AGREES),
        "clamped μ at α = 0.1": (f"{run[0, 1]:.2f}", AGREES),
        "μ at α = 0.0001": (f"{1 - 2 * np.sqrt(1e-4):.3f}", AGREES),
        "α above which the clamp rules": (f"{0.25**2:.4f}", AGREES),
        "epochs in which the clamp rules": (f"{clamped.min()} to {clamped.max()}", DIFFERS),
        "Δμ of Physics at epoch 1": (f"{0.5 - critical:+.4f}", AGREES),
        "Δμ of Baseline at epoch 1": (f"{0.9 - critical:+.4f}", AGREES),
        "only the momentum schedule differs": (f"α/(1 - μ) at epoch 1: {rates}", UNDECIDED),
        "parameters of ResNet-18": (f"{millions:.3f}M", AGREES),
    }


@place("Table 2")
def table_2() -> Expected:
    return {"free parameters of Baseline, 1cycle, Physics": ("1, 2, 2", DIFFERS)}


@place("Section 4.5")
def section_4_5() -> Expected:
    baseline, physics = trained(ConstantMomentum), trained(CriticalMomentum)
    under = int(regimes(baseline).split("/")[0])
    excess = np.abs(physics[:, 1] - (1 - 2 * np.sqrt(physics[:, 0]))).max()
    return {
        "share of training that Baseline is underdamped": (f"{under / 2:.1f} %", AGREES),
        "largest |Δμ| of Physics": (f"{excess:.4f}", AGREES),
        "Physics closer to critical than Baseline at epoch 1": (
            f"{(0.9 - (1 - 2 * np.sqrt(0.1))) / excess:.1f}×",
            DIFFERS,
        ),
    }


@place("Table 6")
def table_6() -> Expected:
    def coupled(optimizer: torch.optim.Optimizer) -> MomentumScheduler:
        return InverseCoupledMomentum(optimizer, 0.85, 0.95, lr_min=1e-4, lr_max=0.1)

    what = "epochs underdamped/critical/overdamped"
    return {
        f"Baseline: {what}": (regimes(trained(ConstantMomentum)), AGREES),
        f"1cycle: {what}": (regimes(trained(coupled)), DIFFERS),
        f"Physics: {what}": (regimes(trained(CriticalMomentum)), DIFFERS),
        "sums and percentages of the rows": ("200, 200, 200", AGREES),
    }


@place("Table 15")
def table_15() -> Expected:
    run = trained(ConstantMomentum)

    def row(epoch: int) -> str:
        lr, momentum = run[epoch - 1]
        critical = 1 - 2 * np.sqrt(lr)
        excess = momentum - critical
        name = "underdamped" if excess > 0.05 else "overdamped" if excess < -0.05 else "critical"
        return f"{lr:.5f}, {critical:.3f}, {name}, {excess:+.3f}"

    verdicts = dict.fromkeys((1, 20, 100, 180, 200), AGREES) | dict.fromkeys((50, 150, 170), DIFFERS)
    return {f"epoch {e}: α, μ_c, regime, Δμ": (row(e), verdict) for e, verdict in verdicts.items()}


@place("Table 16")
def table_16() -> Expected:
    run = trained(CriticalMomentum, 30, 0.01)
    accuracy = {1: 95.52, 10: 95.32, 20: 95.48, 30: 95.54}
    return {
        f"epoch {e}: α, μ, Δ accuracy": (f"{run[e - 1, 0]:.5f}, {run[e - 1, 1]:.4f}, {a - 95.48:+.2f}", AGREES)
        for e, a in accuracy.items()
    }
