"""How good the localizers are: rows of ``bench/localize`` → one table, a chapter of the page, and a figure.

``bench/localize.toml`` names `summary` under `summary`, and the engine of the studies calls it on all rows.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from suture.bench.markdown import pipes
from suture.stats import wilson
from suture.views import style
from suture.wording import percent

Row = Mapping[str, Any]

PLANTED, TABLE, CHAPTER, FIGURE = "planted", "summary.csv", "summary.md", "summary.png"
ALARMS = 0.05  # share of healthy networks on which a localizer may raise an alarm: the goal
SHOWN = 24  # localizers in the figure


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a localizer did on some faults; shares are in [0, 1], `low` and `high` the 95 % interval of `top1` (Wilson).

    Attributes:
        network, record, by, value: which faults: ``by`` is all, kind, group or healthy; `value` which of them.
        n: faults that it answered on; `errors` are those where it raised, which count nowhere else.
        top1, top2: share in which the damaged group came first, or among the first two.
        chance: what naming a group blindly would give as `top1`.
        rank: mean place of the damaged group, from 1.
        favourite, favourite_share: the group it names most often, and how often: a rule that always names one
            organ is no localizer.
        alarms: share in which it said that some group stands out; on healthy networks these are false, and the goal
            is at most 5 %. `alarms_low`, `alarms_high` are their interval; missing where it cannot say so.
        passes: mean forward and backward passes over the diagnosis set.
        best: share in which it named the group that the oracle found best to treat.
        gain_share: mean over faults of what treating the named group gained over what the best one did.
        enough: share in which every group it named gained at least 90 % of the best one's gain.
    """

    network: str
    record: str
    by: str
    value: str
    localizer: str
    n: int
    errors: int
    top1: float | None = None
    low: float | None = None
    high: float | None = None
    top2: float | None = None
    chance: float | None = None
    rank: float | None = None
    favourite: str | None = None
    favourite_share: float | None = None
    alarms: float | None = None
    alarms_low: float | None = None
    alarms_high: float | None = None
    passes: float | None = None
    best: float | None = None
    gain_share: float | None = None
    enough: float | None = None


def summary(rows: Sequence[Row]) -> dict[str, str | bytes]:
    """Files of a finished study: every score as CSV, the main ones for the page, and a figure."""
    table = score_table(rows)
    csv = pd.DataFrame([asdict(score) for score in table]).to_csv(index=False)
    return {TABLE: csv, CHAPTER: chapter(table, rows), FIGURE: figure(table)} if table else {}


def score_table(rows: Sequence[Row]) -> list[Score]:
    """Scores over all faults, per kind, per group and on healthy networks, by network and record."""
    asked = pd.DataFrame([row for row in rows if row.get("localizer")])
    if asked.empty:
        return []
    for name in ("network", "record", "kind"):
        if name not in asked:
            asked[name] = ""
    asked[PLANTED] = asked[PLANTED].fillna("")
    faults, healthy = asked[asked[PLANTED] != ""], asked[asked[PLANTED] == ""]
    found = []
    for (network, record), members in faults.groupby(["network", "record"], sort=False):
        parts = [("all", "", members)]
        parts += [("kind", str(kind), part) for kind, part in members.groupby("kind", sort=False)]
        parts += [("group", str(group), part) for group, part in members.groupby(PLANTED, sort=False)]
        found += [score for by, value, part in parts for score in _scores(str(network), str(record), by, value, part)]
    for (network, record), members in healthy.groupby(["network", "record"], sort=False):
        found += _scores(str(network), str(record), "healthy", "", members)
    return found


def _scores(network: str, record: str, by: str, value: str, rows: pd.DataFrame) -> list[Score]:
    return [
        Score(network=network, record=record, by=by, value=value, localizer=str(name), **_numbers(members))
        for name, members in rows.groupby("localizer", sort=False)
    ]


