"""Diagnose: which class is taken for which, and the group that has most to do with it (section 5.4)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.causes import confusion_pairs
from suture.localizers import measure
from suture.stages.localize import Localization
from suture.stages.result import Result, Table

PAIRS = 8  # most frequent confusions that are attributed to a group
SMALLEST_PAIR = 3  # errors; fewer make no pattern
EXEMPLARS = 6  # pictures shown per pair


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Result, stage="diagnose", schema=1):
    """Confusion pairs and where each comes from.

    Attributes:
        pairs: a row per attributed pair: true, predicted (class names), count, share of errors, group (the
            highest ratio), score (that group's share of the pair's gradient norms), null (its share on the
            other pairs, on average), ratio (score / null; near 1 nothing sets the pair apart).
        confusion: a row per pair of classes that occurs among the errors: true, predicted, count, share.
        exemplars: ``"true → predicted"`` → positions in `diagnose` of the errors with the highest loss.
        n_errors: errors in `diagnose`.
        pictures: ``"true → predicted"`` → pictures (k, h, w, c) of the exemplars, for tasks on pictures.
    """

    pairs: Table
    confusion: Table
    exemplars: dict[str, list[int]]
    n_errors: int
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def diagnose(case: Case, localization: Localization) -> Diagnosis:
    """Group the errors into confusions, and attribute the most frequent ones.

    A pair goes to the group whose share of the pair's gradient norms is largest *relative to its share on the
    other pairs*. Without a null one group owns every pair, and with correct examples as the null another
    does (the last layer, whose gradients vanish on what is right), whatever the errors are.
    Tasks without predictions have no pairs, and give empty tables.
    """
    examples = localization.examples
    if "predicted" not in examples or not localization.n_errors:
        empty = pd.DataFrame({"true": [], "predicted": [], "count": [], "share": []})
        return Diagnosis(pairs=empty, confusion=empty, exemplars={}, n_errors=localization.n_errors)
    right = examples["right"].to_numpy(bool)
    found = confusion_pairs(examples["target"].to_numpy(), examples["predicted"].to_numpy(), right)
    attributed = found[found["count"] >= SMALLEST_PAIR].head(PAIRS)
    members = [_members(examples, pair) for pair in attributed.itertuples()]
    pairs = pd.concat([_named(case, attributed), _attribution(case, members)], axis=1)
    exemplars, pictures = {}, {}
    for (true, predicted), positions in zip(zip(pairs["true"], pairs["predicted"], strict=True), members, strict=True):
        name = f"{true} → {predicted}"
        shown = examples.loc[positions, "loss"].sort_values(ascending=False, kind="stable").index[:EXEMPLARS]
        exemplars[name] = [int(i) for i in shown]
        drawn = case.pictures("diagnose", exemplars[name])
        if drawn is not None:
            pictures[name] = drawn
    return Diagnosis(
        pairs=pairs,
        confusion=_named(case, found),
        exemplars=exemplars,
        n_errors=localization.n_errors,
        pictures=pictures,
    )


def _named(case: Case, found: pd.DataFrame) -> pd.DataFrame:
    names = {
        "true": found["target"].map(case.class_name),
        "predicted": found["predicted"].map(case.class_name),
    }
    return pd.DataFrame(names | {"count": found["count"], "share": found["share"]})


def _members(examples: pd.DataFrame, pair: Any) -> list[int]:
    """Positions in `diagnose` of the errors of one pair."""
    hit = ~examples["right"].astype(bool) & (examples["target"] == pair.target)
    return [int(i) for i in np.flatnonzero(hit & (examples["predicted"] == pair.predicted))]


def _attribution(case: Case, members: list[list[int]]) -> pd.DataFrame:
    """Columns group, score, null, ratio: a row per pair."""
    columns = ["group", "score", "null", "ratio"]
    if not members:
        return pd.DataFrame(columns=columns)
    norms = pd.DataFrame([_norms(case, positions) for positions in members])
    shares = norms.div(norms.sum(axis=1), axis=0)
    rows = []
    for i, share in shares.iterrows():
        others = shares.drop(index=i)
        null = others.mean() if len(others) else pd.Series(1 / len(share), index=share.index)
        ratio = (share / null.where(null > 0)).fillna(1.0)
        group = str(ratio.idxmax())
        rows.append([group, float(share[group]), float(null[group]), float(ratio[group])])
    return pd.DataFrame(rows, columns=columns)


def _norms(case: Case, members: list[int]) -> pd.Series:
    """Gradient norm of every group on some examples of `diagnose`."""
    chosen = case.splits["diagnose"].only(members)
    sample = measure(case.model, chosen, case.task, case.groups, device=case.device, batch_size=case.batch_size)
    return sample.norm_of_mean
