"""Causes: which change of the pictures takes a confusion back, beside what it does where nothing was confused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.views.grid import Column, Grid, column
from suture.views.style import BLUE, INK, VERMILLION, axes, dress, label, sentence
from suture.views.text import NOTHING, count, known, number, p_value, percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from suture.stages.diagnose import Diagnosis

CLASS = 14  # characters of a class name above a column
FAMILIES = ("texture", "shape", "colour", "background", "other")  # in the order of the paper, with ours behind
UNDETERMINED = "undetermined"


def figure(result: Diagnosis, ax: Axes | None = None) -> Axes:
    """A row per probe, by family; a column per confusion; the colour is the way back to the truth.

    100 % takes the errors back to the border between the classes, beyond what the probe does to correct examples and
    what random changes of equal energy do. Worry about nothing that is not framed.
    """
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415 - drawn on request
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    if not len(result.probes):
        return sentence(ax or axes(1.2), "No causes were asked for.")
    shares = _matrix(result, "share")
    if not len(shares):
        return sentence(ax or axes(1.2), "No probe could be compared with correct examples.")
    standing = _matrix(result, "stands_out").reindex(index=shares.index).fillna(0).astype(bool)
    ax = ax or axes(1.5 + 0.24 * len(shares), width=min(2.6 + 1.05 * shares.shape[1], 8.0))
    colours = LinearSegmentedColormap.from_list("back", [VERMILLION, "#ffffff", BLUE])
    values = np.clip(shares.to_numpy(float), -1, 1)
    ax.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for i in range(len(shares)):
        for j in range(shares.shape[1]):
            text = percent(shares.iat[i, j], 0)
            dark = np.isfinite(values[i, j]) and abs(values[i, j]) > 0.65
            ax.text(j, i, text, ha="center", va="center", fontsize="x-small", color="white" if dark else INK,
                    fontweight="bold" if standing.iat[i, j] else "normal")  # fmt: skip
            if standing.iat[i, j]:
                ax.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, edgecolor=INK, linewidth=2))
    ax.set_yticks(range(len(shares)), [label(f"{family}: {probe}") for family, probe in shares.index])
    ax.set_xticks(range(shares.shape[1]), [f"{_short(t)}\n→ {_short(p)}" for t, p in shares.columns])
    dress(ax, title="The way back to the truth, beyond both nulls", x="true → predicted; framed: stands out")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _matrix(result: Diagnosis, name: str) -> Any:
    """Index (family, probe), columns (true, predicted), in the order in which pairs were asked."""
    asked = list(dict.fromkeys(zip(result.probes["true"], result.probes["predicted"], strict=True)))
    table = result.probes.pivot_table(
        index=["family", "probe"], columns=["true", "predicted"], values=name, aggfunc="first", sort=False
    )
    place = {family: i for i, family in enumerate(FAMILIES)}
    order = sorted(table.index, key=lambda row: (place.get(row[0], len(place)), row[1]))
    return table.reindex(index=order, columns=asked)


def _short(name: object) -> str:
    return label(plain(name, CLASS))


def grid(result: Diagnosis) -> Grid:
    """A row per confusion that was asked."""
    rows, marked = [], set()
    for i, row in enumerate(result.causes.to_dict("records")):
        if known_text(row["family"]):
            marked.add(i)
        won = f"{number(row['excess'])} [{number(row['low'])}, {number(row['high'])}]"
        rows.append([
            f"{plain(row['true'], 24)} → {plain(row['predicted'], 24)}", count(row["n"]), named(row),
            won, percent(row["share"], 0), p_value(row["p"]), carried(row),
        ])  # fmt: skip
    columns = [
        Column("Confusion"), *column("Errors"), Column("Cause"), *column("Won back, nats [95 %]", "Of the way", "p"),
        Column("Group"),
    ]  # fmt: skip
    note = (
        "Won back: how far the errors move towards the truth, beyond their null, and as a share of the way. Where a "
        "swap names the cause (given the true class's feature, beside that of other errors) the numbers are its own; "
        "else those of the probe in brackets. Intervals and p are corrected within a pair. Undetermined: the "
        "largest is shown, and chance explains it. Group: where the change is most specific, with what it does beyond "
        "the same outputs moved as far at random."
    )
    return Grid("Causes, by intervention", columns, rows, marked=frozenset(marked), note=note)


def named(row: Any) -> str:
    """``"texture (blur)"``, or that it is undetermined."""
    probe = plain(row["probe"], 30) if known_text(row["probe"]) else ""
    if not known_text(row["family"]):
        return f"{UNDETERMINED} ({probe})" if probe else UNDETERMINED
    return f"{plain(row['family'], 20)} ({probe})" if probe else plain(row["family"], 20)


def answer(row: Any) -> str:
    """The family, with the probe that does most, or that the cause is undetermined."""
    return named(row) if known_text(row["family"]) else UNDETERMINED


def carried(row: Any) -> str:
    """The group that a cause is most specific to, with what its outputs do beyond random ones."""
    return f"{plain(row['group'], 30)} ({number(row['beyond'], 2)})" if known_text(row["group"]) else NOTHING


def sentences(result: Diagnosis) -> list[str]:
    """What was found, in plain words."""
    if not len(result.causes):
        return [f"No causes: {result.why_no_causes}."] if result.why_no_causes else []
    said = []
    for row in result.causes.to_dict("records"):
        pair = f"{plain(row['true'], 40)} taken for {plain(row['predicted'], 40)}"
        if known_text(row["family"]):
            group = (
                f"; it is most specific to the outputs of {plain(row['group'], 40)}" if known_text(row["group"]) else ""
            )
            family = plain(row["family"], 20)
            how = (
                f"With the {family} of right pictures of {plain(row['true'], 40)}" if row.get("by") == "swap"
                else f"Without it ({plain(row['probe'], 30)})"
            )  # fmt: skip
            way = f"the errors go {percent(row['share'], 0)} of the way back to the truth, beyond chance"
            said.append(f"{pair}: {family}. {how} {way}{group}.")
    rest = len(result.causes) - len(said)
    if rest:
        most = "No change of the pictures" if not said else f"Of {rest} more, no change of the pictures"
        said.append(f"{most} takes the errors back beyond chance: their cause is undetermined.")
    return said


def known_text(value: object) -> bool:
    """Whether a cell of a table names something."""
    return isinstance(value, str) and bool(value)


def details(result: Diagnosis) -> list[Grid]:
    """For each confusion what every swap did, and under its cause what every group carries."""
    return [*swaps(result), *through(result)]


def swaps(result: Diagnosis) -> list[Grid]:
    """For each confusion that was asked, a row per family of features."""
    found = []
    for (true, predicted), table in _by_pair(result.swaps):
        rows = [
            [str(row["family"]), number(row["change"]), number(row["chance"]),
             f"{number(row['excess'])} [{number(row['low'])}, {number(row['high'])}]", percent(row["share"], 0),
             p_value(row["p"])]
            for row in table.to_dict("records")
        ]  # fmt: skip
        heads = ("Given the truth's, nats", "Given other errors'", "Beyond [95 %]", "Of the way", "p")
        columns = [Column("Feature"), *column(*heads)]
        found.append(Grid(
            f"{plain(true, 40)} → {plain(predicted, 40)}: one feature taken from other pictures", columns, rows,
            marked=frozenset(i for i, row in enumerate(table.to_dict("records")) if row["stands_out"]),
            note="Only pictures in which an object stands out from its background can give or receive a feature.",
        ))  # fmt: skip
    return found


def through(result: Diagnosis) -> list[Grid]:
    """For each confusion with a cause, a row per group."""
    found = []
    for (true, predicted), table in _by_pair(result.through):
        rows = [
            [str(row["group"]), number(row["effect"]), percent(row["share"], 0), number(row["random"]),
             f"{number(row['excess'])} [{number(row['excess_low'])}, {number(row['excess_high'])}]"]
            for row in table.to_dict("records") if known(row["effect"])
        ]  # fmt: skip
        columns = [Column("Group"), *column("Effect, nats", "Of the change", "At random", "Beyond random [95 %]")]
        found.append(Grid(
            f"{plain(true, 40)} → {plain(predicted, 40)}: only this group sees the changed picture", columns, rows,
            marked=frozenset(i for i, row in enumerate(table.to_dict("records")) if row["excess_low"] > 0),
            note="Groups in a row each carry the whole change. At random: its outputs moved as far, in any direction.",
        ))  # fmt: skip
    return found


def _by_pair(table: Any) -> list[tuple[tuple[str, str], Any]]:
    return [] if not len(table) else list(table.groupby(["true", "predicted"], sort=False))
