"""Causes: which change of the pictures takes a confusion back, beside what it does where nothing was confused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.causes.ranking import NAMED_FROM
from suture.views.grid import Column, Grid, column, records
from suture.views.style import BLUE, INK, VERMILLION, axes, dress, label, sentence
from suture.views.text import NOTHING, count, known, number, p_value, percent
from suture.wording import plain, several

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from suture.stages.diagnose import Diagnosis

CLASS = 14  # characters of a class name above a column
FAMILIES = ("texture", "shape", "colour", "background", "other")  # in the order of the paper, with ours behind
UNDETERMINED, NOT_ASKED = "undetermined", "not asked"
NO_GROUP = "no group more than another"


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
            f"{plain(row['true'])} → {plain(row['predicted'])}", count(row["n"]), named(row),
            won, percent(row["share"], 0), p_value(row["p"]), carried(result, row),
        ])  # fmt: skip
    columns = [
        Column("Confusion"), *column("Errors"), Column("Cause"), *column("Won back, nats [95 %]", "Of the way", "p"),
        Column("Acts through"),
    ]  # fmt: skip
    note = (
        "Won back: how far the errors move towards the truth, beyond their null, and as a share of the way to the "
        "border between both classes: beyond 100 % the answer is right. In brackets what named the cause and gave the "
        "numbers. A swap (given the true class's feature, beside that of other errors) decides where one can, since it "
        "changes one feature alone, while a probe that weakens a picture takes any error back a little. Intervals and "
        "p are corrected within a pair. Undetermined: the probe that does most is shown, and chance explains it. Acts "
        "through: the group to which the change is more specific than to any other, with what it does beyond the same "
        "outputs moved as far at random."
    )
    return Grid("Causes, by intervention", columns, rows, marked=frozenset(marked), note=note)


def named(row: Any) -> str:
    """``"texture (swap)"``, ``"texture (probe blur)"``, or that it is undetermined, with the probe that does most."""
    probe = f" (probe {plain(row['probe'], 30)})" if known_text(row["probe"]) else ""
    if not known_text(row["family"]):
        return f"{UNDETERMINED}{probe}"
    return plain(row["family"], 20) + (" (swap)" if row.get("by") == "swap" else probe)


def answer(row: Any) -> str:
    """``"texture"`` by a swap, ``"perhaps texture"`` by a probe alone, or that nothing is determined or was asked.

    A probe weakens a picture, which helps more than the one feature that it is named for; one that belongs to no
    feature is named itself.

    Args:
        row: of `Diagnosis.causes`; None for a pair that nobody asked about.
    """
    if row is None:
        return NOT_ASKED
    if not known_text(row["family"]):
        return UNDETERMINED
    if row.get("by") == "swap":
        return plain(row["family"], 20)
    own = known_text(row["probe"]) and row["family"] == "other"
    return f"perhaps {plain(row['probe'], 30) if own else plain(row['family'], 20)}"


def by_pair(result: Diagnosis) -> dict[tuple[str, str], dict[str, Any]]:
    """(true, predicted) → its row of `Diagnosis.causes`."""
    return {(str(row["true"]), str(row["predicted"])): row for row in records(result.causes)}


def carried(result: Diagnosis, row: Any) -> str:
    """The group that a cause is most specific to, with what its outputs do beyond random ones."""
    if known_text(row["group"]):
        return f"{plain(row['group'], 30)} ({number(row['beyond'], 2)})"
    return NO_GROUP if _through(result, row) else NOTHING


def _through(result: Diagnosis, row: Any) -> bool:
    """Whether it was measured what every group carries."""
    pair = (row["true"], row["predicted"])
    return any((each["true"], each["predicted"]) == pair for each in records(result.through))


def sentences(result: Diagnosis) -> list[str]:
    """What was found, in plain words, and of which pairs it was asked."""
    if not len(result.causes):
        return [f"No causes: {result.why_no_causes}."] if result.why_no_causes else []
    said = []
    for row in result.causes.to_dict("records"):
        if known_text(row["family"]):
            how = (
                f"With the {plain(row['family'], 20)} of right pictures of {plain(row['true'], 40)}"
                if row.get("by") == "swap" else f"Without it ({plain(row['probe'], 30)})"
            )  # fmt: skip
            way = f"the errors go {percent(row['share'], 0)} of the way to the border between both, beyond chance"
            said.append(f"{brief(row)}. {how} {way}{_group(result, row)}.")
    rest = len(result.causes) - len(said)
    if rest:
        most = "No change of the pictures" if not said else f"Of {rest} more, no change of the pictures"
        said.append(f"{most} takes the errors back beyond chance: the cause is undetermined.")
    return [*said, *_asked(result)]


def brief(row: Any) -> str:
    """``"cat taken for dog: texture"``; a row of `Diagnosis.causes`."""
    return f"{plain(row['true'], 40)} taken for {plain(row['predicted'], 40)}: {answer(row)}"


def _group(result: Diagnosis, row: Any) -> str:
    if known_text(row["group"]):
        return f"; it is most specific to the outputs of {plain(row['group'], 40)}"
    return "; it is specific to the outputs of no group more than of another" if _through(result, row) else ""


def _asked(result: Diagnosis) -> list[str]:
    """Of how many pairs causes were asked, and why not of the others; nothing where they were of all."""
    found = by_pair(result)
    others = [row for row in records(result.pairs) if (str(row["true"]), str(row["predicted"])) not in found]
    if not others:
        return []
    few = sum(row["count"] < NAMED_FROM for row in others)
    why = []
    if few < len(others):
        rest = len(others) - few
        why.append(f"{count(rest)} {'were' if rest > 1 else 'was'} not asked for (--causes asks of more)")
    if few:
        who = count(few) if why else "the others" if few > 1 else "the other"
        why.append(f"{who} {'have' if few > 1 else 'has'} fewer than {NAMED_FROM} errors")
    return [f"Asked of {count(len(found))} of {several(len(found) + len(others), 'pair')}; {', '.join(why)}."]


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
