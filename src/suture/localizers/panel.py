"""Localizers on a case: scores beside their nulls and intervals, the ranking, and which group stands out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from suture.errors import InvalidArgumentError, NonFiniteError, SutureError
from suture.localizers.evidence import Evidence
from suture.localizers.flagging import RULES, Ranking
from suture.localizers.intervals import FEWEST, Draws, blocks, bounds, excess, first_share, replicates
from suture.localizers.nulls import random_twins, thinned
from suture.localizers.passes import Passes
from suture.localizers.registry import Finding, Localizer, Null
from suture.wording import percent


@dataclass(frozen=True, eq=False)
class Panel:
    """What some localizers say of one model, and of what it is compared with.

    Tables have the groups as index and a column per localizer; NaN where a localizer has no such number.

    Attributes:
        localizers: the first one decides.
        findings: of every localizer that said something.
        evidence: on the errors.
        null: on as many correct examples.
        healthy: on the errors, of the healthy reference; None without one.
    """

    localizers: Mapping[str, Localizer]
    findings: Mapping[str, Finding]
    evidence: Evidence
    null: Evidence
    healthy: Evidence | None

    @property
    def first(self) -> str:
        """The localizer that decides."""
        return next(iter(self.localizers))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """On the errors."""
        return self._frame({name: finding.scores for name, finding in self.findings.items()})

    @cached_property
    def null_correct(self) -> pd.DataFrame:
        """On correct examples, of the localizers that have this null."""
        return self._table(self.null, self._with("correct"))

    @cached_property
    def null_reference(self) -> pd.DataFrame | None:
        """Of the healthy reference on the errors: for what reads gradients or weights."""
        read = {name: each for name, each in self.localizers.items() if each.reads != "network"}
        return None if self.healthy is None else self._table(self.healthy, read)

    @cached_property
    def null_random(self) -> pd.DataFrame:
        """On the errors at random initialisation, averaged, of the localizers that have this null.

        Those that run the network, which take long, see one such network.
        """
        case = self.evidence.case
        fewer = replace(
            self.evidence, wrong_at=thinned(self.evidence.wrong_at), correct_at=thinned(self.evidence.correct_at)
        )
        asked = self._with("random")
        tables = []
        for twin in random_twins(case.model, case.factory, case.seed):
            try:
                tables.append(self._table(fewer.of(twin), asked).to_numpy(float))
            except NonFiniteError:  # deep networks without normalisation blow up at random: no null, no fault
                continue
            asked = {name: each for name, each in asked.items() if each.reads != "network"}
        if not tables:
            return self._frame({})
        known = np.isfinite(tables)
        mean = np.where(known, tables, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        return pd.DataFrame(mean, index=list(case.groups), columns=list(self.localizers))

    @cached_property
    def intervals(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Low and high ends of the scores' 95 % intervals."""
        found = {name: bounds(self.scores[name], draws) for name, draws in self._draws.items()}
        return tuple(self._frame({name: found[name][end] for name in found}) for end in ("low", "high"))  # type: ignore[return-value]

    @cached_property
    def first_share(self) -> pd.DataFrame:
        """Share of resamples in which each group comes first."""
        groups = list(self.evidence.groups)
        return self._frame({name: first_share(draws, groups) for name, draws in self._ranked_draws.items()})

    def ranking(self, pays: pd.DataFrame) -> Ranking:
        """What the flagging rules read."""
        name, healthy = self.first, self.null_reference
        low, high = (table[name] for table in self.intervals)
        scores, null = self.scores[name], self.null_correct[name] if healthy is None else healthy[name]
        sharpened = healthy is not None and bool((null > 0).any())  # a distance from the reference has no profile
        return Ranking(
            scores=_over(scores, null) if sharpened else scores,
            null=null,
            low=_over(low, null) if sharpened else low,
            high=_over(high, null) if sharpened else high,
            first=self.first_share[name],
            excess=self._excess(),
            pays=pays,
        )

    def answer(self, ranking: Ranking) -> Finding:
        """The group that is sick, or none.

        It is what the first localizer says itself, where it does; else the group whose share exceeds its share in the
        null by most, if that is more than chance. Both are asked for: errors are unlike correct examples in the
        last layers of healthy networks too, by little but surely.

        Raises:
            InvalidArgumentError: the first localizer names a group that there is not.
        """
        own = self.findings.get(self.first)
        if own is not None and own.decides:
            if own.top is not None and own.top not in self.evidence.groups:
                raise InvalidArgumentError(f"the localizer '{self.first}' names '{own.top}', which is no group")
            return own
        hits, difference = RULES["exceeds_null"](ranking), ranking.excess["difference"]
        if not hits:
            return Finding(ranking.scores, None, None, self._why_none())
        top = str(difference.idxmax())
        if top not in hits:
            return Finding(
                ranking.scores, None, None,
                f"{_some(hits)} {'exceeds' if len(hits) == 1 else 'exceed'} the null by more than chance, but {top} "
                "exceeds it by more, which may be chance.",
            )  # fmt: skip
        return Finding(ranking.scores, top, float(ranking.excess["first"][top]), self._why(top))

    def _why(self, top: str) -> str:
        there = "on as many correct examples" if self.healthy is None else "in the healthy reference"
        ours, theirs = self.scores[self.first], self._null_scores()
        if min(ours.min(), theirs.min()) < 0:
            return f"Its {self.first} is {ours[top]:.3g} on errors and {theirs[top]:.3g} {there}."
        return (
            f"Its share of {self.first} is {percent(ours[top] / ours.sum())} on errors and "
            f"{percent(theirs[top] / theirs.sum())} {there}."
        )

    def _why_none(self) -> str:
        reads = self.localizers[self.first].reads
        if reads != "gradients":
            return f"{self.first} has no interval to tell chance by, so it ranks the groups and names none."
        if not len(self.evidence.wrong_at):
            return "There are no errors to explain."
        if self.healthy is None and not len(self.null.wrong_at):
            return "No example was right, so there is nothing to compare the errors with."
        if min(blocks(self.evidence), blocks(self.healthy or self.null)) < FEWEST:
            return "There are too few examples to tell a difference from chance."
        there = "on correct examples" if self.healthy is None else "in the healthy reference"
        return (
            f"No group's share of {self.first} on errors exceeds its share {there} by more than chance (5 % for all "
            "groups together)."
        )

    def _null_scores(self) -> pd.Series:
        return (self.null_correct if self.null_reference is None else self.null_reference)[self.first]

    def _excess(self) -> pd.DataFrame:
        name, seed = self.first, self.evidence.case.seed
        other = self.null if self.healthy is None else self.healthy
        if name not in self._draws or not blocks(other):
            return pd.DataFrame(np.nan, index=list(self.evidence.groups), columns=["difference", "low", "first"])
        # The reference saw the same examples, and its replicates draw the same blocks.
        paired = self.healthy is not None
        drawn = (self._healthy_draws or replicates({name: self.localizers[name]}, other, seed + 1))[name]
        k = (blocks(self.evidence), blocks(other))
        return excess(self.scores[name], self._draws[name], self._null_scores(), drawn, k, paired=paired)

    @cached_property
    def _draws(self) -> dict[str, Draws]:
        return self._replicates(self.evidence)

    @cached_property
    def _healthy_draws(self) -> dict[str, Draws] | None:
        return None if self.healthy is None or not self._draws else self._replicates(self.healthy)

    @cached_property
    def _ranked_draws(self) -> dict[str, Draws]:
        if self._healthy_draws is None:
            return self._draws
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: draws / self._healthy_draws[name] for name, draws in self._draws.items()}

    def _replicates(self, evidence: Evidence) -> dict[str, Draws]:
        if not len(evidence.wrong_at):
            return {}
        readers = {name: each for name, each in self.localizers.items() if each.reads == "gradients"}
        return replicates(readers, evidence, evidence.case.seed) if readers else {}  # which would measure gradients

    def _with(self, null: Null) -> dict[str, Localizer]:
        return {name: each for name, each in self.localizers.items() if null in each.nulls}

    def _table(self, evidence: Evidence, localizers: Mapping[str, Localizer]) -> pd.DataFrame:
        """Scores; without errors, of the localizers that need none."""
        found = {
            name: _scored(localizer, evidence)
            for name, localizer in localizers.items()
            if len(evidence.wrong_at) or localizer.reads != "gradients"
        }
        return self._frame(found)

    def _frame(self, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
        return pd.DataFrame(columns, index=list(self.evidence.groups), dtype=float).reindex(
            columns=list(self.localizers)
        )


def asked(
    localizers: Mapping[str, Localizer], evidence: Evidence, null: Evidence, passes: Passes, *, named: bool
) -> tuple[Panel, dict[str, str]]:
    """Ask every localizer about the errors; what cannot be used here is left out, with its reason.

    Args:
        named: whether the user named them: then what cannot be used is an error.

    Raises:
        NonFiniteError: a gradient is NaN or infinite; the parameter is named.
        InvalidArgumentError: none can be used.
    """
    findings, skipped = {}, {}
    for name, localizer in localizers.items():
        if localizer.reads == "gradients" and not len(evidence.wrong_at):
            continue
        try:
            with passes.charged_to(name):
                finding = localizer.find(evidence)
            if named or finding.scores.notna().any():
                findings[name] = finding
            else:
                skipped[name] = finding.why or "it has a score for no group"
        except NonFiniteError:
            raise
        except SutureError as error:
            if named or localizer.reads == "gradients":
                raise
            skipped[name] = str(error)
    used = {name: localizer for name, localizer in localizers.items() if name not in skipped}
    if not used:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise InvalidArgumentError(f"no localizer can be used here ({reasons})")
    healthy = None if evidence.case.reference is None else evidence.of(evidence.case.reference)
    return Panel(used, findings, evidence, null, healthy), skipped


def _scored(localizer: Localizer, evidence: Evidence) -> pd.Series:
    """Scores for a null; NaN where a localizer that runs the network cannot be used there."""
    try:
        return localizer(evidence)
    except SutureError:
        if localizer.reads != "network":
            raise
        return pd.Series(np.nan, index=list(evidence.groups))


def _over(scores: pd.Series, healthy: pd.Series) -> pd.Series:
    """score / healthy; NaN where the reference has none."""
    return scores / healthy.where(healthy > 0)


def _some(groups: list[str], most: int = 5) -> str:
    return ", ".join(groups[:most]) + (f" and {len(groups) - most} more" if len(groups) > most else "")
