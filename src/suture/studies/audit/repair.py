"""Sections 5.5, 5.6 and 6.4, Tables 10 and 13: what the repairs fixed, broke, cost, and whether it can be chance."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest, fisher_exact

from suture.stats import ALPHA, mcnemar
from suture.studies.audit import printed
from suture.studies.audit.findings import Finding, Verdict, check, compared, decided, rounds_to
from suture.studies.audit.network import counts

IMAGES = printed.TEST_IMAGES
EPOCH_SHARE = printed.REPAIR_EPOCHS / printed.EPOCHS


def accuracy(errors: int) -> float:
    """Accuracy in per cent at so many errors on the test set."""
    return 100 * (1 - errors / IMAGES)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """p-values adjusted for having tested all of them (Holm 1979)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def savings() -> dict[str, float]:
    """Compute savings of the surgical correction, by every way of counting that the paper's numbers allow."""
    flagged = len(printed.FLAGGED)
    ways = {
        "epochs": 1 - EPOCH_SHARE,
        "epochs × groups": 1 - EPOCH_SHARE * flagged / printed.GROUPS,
        "tensors": 1 - printed.TRAINED_TENSORS / printed.ALL_TENSORS,
        "epochs × tensors": 1 - EPOCH_SHARE * printed.TRAINED_TENSORS / printed.ALL_TENSORS,
    }
    network = counts()
    if network is not None:
        ways |= {
            "parameters": 1 - network.share(network.flagged),
            "epochs × parameters": 1 - EPOCH_SHARE * network.share(network.flagged),
            "operations": 1 - EPOCH_SHARE * network.training_cost(network.flagged),
            "epochs × parameters of 35 tensors": 1 - EPOCH_SHARE * network.share(network.matching),
            "operations with 35 tensors": 1 - EPOCH_SHARE * network.training_cost(network.matching),
        }
    return ways


@check("Section 5.5")
def share_of_epochs() -> Iterator[Finding]:
    yield compared("share of the original training duration", "15", 100 * EPOCH_SHARE, "30 / 200 epochs", unit=" %")


@check("Table 10")
def counts_of_errors() -> Iterator[Finding]:
    after = printed.ERRORS_BEFORE - printed.FIXED + printed.BROKEN
    yield Finding(
        "errors after: before - fixed + new",
        str(printed.ERRORS_AFTER),
        str(after),
        decided(after == printed.ERRORS_AFTER),
        "452 - 55 + 49",
    )
    net = printed.FIXED - printed.BROKEN
    yield Finding("net improvement", f"+{printed.NET}", f"{net:+d}", decided(net == printed.NET), "55 - 49")
    for when, claimed, errors in (
        ("before", printed.ACCURACY_BEFORE, printed.ERRORS_BEFORE),
        ("after", printed.ACCURACY_AFTER, printed.ERRORS_AFTER),
    ):
        why = f"{errors} of 10,000 wrong"
        if when == "after":
            why += f"; the same training had {printed.BEST_ACCURACY['Baseline']} % at its best epoch (Table 3)"
        yield compared(f"accuracy {when}", claimed, accuracy(errors), why, unit=" %", more=0)


@check("Table 10")
def chance_of_the_net() -> Iterator[Finding]:
    p = mcnemar(printed.FIXED, printed.BROKEN)
    yield Finding(
        "55 fixed against 49 new is an improvement",
        f"+{printed.NET}",
        f"p = {p:.2f}",
        decided(True) if p < ALPHA else Verdict.UNDECIDED,
        "exact McNemar test; the images that were diagnosed are those it is judged on",
    )


@check("Table 10")
def compute_savings() -> Iterator[Finding]:
    ways = savings()
    fitting = [way for way, saved in ways.items() if rounds_to(100 * saved, "82")]
    yield Finding(
        "compute savings",
        "82 %",
        ", ".join(f"{100 * saved:.1f} % ({way})" for way, saved in ways.items()),
        decided(bool(fitting)),
        f"it is the ratio of {' or '.join(fitting)}" if fitting else "none of these ratios rounds to 82 %",
    )
    way = "operations" if "operations" in ways else "epochs"
    yield Finding(
        "at least 80 % savings (H2)",
        "≥ 80 %",
        f"{100 * ways[way]:.1f} % ({way})",
        decided(ways[way] >= 0.8),
        f"against 200 epochs from scratch; 30 epochs of fine-tuning everything save {100 * ways['epochs']:.0f} % too",
    )


