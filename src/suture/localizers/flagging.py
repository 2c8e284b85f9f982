"""Rules that turn scores into flagged groups."""

from collections.abc import Callable

import pandas as pd

from suture.registry import Registry

Rule = Callable[[pd.Series], list[str]]

RULES: Registry[Rule] = Registry("flagging rule")


@RULES.register("above_median")
def above_median(scores: pd.Series) -> list[str]:
    """Groups whose score is above the median (Table 8): about half of them, whatever the model."""
    return [str(group) for group in scores.index[scores > scores.median()]]


@RULES.register("first")
def first(scores: pd.Series) -> list[str]:
    """The group with the highest score alone."""
    return [str(scores.idxmax())] if scores.notna().any() else []
