"""Sections 5.2 to 5.4 and 6.3, Tables 7, 8, 9, 12 and 17: who is wrong, and which layers are blamed for it."""

from collections.abc import Iterator
from itertools import combinations, pairwise, permutations
from math import comb
from statistics import median

from suture.studies.audit import printed
from suture.studies.audit.findings import Finding, Verdict, check, compared, decided


def overlap_chance(shared: int, chosen: int = 3, groups: int = printed.GROUPS) -> float:
    """Probability that two independent random sets of `chosen` of `groups` share at least so many."""
    ways = sum(comb(chosen, k) * comb(groups - chosen, chosen - k) for k in range(shared, chosen + 1))
    return ways / comb(groups, chosen)


def above_median(norms: dict[str, float]) -> set[str]:
    """The rule of Table 8."""
    middle = median(norms.values())
    return {group for group, norm in norms.items() if norm > middle}


def errors_at(accuracy: str) -> int:
    """Errors on the test set at an accuracy in per cent."""
    return round(printed.TEST_IMAGES * (100 - float(accuracy)) / 100)


@check("Table 7")
def regions_of_the_baseline() -> Iterator[Finding]:
    """The seven regions of three error sets; only those that all numbers together fix."""
    baseline_and_cycle = printed.WON_BY_PHYSICS - printed.ONLY_BASELINE
    yield Finding(
        "Physics right, Baseline wrong: at least Baseline alone",
        str(printed.WON_BY_PHYSICS),
        f"{printed.ONLY_BASELINE} + {baseline_and_cycle}",
        decided(baseline_and_cycle >= 0),
        f"the other {baseline_and_cycle} are wrong for Baseline and 1cycle",
    )
    rest = printed.ERRORS_BEFORE - printed.ALL_WRONG - printed.WON_BY_PHYSICS
    yield Finding(
        "the parts of Baseline's errors sum to them",
        str(printed.ERRORS_BEFORE),
        f"{printed.ALL_WRONG} + {printed.WON_BY_PHYSICS} + {rest}",
        decided(rest >= 0),
        f"{rest} are wrong for Baseline and Physics and right for 1cycle: possible",
    )
    physics = printed.ALL_WRONG + printed.ONLY_PHYSICS + rest
    cycle = printed.ALL_WRONG + printed.ONLY_1CYCLE + baseline_and_cycle
    claimed = errors_at(printed.BEST_ACCURACY["Physics"]) - errors_at(printed.BEST_ACCURACY["1cycle"])
    yield Finding(
        "errors of Physics less those of 1cycle",
        f"{claimed} (Table 3)",
        str(physics - cycle),
        Verdict.UNDECIDED,
        "Table 3 is of the best epoch, Table 7 may be of the last, whose errors are printed for Baseline only",
    )


@check("Table 7")
def lost_by_physics() -> Iterator[Finding]:
    worse = errors_at(printed.BEST_ACCURACY["Physics"]) - printed.ERRORS_BEFORE
    yield Finding(
        "Physics and Baseline differ on images: H3 confirmed",
        f"{printed.WON_BY_PHYSICS} won",
        f"{printed.WON_BY_PHYSICS} won, {printed.WON_BY_PHYSICS + worse} lost",
        Verdict.UNDECIDED,
        f"{worse} errors more at {printed.BEST_ACCURACY['Physics']} %; two seeds of one schedule disagree on images "
        "too, and how much is not printed",
    )


@check("Table 8")
def ratios_of_norms() -> Iterator[Finding]:
    ranked = sorted(printed.NORMS.values(), reverse=True)
    yield compared("highest over lowest norm", "12.3", ranked[0] / ranked[-1], "10.56 / 0.86", unit="×")
    flagged = len(printed.FLAGGED)
    ratio = ranked[flagged - 1] / ranked[flagged]
    first = ranked[0] / ranked[flagged]
    yield compared(
        "third problem layer over the next one",
        "1.4",
        ratio,
        f"8.58 / 7.43; {first:.1f}× is the first problem layer over the fourth",
        unit="×",
    )


