"""Abstract, sections 1, 9 and 10, references: numbers in words."""

from collections.abc import Iterator
from itertools import combinations

from suture.studies.audit import printed
from suture.studies.audit.findings import Finding, Verdict, check, compared, decided
from suture.studies.audit.training import at, speedup

FOUNDED, PRINTED = 1999, 2026  # Qian [12]; the year of the newest reference

# As the works themselves have it, looked up at arXiv: the one thing here that cannot be computed.
AUTHORS = {
    "[1]": "Wang, Malladi, Wang, Lyu, Li",
    "[20]": "Karoni, Rajpal, Leimkuhler, Stoltz",
}


@check("Abstract")
def best_variant() -> Iterator[Finding]:
    fixed, broken, _, _ = printed.CORRECTIONS["B"]
    yield Finding("net of the best variant", "+22", f"{fixed - broken:+d}", decided(fixed - broken == 22), "62 - 40")
    levels = [printed.CORRECTIONS[method] for method in printed.PARAMETER_LEVEL]
    low, high = min(row[0] for row in levels), max(row[0] for row in levels)
    negative = all(row[0] < row[1] for row in levels)
    yield Finding(
        "errors fixed at parameter level, with negative net",
        "42-46",
        f"{low}-{high}, {'negative' if negative else 'not negative'}",
        decided((low, high) == (42, 46) and negative),
        "Table 13, methods C and D",
    )


@check("Abstract")
def errors_fixed() -> Iterator[Finding]:
    yield Finding(
        "errors fixed, of 452 (sections 1 and 5)",
        "62",
        str(printed.FIXED),
        decided(printed.FIXED == 62),
        "62 is Table 13, whose model makes 453 errors; with 452 errors Table 10 fixes 55",
    )


@check("Abstract")
def convergence() -> Iterator[Finding]:
    yield compared(
        "speed-up to 90 %", "1.9", speedup(printed.MILESTONES, "Baseline", "Physics"), "Table 4, 100 / 52", unit="×"
    )


@check("Section 9.1")
def years() -> Iterator[Finding]:
    years = PRINTED - FOUNDED
    yield Finding("years that the oscillator model is known", "27", str(years), decided(years == 27), "2026 - 1999")


@check("Section 9.2")
def search_space() -> Iterator[Finding]:
    yield Finding(
        "one curve instead of a grid of α and μ",
        "halves the search",
        "k² points to k",
        Verdict.UNDECIDED,
        "true of dimensions, two to one, and of points for k = 2 values each",
    )


@check("Section 10")
def differences_of_accuracy() -> Iterator[Finding]:
    found = [abs(float(a) - float(b)) for a, b in combinations(printed.BEST_ACCURACY.values(), 2)]
    yield Finding(
        "accuracy differences between methods",
        "0.2-0.5 points",
        f"{min(found):.2f}-{max(found):.2f} points",
        decided(abs(min(found) - 0.2) <= 0.055 and abs(max(found) - 0.5) <= 0.055),
        "Table 3, all pairs",
    )


@check("Section 10")
def other_numbers() -> Iterator[Finding]:
    table = printed.HYBRID_MILESTONES
    found = f"{at(table, 'Physics', 90)} and {at(table, 'Baseline', 90)}"
    yield Finding("epochs to 90 %, Experiment 4", "45 and 96", found, decided(found == "45 and 96"), "Table 14")
    broken = sorted(printed.CORRECTIONS[method][1] for method in printed.LAYER_LEVEL)
    found = f"{broken[0]}-{broken[-1]}"
    yield Finding(
        "new errors per 62 fixed, layer level", "40-55", found, decided(found == "40-55"), "Table 13, A and B"
    )
    runs = 5 * 3 * 2
    yield Finding("5 seeds × 3 architectures × 2 datasets", "30 runs", f"{runs} runs", decided(runs == 30), "5 · 3 · 2")


@check("References")
def authors() -> Iterator[Finding]:
    for entry, (claimed, work) in printed.REFERENCES.items():
        yield Finding(
            f"authors of {entry}",
            claimed,
            AUTHORS[entry],
            decided(claimed.split(",")[0].split()[-1] == AUTHORS[entry].split(",")[0]),
            f"{work}; looked up and not computed",
        )
