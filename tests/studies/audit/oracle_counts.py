"""Errors, overlaps, milestones and cost by NumPy, brute force and definitions."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from scipy import stats

from tests.studies.audit.expected import AGREES, DIFFERS, UNDECIDED, Expected, network, place


def binomial(fixed: int, broken: int) -> float:
    """Two-sided exact McNemar by its definition: twice the smaller tail, at most 1."""
    return float(min(1.0, 2 * stats.binom.cdf(min(fixed, broken), fixed + broken, 0.5)))


@place("Abstract")
def abstract() -> Expected:
    return {
        "net of the best variant": ("+22", AGREES),
        "errors fixed at parameter level, with negative net": ("42-46, negative", AGREES),
        "errors fixed, of 452 (sections 1 and 5)": ("55", DIFFERS),
        "speed-up to 90 %": ("1.92×", AGREES),
    }


@place("Table 3")
def table_3() -> Expected:
    return {
        "spread of best accuracy": (f"{95.54 - 95.02:.2f} points", AGREES),
        "the spread is within seed-to-seed variance": ("two runs up to 0.4 or 0.6 apart", UNDECIDED),
        "training time": (f"within {100 * 28 / 5100:.1f} %", AGREES),
    }


@place("Table 4")
def table_4() -> Expected:
    ratios = np.array([13, 26, 100, 139, 172]) / np.array([8, 14, 52, 101, 190])
    each = ", ".join(f"{r:.2f}× to {t} %" for r, t in zip(ratios, (80, 85, 90, 92, 95), strict=True))
    return {
        "speed-up to 90 % over Baseline": (f"{100 / 52:.2f}×", AGREES),
        "speed-up to 90 % over 1cycle": (f"{144 / 52:.2f}×", AGREES),
        "1.9× faster convergence, whatever the threshold": (each, UNDECIDED),
        "differences to 90 % are large enough to be robust to seed variation": (
            "Baseline 100 → 96, 1cycle 144 → 85, Physics 52 → 45",
            DIFFERS,
        ),
    }


@place("Table 5")
def table_5() -> Expected:
    return {"accuracies at epochs 1, 10, 50 against Table 4": ("no contradiction", AGREES)}


@place("Section 4.4")
def section_4_4() -> Expected:
    return {"accuracy of Physics in epochs 1 to 60": ("dips below 90 % after epoch 45", DIFFERS)}


@place("Table 7")
def table_7() -> Expected:
    # Seven regions; "Physics and 1cycle only" is not fixed, and nothing below depends on it.
    sets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])  # of B, P, C
    facts = np.array([
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 1, 0, 0],  # Baseline wrong, Physics right
        sets[:, 0],
    ])  # fmt: skip
    sizes = np.linalg.lstsq(facts, np.array([104, 138, 96, 215, 172, 452]), rcond=None)[0].round().astype(int)
    physics, cycle = (int(sizes @ sets[:, i]) for i in (1, 2))
    return {
        "Physics right, Baseline wrong: at least Baseline alone": (f"104 + {sizes[4]}", AGREES),
        "the parts of Baseline's errors sum to them": (f"215 + 172 + {sizes[3]}", AGREES),
        "errors of Physics less those of 1cycle": (str(physics - cycle), UNDECIDED),
        "Physics and Baseline differ on images: H3 confirmed": (f"172 won, {172 + 498 - 452} lost", UNDECIDED),
    }


@place("Table 8")
def table_8() -> Expected:
    norms = np.array([10.56, 9.14, 8.58, 7.43, 7.38, 4.99, 0.86])
    gaps = -np.diff(norms)
    rng = np.random.default_rng(0)
    flagged = {int((draw > np.median(draw)).sum()) for draw in rng.normal(size=(1000, 7))}
    return {
        "highest over lowest norm": (f"{norms.max() / norms.min():.2f}×", AGREES),
        "third problem layer over the next one": (f"{norms[2] / norms[3]:.2f}×", DIFFERS),
        "groups above the median": ("layer3, conv1, layer2", AGREES),
        "how many groups are problems": (f"{flagged.pop()} of 7", AGREES),
        "a clear cut between sick and healthy": (f"gap 1.15, number {(gaps > gaps[2]).sum() + 1} of 6", DIFFERS),
    }


@place("Table 9")
def table_9() -> Expected:
    return {"layers and root causes of confusion pairs": ("nothing to compute with", UNDECIDED)}


def problem_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for part in (model.conv1, model.layer2, model.layer3) for p in part.parameters()]


@place("Section 5.5")
def section_5_5() -> Expected:
    model = network()
    sizes = [p.numel() for p in model.parameters()]
    mine = problem_parameters(model)
    return {
        "parameter tensors of the network": (str(len(sizes)), DIFFERS),
        "parameter tensors of the three problem layers": (str(len(mine)), DIFFERS),
        "share of parameters that is trained": (f"{100 * sum(p.numel() for p in mine) / sum(sizes):.1f} %", DIFFERS),
        "share of the original training duration": (f"{100 * 30 / 200:.1f} %", AGREES),
    }


def operations_saved(trained: Callable[[str], bool]) -> float:
    """Share of multiply-adds saved by 30 of 200 epochs in which only some weights get gradients; from shapes."""
    sides = {"conv1": 32, "layer1": 32, "layer2": 16, "layer3": 8, "layer4": 4}
    forward = first = chosen = 0
    for name, weight in network().named_parameters():
        if weight.ndim < 2:
            continue
        work = weight.numel() * sides.get(name.split(".")[0], 1) ** 2
        forward += work
        first += work if name == "conv1.weight" else 0
        chosen += work if trained(name) else 0
    whole = forward + (forward - first) + forward
    return 1 - 30 / 200 * (whole - forward + chosen) / whole


@place("Table 10")
def table_10() -> Expected:
    model = network()
    total = sum(p.numel() for p in model.parameters())
    share = sum(p.numel() for p in problem_parameters(model)) / total
    extra = [model.layer1[0].conv1, model.layer1[1].conv1, model.layer4[0].conv1, model.layer4[1].conv1]
    with_extra = share + sum(part.weight.numel() for part in extra) / total

    def flagged(name: str) -> bool:
        return name.split(".")[0] in ("conv1", "layer2", "layer3")

    operations = operations_saved(flagged)
    more = operations_saved(lambda name: flagged(name) or ".conv1." in name)
    saved = {
        "epochs": 1 - 30 / 200,
        "epochs × groups": 1 - (30 * 3) / (200 * 7),
        "tensors": 1 - 35 / 120,
        "epochs × tensors": 1 - (30 * 35) / (200 * 120),
        "parameters": 1 - share,
        "epochs × parameters": 1 - 0.15 * share,
        "operations": operations,
        "epochs × parameters of 35 tensors": 1 - 0.15 * with_extra,
        "operations with 35 tensors": more,
    }
    return {
        "errors after: before - fixed + new": (str(452 - 55 + 49), AGREES),
        "net improvement": ("+6", AGREES),
        "accuracy before": (f"{(10_000 - 452) / 100:.2f} %", AGREES),
        "accuracy after": (f"{(10_000 - 446) / 100:.2f} %", AGREES),
        "55 fixed against 49 new is an improvement": (f"p = {binomial(55, 49):.2f}", UNDECIDED),
        "compute savings": (", ".join(f"{100 * s:.1f} % ({way})" for way, s in saved.items()), DIFFERS),
        "at least 80 % savings (H2)": (f"{100 * operations:.1f} % (operations)", AGREES),
    }


@place("Table 11")
def table_11() -> Expected:
    rows = {"CD": 95.62, "Baseline": 95.51, "iKFAD": 95.39, "Physics": 95.12, "Adam": 93.68}
    found = {f"{m}: errors at {a:.2f} %": (f"{10_000 - 100 * a:.0f}", DIFFERS) for m, a in rows.items()}
    return found | {
        "range of the SGD variants": (f"{95.62 - 95.12:.2f} points", AGREES),
        "Adam behind Baseline": (f"{95.51 - 93.68:.2f} points", AGREES),
    }


@place("Table 12")
def table_12() -> Expected:
    sets = [set(s) for s in combinations(range(7), 3)]
    shared = np.array([len(a & b) for a in sets for b in sets])
    return {
        "SGD-Adam overlap": ("3/3", AGREES),
        "SGD-iKFAD overlap": ("2/3", AGREES),
        "an overlap of 3/3 is not expected by chance (section 10)": (f"p = {(shared == 3).mean():.3f}", UNDECIDED),
        "an overlap of 2/3 with iKFAD": (f"p = {(shared >= 2).mean():.2f}", UNDECIDED),
    }


@place("Table 13")
def table_13() -> Expected:
    rows = {"A": (62, 55), "B": (62, 40), "C": (42, 59), "D": (46, 56), "E": (146, 148)}
    before = dict.fromkeys("ABCD", 9547) | {"E": 10_000 - 647}
    p = {m: binomial(*row) for m, row in rows.items()}
    # Holm's step-down as a maximum over all that are no larger.
    adjusted = {m: min(1.0, max(p[k] * sum(q >= p[k] for q in p.values()) for k in p if p[k] <= p[m])) for m in p}
    found: Expected = {}
    for m, (fixed, broken) in rows.items():
        after = (before[m] + fixed - broken) / 100
        found[f"{m}: net, accuracy after"] = (f"{fixed - broken:+d}, {after:.2f} %", AGREES)
        found[f"{m}: {fixed} fixed, {broken} new is not chance"] = (
            f"p = {p[m]:.2g}, {adjusted[m]:.2g} among five",
            UNDECIDED,
        )
    pairs = ", ".join(f"{a}-{b} p = {fisher(rows[a], rows[b]):.2g}" for a in "AB" for b in "CD")
    side = 2 * stats.binom.cdf(40, 95, 0.5)
    net = sum(fixed - broken for fixed, broken in rows.values())
    return found | {
        "surgical correction improves a model: all five together": (f"net {net:+d}", UNDECIDED),
        "layer level consistently outperforms parameter level": (pairs, UNDECIDED),
        "B has fewer new errors than A (also section 5.6)": (f"p = {side:.2f}", UNDECIDED),
    }  # fmt: skip


def fisher(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Fisher's exact test by its definition: the tables with these margins that are no likelier than the one seen."""
    law = stats.hypergeom(sum(a) + sum(b), a[0] + b[0], sum(a))
    weights = law.pmf(np.arange(sum(a) + 1))
    return float(weights[weights <= weights[a[0]] * (1 + 1e-7)].sum())


