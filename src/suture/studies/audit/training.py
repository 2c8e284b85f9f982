"""Sections 4.2 to 4.4, 6.2 and 7, Tables 3, 4, 5, 11 and 14: accuracies, milestones, speed-ups."""

from collections.abc import Iterator, Mapping

from suture.studies.audit import printed
from suture.studies.audit.findings import Finding, Verdict, check, compared, decided

Milestones = Mapping[str, tuple[int, ...]]


def at(milestones: Milestones, method: str, threshold: int) -> int:
    """The epoch at which a method reaches an accuracy, in per cent."""
    return milestones[method][printed.THRESHOLDS.index(threshold)]


def speedup(milestones: Milestones, slow: str, fast: str, threshold: int = 90) -> float:
    """How many times the epochs of the faster method the slower one needs."""
    return at(milestones, slow, threshold) / at(milestones, fast, threshold)


@check("Table 3")
def spread_and_time() -> Iterator[Finding]:
    accuracies = [float(text) for text in printed.BEST_ACCURACY.values()]
    spread = max(accuracies) - min(accuracies)
    why = f"{max(accuracies)} - {min(accuracies)}"
    yield compared("spread of best accuracy", "0.52", spread, why, unit=" points", more=0)
    low, high = printed.SEED_SPREAD
    yield Finding(
        "the spread is within seed-to-seed variance",
        "±0.2 to 0.3 points",
        f"two runs up to {2 * low:.1f} or {2 * high:.1f} apart",
        Verdict.UNDECIDED if 2 * low < spread <= 2 * high else decided(spread <= 2 * low),
        f"{spread:.2f} against each; what ± bounds is not said, and one seed cannot tell",
    )
    times = printed.TRAINING_SECONDS.values()
    excess = 100 * (max(times) / min(times) - 1)
    yield Finding("training time", "identical", f"within {excess:.1f} %", decided(excess < 1), "5,100 to 5,128 seconds")


@check("Table 4")
def speedups() -> Iterator[Finding]:
    table = printed.MILESTONES
    yield compared("speed-up to 90 % over Baseline", "1.9", speedup(table, "Baseline", "Physics"), "100 / 52", unit="×")
    yield compared("speed-up to 90 % over 1cycle", "2.8", speedup(table, "1cycle", "Physics"), "144 / 52", unit="×")
    ratios = {t: speedup(table, "Baseline", "Physics", t) for t in printed.THRESHOLDS}
    slower = [f"{t} %" for t, ratio in ratios.items() if ratio < 1]
    yield Finding(
        "1.9× faster convergence, whatever the threshold",
        "1.9×",
        ", ".join(f"{ratio:.2f}× to {t} %" for t, ratio in ratios.items()),
        Verdict.UNDECIDED,
        f"the headline is the largest of five ratios, and to {', '.join(slower) or 'none'} Physics is slower; which "
        "threshold counts is a choice",
    )


@check("Table 4")
def robust_to_seeds() -> Iterator[Finding]:
    before, again = printed.MILESTONES, printed.HYBRID_MILESTONES
    moved = {m: (at(before, m, 90), at(again, m, 90)) for m in before}
    gap = at(before, "Baseline", 90) - at(before, "Physics", 90)
    largest = max(abs(a - b) for a, b in moved.values())
    yield Finding(
        "differences to 90 % are large enough to be robust to seed variation",
        "robust",
        ", ".join(f"{m} {a} → {b}" for m, (a, b) in moved.items()),
        decided(largest < gap),
        f"Table 14 repeats the three with the same seed: one moves by {largest} epochs, more than the {gap} between "
        "Physics and Baseline",
    )


@check("Table 5")
def milestones_against_accuracies() -> Iterator[Finding]:
    wrong = []
    for method, accuracies in printed.EARLY.items():
        for threshold, reached in zip(printed.THRESHOLDS, printed.MILESTONES[method], strict=True):
            for epoch, accuracy in zip(printed.EARLY_EPOCHS, accuracies, strict=True):
                too_early = epoch < reached and accuracy >= threshold
                too_late = epoch == reached and accuracy < threshold
                if too_early or too_late:
                    wrong.append(f"{method} at epoch {epoch}")
    yield Finding(
        "accuracies at epochs 1, 10, 50 against Table 4",
        "both printed",
        "contradicted by " + ", ".join(wrong) if wrong else "no contradiction",
        decided(not wrong),
        "no accuracy lies above a threshold that Table 4 has reached later, nor below one reached in that epoch",
    )


@check("Section 4.4")
def monotone() -> Iterator[Finding]:
    first = at(printed.HYBRID_MILESTONES, "Physics", 90)
    yield Finding(
        "accuracy of Physics in epochs 1 to 60",
        "monotonically improving",
        f"dips below 90 % after epoch {first}",
        Verdict.DIFFERS,
        "section 7.3 says so of the same schedule and seed; the curve itself is not printed",
    )


@check("Table 11")
def errors_of_each_training() -> Iterator[Finding]:
    for method, (accuracy, errors) in printed.TRAINED.items():
        expected = round(printed.TEST_IMAGES * (100 - float(accuracy)) / 100)
        yield Finding(
            f"{method}: errors at {accuracy} %",
            str(errors),
            str(expected),
            decided(errors == expected),
            f"{errors} errors of 10,000 are {100 - 100 * errors / printed.TEST_IMAGES:.2f} %: best accuracy and errors "
            "are not of the same epoch",
        )


