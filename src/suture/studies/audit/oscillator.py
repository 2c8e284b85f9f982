"""Sections 3 and 4.1, Tables 1 and 2: what the oscillator gives, and where the clamp rules."""

import re
from collections.abc import Iterator

from suture.physics import (
    Regime,
    clamp,
    cosine_lr,
    critical_momentum,
    damping_ratio,
    discriminant,
    effective_lr,
    regime,
)
from suture.studies.audit import printed
from suture.studies.audit.findings import Finding, Verdict, check, compared, decided

ROUNDING = 1e-12

LRS = [cosine_lr(e, printed.EPOCHS, printed.LR_MAX, printed.LR_MIN) for e in range(1, printed.EPOCHS + 1)]
"""Learning rate of epochs 1 to 200 (section 4.1)."""


def physics_momentum(lr: float) -> float:
    """The paper's schedule with its clamp (Table 2)."""
    return clamp(critical_momentum(lr), *printed.CLAMP)


def walk(lr: float, momentum: float, curvature: float, steps: int) -> list[float]:
    """Positions of equations 1 and 2 on the loss λθ²/2, from θ = 1 at rest."""
    positions, position, velocity = [1.0], 1.0, 0.0
    for _ in range(steps):
        velocity = momentum * velocity - lr * curvature * position
        position += velocity
        positions.append(position)
    return positions


def residual(x: list[float], friction: float, stiffness: float, force: float) -> float:
    """Largest violation of ẍ + γẋ + ω²x = F along a walk, for F = −`force`·x and steps of one.

    The second difference is central and the first one backward, which is how equation 4 falls apart.
    """
    middle = range(1, len(x) - 1)
    return max(
        abs(x[t + 1] - 2 * x[t] + x[t - 1] + friction * (x[t] - x[t - 1]) + (stiffness + force) * x[t]) for t in middle
    )


@check("Table 1")
def velocity_and_damping() -> Iterator[Finding]:
    lr, momentum, curvature = 0.05, 0.9, 1.7
    x = walk(lr, momentum, curvature, 100)
    exact = residual(x, 1 - momentum, lr * curvature, 0.0) < ROUNDING
    gamma = "1 - μ" if exact else "something else"
    yield Finding(
        "damping coefficient γ", "1 - μ", gamma, decided(exact), "equation 4 is ẍ + (1 - μ)ẋ + αλx = 0 in differences"
    )
    omega = "√(λα), ∝ √α at fixed λ" if exact else "something else"
    yield Finding("natural frequency ω", "∝ √α", omega, decided(exact), "ω² = αλ in equation 4 with steps of one")
    twice = residual(x, 1 - momentum, lr * curvature, curvature)
    yield Finding(
        "external force F(t)",
        "-∇L",
        "0" if exact else "something else",
        decided(not exact and twice < ROUNDING),
        "the gradient is ω²x already, so F = -∇L counts it twice, and without its factor α; only noise is external",
    )


@check("Section 3.3")
def critical_damping() -> Iterator[Finding]:
    ratios = [damping_ratio(critical_momentum(lr), lr) for lr in LRS]
    exact = all(abs(ratio - 1) < ROUNDING for ratio in ratios)
    formula = "1 - 2√α" if exact else "something else"
    yield Finding(
        "critical μ of equation 3", "1 - 2√α", formula, decided(exact), "γ = 2ω at every learning rate of the run"
    )
    lr = printed.LR_MAX
    ours, theirs = critical_momentum(lr, form="exact"), critical_momentum(lr)
    vanishes = abs(discriminant(ours, lr, form="exact")) < ROUNDING
    yield Finding(
        "critical μ of equation 4 at α = 0.1",
        f"{theirs:.3f}",
        f"{ours:.3f}",
        decided(not vanishes or abs(ours - theirs) < ROUNDING),
        "its roots meet at (1 - √α)²; the continuous limit of equation 3 loses α, a tenth at α = 0.1",
    )


@check("Section 3.5")
def heuristics() -> Iterator[Finding]:
    yield compared("critical μ at α = 0.01", "0.8", critical_momentum(0.01), "1 - 2√0.01")
    excess = printed.BASELINE_MOMENTUM - critical_momentum(0.01)
    yield Finding(
        "μ = 0.9 at α = 0.01",
        "slightly underdamped",
        f"{regime(0.9, 0.01)} by {excess:.2f}",
        decided(regime(0.9, 0.01) is Regime.underdamped),
        f"{excess / printed.TOLERANCE:.1f} times the tolerance within which section 4.5 calls it critical",
    )
    small = critical_momentum(printed.LR_MIN)
    yield Finding("critical μ at small α", "≈ 1", f"{small:.2f} at α = 0.0001", decided(small > 0.95), "1 - 2√α")


@check("Section 4.1")
def clamping() -> Iterator[Finding]:
    raw, bounded = critical_momentum(printed.LR_MAX), physics_momentum(printed.LR_MAX)
    yield compared("raw μ at α = 0.1", "0.37", raw, "1 - 2√0.1", more=2)
    yield compared("clamped μ at α = 0.1", "0.50", bounded, "the lower bound of the clamp", more=0)
    low, _ = printed.CLAMP
    yield compared("μ at α = 0.0001", "0.98", physics_momentum(printed.LR_MIN), "1 - 2√0.0001, inside the clamp")
    bound = ((1 - low) / 2) ** 2
    yield compared("α above which the clamp rules", "0.063", bound, "1 - 2√α = 0.5")
    clamped = [epoch for epoch, lr in enumerate(LRS, 1) if critical_momentum(lr) < low]
    yield Finding(
        "epochs in which the clamp rules",
        "about 1 to 30",
        f"{clamped[0]} to {clamped[-1]}",
        decided(abs(clamped[-1] - 30) <= 5),
        f"cosine annealing stays above α = {bound} for {len(clamped)} of {printed.EPOCHS} epochs",
    )
    yield compared("Δμ of Physics at epoch 1", "+0.13", bounded - raw, "0.5 - (1 - 2√0.1)", more=2)
    excess = printed.BASELINE_MOMENTUM - raw
    yield compared("Δμ of Baseline at epoch 1", "+0.53", excess, "0.9 - (1 - 2√0.1)", more=2)


@check("Section 4.1")
def effective_learning_rate() -> Iterator[Finding]:
    momenta = (printed.BASELINE_MOMENTUM, printed.CYCLE[0], printed.CLAMP[0])
    rates = [effective_lr(printed.LR_MAX, momentum) for momentum in momenta]
    yield Finding(
        "only the momentum schedule differs",
        "same learning rates",
        "α/(1 - μ) at epoch 1: " + ", ".join(f"{rate:.2f}" for rate in rates),
        Verdict.UNDECIDED,
        "the effective learning rate differs too, fivefold; damping and step size are told apart only by a control "
        "with matched α/(1 - μ)",
    )


@check("Table 2")
def free_parameters() -> Iterator[Finding]:
    # Fractions are choices; the whole numbers 1 and 2 belong to the derivation.
    found = [len(re.findall(r"\d+\.\d+", formula)) for formula, _ in printed.SCHEDULES.values()]
    claimed = [count for _, count in printed.SCHEDULES.values()]
    at_bounds = sum(physics_momentum(lr) in printed.CLAMP for lr in LRS)
    yield Finding(
        "free parameters of Baseline, 1cycle, Physics",
        ", ".join(map(str, claimed)),
        ", ".join(map(str, found)),
        decided(found == claimed),
        f"the bounds of the clamp are chosen like those of 1cycle, and they rule {at_bounds} of {len(LRS)} epochs",
    )
