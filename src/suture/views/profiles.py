"""What a localization says of each group, as the numbers that its figure, table and sentences show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from suture.views.style import floats

if TYPE_CHECKING:
    from suture.stages.localize import Localization


STANDS_OUT = {"norm_statistics": 1.0}  # localizers with a unit of their own → the score above which a group stands out


def drawable(result: Localization) -> bool:
    """Whether there is a finite score to draw."""
    return bool(np.isfinite(floats(result.scores, result.first)).any())


def raw_scores(result: Localization, name: str = "") -> pd.DataFrame:
    """Index group; columns errors, low, high, correct, random: of the first localizer or another, NaN if infinite."""
    name = name or result.first
    tables = {
        "errors": result.scores, "low": result.low, "high": result.high, "correct": result.null_correct,
        "random": result.null_random,
    }  # fmt: skip
    raw = {key: column_of(table, name, result.scores.index) for key, table in tables.items()}
    return pd.DataFrame(raw).replace([np.inf, -np.inf], np.nan)


def column_of(table: pd.DataFrame, name: str, groups: pd.Index) -> pd.Series:
    values = floats(table, name) if name in table else np.full(len(table), np.nan)
    return pd.Series(values, index=table.index).reindex(groups)


def are_shares(result: Localization) -> bool:
    """Whether scores can be read as parts of a whole: without a unit, none is negative, and one is not zero."""
    if result.first in STANDS_OUT:
        return False
    raw = raw_scores(result)
    return not bool((raw[["errors", "correct", "random"]] < 0).any(axis=None)) and bool(raw["errors"].sum() > 0)


def profiles_of(result: Localization) -> pd.DataFrame:
    """Scores as shares of their sum over the groups, where that makes sense; else as they are."""
    raw = raw_scores(result)
    sums = raw.sum()
    sums[["low", "high"]] = sums["errors"]
    return raw / sums.where(sums > 0) if are_shares(result) else raw


def gains_of(result: Localization) -> pd.DataFrame:
    """Index group; columns gain, low, high; NaN where not known."""
    columns = {name: column_of(result.pays, name, result.scores.index) for name in ("gain", "low", "high")}
    return pd.DataFrame(columns).replace([np.inf, -np.inf], np.nan)


def highest(scores: pd.Series, most: int) -> list[str]:
    """The groups with the highest scores, in the model's order."""
    kept = set(scores.sort_values(ascending=False, kind="stable").index[:most])
    return [group for group in scores.index if group in kept]


def beside_first(result: Localization) -> str | None:
    """The localizer to show beside a first one that has no nulls: the next one that has."""
    if not raw_scores(result)[["correct", "random"]].isna().all(axis=None):
        return None
    names = [str(name) for name in result.scores.columns[1:]]
    return next((n for n in names if raw_scores(result, n)[["correct", "random"]].notna().any(axis=None)), None)


def sizes_of(result: Localization) -> pd.Series:
    """Parameters per group, which ‖∇_g‖ and ‖∇_g‖/√n_g give away where both were measured."""
    norm, rms = (column_of(result.scores, name, result.scores.index) for name in ("grad_norm", "rms"))
    return ((norm / rms.where(rms > 0)) ** 2).round().replace(np.inf, np.nan)


def first_shares(result: Localization, name: str) -> pd.Series:
    return column_of(result.first_share, name, result.scores.index)