@check("Table 11")
def ranges_of_accuracy() -> Iterator[Finding]:
    of = {method: float(accuracy) for method, (accuracy, _) in printed.TRAINED.items()}
    sgd = [of[method] for method in printed.SGD_VARIANTS]
    yield compared("range of the SGD variants", "0.50", max(sgd) - min(sgd), "95.62 - 95.12", unit=" points", more=0)
    behind = of["Baseline"] - of["Adam"]
    yield compared("Adam behind Baseline", "1.8", behind, "95.51 - 93.68", unit=" points")


@check("Table 14")
def hybrid_milestones() -> Iterator[Finding]:
    table = printed.HYBRID_MILESTONES
    to_95 = {method: at(table, method, 95) for method in table}
    pair = f"{to_95['Baseline']} and {to_95['Physics']}"
    yield Finding(
        "Baseline and Physics to 95 % (section 7)", "175 and 183", pair, decided(pair == "175 and 183"), "their rows"
    )
    first = min(to_95, key=lambda method: to_95[method])
    yield Finding(
        "fastest to 95 %", "Hybrid-90", first, decided(first == "Hybrid-90"), f"epoch {to_95[first]} is the earliest"
    )
    gains = [to_95[method] - to_95["Hybrid-90"] for method in ("Baseline", "Physics")]
    yield Finding(
        "epochs ahead of Baseline and Physics to 95 %",
        "5, 13",
        ", ".join(map(str, gains)),
        decided(gains == [5, 13]),
        "175 - 170, 183 - 170; a repetition moves such epochs by more (Table 4)",
    )
    best = {method: float(text) for method, text in printed.HYBRID_BEST.items()}
    leaders = [method for method in best if best[method] == max(best.values())]
    yield Finding(
        "highest best accuracy",
        "1cycle and Hybrid-ep52",
        " and ".join(leaders),
        decided(leaders == ["1cycle", "Hybrid-ep52"]),
        f"{max(best.values())} %",
    )
    early = [at(table, method, 90) for method in ("Baseline", "1cycle", "Physics")]
    ratios = [f"{slow / early[-1]:.1f}×" for slow in early[:-1]]
    yield Finding(
        "speed-ups of Table 4 to 90 %, repeated with the same seed",
        "1.9×, 2.8×",
        ", ".join(ratios),
        decided(ratios == ["1.9×", "2.8×"]),
        f"{early[0]} / {early[2]}, {early[1]} / {early[2]}",
    )


@check("Table 14")
def both_hybrids_inherit() -> Iterator[Finding]:
    table = printed.HYBRID_MILESTONES
    later = [f"{m} {at(table, m, t)} to {t} %" for t in (80, 85, 90) for m in ("Hybrid-90", "Hybrid-ep52")
             if at(table, m, t) > at(table, "Baseline", t)]  # fmt: skip
    yield Finding(
        "both hybrids inherit the early advantage of Physics (80, 85, 90 %)",
        "both, to 90 %",
        "not " + ", ".join(later) if later else "both",
        decided(not later),
        f"Baseline reaches 90 % at epoch {at(table, 'Baseline', 90)}",
    )


@check("Table 14")
def switches() -> Iterator[Finding]:
    table = printed.HYBRID_MILESTONES
    reached = at(table, "Hybrid-90", 90)
    yield Finding(
        "Hybrid-90 switches after reaching 90 %",
        f"ep{printed.SWITCHED_AT}",
        f"ep{reached + 1}",
        decided(reached + 1 == printed.SWITCHED_AT),
        f"90 % at epoch {reached}, constant momentum from the next one on",
    )
    wasted = printed.SWITCH_EPOCH - at(table, "Physics", 90)
    yield Finding("wasted epochs of Hybrid-ep52", "7", str(wasted), decided(wasted == 7), "52 - 45, of the run Physics")
    own = at(table, "Hybrid-ep52", 90)
    yield Finding(
        "Hybrid-ep52 had reached 90 % before its switch",
        "at epoch 45",
        f"at epoch {own}",
        decided(own <= printed.SWITCH_EPOCH),
        "its own row; 45 is the row of Physics, another run",
    )


@check("Table 14")
def one_schedule_until_the_switch() -> Iterator[Finding]:
    table = printed.HYBRID_MILESTONES
    same = ("Physics", "Hybrid-90", "Hybrid-ep52")
    until = min(printed.SWITCHED_AT, printed.SWITCH_EPOCH)
    rows = {t: [at(table, m, t) for m in same] for t in printed.THRESHOLDS}
    early = {t: row for t, row in rows.items() if min(row) < until}
    yield Finding(
        "Physics and both hybrids are one run until the switch",
        "seed 42",
        "; ".join(f"{t} %: {', '.join(map(str, row))}" for t, row in early.items()),
        decided(all(len(set(row)) == 1 for row in early.values())),
        f"same schedule and seed to epoch {until - 1}, yet different epochs: a seed does not fix a run here",
    )
