"""Slices: regions in which more is wrong than elsewhere, each in a sentence with the errors at its centre."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suture.views.grid import Column, Grid, column
from suture.views.render import thumbnail
from suture.views.text import count, known, number, p_value, percent
from suture.wording import plain, several

if TYPE_CHECKING:
    from suture.stages.diagnose import Diagnosis

SHOWN = 8  # slices in sentences and pictures; the table has them all
TRAITS = 3  # values of metadata in a sentence


def why_not(result: Diagnosis) -> str:
    """Why there are no slices, in a sentence; nothing where there are some, or where nobody looked."""
    return "" if len(result.slices) or not result.why_no_slices else f"No slices: {result.why_no_slices}."


def brief(result: Diagnosis) -> str:
    """The worst slice, in a line for a terminal; nothing without slices."""
    if not len(result.slices):
        return ""
    rates = result.slices["rate"].to_numpy(float)
    worst = result.slices.iloc[int(rates.argmax())].to_dict()
    return f"{several(len(rates), 'slice')}; in the worst {_rates(worst)}{_errors(worst, 60)}."


def shown(result: Diagnosis) -> list[dict[str, Any]]:
    """For each of the first slices its name, what is known of it, and thumbnails of its exemplars."""
    found = []
    for row in result.slices.head(SHOWN).to_dict("records"):
        name = str(row["slice"])
        alt = f"An error at the centre of {plain(name, 40)}"
        found.append({
            "name": name,
            "sentence": sentence(result, row),
            "thumbnails": [thumbnail(picture, alt) for picture in result.pictures.get(name, ())],
        })  # fmt: skip
    return found


def sentences(result: Diagnosis) -> list[str]:
    """What is known of each of the first slices, with its name."""
    rows = result.slices.head(SHOWN).to_dict("records")
    return [f"{plain(row['slice'])}: {sentence(result, row)}" for row in rows]


def sentence(result: Diagnosis, row: Any) -> str:
    """What is known of a slice.

    Args:
        row: of `Diagnosis.slices`.
    """
    parts = [f"A region in which {_rates(row)}{_errors(row, None)}"]
    for trait in _of(result.slice_traits, row["slice"])[:TRAITS]:
        value = f"{plain(trait['column'])} = {plain(trait['value'])}"
        outside = percent(trait["share_outside"], 0)
        parts.append(f"{count(trait['count'])} of {count(trait['n'])} have {value}, against {outside} elsewhere")
    helped = [probe for probe in _of(result.slice_probes, row["slice"]) if known(probe["high"]) and probe["high"] < 0]
    if helped:
        best = helped[0]
        elsewhere = f", on other errors by {_change(best['elsewhere'])}" if known(best["elsewhere"]) else ""
        parts.append(f"{plain(best['probe'], 30)} changes the loss by {_change(best['change'])}{elsewhere}")
    return "; ".join(parts) + "."


def _rates(row: Any) -> str:
    of = f"{count(row['errors'])} of {several(row['n'], 'example')}"
    return f"{of} are wrong ({percent(row['rate'], 0)}), against {percent(row['rate_outside'], 0)} elsewhere"


def _errors(row: Any, limit: int | None) -> str:
    return f"; among these errors {plain(row['classes'], limit)}" if row["classes"] else ""


def _change(loss: Any) -> str:
    """A change of the loss with its sign."""
    return f"{'+' if known(loss) and loss > 0 else ''}{number(loss, 2)}"


def _of(table: Any, name: Any) -> list[dict[str, Any]]:
    return [row for row in table.to_dict("records") if row["slice"] == name]


def grid(result: Diagnosis) -> Grid:
    """A row per slice."""
    columns = [
        Column("Slice"),
        *column("Errors", "Of", "Wrong [95 %]", "Elsewhere", "p"),
        Column("Most frequent errors"),
    ]
    rows = [
        [str(row["slice"]), count(row["errors"]), count(row["n"]),
         f"{percent(row['rate'], 0)} [{percent(row['low'], 0)}, {percent(row['high'], 0)}]",
         percent(row["rate_outside"], 0), p_value(row["p"]), plain(row["classes"])]
        for row in result.slices.to_dict("records")
    ]  # fmt: skip
    return Grid(
        "Regions in which more is wrong than elsewhere", columns, rows,
        note="Found on one half of the examples; all numbers are of the other half. p: Fisher's exact test, corrected "
             "for the regions tried.",
    )  # fmt: skip


def probes(result: Diagnosis) -> Grid:
    """A row per slice and change of the pictures that lowers its loss."""
    columns = [Column("Slice"), Column("Change of the pictures"), *column("Loss [95 %]", "Of other errors")]
    rows = [
        [str(row["slice"]), f"{plain(row['family'], 20)}: {plain(row['probe'], 30)}",
         f"{_change(row['change'])} [{_change(row['low'])}, {_change(row['high'])}]", _change(row["elsewhere"])]
        for row in result.slice_probes.to_dict("records")
    ]  # fmt: skip
    return Grid(
        "Changes of the pictures that take a slice's errors towards the truth", columns, rows,
        note="The three of each slice that help most of all that were tried. They are no causes: those are asked "
             "confusion by confusion, beside what chance does.",
    )  # fmt: skip
