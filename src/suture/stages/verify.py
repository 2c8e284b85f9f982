"""Verify: what the repair did to examples that nothing else has seen (section 5.6)."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.patch import Patch, load_patch, patched
from suture.stages.result import Result, Table
from suture.stages.treat import Treatment
from suture.stats import (
    Interval,
    Verdict,
    examples_needed,
    flips,
    judge,
    mcnemar,
    net_interval,
    upper_bound,
    wilson,
)
from suture.tasks import Outcomes, evaluate

GALLERY = 24  # pictures of each kind


@dataclass(frozen=True, kw_only=True)
class Verification(Result, stage="verify", schema=1):
    """Before against after on `verify`.

    Attributes:
        n: examples.
        accuracy_before, accuracy_after: shares of right verdicts, with 95 % Wilson intervals.
        fixed: wrong before, right after.
        broken: right before, wrong after.
        net: fixed − broken, with a 95 % bootstrap interval over examples.
        p_value: exact McNemar test, two-sided.
        verdict: what may be said.
        sentence: the verdict in words.
        negative_flip_rate: broken / n.
        regression_rate: broken / right before; regression_bound is its one-sided exact 95 % upper bound.
        churn: changed predictions / n; None for a task without predictions.
        optimistic: True under protocol "paper", where these examples were diagnosed too.
        per_class: class, n, before, after (accuracies), fixed, broken.
        pairs: true, predicted, before, after (counts of that confusion), change.
        gallery: kind (fixed or broken), example, true, before, after.
        pictures: fixed, broken → (k, h, w, c), in the gallery's order.
        looks: how often `verify` has been looked at in this run, this time included.
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


def verify(case: Case, treatment: Treatment | Patch | str | Path, *, looks: int = 1) -> Verification:
    """Compare the case's model with its patched copy on `verify`.

    Args:
        treatment: a treatment, a patch, or the path of a patch.
        looks: how often these examples were looked at, this time included.

    Raises:
        BaseMismatchError: the patch is for other weights.
    """
    patch = _patch_of(treatment)
    before, after = (
        evaluate(model, case.splits["verify"], case.task, device=case.device, batch_size=case.batch_size,
                 name="the examples of 'verify'")
        for model in (case.model, patched(case.model, patch))
    )  # fmt: skip
    moves = flips(before.right, after.right)
    verdict = judge(moves) if len(patch) else Verdict.NO_CHANGE
    unseen = case.protocol != "paper"
    gallery, pictures = _gallery(case, before, after)
    return Verification(
        n=moves.n,
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        interval_before=wilson(moves.right_before, moves.n),
        interval_after=wilson(moves.right_after, moves.n),
        fixed=moves.fixed,
        broken=moves.broken,
        net=moves.net,
        net_interval=net_interval(moves, case.seed),
        p_value=mcnemar(moves.fixed, moves.broken),
        verdict=verdict,
        sentence=_sentence(verdict, moves.n, examples_needed(moves), changed=len(patch) > 0, unseen=unseen),
        negative_flip_rate=moves.negative_flip_rate,
        regression_rate=moves.regression_rate,
        regression_bound=upper_bound(moves.broken, moves.right_before),
        churn=_churn(before, after),
        optimistic=not unseen,
        per_class=_per_class(case, before, after),
        pairs=_pairs(case, before, after),
        gallery=gallery,
        looks=looks,
        pictures=pictures,
    )


def _patch_of(treatment: Treatment | Patch | str | Path) -> Patch:
    if isinstance(treatment, Patch):
        return treatment
    if isinstance(treatment, Treatment):
        return treatment.patch
    if isinstance(treatment, str | Path):
        return load_patch(treatment)
    raise InvalidArgumentError(f"verify takes a treatment, a patch or the path of one, not {type(treatment).__name__}")


def _sentence(verdict: Verdict, n: int, needed: int, *, changed: bool, unseen: bool) -> str:
    if not changed:
        return "No measurable change: the patch is empty."
    examples = f"{n} unseen examples" if unseen else f"{n} examples that were diagnosed too"
    return {
        Verdict.BETTER: f"Better: on {examples} the repair fixes more than it breaks.",
        Verdict.WORSE: f"Worse: on {examples} the repair breaks more than it fixes.",
        Verdict.NO_CHANGE: f"No measurable change: on {examples}, less than one point of accuracy either way.",
        Verdict.CANNOT_TELL: f"Cannot tell: {examples} are too few; about {needed} would do.",
    }[verdict]


def _churn(before: Outcomes, after: Outcomes) -> float | None:
    if before.predictions is None or after.predictions is None:
        return None
    return float((before.predictions != after.predictions).mean())


def _per_class(case: Case, before: Outcomes, after: Outcomes) -> pd.DataFrame:
    columns = ["class", "n", "before", "after", "fixed", "broken"]
    if before.targets is None:
        return pd.DataFrame(columns=columns)
    rows = []
    for label in np.unique(before.targets):
        b, a = (outcomes.right[before.targets == label] for outcomes in (before, after))
        moves = flips(b, a)
        rows.append([case.class_name(int(label)), len(b), b.mean(), a.mean(), moves.fixed, moves.broken])
    return pd.DataFrame(rows, columns=columns)


def _pairs(case: Case, before: Outcomes, after: Outcomes) -> pd.DataFrame:
    columns = ["true", "predicted", "before", "after", "change"]
    if before.targets is None or before.predictions is None or after.predictions is None:
        return pd.DataFrame(columns=columns)
    counts: dict[tuple[int, int], list[int]] = {}
    for place, outcomes in enumerate((before, after)):
        assert outcomes.predictions is not None
        for target, predicted in zip(
            before.targets[~outcomes.right], outcomes.predictions[~outcomes.right], strict=True
        ):
            counts.setdefault((int(target), int(predicted)), [0, 0])[place] += 1
    rows = [
        [case.class_name(t), case.class_name(p), was, now, now - was]
        for (t, p), (was, now) in sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    ]
    return pd.DataFrame(rows, columns=columns)


def _gallery(case: Case, before: Outcomes, after: Outcomes) -> tuple[pd.DataFrame, dict[str, NDArray[np.uint8]]]:
    """Fixed and broken examples: those whose loss changed most."""
    rows, pictures = [], {}
    change = after.losses - before.losses
    for kind, hit in (("fixed", ~before.right & after.right), ("broken", before.right & ~after.right)):
        positions = np.flatnonzero(hit)
        order = np.argsort(change[positions] if kind == "fixed" else -change[positions], kind="stable")
        chosen = [int(i) for i in positions[order][:GALLERY]]
        for i in chosen:
            names = [
                None if labels is None else case.class_name(int(labels[i]))
                for labels in (before.targets, before.predictions, after.predictions)
            ]
            rows.append([kind, case.splits["verify"].label(i), *names])
        drawn = case.pictures("verify", chosen)
        if drawn is not None:
            pictures[kind] = drawn
    return pd.DataFrame(rows, columns=["kind", "example", "true", "before", "after"]), pictures