@check("Table 8")
def flagged_by_construction() -> Iterator[Finding]:
    names = list(printed.NORMS)
    sizes = {len(above_median(dict(zip(names, order, strict=True)))) for order in permutations(range(printed.GROUPS))}
    flagged = above_median(printed.NORMS)
    yield Finding(
        "groups above the median",
        ", ".join(printed.FLAGGED),
        ", ".join(sorted(flagged, key=lambda group: -printed.NORMS[group])),
        decided(flagged == set(printed.FLAGGED)),
        "the rule of Table 8 on its own norms",
    )
    yield Finding(
        "how many groups are problems",
        f"{len(printed.FLAGGED)} of {printed.GROUPS}",
        " or ".join(f"{size} of {printed.GROUPS}" for size in sorted(sizes)),
        decided(sizes == {len(printed.FLAGGED)}),
        "by construction: the rule flags three of any seven different norms, of a healthy network too",
    )


@check("Table 8")
def clear_cut() -> Iterator[Finding]:
    ranked = sorted(printed.NORMS.items(), key=lambda item: -item[1])
    gaps = {f"{a} to {b}": high - low for (a, high), (b, low) in pairwise(ranked)}
    cut = list(gaps)[len(printed.FLAGGED) - 1]
    order = sorted(gaps, key=lambda name: -gaps[name])
    yield Finding(
        "a clear cut between sick and healthy",
        f"at {cut}",
        f"gap {gaps[cut]:.2f}, number {order.index(cut) + 1} of {len(gaps)}",
        decided(order[0] == cut),
        f"the widest gap is {order[0]} with {gaps[order[0]]:.2f}",
    )


@check("Table 9")
def causes() -> Iterator[Finding]:
    yield Finding(
        "layers and root causes of confusion pairs",
        f"{len(printed.CONFUSIONS)} pairs",
        "nothing to compute with",
        Verdict.UNDECIDED,
        "neither counts nor norms per pair are printed, and no cause was tried by changing it",
    )


@check("Table 12")
def overlaps() -> Iterator[Finding]:
    layers = {name: set(chosen) for name, chosen in printed.PROBLEM_LAYERS.items()}
    for other, claimed in (("Adam", "3/3"), ("iKFAD", "2/3")):
        shared = len(layers["SGD"] & layers[other])
        found = f"{shared}/{len(layers['SGD'])}"
        yield Finding(f"SGD-{other} overlap", claimed, found, decided(found == claimed), "the sets of the table")


@check("Table 12")
def overlaps_by_chance() -> Iterator[Finding]:
    yield Finding(
        "an overlap of 3/3 is not expected by chance (section 10)",
        "would not expect",
        f"p = {overlap_chance(3):.3f}",
        Verdict.UNDECIDED,
        f"1 in {len(list(combinations(range(printed.GROUPS), 3)))} for random sets; but norms follow the layers' "
        "shapes, so the right comparison is correct images and random weights, and is not printed",
    )
    yield Finding(
        "an overlap of 2/3 with iKFAD",
        "2/3 shared",
        f"p = {overlap_chance(2):.2f}",
        Verdict.UNDECIDED,
        "two random sets of 3 of 7 share two or more this often",
    )


@check("Table 17")
def attributions_of_fixed_errors() -> Iterator[Finding]:
    known = [(before, after, layer) for before, after, layer in printed.FIXED_EXAMPLES
             if (after, before) in printed.CONFUSIONS]  # fmt: skip
    wrong = [row for row in known if printed.CONFUSIONS[row[1], row[0]] != row[2]]
    yield Finding(
        "layers attributed in Tables 17 and 9",
        "both printed",
        f"{len(known) - len(wrong)} of {len(known)} pairs agree",
        decided(not wrong),
        f"{len(printed.FIXED_EXAMPLES) - len(known)} of the {len(printed.FIXED_EXAMPLES)} examples have no pair in "
        "Table 9; how they were attributed is not printed",
    )