@check("Table 13")
def nets_and_accuracies() -> Iterator[Finding]:
    before = dict.fromkeys(printed.CORRECTIONS, printed.CORRECTED_BEFORE)
    before["E"] = f"{accuracy(printed.TRAINED['Adam'][1]):.2f}"
    for method, (fixed, broken, net, after) in printed.CORRECTIONS.items():
        found = fixed - broken
        gained = float(before[method]) + 100 * found / IMAGES
        yield Finding(
            f"{method}: net, accuracy after",
            f"{net:+d}, {after} %",
            f"{found:+d}, {gained:.2f} %",
            decided(found == net and rounds_to(gained, after)),
            f"{fixed} - {broken}; {before[method]} % before" + (" (647 errors, Table 11)" if method == "E" else ""),
        )


@check("Table 13")
def chance_of_each_net() -> Iterator[Finding]:
    p_values = {method: mcnemar(fixed, broken) for method, (fixed, broken, _, _) in printed.CORRECTIONS.items()}
    adjusted = holm(p_values)
    for method, (fixed, broken, net, _) in printed.CORRECTIONS.items():
        yield Finding(
            f"{method}: {fixed} fixed, {broken} new is not chance",
            f"{net:+d}",
            f"p = {p_values[method]:.2g}, {adjusted[method]:.2g} among five",
            decided(True) if adjusted[method] < ALPHA else Verdict.UNDECIDED,
            "exact McNemar test, and Holm's correction for five corrections tried on the same images",
        )


@check("Table 13")
def sum_of_all_corrections() -> Iterator[Finding]:
    fixed = sum(row[0] for row in printed.CORRECTIONS.values())
    broken = sum(row[1] for row in printed.CORRECTIONS.values())
    yield Finding(
        "surgical correction improves a model: all five together",
        ", ".join(f"{row[2]:+d}" for row in printed.CORRECTIONS.values()),
        f"net {fixed - broken:+d}",
        decided(True) if fixed > broken and mcnemar(fixed, broken) < ALPHA else Verdict.UNDECIDED,
        f"{fixed} fixed, {broken} new",
    )


@check("Table 13")
def layers_against_parameters() -> Iterator[Finding]:
    pairs = {
        f"{a}-{b}": float(fisher_exact(np.array([printed.CORRECTIONS[a][:2], printed.CORRECTIONS[b][:2]])).pvalue)
        for a in printed.LAYER_LEVEL
        for b in printed.PARAMETER_LEVEL
    }
    nets = {method: row[2] for method, row in printed.CORRECTIONS.items()}
    ordered = min(nets[m] for m in printed.LAYER_LEVEL) > max(nets[m] for m in printed.PARAMETER_LEVEL)
    told_apart = [pair for pair, p in holm(pairs).items() if p < ALPHA]
    yield Finding(
        "layer level consistently outperforms parameter level",
        "consistently",
        ", ".join(f"{pair} p = {p:.2g}" for pair, p in pairs.items()),
        Verdict.DIFFERS if not ordered else decided(True) if len(told_apart) == len(pairs) else Verdict.UNDECIDED,
        f"Fisher's test of fixed and new, as if independent; told apart after Holm's correction: "
        f"{', '.join(told_apart) or 'none'}",
    )


@check("Table 13")
def fewer_side_effects() -> Iterator[Finding]:
    ours, theirs = printed.CORRECTIONS["A"][1], printed.CORRECTIONS["B"][1]
    p = float(binomtest(theirs, ours + theirs).pvalue)
    yield Finding(
        "B has fewer new errors than A (also section 5.6)",
        f"{ours} → {theirs}",
        f"p = {p:.2f}",
        decided(True) if p < ALPHA else Verdict.UNDECIDED,
        "binomial test, as if independent; how many images both broke is not printed",
    )
