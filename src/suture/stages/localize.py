"""Localize: where a model is sick, and where treating it pays (paper, section 5.3, and past it)."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from suture.case import Case
from suture.class_order import doubts
from suture.errors import InvalidArgumentError
from suture.localizers import RULES, gather
from suture.localizers.choice import chosen, refuse_random_outputs, refuse_strange_reference, rule_of
from suture.localizers.panel import asked
from suture.localizers.passes import Passes
from suture.localizers.pays import estimate
from suture.stages.result import GAIN, Gains, Result, Scores, Table
from suture.stats import wilson
from suture.tasks import Outcomes

if TYPE_CHECKING:
    from torch import nn


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(dtype=float)


@dataclass(frozen=True, kw_only=True)
class Localization(Result, stage="localize", schema=2):
    """Two answers: where the model is sick (scores, top), and where treating it pays (pays, flagged).

    Attributes:
        scores: index group (model order), one column per localizer, larger = more suspect; NaN where a localizer
            has nothing to say of a group.
        low, high: bootstrap intervals of the scores, 95 %; NaN for localizers that read no gradients. The bias of
            a norm is taken out of them, so that they can lie below the score.
        first_share: share of resamples in which the group comes first; NaN likewise.
        null_correct: the same scores on as many correct examples; NaN for localizers that do not look at errors.
        null_random: the same scores on the errors at random initialisation, averaged over seeds; NaN for localizers
            that have a standard of their own.
        null_reference: the same scores of the healthy reference on the same errors; None without a reference.
            With one, groups are ranked by score / null_reference: the profile of a healthy network is divided out.
        pays: group → gain, low, high: where treating pays, in log(1 + loss) on held-out examples; empty under
            protocol "paper".
        flagged: the groups that Treat will treat; none without errors.
        top: the group that is sick, or None when none stands out.
        confidence: share of resamples that name the same group; None where it was not measured.
        why: what speaks for `top`, or against any, in a sentence.
        rule: what flagged them.
        n, n_errors, n_null: examples looked at, errors among them, correct examples of the null.
        accuracy: of the model on `diagnose`.
        groups: group → parameter names.
        examples: a row per example of `diagnose`: right, loss, target, predicted.
        cost: localizer, "verdicts", "nulls" or "pays" → forward and backward passes over `diagnose`; what several
            share is counted where it was asked for first.
        skipped: localizer → why it could not be used here.
        warnings: what may be wrong with the labels, so that no layer is to blame.
    """

    scores: Scores
    low: Scores = field(default_factory=_nothing)
    high: Scores = field(default_factory=_nothing)
    first_share: Scores = field(default_factory=_nothing)
    null_correct: Scores
    null_random: Scores
    null_reference: Scores | None = None
    pays: Gains = field(default_factory=lambda: pd.DataFrame(columns=GAIN, dtype=float))
    flagged: list[str]
    top: str | None
    confidence: float | None = None
    why: str = ""
    rule: str
    n: int
    n_errors: int
    n_null: int
    accuracy: float
    groups: dict[str, list[str]]
    examples: Table
    cost: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def guessing(self) -> bool:
        """Whether the model does no better than guessing, or than always giving the most frequent class.

        Then a setting may be wrong.
        """
        if "target" not in self.examples or self.examples["target"].nunique() < 2:
            return False
        shares = self.examples["target"].value_counts(normalize=True)
        by_lot = wilson(self.n - self.n_errors, self.n).low <= 1 / len(shares)
        return by_lot or self.accuracy <= shares.max()

    @property
    def first(self) -> str:
        """The localizer that decides."""
        return str(self.scores.columns[0])

    def export(self, form: str, model: "nn.Module") -> Any:
        """The flagged groups as other tools take them: a `suture.views.targets.Export`.

        Args:
            form: ``"peft"``, ``"axolotl"`` or ``"json"``.
            model: whose names are matched.
        """
        return importlib.import_module("suture.views.targets").export(self, form, model)  # views import stages


def localize(
    case: Case,
    localizers: str | Sequence[str] = "default",
    rule: str = "default",
    *,
    max_memory: int | None = None,
) -> Localization:
    """Score every group of a case beside its nulls, say which one stands out, and flag those to treat.

    Args:
        case: its `diagnose` split is looked at, in eval mode.
        localizers: names of the registry, ``"default"`` or ``"all"``; the first one decides which group is sick. By
            default that is ``norm_statistics``, beside ``grad_norm``; with a rule that reads scores it is the latter.
        rule: a name of ``suture.localizers.RULES``; ``"default"`` flags where treating pays, and under protocol
            "paper" what is ``above_median``. All others read the scores of the first localizer.
        max_memory: bytes that evidence may take at a time; see `suture.localizers.measure`.

    Raises:
        UnknownNameError: no such localizer or rule.
        InvalidArgumentError: a localizer needs a reference and there is none, a rule does not go with the protocol
            or the localizer, the reference is of another architecture, or the model gives different outputs for
            the same inputs.
        NonFiniteError: the model's outputs or gradients are not finite.
    """
    wanted, left_out, named = chosen(case, localizers, rule)
    rule = rule_of(case, rule, next(iter(wanted.values())))
    if max_memory is not None and max_memory < 1:
        raise InvalidArgumentError(f"max_memory must be at least one byte, not {max_memory}")
    refuse_strange_reference(case)
    refuse_random_outputs(case)
    passes = Passes(case.task, len(case.splits["diagnose"]))
    case = passes.counted(case)
    with passes.charged_to("verdicts"):
        outcomes = case.outcomes("diagnose")
    evidence, null = gather(case, outcomes.right, max_memory)
    panel, unusable = asked(wanted, evidence, null, passes, named=named)
    with passes.charged_to("pays"):
        asked_for = case.protocol != "paper" and len(evidence.wrong_at) > 0  # without errors nothing is to be gained
        pays = estimate(evidence) if asked_for else pd.DataFrame(columns=GAIN, dtype=float)
    if rule == "pays" and len(evidence.wrong_at) and pays["gain"].isna().all():
        rule = "above_median"  # what the rule does then, by its own name
    with passes.charged_to("nulls"):
        ranking = panel.ranking(pays)
        nulls = {"null_correct": panel.null_correct, "null_random": panel.null_random}
    answer = panel.answer(ranking)
    low, high = panel.intervals
    return Localization(
        scores=panel.scores, low=low, high=high, first_share=panel.first_share, **nulls,
        null_reference=panel.null_reference, pays=pays,
        flagged=RULES[rule](ranking) if len(evidence.wrong_at) else [],
        top=answer.top, confidence=answer.confidence, why=answer.why, rule=rule,
        n=len(outcomes.right), n_errors=len(evidence.wrong_at), n_null=len(null.wrong_at), accuracy=outcomes.accuracy,
        groups={group: list(parameters) for group, parameters in case.groups.items()},
        examples=_examples(outcomes), cost=passes.cost, skipped=left_out | unusable,
        warnings=doubts(case, "diagnose", outcomes),
    )  # fmt: skip


def _examples(outcomes: Outcomes) -> pd.DataFrame:
    columns = {"right": outcomes.right, "loss": outcomes.losses}
    if outcomes.targets is not None and outcomes.predictions is not None:
        columns |= {"target": outcomes.targets, "predicted": outcomes.predictions}
    return pd.DataFrame(columns)
