"""Rules that turn what is known about the groups into flagged ones. The registry is open to users::

@suture.localizers.RULES.register("certain")
def certain(ranking):
    \"\"\"Groups whose whole interval lies above the median score.\"\"\"
    return ranking.named(ranking.low > ranking.scores.median())
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from suture.localizers.pays import GAIN
from suture.registry import Registry

TOP = 3  # groups that "top_k" flags
ALIKE = 0.8  # of the best gain: treating more groups beside the best breaks more than it adds (docs/localization.md)


def _empty() -> pd.Series:
    return pd.Series(dtype=float)


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a rule reads: the first localizer's scores and where treating pays; index group, in model order.

    Attributes:
        scores: of the first localizer; divided by a healthy reference's where there is one.
        null: the same score without a fault: of the reference where there is one, else on correct examples.
        low, high: 95 % interval of the score.
        first: share of resamples in which the group comes first.
        excess: columns difference, low, first; see `suture.localizers.intervals.excess`.
        pays: columns gain, low, high.
    """

    scores: pd.Series
    null: pd.Series = field(default_factory=_empty)
    low: pd.Series = field(default_factory=_empty)
    high: pd.Series = field(default_factory=_empty)
    first: pd.Series = field(default_factory=_empty)
    excess: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["difference", "low", "first"]))
    pays: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=GAIN))

    def named(self, holds: pd.Series) -> list[str]:
        """The groups for which something holds, in model order."""
        hit = holds.reindex(self.scores.index).fillna(False).astype(bool)
        return [str(group) for group in self.scores.index[hit]]


Rule = Callable[[Ranking], list[str]]


class Rules(Registry[Rule]):
    """The flagging rules; ``top_1``, ``top_5`` and so on need not be registered."""

    def __getitem__(self, name: str) -> Rule:
        if name not in self._things and (found := re.fullmatch(r"top_([1-9]\d{0,5})", name)):
            return lambda ranking: _highest(ranking, int(found[1]))
        return super().__getitem__(name)


RULES = Rules("flagging rule")


@RULES.register("above_median")
def above_median(ranking: Ranking) -> list[str]:
    """Groups whose score is above the median (Table 8): about half of them, whatever the model."""
    return ranking.named(ranking.scores > ranking.scores.median())


@RULES.register("first")
def first(ranking: Ranking) -> list[str]:
    """The group with the highest score alone."""
    return _highest(ranking, 1)


@RULES.register("top_k")
def top_k(ranking: Ranking) -> list[str]:
    """The three groups with the highest scores; ``top_1``, ``top_5`` and so on take another number."""
    return _highest(ranking, TOP)


@RULES.register("exceeds_null")
def exceeds_null(ranking: Ranking) -> list[str]:
    """Groups whose share of the score exceeds their share in the null by more than chance.

    When errors and the null differ by nothing but chance, it flags a group, any at all, in about 5 % of cases
    (measured: tests/localizers/test_flagging.py). It says no more than that: a healthy network's errors can
    differ from what it gets right too.
    """
    return ranking.named(ranking.excess["low"] > 0)


@RULES.register("pays")
def pays(ranking: Ranking) -> list[str]:
    """Groups whose brief treatment gains at least 80 % of what the best one's does.

    None when no group gains anything; those above the median score where gains are not known. Whether the gain is
    more than chance is for Treat to say, which has more examples to say it with.
    """
    gains = ranking.pays["gain"].reindex(ranking.scores.index).astype(float)
    if gains.isna().all():
        return above_median(ranking)
    return ranking.named((gains > 0) & (gains >= ALIKE * gains.max()))


def _highest(ranking: Ranking, k: int) -> list[str]:
    kept = ranking.scores.dropna().sort_values(ascending=False, kind="stable").index[:k]
    return ranking.named(pd.Series(True, index=kept))
