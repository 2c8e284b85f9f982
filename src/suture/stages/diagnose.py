"""Diagnose: what is taken for what, where and why that happens, and whose label may be wrong (section 5.4)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.causes import asked_of_pairs, attribute, confusion_pairs, exemplars
from suture.causes.label_errors import suspects_of
from suture.causes.margins import Pair
from suture.causes.metadata import subgroups
from suture.errors import DataError, InvalidArgumentError, NonFiniteError, SutureError
from suture.stages.localize import Localization
from suture.stages.result import Result, Table
from suture.tasks import Outcomes

PAIRS = 8  # most frequent confusions that are attributed to a group
SMALLEST_PAIR = 3  # errors; fewer make no pattern
ASKED = 4  # most frequent confusions whose cause is asked; each costs some thousand forward passes
PROBES = 3  # per slice: those that help most
DRAWN_SLICES = 8  # of which pictures are kept
JUDGED = ("diagnose", "repair", "select")  # splits whose labels are judged; `verify` is looked at once, by Verify
MOST_SUSPECTS, DRAWN_SUSPECTS = 200, 12
SUSPECT = ["split", "position", "name", "label", "suggested", "confidence", "suggested_confidence"]
OLDER = "an older suture diagnosed this run; --redo diagnose asks again"

Fields = dict[str, Any]
Pictures = dict[str, NDArray[np.uint8]]


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(columns=[])


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Result, stage="diagnose", schema=2):
    """Confusion pairs, where each comes from, and what takes it away; slices; labels that may be wrong.

    Attributes:
        pairs: a row per attributed pair: true, predicted (class names), count, share of errors, expected (the count
            by chance, `suture.causes.pairs.expected_counts`), p_chance (of as many by chance,
            `suture.causes.pairs.more_than_expected`), then group, score, null, ratio, low, high, p, stands_out
            (`suture.causes.attribution.standing_out`).
        confusion: a row per pair of classes that occurs among the errors: true, predicted, count, share, expected,
            p_chance.
        exemplars: true, predicted, kind (typical or extreme), position (in `diagnose`), margin
            (`suture.causes.exemplars`).
        n_errors: errors in `diagnose`.
        causes: a row per pair that was asked: true, predicted, n (errors asked), family (None: undetermined), by (swap
            or probe: what named it), probe (of that family), excess, low, high (margin won back beyond the null, nats,
            simultaneous 95 % interval), share (of the mean distance to the truth), p (Holm); group whose outputs it is
            more specific to than any other's, with the share of the whole change that it carries (carried) and how far
            that is beyond random, in nats (beyond); or None.
        swaps: true, predicted, family, then the columns of `suture.causes.swaps.swap_features`.
        probes: true, predicted, probe, then the columns of `suture.causes.intervention.Causes.probes`.
        through: true, predicted, group, then the columns of `suture.causes.patching.share_of_groups`, under the
            probe of the cause that does most.
        why_no_causes: why no pair was asked, or nothing.
        slices: `suture.causes.slices.Slices.table`: a row per region in which more is wrong than elsewhere.
        slice_traits: `suture.causes.metadata.over_represented`: values that a slice has more often than the rest.
        slice_probes: slice, probe, then the columns of `suture.causes.slice_probes.probe_response`: the changes of the
            pictures that lower the loss on a slice's errors, the three that lower it most.
        why_no_slices: why there is none, or nothing.
        subgroups: `suture.causes.metadata.subgroups`: values of the metadata under which more is wrong than elsewhere.
        values_tested: how many values of the metadata were tested for that.
        suspects: split, position (in it), name (`Split.label`), label and suggested (class names), confidence (the
            probability of the label), suggested_confidence (that of the other): labels that are probably wrong, the 200
            least credible at most, those first.
        n_suspects: split → how many there are.
        n_judged: split → how many labels were judged.
        why_no_suspects: why labels, or those of some split, could not be judged, or nothing.
        pictures: ``"true → predicted"``, the name of a slice, or ``"suspects"`` → pictures (k, h, w, c) of its
            exemplars, or of the first suspects, for tasks on pictures.
        changed: the pictures of pairs under the probe of the cause that does most, where there is one.
    """

    in_files: ClassVar[tuple[str, ...]] = ("pictures", "changed")

    pairs: Table
    confusion: Table
    exemplars: Table = field(default_factory=_nothing)
    n_errors: int
    causes: Table = field(default_factory=_nothing)
    swaps: Table = field(default_factory=_nothing)
    probes: Table = field(default_factory=_nothing)
    through: Table = field(default_factory=_nothing)
    why_no_causes: str = ""
    slices: Table = field(default_factory=_nothing)
    slice_traits: Table = field(default_factory=_nothing)
    slice_probes: Table = field(default_factory=_nothing)
    why_no_slices: str = ""
    subgroups: Table = field(default_factory=_nothing)
    values_tested: int = 0
    suspects: Table = field(default_factory=_nothing)
    n_suspects: dict[str, int] = field(default_factory=dict)
    n_judged: dict[str, int] = field(default_factory=dict)
    why_no_suspects: str = ""
    pictures: Pictures = field(default_factory=dict)
    changed: Pictures = field(default_factory=dict)

    @classmethod
    def from_older(cls, data: Fields) -> Fields:
        """Schema 1 knew pairs and their groups, and had ``{"true → predicted": [position]}`` of the highest losses."""
        pairs = data["confusion"]
        columns = [pairs["columns"].index(name) for name in ("true", "predicted")]
        named = {f"{row[columns[0]]} → {row[columns[1]]}": [row[i] for i in columns] for row in pairs["rows"]}
        rows = [
            [*named[title], "extreme", position, None]
            for title, positions in dict(data["exemplars"]).items()
            for position in positions
        ]
        exemplars = {"columns": ["true", "predicted", "kind", "position", "margin"], "rows": rows}
        why = dict.fromkeys(("why_no_causes", "why_no_slices", "why_no_suspects"), OLDER)
        return data | {"exemplars": exemplars} | why


def diagnose(case: Case, localization: Localization, *, causes: int = ASKED) -> Diagnosis:
    """Group the errors into confusions, attribute the most frequent ones, ask for their causes, and look for slices.

    A pair goes to the group whose share of the gradient is raised most on the pair's errors, beside all other
    errors; none stands out where chance explains it (`suture.causes.attribution`). A cause is what changes the
    network's mind when it is taken away from the pictures (`suture.causes.intervention`).
    Tasks without predictions have no pairs, and give empty tables. Subgroups are values of the metadata under which
    more is wrong (`suture.causes.metadata`), slices regions of the network's features (`suture.causes.slices`), and
    labels are suspected by confident learning (`suture.causes.label_errors`); where one cannot be, the result says why.

    Args:
        causes: for how many of the most frequent pairs causes are asked, and of how many slices it is measured what
            changes of the pictures do to them; 0: for none.

    Raises:
        InvalidArgumentError: `causes` is negative.
    """
    if causes < 0:
        raise InvalidArgumentError(f"causes counts the confusions whose cause is asked, so that it cannot be {causes}")
    outcomes = _outcomes(localization)
    by_value, tested = subgroups(case.splits["diagnose"].metadata, outcomes.right)
    (sliced, of_slices), (suspected, of_suspects) = _sliced(case, outcomes, causes), _suspected(case)
    confused, of_pairs = _confused(case, outcomes, causes)
    pictures = of_pairs | of_slices | of_suspects
    return Diagnosis(
        n_errors=localization.n_errors, subgroups=by_value, values_tested=tested, pictures=pictures,
        **confused, **sliced, **suspected,
    )  # fmt: skip


def _outcomes(localization: Localization) -> Outcomes:
    """What the model did on `diagnose`, as Localize saw it."""
    examples = localization.examples
    right, losses = examples["right"].to_numpy(bool), examples["loss"].to_numpy(float)
    if "predicted" not in examples:
        return Outcomes(right, losses, None, None)
    return Outcomes(right, losses, examples["predicted"].to_numpy(), examples["target"].to_numpy())


def _confused(case: Case, outcomes: Outcomes, causes: int) -> tuple[Fields, Pictures]:
    """The fields on pairs, and the pictures of their exemplars."""
    if outcomes.targets is None or outcomes.predictions is None or not len(outcomes.errors):
        empty = pd.DataFrame(columns=["true", "predicted", "count", "share", "expected", "p_chance"])
        return {"pairs": empty, "confusion": empty}, {}
    found = confusion_pairs(outcomes.targets, outcomes.predictions, outcomes.right)
    frequent = found[found["count"] >= SMALLEST_PAIR].head(PAIRS)
    pairs = [Pair(int(t), int(p)) for t, p in frequent[["target", "predicted"]].to_numpy()]
    members = {pair: _members(outcomes, pair) for pair in pairs}
    attributed = attribute(case, list(members.values()), outcomes.errors.tolist())
    shown = {pair: exemplars(case, positions, pair) for pair, positions in members.items()}
    drawn = {pair: rows["position"].tolist() for pair, rows in shown.items()}
    pictures = {_title(case, pair): case.pictures("diagnose", positions) for pair, positions in drawn.items()}
    asked = asked_of_pairs(case, members, drawn, outcomes.right, causes)
    fields = {
        "pairs": pd.concat([_named(case, frequent), attributed], axis=1),
        "confusion": _named(case, found),
        "exemplars": _stacked(case, shown),
        "causes": _stacked(case, asked.causes),
        "swaps": _stacked(case, asked.swaps),
        "probes": _stacked(case, asked.probes),
        "through": _stacked(case, asked.through),
        "why_no_causes": asked.why_not,
        "changed": {_title(case, pair): found for pair, found in asked.changed.items()},
    }
    return fields, {title: found for title, found in pictures.items() if found is not None}


def _sliced(case: Case, outcomes: Outcomes, causes: int) -> tuple[Fields, Pictures]:
    """The fields on slices, and the pictures of their exemplars."""
    # scikit-learn takes a second to load, so it is loaded here and not with the stage.
    from suture.causes.slice_probes import probe_response  # noqa: PLC0415
    from suture.causes.slices import slices_of  # noqa: PLC0415

    try:
        found = slices_of(case, outcomes)
    except (DataError, NonFiniteError) as error:  # of features or metadata, which nothing else here needs
        return {"why_no_slices": str(error)}, {}
    probed, others = list[pd.DataFrame](), outcomes.errors.tolist()
    try:
        for name in found.table["slice"].head(causes):
            response = probe_response(case, found, name, others=others)
            helpful = response[response["change"] < 0].head(PROBES).reset_index()
            helpful.insert(0, "slice", name)
            probed.append(helpful)
    except DataError:  # the inputs are no pictures: the same for every slice
        probed = []
    fields = {
        "slices": found.table,
        "slice_traits": found.metadata,
        "slice_probes": pd.concat(probed, ignore_index=True) if probed else _nothing(),
        "why_no_slices": found.why_not,
    }
    pictures = {
        name: case.pictures("diagnose", found.exemplars[name]) for name in found.table["slice"].head(DRAWN_SLICES)
    }
    return fields, {name: drawn for name, drawn in pictures.items() if drawn is not None}


def _suspected(case: Case) -> tuple[Fields, Pictures]:
    """The fields on labels that are probably wrong, and pictures of the least credible."""
    rows, counts, judged, why = list[list[Any]](), dict[str, int](), dict[str, int](), ""
    for split in [name for name in JUDGED if name in case.splits]:
        try:
            found = suspects_of(case, split)
        except SutureError as error:  # no cleanlab, no probabilities, no labels: a reason, since all else is known
            why = why or str(error)
            continue
        counts[split], judged[split] = len(found), len(case.splits[split].without_extra())
        for row in found.to_dict("records"):
            names = [case.class_name(int(row[column])) for column in ("label", "suggested")]
            position = int(row["position"])
            sure = [float(row[column]) for column in ("confidence", "suggested_confidence")]
            rows.append([split, position, case.splits[split].label(position), *names, *sure])
    suspects = pd.DataFrame(rows, columns=SUSPECT).sort_values("confidence", kind="stable", ignore_index=True)
    suspects = suspects.head(MOST_SUSPECTS)
    fields = {"suspects": suspects, "n_suspects": counts, "n_judged": judged, "why_no_suspects": why}
    return fields, _drawn(case, suspects.head(DRAWN_SUSPECTS))


def _drawn(case: Case, suspects: pd.DataFrame) -> Pictures:
    """Pictures of suspects from any split; none unless all are pictures of one size."""
    drawn = [case.pictures(row["split"], [row["position"]]) for row in suspects.to_dict("records")]
    kept = [picture for picture in drawn if picture is not None]
    if not kept or len(kept) < len(drawn) or len({picture.shape for picture in kept}) > 1:
        return {}
    return {"suspects": np.concatenate(kept)}


def _named(case: Case, found: pd.DataFrame) -> pd.DataFrame:
    names = {
        "true": found["target"].map(case.class_name),
        "predicted": found["predicted"].map(case.class_name),
    }
    return pd.DataFrame(names | {name: found[name] for name in ("count", "share", "expected", "p_chance")})


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


def _members(outcomes: Outcomes, pair: Pair) -> list[int]:
    """Positions in `diagnose` of the errors of one pair."""
    hit = ~outcomes.right & (outcomes.targets == pair.true) & (outcomes.predictions == pair.predicted)
    return [int(i) for i in np.flatnonzero(hit)]
