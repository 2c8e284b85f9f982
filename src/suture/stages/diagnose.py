"""Diagnose: which class is taken for which, which group has to do with it, and what causes it (section 5.4)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.causes import asked_of_pairs, attribute, confusion_pairs, exemplars
from suture.causes.margins import Pair
from suture.errors import InvalidArgumentError
from suture.stages.localize import Localization
from suture.stages.result import Result, Table

PAIRS = 8  # most frequent confusions that are attributed to a group
SMALLEST_PAIR = 3  # errors; fewer make no pattern
ASKED = 4  # most frequent confusions whose cause is asked; each costs some thousand forward passes


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(columns=[])


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Result, stage="diagnose", schema=2):
    """Confusion pairs, where each comes from, and what takes it away.

    Attributes:
        pairs: a row per attributed pair: true, predicted (class names), count, share of errors, expected (the count
            by chance, `suture.causes.pairs.expected_counts`), then group, score, null, ratio, low, high, p,
            stands_out (`suture.causes.attribution.standing_out`).
        confusion: a row per pair of classes that occurs among the errors: true, predicted, count, share, expected.
        exemplars: true, predicted, kind (typical or extreme), position (in `diagnose`), margin
            (`suture.causes.exemplars`).
        n_errors: errors in `diagnose`.
        causes: a row per pair that was asked: true, predicted, n (errors asked), family (None: undetermined), probe,
            excess, low, high (margin won back beyond the null, nats, simultaneous 95 % interval), share (of the mean
            distance to the truth), p (Holm over probes); group whose outputs it is most specific to, with the share
            of the whole change that it carries and how far that is beyond random, in nats; or None.
        probes: true, predicted, probe, then the columns of `suture.causes.intervention.Causes.probes`.
        through: true, predicted, group, then the columns of `suture.causes.patching.share_of_groups`, under the
            probe that names the cause.
        why_no_causes: why no pair was asked, or nothing.
        pictures: ``"true → predicted"`` → pictures (k, h, w, c) of the pair's exemplars, for tasks on pictures.
        changed: the same pictures under the probe that names the cause, where there is one.
    """

    in_files: ClassVar[tuple[str, ...]] = ("pictures", "changed")

    pairs: Table
    confusion: Table
    exemplars: Table = field(default_factory=_nothing)
    n_errors: int
    causes: Table = field(default_factory=_nothing)
    probes: Table = field(default_factory=_nothing)
    through: Table = field(default_factory=_nothing)
    why_no_causes: str = ""
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    changed: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def diagnose(case: Case, localization: Localization, *, causes: int = ASKED) -> Diagnosis:
    """Group the errors into confusions, attribute the most frequent ones, and ask for their causes.

    A pair goes to the group whose share of the gradient is raised most on the pair's errors, beside all other
    errors; none stands out where chance explains it (`suture.causes.attribution`). A cause is what changes the
    network's mind when it is taken away from the pictures (`suture.causes.intervention`).
    Tasks without predictions have no pairs, and give empty tables.

    Args:
        causes: for how many of the most frequent pairs causes are asked; 0: for none.

    Raises:
        InvalidArgumentError: `causes` is negative.
    """
    if causes < 0:
        raise InvalidArgumentError(f"causes counts the confusions whose cause is asked, so that it cannot be {causes}")
    examples = localization.examples
    if "predicted" not in examples or not localization.n_errors:
        empty = pd.DataFrame({"true": [], "predicted": [], "count": [], "share": [], "expected": []})
        return Diagnosis(pairs=empty, confusion=empty, n_errors=localization.n_errors)
    right = examples["right"].to_numpy(bool)
    found = confusion_pairs(examples["target"].to_numpy(), examples["predicted"].to_numpy(), right)
    frequent = found[found["count"] >= SMALLEST_PAIR].head(PAIRS)
    pairs = [Pair(int(t), int(p)) for t, p in frequent[["target", "predicted"]].to_numpy()]
    members = {pair: _members(examples, pair) for pair in pairs}
    attributed = attribute(case, list(members.values()), np.flatnonzero(~right).tolist())
    shown = {pair: exemplars(case, positions, pair) for pair, positions in members.items()}
    drawn = {pair: rows["position"].tolist() for pair, rows in shown.items()}
    pictures = {pair: case.pictures("diagnose", positions) for pair, positions in drawn.items()}
    asked = asked_of_pairs(case, members, drawn, right, causes)
    return Diagnosis(
        pairs=pd.concat([_named(case, frequent), attributed], axis=1),
        confusion=_named(case, found),
        exemplars=_stacked(case, shown),
        n_errors=localization.n_errors,
        causes=_stacked(case, asked.causes),
        probes=_stacked(case, asked.probes),
        through=_stacked(case, asked.through),
        why_no_causes=asked.why_not,
        pictures={_title(case, pair): found for pair, found in pictures.items() if found is not None},
        changed={_title(case, pair): found for pair, found in asked.changed.items()},
    )


def _named(case: Case, found: pd.DataFrame) -> pd.DataFrame:
    names = {
        "true": found["target"].map(case.class_name),
        "predicted": found["predicted"].map(case.class_name),
    }
    return pd.DataFrame(names | {name: found[name] for name in ("count", "share", "expected")})


def _title(case: Case, pair: Pair) -> str:
    return f"{case.class_name(pair.true)} → {case.class_name(pair.predicted)}"


def _stacked(case: Case, tables: dict[Pair, pd.DataFrame]) -> pd.DataFrame:
    """The pairs' tables below each other, with the names of their classes before each row."""
    named = []
    for pair, table in tables.items():
        rows = table.reset_index() if table.index.name else table.reset_index(drop=True)
        rows.insert(0, "true", case.class_name(pair.true))
        rows.insert(1, "predicted", case.class_name(pair.predicted))
        named.append(rows)
    return pd.concat(named, ignore_index=True) if named else _nothing()


def _members(examples: Any, pair: Pair) -> list[int]:
    """Positions in `diagnose` of the errors of one pair."""
    hit = ~examples["right"].astype(bool) & (examples["target"] == pair.true)
    return [int(i) for i in np.flatnonzero(hit & (examples["predicted"] == pair.predicted))]
