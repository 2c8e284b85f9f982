"""What every localizer answers on a case, and what that took: the product's own machinery, one localizer at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers import LOCALIZERS, Evidence, Localizer, Sample, gather
from suture.localizers.panel import Panel
from suture.localizers.passes import Passes
from suture.localizers.pays import GAIN
from suture.rundir import fingerprint

CHEAP = "cheap"
EXPENSIVE = ("probe", "care", "line_search", "newton_gain")  # a pass or more for every group


@dataclass(frozen=True)
class Answer:
    """What a localizer says of a case.

    Attributes:
        localizer: its name.
        scores: index group, larger = more suspect; divided by the healthy reference's where there is one and the
            localizer reads gradients or weights.
        named: the group it names: its own answer where it decides itself, else the first by score, by lot among
            equals; None when it decides that none stands out, or has no score.
        alarm: whether it says that a group stands out; None where it has nothing to say it by. A score of gradients
            does when a group's share exceeds its null by more than chance, whichever group that is.
        confidence: share of resamples that name the same group; None where nothing is resampled.
        passes: forward and backward passes over all of `diagnose`, those for nulls included, as if it were asked
            alone; the verdicts, which all of them start from, are not counted.
        error: why there is no answer; empty when there is one.
    """

    localizer: str
    scores: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    named: str | None = None
    alarm: bool | None = None
    confidence: float | None = None
    passes: float | None = None
    error: str = ""


def asked_for(localizers: Iterable[str], *, reference: bool) -> list[str]:
    """Names as asked for; without any, all of the registry, those that need a reference where there is one.

    ``"cheap"`` stands for all that take less than a pass for every group.

    Raises:
        UnknownNameError: no such localizer.
    """
    usable = [name for name, each in LOCALIZERS.items() if reference or each.needs != "reference"]
    asked = list(localizers) or usable
    spelt = [n for name in asked for n in (usable if name == CHEAP else [name]) if name != CHEAP or n not in EXPENSIVE]
    for name in spelt:
        LOCALIZERS[name]
    return list(dict.fromkeys(spelt))


def ask(case: Case, localizers: Sequence[str]) -> list[Answer]:
    """The answer of each localizer; one that raises answers with its error and disturbs no other."""
    panelist = _Asker(case)
    return [panelist.ask(name) for name in localizers]


def rank_of(group: str, scores: pd.Series, named: str | None) -> float:
    """Place of a group among `scores`, from 1; the named group comes first, groups alike share their mean place."""
    if named == group:
        return 1.0
    values = scores.astype(float).fillna(-np.inf).drop(labels=[named] if named else [])
    own = values[group]
    return float((named is not None) + 1 + (values > own).sum() + ((values == own).sum() - 1) / 2)


class _Asker:
    """A case with its evidence, of which the gradients are measured once and paid for by each who reads them."""

    def __init__(self, case: Case) -> None:
        self.passes = Passes(case.task, len(case.splits["diagnose"]))
        self.case = self.passes.counted(case)
        right = case.outcomes("diagnose").right
        errors, null = gather(self.case, right)
        self.evidence: dict[str, Evidence] = {"gradients of errors": errors, "gradients of the null": null}
        if case.reference is not None:
            self.evidence["gradients of the reference"] = errors.of(case.reference)
        self.measured: dict[str, Sample] = {}

    def ask(self, name: str) -> Answer:
        """The answer of a localizer."""
        try:
            return self._answer(name, LOCALIZERS[name])
        except Exception as error:  # a localizer may raise anything; the others are to be heard
            return Answer(name, error=" ".join(f"{type(error).__name__}: {error}".split())[:300])

    def _answer(self, name: str, localizer: Localizer) -> Answer:
        if localizer.reads == "gradients":
            return self._against_nulls(name, localizer)
        errors, _, *healthy = self._fresh(localizer)
        with self.passes.charged_to(name):
            finding = localizer.find(errors)
            scores, decides = finding.scores, finding.decides
            if healthy and localizer.reads == "weights" and localizer.needs is None and not decides:
                scores = _over(scores, localizer(healthy[0]))
        named = finding.top if decides else self._first(name, scores)
        alarm = finding.top is not None if decides else None
        return Answer(name, scores, named, alarm, finding.confidence, self.passes.cost[name])

    def _against_nulls(self, name: str, localizer: Localizer) -> Answer:
        """A score of gradients, with what `suture.localize` makes of it: its nulls and its resamples."""
        errors, null, *healthy = self._fresh(localizer)
        with self.passes.charged_to(name):
            finding = localizer.find(errors)
            panel = Panel({name: localizer}, {name: finding}, errors, null, healthy[0] if healthy else None)
            ranking = panel.ranking(pd.DataFrame(columns=GAIN, dtype=float))
            answer = panel.answer(ranking)
            share = panel.first_share[name].max()
        passes = self.passes.cost[name] + sum(self.passes.cost[which] for which in self.evidence)
        if finding.decides:
            return Answer(name, finding.scores, finding.top, finding.top is not None, finding.confidence, passes)
        named = self._first(name, ranking.scores)
        confidence = float(share) if np.isfinite(share) else None
        return Answer(name, ranking.scores, named, answer.top is not None, confidence, passes)

    def _fresh(self, localizer: Localizer) -> list[Evidence]:
        """All evidence as if nobody had asked before; to who reads gradients, with the gradients of the errors."""
        families: dict[int, dict[bytes, Sample]] = {}  # a model's samples, which its errors and its null share
        found = []
        for which, evidence in self.evidence.items():
            samples = families.setdefault(id(evidence.model), {})
            twin = replace(evidence, _samples=samples)
            if localizer.reads == "gradients":
                if not len(twin.wrong_at):
                    raise InvalidArgumentError(f"there are no examples for the {which}")
                if which not in self.measured:
                    with self.passes.charged_to(which):
                        self.measured[which] = twin.errors
                samples[twin.wrong_at.tobytes()] = self.measured[which]
            found.append(twin)
        return found

    def _first(self, name: str, scores: pd.Series) -> str | None:
        known = scores.dropna()
        best = [str(group) for group in known.index[known == known.max()]]
        lot = int(fingerprint(self.case.seed, name)[:8], 16)
        return best[lot % len(best)] if best else None


def _over(scores: pd.Series, healthy: pd.Series) -> pd.Series:
    """score / healthy; the score itself where the healthy network has none to divide by."""
    return scores / healthy if bool((healthy > 0).all()) else scores
