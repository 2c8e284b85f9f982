"""Labels that are probably wrong: how many, the least credible first, and what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suture.views.grid import Column, Grid, column
from suture.views.render import thumbnail
from suture.views.text import count, known, listed, percent
from suture.wording import plain

if TYPE_CHECKING:
    from suture.stages.diagnose import Diagnosis

SHOWN = 12  # rows and pictures
LEAST = 0.001  # a smaller probability is not told from zero
CAUTION = (
    "A network that fails systematically is sure of wrong answers, and then right labels are suspected, mostly of the "
    "errors that a repair has to learn from: look at them first."
)
TREATED_ON = ("repair", "select")  # what --exclude-suspects leaves out


def sentence(result: Diagnosis) -> str:
    """How many labels are suspected, or why none could be judged; nothing where nobody looked."""
    why = f"Labels could not be judged: {result.why_no_suspects}." if result.why_no_suspects else ""
    if not result.n_suspects:
        return why
    splits = listed([plain(split, 20) for split in result.n_suspects])
    found = _counted(result) or f"No label of {splits} is suspected to be wrong."
    return f"{found} {why}".strip()


def brief(result: Diagnosis) -> str:
    """How many labels are suspected and what that may mean, in a line; nothing where there are none."""
    return f"{_counted(result)} {caution(result)}".strip()


def caution(result: Diagnosis) -> str:
    """What suspects may be instead; nothing where there are none."""
    return CAUTION if any(result.n_suspects.values()) else ""


def _counted(result: Diagnosis) -> str:
    counts = [f"{_of(result, split, n)} in {plain(split, 20)}" for split, n in result.n_suspects.items() if n]
    return f"Labels in doubt: {listed(counts)}." if counts else ""


def _of(result: Diagnosis, split: str, n: int) -> str:
    judged = result.n_judged.get(split)  # which an older suture did not keep
    return f"{count(n)} of {count(judged)}" if judged else count(n)


def removable(result: Diagnosis) -> bool:
    """Whether a treatment could leave some of them out."""
    return any(result.n_suspects.get(split, 0) for split in TREATED_ON)


def grid(result: Diagnosis) -> Grid:
    """A row for each of the least credible labels."""
    shown = result.suspects.head(SHOWN)
    columns = [Column("Example"), Column("Split"), Column("Label → suggested"), *column("Probability of the label")]
    sure = "suggested_confidence" in shown  # which an older suture did not keep
    columns += column("Of the suggested") if sure else []
    rows = [
        [plain(row["name"]), str(row["split"]), _moved(row), _probability(row["confidence"])]
        + ([_probability(row["suggested_confidence"])] if sure else [])
        for row in shown.to_dict("records")
    ]
    of = f", {len(shown)} of {count(sum(result.n_suspects.values()))}" if len(shown) else ""
    note = "Suggested: what the network takes the example for. Both probabilities are the network's own."
    return Grid(f"The least credible labels{of}", columns, rows, note=note)


def _probability(p: Any) -> str:
    return f"< {percent(LEAST)}" if known(p) and p < LEAST else percent(p)


def _moved(row: Any) -> str:
    return f"{plain(row['label'])} → {plain(row['suggested'])}"


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
