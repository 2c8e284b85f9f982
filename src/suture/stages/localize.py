"""Localize: which groups have to do with the errors (paper, section 5.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers import DEFAULT, LOCALIZERS, RULES, Evidence, gather
from suture.localizers.nulls import reinitialised
from suture.stages.result import GAIN, Gains, Result, Scores, Table
from suture.stats import wilson
from suture.tasks import Outcomes, evaluate

RANDOM_INITS = 3  # networks over which the null at random initialisation is averaged


@dataclass(frozen=True, kw_only=True)
class Localization(Result, stage="localize", schema=1):
    """Scores of every group on the errors of `diagnose`, beside their nulls.

    Attributes:
        scores: index group (model order), one column per localizer, larger = more suspect.
        null_correct: the same scores on as many correct examples.
        null_random: the same scores on the errors at random initialisation, averaged over seeds.
        null_reference: the same scores of the healthy reference on the same errors; None without a reference.
            With one, groups are ranked by score / null_reference: the profile of a healthy network is divided out.
        pays: group → gain, low, high: where treating pays; empty until measured.
        flagged: the groups that Treat will treat.
        top: the group that is sick, or None when none stands out.
        rule: what flagged them.
        n, n_errors, n_null: examples looked at, errors among them, correct examples of the null.
        accuracy: of the model on `diagnose`.
        groups: group → parameter names.
        examples: a row per example of `diagnose`: right, loss, target, predicted.
    """

    scores: Scores
    null_correct: Scores
    null_random: Scores
    null_reference: Scores | None = None
    pays: Gains = field(default_factory=lambda: pd.DataFrame(columns=GAIN, dtype=float))
    flagged: list[str]
    top: str | None
    rule: str
    n: int
    n_errors: int
    n_null: int
    accuracy: float
    groups: dict[str, list[str]]
    examples: Table

    @property
    def guessing(self) -> bool:
        """Whether the model does no better than guessing among the classes that occur: a setting may be wrong."""
        classes = self.examples["target"].nunique() if "target" in self.examples else 0
        return classes > 1 and wilson(self.n - self.n_errors, self.n).low <= 1 / classes

    @property
    def first(self) -> str:
        """The localizer that the rule reads."""
        return str(self.scores.columns[0])


def localize(case: Case, localizers: str | Sequence[str] = "default", rule: str = "default") -> Localization:
    """Score every group of a case and flag the ones to treat.

    Args:
        case: its `diagnose` split is looked at, in eval mode.
        localizers: names of the registry; the first one decides what is flagged.
        rule: a name of ``suture.localizers.RULES``; ``"default"`` is ``above_median``.

    Raises:
        UnknownNameError: no such localizer or rule.
        InvalidArgumentError: under protocol "paper", a rule that is not the paper's.
        NonFiniteError: the model's outputs are not finite.
    """
    names = (
        list(DEFAULT) if localizers == "default" else list([localizers] if isinstance(localizers, str) else localizers)
    )
    if not names or len(set(names)) < len(names):
        raise InvalidArgumentError("localizers must be one or more different names")
    score = {name: LOCALIZERS[name] for name in names}
    rule = "above_median" if rule == "default" else rule
    if case.protocol == "paper" and rule != "above_median":
        raise InvalidArgumentError(f"protocol 'paper' flags by above_median, not by '{rule}'; leave the rule out")
    flag = RULES[rule]
    outcomes = evaluate(
        case.model, case.splits["diagnose"], case.task, device=case.device, batch_size=case.batch_size,
        name="the examples of 'diagnose'",
    )  # fmt: skip
    evidence, null = gather(case, outcomes.right)

    def table(this: Evidence) -> pd.DataFrame:
        if not len(this.wrong_at):
            return pd.DataFrame(float("nan"), index=list(case.groups), columns=names)
        return pd.DataFrame({name: localizer(this) for name, localizer in score.items()}, index=list(case.groups))

    scores = table(evidence)
    healthy = None if case.reference is None else table(evidence.of(case.reference))
    ranked = scores[names[0]] if healthy is None else scores[names[0]] / healthy[names[0]]
    flagged = flag(ranked) if len(evidence.wrong_at) else []
    return Localization(
        scores=scores,
        null_correct=table(null),
        null_random=_mean([table(evidence.of(reinitialised(case.model, case.seed + i))) for i in range(RANDOM_INITS)]),
        null_reference=healthy,
        flagged=flagged,
        top=str(ranked.idxmax()) if flagged else None,
        rule=rule,
        n=len(outcomes.right),
        n_errors=len(evidence.wrong_at),
        n_null=len(null.wrong_at),
        accuracy=outcomes.accuracy,
        groups={group: list(parameters) for group, parameters in case.groups.items()},
        examples=_examples(outcomes),
    )


def _mean(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return sum(tables[1:], tables[0]) / len(tables)


def _examples(outcomes: Outcomes) -> pd.DataFrame:
    columns = {"right": outcomes.right, "loss": outcomes.losses}
    if outcomes.targets is not None and outcomes.predictions is not None:
        columns |= {"target": outcomes.targets, "predicted": outcomes.predictions}
    return pd.DataFrame(columns)