def _numbers(rows: pd.DataFrame) -> dict[str, Any]:
    """The numbers of a `Score` from the rows of one localizer."""
    errors = rows["error"].notna() if "error" in rows else pd.Series(False, index=rows.index)
    answered = rows[~errors]
    hits, alarms = _known(answered, "hit"), _known(answered, "alarm")
    named = Counter(_known(answered, "named"))
    found: dict[str, Any] = {"n": len(answered), "errors": int(errors.sum()), "passes": _mean(answered, "passes")}
    if len(hits):
        interval = wilson(int(sum(hits)), len(hits))
        found |= {"top1": sum(hits) / len(hits), "low": interval.low, "high": interval.high}
        found |= {"top2": _mean(answered, "top2"), "rank": _mean(answered, "rank")}
        found["chance"] = float((1 / answered["groups"]).mean())
    if named:
        favourite, times = named.most_common(1)[0]
        found |= {"favourite": favourite, "favourite_share": times / len(answered)}
    if len(alarms):
        interval = wilson(int(sum(alarms)), len(alarms))
        found |= {"alarms": sum(alarms) / len(alarms), "alarms_low": interval.low, "alarms_high": interval.high}
    return found | {
        "best": _mean(answered, "hit_best"), "gain_share": _mean(answered, "gain_share"),
        "enough": _mean(answered, "enough"),
    }  # fmt: skip


def _known(rows: pd.DataFrame, column: str) -> list[Any]:
    return rows[column].dropna().tolist() if column in rows else []


def _mean(rows: pd.DataFrame, column: str) -> float | None:
    known = _known(rows, column)
    return sum(float(value) for value in known) / len(known) if known else None


# --- for people ------------------------------------------------------------------------------------------------


def chapter(table: Sequence[Score], rows: Sequence[Row]) -> str:
    """The main scores in Markdown: all faults, kinds and groups of every localizer, and false alarms."""
    faults = [score for score in table if score.by == "all" and score.top1 is not None]
    healthy = [score for score in table if score.by == "healthy" and score.alarms is not None]
    parts = ["; ".join(dict.fromkeys(f"network {s.network}, record: {s.record}" for s in table))]
    if faults:
        parts.append("## Is the damaged group named?\n\n" + ranking(rows))
        for by in ("kind", "group"):
            parts.append(f"## Top-1 by {by}\n\n" + _crossed(table, by))
    if paying := pays(rows):
        parts.append(f"## Does treating the named group pay?\n\n{_both_truths(rows)}\n\n{paying}")
    if healthy:
        parts.append("## False alarms on healthy networks\n\n" + alarms(rows))
    return "\n\n".join(parts)


def ranking(rows: Sequence[Row]) -> str:
    """Localizers by how often they name the damaged group, over all faults."""
    scores = [score for score in score_table(rows) if score.by == "all" and score.top1 is not None]
    head = ["localizer", "faults", "top-1 [95 %]", "chance", "top-2", "mean rank", "favourite", "alarm", "passes"]
    return _pipes(head, [(score, _fault_line(score)) for score in _by_top1(scores)])


def pays(rows: Sequence[Row]) -> str:
    """What treating the named group gains, where the oracle was asked; else empty."""
    told = [
        score
        for score in score_table(rows)
        if score.by == "all" and (score.best is not None or score.gain_share is not None)
    ]
    head = ["localizer", "top-1", "names the best group", "gain over the best one's", "every one at least 90 %"]
    lines = [
        (s, [f"`{s.localizer}`", _share(s.top1), _share(s.best), _share(s.gain_share), _share(s.enough)]) for s in told
    ]
    return _pipes(head, lines) if lines else ""


def alarms(rows: Sequence[Row]) -> str:
    """How often each localizer says of a healthy network that some group stands out; empty where none was asked."""
    told = [score for score in score_table(rows) if score.by == "healthy" and score.alarms is not None]
    head = ["localizer", "looks", "false alarms [95 %]", f"at most {percent(ALARMS, 0)}"]
    lines = [
        (s, [f"`{s.localizer}`", str(s.n), _interval(s.alarms, s.alarms_low, s.alarms_high),
             "yes" if (s.alarms or 0) <= ALARMS else "no"])
        for s in told
    ]  # fmt: skip
    return _pipes(head, lines) if lines else ""


TABLES = {"ranking": ranking, "pays": pays, "alarms": alarms}
"""Name → table in Markdown, from rows of ``bench/localize``."""


def _pipes(head: list[str], lines: Sequence[tuple[Score, list[str]]]) -> str:
    """With network and record, where there is more than one."""
    keys = [name for name in ("network", "record") if len({getattr(score, name) for score, _ in lines}) > 1]
    return pipes([*keys, *head], [[*(str(getattr(score, key)) for key in keys), *cells] for score, cells in lines])


