"""Which probe exceeds its nulls, from changes of margin alone: numbers in, numbers out.

A probe must exceed both nulls, so its p is the larger of two (Berger 1982), and Holm's correction runs over the
probes that were tried. Called a cause is only what raises the margin, on a two-sided test at 5 %: with no cause
at all, one or more of the probes is called one in at most 2.5 % of pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from suture.causes.probes import Family
from suture.stats import ALPHA, holm

LEAST = 3  # errors that a probe changed; from fewer no spread can be told
NAMED_FROM = 5  # errors; changes are shown for fewer, but a cause is not named
SMALLEST_SHARE = 0.1  # of the mean distance to the other class: what moves margins by less is no cause
NEAR = 0.8  # of the largest share: probes that reach it count as equal

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A difference of means with its two-sided t test; the interval is as wide as its level says."""

    value: float
    low: float
    high: float
    p: float


def difference(errors: Values, chance: Values, correct: Sequence[Values], *, looks: int) -> Difference:
    """By how much errors exceed the null that they exceed less clearly.

    Args:
        errors: (n,) changes of margin under a probe.
        chance: (n,) the same examples under random changes of the same size: a paired difference.
        correct: for each of the two classes (k,), the probe on its correct examples. Their means weigh equally,
            and a class of fewer than two is left out. Welch's test, made safe for far tails and few errors: the
            degrees of freedom are those of the smallest sample (Satterthwaite's let twenty looks give false alarms
            in 8 % of pairs of three errors), and errors are taken to vary as much as correct examples at least.
        looks: probes tried; the interval covers 1 − 5 % / looks (Bonferroni).
    """
    paired = _test([(1.0, errors - chance)], looks)
    known = [values for values in correct if len(values) > 1]
    if not known:
        return Difference(float("nan"), float("nan"), float("nan"), 1.0)
    spread = float(np.mean([values.var(ddof=1) for values in known]))
    unpaired = _test([(1.0, errors)] + [(-1 / len(known), values) for values in known], looks, least=spread)
    return max(paired, unpaired, key=lambda found: (found.p if found.value > 0 else 2 - found.p, -found.value))


def _test(parts: list[tuple[float, Values]], looks: int, least: float = 0.0) -> Difference:
    """Σ weight · mean against zero; each part an independent sample of two or more.

    Args:
        least: the least variance that the first part is given: a handful of errors may look alike by chance.
    """
    value = float(sum(weight * values.mean() for weight, values in parts))
    variances = [max(parts[0][1].var(ddof=1), least)] + [values.var(ddof=1) for _, values in parts[1:]]
    terms = zip(parts, variances, strict=True)
    error = float(np.sqrt(sum(weight**2 * variance / len(values) for (weight, values), variance in terms)))
    if error <= 1e-12 * max(abs(value), 1e-12):  # every example alike
        return Difference(value, value, value, 0.0 if value else 1.0)
    freedom = min(len(values) for _, values in parts) - 1
    half = float(stats.t.ppf(1 - ALPHA / looks / 2, freedom)) * error
    return Difference(value, value - half, value + half, float(2 * stats.t.sf(abs(value) / error, freedom)))


def corrected(probes: pd.DataFrame) -> pd.DataFrame:
    """The table with p corrected by Holm, and `stands_out`.

    That is an excess above zero at 5 %, of a size that counts, on enough errors.

    Args:
        probes: columns n, excess, p (uncorrected), share.
    """
    adjusted = holm(probes["p"].to_numpy(float)) if len(probes) else np.zeros(0)
    counts = (adjusted < ALPHA) & (probes["excess"] > 0) & (probes["share"] >= SMALLEST_SHARE)
    counts &= probes["n"] >= NAMED_FROM
    return probes.assign(p=adjusted, stands_out=np.asarray(counts, bool))


def cause(probes: pd.DataFrame) -> str | None:
    """The probe that names the cause, or None when none stands out.

    Probes are compared by share, at most 1: to bring errors to the border between the classes is to take all away
    that held them beyond it, and what goes further reverses. Those that reach `NEAR` of the largest count as equal.
    Among equals a feature goes before ``other``, whose probes (light, contrast, contours alone) weaken whatever a
    network reads; and then the one goes first that changes pictures least.

    Args:
        probes: index probe, columns family, stands_out, share, energy.
    """
    standing = probes[probes["stands_out"]]
    if standing.empty:
        return None
    share = standing["share"].clip(upper=1.0)
    near = standing[share >= NEAR * share.max()]
    features = near[near["family"] != "other"]
    return str((near if features.empty else features)["energy"].idxmin())


def named_by_swaps(swaps: pd.DataFrame) -> Family | None:
    """The family whose swap has the largest excess of those that stand out, or None.

    Args:
        swaps: as `suture.causes.swaps.swap_features` gives it.
    """
    standing = swaps[swaps["stands_out"].astype(bool)]
    return None if standing.empty else standing["excess"].astype(float).idxmax()  # type: ignore[return-value]


def of_family(probes: pd.DataFrame, family: Family) -> str | None:
    """The probe of a family with the largest excess, or None where none of it has one."""
    members = probes.loc[(probes["family"] == family) & (probes["excess"] > 0), "excess"]
    return None if members.empty else str(members.idxmax())


def by_family(probes: pd.DataFrame) -> pd.DataFrame:
    """A row per family: the probe of it with the largest excess, and how many of its probes stand out.

    Returns:
        Index family; columns probe, excess, excess_low, excess_high, p, stands_out (how many), tried. A family in
        which no excess is known is missing.
    """
    known = probes[probes["excess"].notna()]
    best = known.loc[known.groupby("family", sort=False)["excess"].idxmax()]
    table = best.rename_axis("probe").reset_index().set_index("family")
    count = known.groupby("family", sort=False)["stands_out"].agg(["sum", "size"])
    table = table[["probe", "excess", "excess_low", "excess_high", "p"]]
    table = table.assign(stands_out=count["sum"].astype(int), tried=count["size"])
    return table.sort_values("excess", ascending=False)
