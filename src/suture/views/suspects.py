"""Labels that are probably wrong: how many, the least credible first, and what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suture.views.grid import Column, Grid, column
from suture.views.render import thumbnail
from suture.views.text import count, listed, percent, plain

if TYPE_CHECKING:
    from suture.stages.diagnose import Diagnosis

SHOWN = 12  # rows and pictures
TREATED_ON = ("repair", "select")  # what --exclude-suspects leaves out


def sentence(result: Diagnosis) -> str:
    """How many labels are suspected, or why none could be judged; nothing where nobody looked."""
    why = f"Labels could not be judged: {result.why_no_suspects}." if result.why_no_suspects else ""
    if not result.n_suspects:
        return why
    splits = listed([plain(split, 20) for split in result.n_suspects])
    found = brief(result) or f"No label of {splits} is suspected to be wrong."
    return f"{found} {why}".strip()


def brief(result: Diagnosis) -> str:
    """How many labels are suspected, in a line for a terminal; nothing where there are none."""
    counts = [f"{count(n)} of {plain(split, 20)}" for split, n in result.n_suspects.items() if n]
    return f"Labels in doubt: {listed(counts)}." if counts else ""


def removable(result: Diagnosis) -> bool:
    """Whether a treatment could leave some of them out."""
    return any(result.n_suspects.get(split, 0) for split in TREATED_ON)


def grid(result: Diagnosis) -> Grid:
    """A row for each of the least credible labels."""
    shown = result.suspects.head(SHOWN)
    columns = [Column("Example"), Column("Split"), Column("Label → suggested"), *column("Confidence")]
    rows = [
        [plain(row["name"], 60), str(row["split"]), _moved(row), percent(row["confidence"])]
        for row in shown.to_dict("records")
    ]
    of = f", {len(shown)} of {count(sum(result.n_suspects.values()))}" if len(shown) else ""
    return Grid(
        f"The least credible labels{of}", columns, rows,
        note="Suggested: what the network takes the example for. Confidence: the probability that it gives the label.",
    )  # fmt: skip


def _moved(row: Any) -> str:
    return f"{plain(row['label'], 40)} → {plain(row['suggested'], 40)}"


def gallery(result: Diagnosis) -> list[dict[str, Any]]:
    """Pictures of the same labels, as the macro of that name shows them; none where inputs are no pictures."""
    drawn = zip(result.suspects.to_dict("records"), result.pictures.get("suspects", ()), strict=False)
    return [
        {
            "example": row["name"], "true": None, "before": str(row["label"]), "after": str(row["suggested"]),
            "sure_before": "", "sure_after": "", "group": None,
            "picture": thumbnail(picture, f"{plain(row['name'], 60)}: {_moved(row)}"),
        }
        for row, picture in list(drawn)[:SHOWN]
    ]  # fmt: skip
