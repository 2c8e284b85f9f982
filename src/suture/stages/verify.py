"""Verify: what the repair did to examples that nothing else has seen (section 5.6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer

from suture.case import Case
from suture.class_order import missing_folders
from suture.errors import InvalidArgumentError
from suture.patch import Patch, load_patch, patched
from suture.stages.baselines import baseline_table, no_baselines
from suture.stages.drift import Drift, measure_drift
from suture.stages.gallery import CELL, COLUMNS, cells, gallery
from suture.stages.must_keep import check_kept
from suture.stages.result import Result, Table
from suture.stages.subsets import SLICES, class_table, pair_table, slice_table, slices_of
from suture.stages.treat import Treatment
from suture.stats import (
    Interval,
    Verdict,
    examples_needed,
    flips,
    judge,
    mcnemar,
    net_interval,
    ratio_interval,
    upper_bound,
    wilson,
)
from suture.tasks import Outcomes
from suture.wording import several


def _closed(data: Any) -> Any:
    return (
        {"low": data["low"], "high": np.inf if data["high"] is None else data["high"]} if type(data) is dict else data
    )


def _opened(interval: Interval) -> dict[str, float | None]:
    return {"low": interval.low, "high": None if isinf(interval.high) else interval.high}


OpenInterval = Annotated[Interval, BeforeValidator(_closed), PlainSerializer(_opened)]
"""An interval whose upper end may be infinite, which JSON has no number for: null there."""


@dataclass(frozen=True, kw_only=True)
class Verification(Result, stage="verify", schema=1):
    """Before against after on `verify`.

    Fields with a default were added later: in older results, and where something was not asked for, they are empty.

    Attributes:
        n: examples.
        accuracy_before, accuracy_after: shares of right verdicts, with 95 % Wilson intervals.
        fixed: wrong before, right after.
        broken: right before, wrong after.
        ratio_interval: exact 95 % interval of fixed : broken; its upper end is infinite (null in JSON) when nothing
            broke.
        net: fixed − broken, with a 95 % bootstrap interval over examples.
        p_value: exact McNemar test, two-sided.
        verdict: what may be said.
        sentence: the verdict in words.
        negative_flip_rate: broken / n.
        regression_rate: broken / right before; regression_bound is its one-sided exact 95 % upper bound, and 0 for
            an empty patch, which can break nothing.
        churn: changed predictions / n; None for a task without predictions.
        churn_floor: share of predictions in which two treatments differ that had the same data in another order.
        optimistic: True under protocol "paper", where these examples were diagnosed too.
        per_class: class, n, before, after (accuracies), fixed, broken, p, adjusted, word.
        pairs: true, predicted, before, after (counts of that confusion), change, left, joined, p, adjusted, word.
        per_slice: slice, and the rest as in per_class.
        slices_left_out: metadata columns that gave no slices.
        drift: original against repaired on untouched data.
        must_keep: how many examples may not break, None where none were named.
        wrong_must_keep: those that were wrong before, so that no repair can break them.
        broken_must_keep: those that were right before and are wrong after.
        gallery: kind (fixed or broken), example, true, before, after, and sure_before, sure_after: the probability that
            the network gave its prediction, where the task has probabilities.
        examples: for the confusions that changed most, examples that were fixed out of them or broken into them: true
            class, predicted class, and the rest as in the gallery.
        pictures: fixed, broken → (k, h, w, c), in the gallery's order; examples → the same, in theirs.
        looks: how many patches were judged on `verify` in this run, this one included; its baselines are not counted.
        warnings: what may be wrong with the examples, so that nothing here means what it says.
        baselines: the treatment and the baselines that were carried out beside it; see
            `suture.stages.baselines.baseline_table`.

    In the tables p is the exact McNemar p of a row, adjusted the same after Holm's correction for the rows of its
    table, and word says better or worse where adjusted is below 0.05.
    """

    n: int
    accuracy_before: float
    accuracy_after: float
    interval_before: Interval
    interval_after: Interval
    fixed: int
    broken: int
    net: int
    net_interval: Interval
    p_value: float
    verdict: Verdict
    sentence: str
    negative_flip_rate: float
    regression_rate: float
    regression_bound: float
    churn: float | None
    optimistic: bool
    per_class: Table
    pairs: Table
    gallery: Table
    looks: int = 1
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    ratio_interval: OpenInterval | None = None
    churn_floor: float | None = None
    per_slice: Table = field(default_factory=lambda: pd.DataFrame(columns=SLICES))
    slices_left_out: list[str] = field(default_factory=list)
    drift: Drift | None = None
    must_keep: int | None = None
    wrong_must_keep: list[str] = field(default_factory=list)
    broken_must_keep: list[str] = field(default_factory=list)
    examples: Table = field(default_factory=lambda: pd.DataFrame(columns=[*CELL, *COLUMNS]))
    baselines: Table = field(default_factory=no_baselines)
    warnings: list[str] = field(default_factory=list)

    @property
    def right_before(self) -> int:
        """How many examples were right before, so that they could break."""
        return round(self.accuracy_before * self.n)


def verify(
    case: Case,
    treatment: Treatment | Patch | str | Path,
    *,
    twin: Patch | None = None,
    slices: Mapping[str, Any] | None = None,
    untouched: Any = None,
    must_keep: Sequence[str | int] | None = None,
    looks: int = 1,
) -> Verification:
    """Compare the case's model with its patched copy on `verify`.

    Args:
        treatment: a treatment, a patch, or the path of a patch.
        twin: the patch of the same treatment with its data in another order; taken from a treatment that has one.
        slices: name → positions in ``case.splits["verify"]`` or a bool mask over it; beside those that a data
            set's own ``metadata`` (column → values) gives.
        untouched: a data set that the repair was not about, labelled or not, on which drift is measured.
        must_keep: names of examples that may not break, as `suture.splits.Split.label` gives them.
        looks: how many patches were judged on these examples, this one included.

    Raises:
        BaseMismatchError: the patch or its twin is for other weights.
        InvalidArgumentError: a slice is no part of `verify`.
        DataError: an example to keep is unknown, or the untouched data cannot be used.
    """
    patch = _patch_of(treatment)
    split = case.splits["verify"]
    masks, left_out = slices_of(split, slices)
    repaired = patched(case.model, patch)
    kept = check_kept(case, repaired, must_keep or [])
    if twin is None and isinstance(treatment, Treatment):
        twin = treatment.twin
    before, after = (case.outcomes("verify", model) for model in (case.model, repaired))
    moves = flips(before.right, after.right)
    verdict = judge(moves) if len(patch) else Verdict.NO_CHANGE
    optimistic = case.protocol == "paper"
    # Whether a stranger's patch was made with these examples, nobody here can say.
    unseen = isinstance(treatment, Treatment)
    seen = several(moves.n, "unseen example" if unseen and not optimistic else "example")
    beside = baseline_table(case, treatment, before, after) if isinstance(treatment, Treatment) else no_baselines()
    pairs = pair_table(case, before, after)
    chosen, pictures = gallery(case, repaired, before, after)
    examples, drawn = cells(case, repaired, before, after, pairs)
    return Verification(
        n=moves.n,
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        interval_before=wilson(moves.right_before, moves.n),
        interval_after=wilson(moves.right_after, moves.n),
        fixed=moves.fixed,
        broken=moves.broken,
        ratio_interval=ratio_interval(moves.fixed, moves.broken),
        net=moves.net,
        net_interval=net_interval(moves, case.seed),
        p_value=mcnemar(moves.fixed, moves.broken),
        verdict=verdict,
        sentence=_sentence(
            verdict,
            moves.n,
            examples_needed(moves),
            changed=len(patch) > 0,
            examples=f"{seen} that were diagnosed too" if optimistic else seen,
        ),
        negative_flip_rate=moves.negative_flip_rate,
        regression_rate=moves.regression_rate,
        regression_bound=upper_bound(moves.broken, moves.right_before) if len(patch) else 0.0,
        churn=_churn(before, after),
        churn_floor=_floor(case, after, twin),
        optimistic=optimistic,
        per_class=class_table(case, before, after),
        pairs=pairs,
        per_slice=slice_table(masks, before, after),
        slices_left_out=left_out,
        drift=measure_drift(case, repaired, untouched) if untouched is not None else None,
        must_keep=kept.n if must_keep is not None else None,
        wrong_must_keep=kept.wrong,
        broken_must_keep=kept.broken,
        gallery=chosen,
        examples=examples,
        baselines=beside,
        warnings=missing_folders(case, "verify"),
        looks=looks,
        pictures=pictures | ({} if drawn is None else {"examples": drawn}),
    )


def _patch_of(treatment: Treatment | Patch | str | Path) -> Patch:
    if isinstance(treatment, Patch):
        return treatment
    if isinstance(treatment, Treatment):
        return treatment.patch
    if isinstance(treatment, str | Path):
        return load_patch(treatment)
    raise InvalidArgumentError(f"verify takes a treatment, a patch or the path of one, not {type(treatment).__name__}")


def _sentence(verdict: Verdict, n: int, needed: int, *, changed: bool, examples: str) -> str:
    if not changed:
        return "No measurable change: the patch is empty."
    return {
        Verdict.BETTER: f"Better: on {examples} the repair fixes more than it breaks.",
        Verdict.WORSE: f"Worse: on {examples} the repair breaks more than it fixes.",
        Verdict.NO_CHANGE: f"No measurable change: on {examples}, less than one point of accuracy either way.",
        Verdict.CANNOT_TELL: f"Cannot tell: {examples} {'is' if n == 1 else 'are'} too few; about {needed} would do.",
    }[verdict]


def _churn(before: Outcomes, after: Outcomes) -> float | None:
    if before.predictions is None or after.predictions is None:
        return None
    return float((before.predictions != after.predictions).mean())


def _floor(case: Case, after: Outcomes, twin: Patch | None) -> float | None:
    """Churn between two treatments that differ in nothing but the order of their data."""
    if twin is None or after.predictions is None:
        return None
    return _churn(after, case.outcomes("verify", patched(case.model, twin)))
