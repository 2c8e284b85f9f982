"""Section 4.5, Tables 6, 15 and 16: the damping regime of every epoch."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from suture.physics import Regime, cosine_lr, critical_momentum, regime
from suture.studies.audit import printed
from suture.studies.audit.findings import Finding, check, compared, decided, rounds_to
from suture.studies.audit.oscillator import LRS, physics_momentum

Counts = tuple[int, int, int]


def counts(momenta: list[float]) -> Counts:
    """How many of the 200 epochs are underdamped, critical, overdamped at one momentum per epoch."""
    found = Counter(regime(mu, lr, printed.TOLERANCE) for mu, lr in zip(momenta, LRS, strict=True))
    return found[Regime.underdamped], found[Regime.critical], found[Regime.overdamped]


def inverse_couplings() -> dict[str, list[float]]:
    """Ways to read "μ in [0.85, 0.95], inversely coupled to LR", one momentum per epoch each."""
    low, high = printed.CYCLE
    lowest, highest = printed.LR_MIN, printed.LR_MAX

    def falling(share: float) -> float:
        return high - (high - low) * share

    return {
        "linear in α": [falling((lr - lowest) / (highest - lowest)) for lr in LRS],
        "linear in √α": [falling((lr**0.5 - lowest**0.5) / (highest**0.5 - lowest**0.5)) for lr in LRS],
        "linear in log α": [falling(math.log(lr / lowest) / math.log(highest / lowest)) for lr in LRS],
        "linear in the epoch": [falling(1 - epoch / (len(LRS) - 1)) for epoch in range(len(LRS))],
        "down and up again": [falling(1 - abs(2 * epoch / (len(LRS) - 1) - 1)) for epoch in range(len(LRS))],
    }


@check("Section 4.5")
def shares_and_distances() -> Iterator[Finding]:
    underdamped, _, _ = counts([printed.BASELINE_MOMENTUM] * len(LRS))
    share = 100 * underdamped / len(LRS)
    yield compared(
        "share of training that Baseline is underdamped", "85", share, f"{underdamped} of {len(LRS)} epochs", unit=" %"
    )
    physics = max(abs(physics_momentum(lr) - critical_momentum(lr)) for lr in LRS)
    yield compared("largest |Δμ| of Physics", "0.13", physics, "at epoch 1, where the clamp is furthest off", more=2)
    baseline = printed.BASELINE_MOMENTUM - critical_momentum(LRS[0])
    ratio = baseline / physics
    yield Finding(
        "Physics closer to critical than Baseline at epoch 1",
        "an order of magnitude",
        f"{ratio:.1f}×",
        decided(ratio >= 10),
        f"{baseline:.2f} / {physics:.2f}",
    )


@check("Table 6")
def baseline_row() -> Iterator[Finding]:
    yield _row(
        "Baseline", counts([printed.BASELINE_MOMENTUM] * len(LRS)), "μ = 0.9, tolerance 0.05, α at t = epoch - 1"
    )


@check("Table 6")
def cycle_row() -> Iterator[Finding]:
    found = {name: counts(momenta) for name, momenta in inverse_couplings().items()}
    claimed, _ = printed.REGIMES["1cycle"]
    reading = next((name for name, each in found.items() if each == claimed), "linear in α")
    others = "; ".join(f"{name} {_slashes(each)}" for name, each in found.items() if name != reading)
    yield _row("1cycle", found[reading], f"{reading}; other readings: {others}")


@check("Table 6")
def physics_row() -> Iterator[Finding]:
    found = counts([physics_momentum(lr) for lr in LRS])
    low, _ = printed.CLAMP
    bound = ((1 - low + printed.TOLERANCE) / 2) ** 2
    why = f"above α = {bound:.4f} the clamp holds μ more than 0.05 above critical, underdamped by the table's own rule"
    yield _row("Physics", found, why)


@check("Table 6")
def percentages() -> Iterator[Finding]:
    fine = all(
        sum(row) == printed.EPOCHS
        and all(
            rounds_to(100 * count / printed.EPOCHS, share) for count, share in zip(row, printed_shares, strict=True)
        )
        for row, printed_shares in printed.REGIMES.values()
    )
    sums = ", ".join(str(sum(row)) for row, _ in printed.REGIMES.values())
    yield Finding("sums and percentages of the rows", "200 epochs each", sums, decided(fine), "the printed counts")


@check("Table 15")
def scan_of_the_baseline() -> Iterator[Finding]:
    for epoch, row in printed.SCAN.items():
        lr = cosine_lr(epoch, printed.EPOCHS, printed.LR_MAX, printed.LR_MIN)
        yield _scan_row(epoch, row, lr)


def _scan_row(epoch: int, row: tuple[str, str, str, str], lr: float) -> Finding:
    printed_lr, printed_critical, printed_regime, printed_excess = row
    critical = critical_momentum(lr)
    excess = printed.BASELINE_MOMENTUM - critical
    name = regime(printed.BASELINE_MOMENTUM, lr, printed.TOLERANCE)
    agrees = (
        rounds_to(lr, printed_lr)
        and rounds_to(critical, printed_critical)
        and printed_regime == name
        # The table subtracts rounded columns, which moves the last digit by one at most.
        and abs(excess - float(printed_excess)) <= 1.5e-3
    )
    why = "α at t = epoch - 1"
    if not agrees:
        other = conventions(epoch, printed_lr)
        why = f"the printed α is that of {other or 'no reading: t = epoch - 1 or epoch, α_min = 0.0001 or 0'}"
    if printed_regime != name:
        why += f"; Table 6 counts this epoch as {name} too"
    return Finding(
        f"epoch {epoch}: α, μ_c, regime, Δμ",
        f"{printed_lr}, {printed_critical}, {printed_regime}, {printed_excess}",
        f"{lr:.5f}, {critical:.3f}, {name}, {excess:+.3f}",
        decided(agrees),
        why,
    )


def conventions(epoch: int, printed_lr: str) -> str:
    """Which other reading of cosine annealing gives a printed learning rate; empty when none does."""
    readings: Mapping[str, tuple[int, float]] = {
        "t = epoch": (epoch + 1, printed.LR_MIN),
        "t = epoch - 1 with α_min = 0": (epoch, 0.0),
        "t = epoch with α_min = 0": (epoch + 1, 0.0),
    }
    fitting = [
        name
        for name, (counted, lowest) in readings.items()
        if rounds_to(cosine_lr(counted, printed.EPOCHS, printed.LR_MAX, lowest), printed_lr)
    ]
    return " or ".join(fitting)


@check("Table 16")
def log_of_the_repair() -> Iterator[Finding]:
    for epoch, (printed_lr, printed_momentum, accuracy, change) in printed.REPAIR_LOG.items():
        lr = cosine_lr(epoch, printed.REPAIR_EPOCHS, printed.REPAIR_LR_MAX, printed.LR_MIN)
        momentum = physics_momentum(lr)
        gain = float(accuracy) - float(printed.ACCURACY_BEFORE)
        agrees = rounds_to(lr, printed_lr) and rounds_to(momentum, printed_momentum) and rounds_to(gain, change)
        yield Finding(
            f"epoch {epoch}: α, μ, Δ accuracy",
            f"{printed_lr}, {printed_momentum}, {change}",
            f"{lr:.5f}, {momentum:.4f}, {gain:+.2f}",
            decided(agrees),
            "cosine from 0.01 to 0.0001 over 30 epochs, t = epoch - 1; Δ from 95.48 %",
        )


def _row(method: str, found: Counts, why: str) -> Finding:
    claimed, _ = printed.REGIMES[method]
    what = f"{method}: epochs underdamped/critical/overdamped"
    return Finding(what, _slashes(claimed), _slashes(found), decided(found == claimed), why)


def _slashes(row: Counts) -> str:
    return "/".join(map(str, row))
