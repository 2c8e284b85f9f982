"""Examples that a repair fixed or broke, with pictures where there are some: a gallery, and by confusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suture.views.grid import records
from suture.views.render import thumbnail
from suture.views.text import count, known, percent, signed
from suture.views.verify_tables import said
from suture.wording import plain

if TYPE_CHECKING:
    from markupsafe import Markup
    from numpy.typing import NDArray

    from suture.stages.verify import Verification

KINDS = ("fixed", "broken")
CELLS = 8  # confusions with examples beside the matrix
PER_CELL = 3  # examples of each kind in one of them
Pair = tuple[str, str]


def galleries(result: Verification, groups: dict[Pair, str]) -> list[dict[str, Any]]:
    """Fixed and broken examples, and the group their error goes to.

    Args:
        groups: (true, predicted) → the group to which Diagnose attributed this confusion.
    """
    return [_gallery(result, kind, groups) for kind in KINDS]


def _gallery(result: Verification, kind: str, groups: dict[Pair, str]) -> dict[str, Any]:
    pictures = result.pictures.get(kind)
    rows = records(result.gallery[result.gallery["kind"] == kind])
    items = [_item(row, _picture(pictures, i)) for i, row in enumerate(rows)]
    wrong = "before" if kind == "fixed" else "after"
    for item in items:
        item["group"] = groups.get((str(item["true"]), str(item[wrong])))
    return {
        "kind": kind,
        "title": "Fixed" if kind == "fixed" else "Newly broken",
        "total": result.fixed if kind == "fixed" else result.broken,
        "examples": items,
        "pictures": any(item["picture"] for item in items),
        "classes": any(item["true"] is not None for item in items),
        "sure": any(item["sure_before"] for item in items),
        "attributed": any(item["group"] for item in items),
    }


def _item(row: dict[str, Any], picture: Any) -> dict[str, Any]:
    """An example as the page shows it; a picture is encoded with words that say what it shows."""
    item = {name: None if _missing(row[name]) else str(row[name]) for name in ("true", "before", "after")}
    sure = {name: percent(row[name], 0) if known(row.get(name)) else "" for name in ("sure_before", "sure_after")}
    alt = f"{plain(row['example'], 60)}: true {item['true']}, before {item['before']}, after {item['after']}"
    drawn: Markup | None = thumbnail(picture, alt) if picture is not None else None
    return {"example": row["example"], "picture": drawn, "group": None, **item, **sure}


def _picture(pictures: NDArray[Any] | None, i: int) -> Any:
    return pictures[i] if pictures is not None and i < len(pictures) else None


def _missing(value: Any) -> bool:
    return value is None or value != value  # a table read back may hold NaN for None


def cells(result: Verification) -> list[dict[str, Any]]:
    """The confusions that changed most, with examples that left them fixed or joined them broken."""
    found: dict[Pair, dict[str, Any]] = {}
    counts = {(str(r["true"]), str(r["predicted"])): r for r in records(result.pairs)}
    pictures = result.pictures.get("examples")
    for i, row in enumerate(records(result.examples)):
        pair = str(row["true class"]), str(row["predicted class"])
        if pair not in counts or (pair not in found and len(found) == CELLS):
            continue
        cell = found.setdefault(pair, _cell(counts[pair], f"confusion-{len(found) + 1}"))
        kind = str(row["kind"])
        if len(cell[kind]) < PER_CELL:
            cell[kind].append(_item(row, _picture(pictures, i)))
    return list(found.values())


def _cell(row: dict[str, Any], anchor: str) -> dict[str, Any]:
    return {
        "true": str(row["true"]), "predicted": str(row["predicted"]), "before": count(row["before"]),
        "after": count(row["after"]), "change": signed(row["change"]), "word": said(row), "anchor": anchor,
        "fixed": [], "broken": [],
    }  # fmt: skip


def targets(found: list[dict[str, Any]]) -> dict[Pair, str]:
    """(true, predicted) → where its examples stand on the page."""
    return {(cell["true"], cell["predicted"]): cell["anchor"] for cell in found}