def _fault_line(s: Score) -> list[str]:
    favourite = f"{s.favourite} {_share(s.favourite_share)}" if s.favourite else ""
    n = f"{s.n}" + (f" ({s.errors} errors)" if s.errors else "")
    return [f"`{s.localizer}`", n, _interval(s.top1, s.low, s.high), _share(s.chance), _share(s.top2),
            f"{s.rank:.2f}" if s.rank is not None else "", favourite, _share(s.alarms),
            f"{s.passes:.2f}" if s.passes is not None else ""]  # fmt: skip


def _crossed(table: Sequence[Score], by: str) -> str:
    """Localizers in rows, kinds or groups in columns: right of all."""
    chosen = [score for score in table if score.by == by and score.top1 is not None]
    values = list(dict.fromkeys(score.value for score in chosen))
    lines: dict[tuple[str, str, str], tuple[Score, dict[str, str]]] = {}
    for s in chosen:
        _, cells = lines.setdefault((s.network, s.record, s.localizer), (s, {}))
        cells[s.value] = f"{round((s.top1 or 0) * s.n)}/{s.n}"
    body = [(s, [f"`{s.localizer}`", *(cells.get(value, "") for value in values)]) for s, cells in lines.values()]
    return _pipes(["localizer", *values], body)


def _both_truths(rows: Sequence[Row]) -> str:
    """How often the damaged group is the one that pays best, told once per fault."""
    told = {
        tuple(str(row.get(n)) for n in ("network", "kind", PLANTED, "seed")): row["best"] == row[PLANTED]
        for row in rows
        if row.get("best") and row.get(PLANTED)
    }
    same = sum(told.values())
    interval = wilson(same, len(told))
    return (
        f"The damaged group is the best one to treat in {same} of {len(told)} faults "
        f"[{interval.low:.2f}, {interval.high:.2f}]."
    )


def figure(table: Sequence[Score]) -> bytes:
    """PNG: top-1 of every localizer over all faults with its interval, chance, and the favourite's share as a dot.

    One panel for each network and record.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - nothing else draws here
    from matplotlib.figure import Figure  # noqa: PLC0415

    chosen = [score for score in table if score.by == "all" and score.top1 is not None]
    chosen = chosen or [score for score in table if score.by == "healthy"]
    panels = list(dict.fromkeys((score.network, score.record) for score in chosen))
    names = list(dict.fromkeys(score.localizer for score in _by_top1(chosen)))[:SHOWN]
    size = 3.0 + 2.6 * len(panels), 1.4 + 0.28 * len(names)
    drawn = Figure(figsize=size, facecolor="white", layout="constrained", dpi=150)
    canvas = FigureCanvasAgg(drawn)
    grid = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (network, record) in zip(grid, panels, strict=True):
        own = {score.localizer: score for score in chosen if (score.network, score.record) == (network, record)}
        _panel(ax, [own.get(name) for name in names])
        style.dress(ax, title=style.label(f"{network}, record: {record}"), x="share of faults")
        style.name_rows(ax, names)
    handles = grid[0].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _panel(ax: Any, scores: Sequence[Score | None]) -> None:
    known = [(y, s) for y, s in enumerate(scores) if s is not None and s.top1 is not None]
    rows, tops = [y for y, _ in known], [float(s.top1 or 0) for _, s in known]
    ends = [[max(t - float(s.low or 0), 0) for t, (_, s) in zip(tops, known, strict=True)],
            [max(float(s.high or 0) - t, 0) for t, (_, s) in zip(tops, known, strict=True)]]  # fmt: skip
    ax.barh(rows, tops, height=0.6, color=style.SKY, label="top-1, 95 % interval")
    if known:
        ax.errorbar(tops, rows, xerr=ends, fmt="none", ecolor=style.INK, elinewidth=1)
        ax.axvline(float(known[0][1].chance or 0), color=style.VERMILLION, linestyle="--", linewidth=1, label="chance")
    dots = [(y, s.favourite_share) for y, s in known if s.favourite_share is not None]
    marks = {"color": style.ORANGE, "markersize": 4, "clip_on": False, "label": "share of its favourite"}
    ax.plot([x for _, x in dots], [y for y, _ in dots], "o", **marks)
    ax.set_xlim(0, 1)


def _by_top1(scores: Sequence[Score]) -> list[Score]:
    return sorted(scores, key=lambda s: (-(s.top1 or 0), s.rank or 0, s.localizer))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