@place("Table 14")
def table_14() -> Expected:
    return {
        "Baseline and Physics to 95 % (section 7)": ("175 and 183", AGREES),
        "fastest to 95 %": ("Hybrid-90", AGREES),
        "epochs ahead of Baseline and Physics to 95 %": (f"{175 - 170}, {183 - 170}", AGREES),
        "highest best accuracy": ("1cycle and Hybrid-ep52", AGREES),
        "speed-ups of Table 4 to 90 %, repeated with the same seed": (f"{96 / 45:.1f}×, {85 / 45:.1f}×", DIFFERS),
        "both hybrids inherit the early advantage of Physics (80, 85, 90 %)": ("not Hybrid-ep52 109 to 90 %", DIFFERS),
        "Hybrid-90 switches after reaching 90 %": ("ep47", AGREES),
        "wasted epochs of Hybrid-ep52": (str(52 - 45), AGREES),
        "Hybrid-ep52 had reached 90 % before its switch": ("at epoch 109", DIFFERS),
        "Physics and both hybrids are one run until the switch": (
            "80 %: 8, 7, 8; 85 %: 13, 12, 12; 90 %: 45, 46, 109",
            DIFFERS,
        ),
    }


@place("Section 9.1")
def section_9_1() -> Expected:
    return {"years that the oscillator model is known": ("27", AGREES)}


@place("Section 9.2")
def section_9_2() -> Expected:
    return {"one curve instead of a grid of α and μ": ("k² points to k", UNDECIDED)}


@place("Section 10")
def section_10() -> Expected:
    accuracies = np.array([95.54, 95.29, 95.02])
    gaps = np.abs(accuracies[:, None] - accuracies)[np.triu_indices(3, 1)]
    return {
        "accuracy differences between methods": (f"{gaps.min():.2f}-{gaps.max():.2f} points", AGREES),
        "epochs to 90 %, Experiment 4": ("45 and 96", AGREES),
        "new errors per 62 fixed, layer level": ("40-55", AGREES),
        "5 seeds × 3 architectures × 2 datasets": ("30 runs", AGREES),
    }


@place("References")
def references() -> Expected:
    return {
        "authors of [1]": ("Wang, Malladi, Wang, Lyu, Li", DIFFERS),
        "authors of [20]": ("Karoni, Rajpal, Leimkuhler, Stoltz", DIFFERS),
    }


@place("Table 17")
def table_17() -> Expected:
    return {"layers attributed in Tables 17 and 9": ("9 of 9 pairs agree", AGREES)}
