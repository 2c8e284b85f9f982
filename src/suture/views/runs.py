"""Several runs side by side: what each repaired, what it broke and cost, as a table, a page and data."""

from __future__ import annotations

from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from suture.errors import InvalidArgumentError
from suture.rundir import STAGES, write_atomic, write_json
from suture.views.baselines import beaten_by
from suture.views.causes import answer, by_pair
from suture.views.grid import Column, Grid, column, escaped, lines, stacked
from suture.views.reading import terms_of_several
from suture.views.render import image, render
from suture.views.run import Finished, read_run
from suture.views.style import BLUE, INK, MOST, MUTED, VERMILLION, dress, label, name_rows, rows
from suture.views.text import (
    NOTHING,
    count,
    flops,
    listed,
    number,
    p_value,
    percent,
    ratio,
    seconds,
    signed,
)
from suture.wording import plain, several

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.treat import Treatment
    from suture.stages.verify import Verification

FORMATS = ("html", "md", "json")
NUMBERS = (
    "n", "accuracy_before", "accuracy_after", "interval_before", "interval_after", "fixed", "broken", "net",
    "net_interval", "ratio_interval", "p_value", "verdict", "sentence", "regression_rate", "regression_bound",
    "optimistic", "looks",
)  # fmt: skip
PAIRS = 3  # confusions of each run
NAME = 24  # characters of a run's name in a terminal


class Row(NamedTuple):
    """A run, and what it is called beside the others."""

    name: str
    run: Finished

    @property
    def missing(self) -> list[str]:
        """Stages that a verdict needs and that are not done; a scan needs a log of the training."""
        return [stage for stage in STAGES[1:] if getattr(self.run, stage) is None]

    @property
    def judged_on(self) -> str | None:
        """Fingerprint of the examples that the repair was verified on, where it is known."""
        same = self.run.case.get("identity", {})
        digest = same.get("data", {}).get("diagnose" if same.get("protocol") == "paper" else "verify")
        return str(digest) if digest else None


def read_runs(paths: Sequence[str | Path]) -> list[Row]:
    """A row per run directory, in the order given.

    Raises:
        RunError: a directory is no run, or a stage is damaged.
        InvalidArgumentError: the same directory twice.
    """
    whole = [Path(path).resolve() for path in paths]
    twice = next((path for i, path in enumerate(whole) if path in whole[:i]), None)
    if twice is not None:
        raise InvalidArgumentError(f"{twice} was given twice; give each run once")
    return [Row(name, read_run(path)) for name, path in zip(_names(whole), paths, strict=True)]


def _names(paths: list[Path]) -> list[str]:
    """As few of the last folders as tell the runs apart."""
    for depth in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def grid(found: list[Row], *, narrow: bool = False) -> Grid:
    """A row per run; what was not reached is left open.

    Args:
        narrow: for a terminal of 80 characters: no more columns than a choice needs.
    """
    if narrow:
        columns = [Column("Run"), *column("Accuracy", "Fixed", "Broken", "p"), Column("Verdict")]
        cells = [[plain(r.name, NAME), *_moves(r.run.verify)[1:4], _p(r.run.verify), _verdict(r)] for r in found]
        return Grid(f"{len(found)} runs side by side", columns, cells)
    columns = [
        Column("Run"), *column("n", "Accuracy", "Fixed", "Broken", "Net", "Fixed : broken", "p"), Column("Verdict"),
    ]  # fmt: skip
    cells = [[r.name, *_moves(r.run.verify), _p(r.run.verify), _verdict(r)] for r in found]
    note = "In brackets: exact 95 % interval of fixed : broken."
    return Grid("What each repaired and broke", columns, cells, note=note)


def confusions(found: list[Row], *, narrow: bool = False) -> Grid:
    """The most frequent confusions of each run, with their causes; no rows where no run was diagnosed.

    Args:
        narrow: as for `grid`.
    """
    columns = [Column("Run"), Column("True → predicted"), *column("Errors (by chance)"), Column("Cause")]
    cells = []
    for name, run in found:
        if run.diagnose is None:
            continue
        asked = by_pair(run.diagnose)
        for pair in run.diagnose.pairs.head(PAIRS).to_dict("records"):
            both = [plain(pair[side], NAME // 2 if narrow else None) for side in ("true", "predicted")]
            cause = answer(asked.get((str(pair["true"]), str(pair["predicted"])))) if asked else NOTHING
            chance = f"{count(pair['count'])} ({number(pair.get('expected'), 2)})"
            cells.append([plain(name, NAME) if narrow else name, " → ".join(both), chance, cause])
    return Grid(f"What is confused most, up to {PAIRS} pairs of each", columns, cells)


def grids(found: list[Row], *, narrow: bool = False) -> list[Grid]:
    """What each repaired and what is confused; the former is left out where all that it has are dashes."""
    confused = confusions(found, narrow=narrow)
    repaired = [grid(found, narrow=narrow)] if any(r.run.verify for r in found) or not confused else []
    return [*repaired, *([confused] if confused else [])]


def origins(found: list[Row]) -> Grid:
    """Where each run comes from and what its treatment cost."""
    columns = [Column("Run"), Column("Model and data"), Column("Plan"), Column("Kept"), *column("Treating took")]
    cells = [[r.name, r.run.title, *_treated(r.run.treat), _cost(r.run.treat)] for r in found]
    return Grid("What was done", columns, cells)


def _treated(result: Treatment | None) -> list[str]:
    if result is None:
        return [NOTHING, NOTHING]
    without = f", {several(result.excluded, 'example')} left out"
    return [result.plan.name + (without if result.excluded else ""), result.kept]


def _moves(v: Verification | None) -> list[str]:
    """n, accuracy, fixed, broken, net, fixed : broken."""
    if v is None:
        return [NOTHING] * 6
    accuracy = f"{percent(v.accuracy_before)} → {percent(v.accuracy_after)}"
    return [count(v.n), accuracy, count(v.fixed), count(v.broken), signed(v.net), _ratio(v)]


def _ratio(v: Verification) -> str:
    within = v.ratio_interval
    if within is None or not v.fixed + v.broken:
        return ratio(v.fixed, v.broken)
    high = "∞" if isinf(within.high) else number(within.high, 2)
    return f"{ratio(v.fixed, v.broken)} ({number(within.low, 2)} to {high})"


def _p(v: Verification | None) -> str:
    return p_value(v.p_value) if v else NOTHING


def _cost(result: Treatment | None) -> str:
    spent = [seconds(result.cost.seconds), flops(result.cost.flops)] if result and result.cost.epochs else []
    return ", ".join(part for part in spent if part != NOTHING) or NOTHING


def _verdict(row: Row) -> str:
    return str(row.run.verify.verdict) if row.run.verify else f"no {row.missing[0]} yet"


def remarks(found: list[Row]) -> list[str]:
    """What is missing, and what keeps these numbers from being compared."""
    said = [f"{plain(r.name, 60)} is not finished: {listed(r.missing)} missing." for r in found if not r.run.verify]
    judged = [(r, r.run.verify) for r in found if r.run.verify]
    if len({(v.n, r.judged_on) for r, v in judged}) > 1:
        said.append(
            "These runs were not verified on the same examples, so their numbers cannot be set against each other."
        )
    said += [f"{plain(r.name, 60)}: {told}" for r, v in judged if (told := beaten_by(v))]
    paper = [r.name for r, v in judged if v.optimistic]
    if paper:
        said.append(f"Optimistic, since verified on examples that were diagnosed too: {listed(paper)}.")
    twice = [r.name for r, v in judged if v.looks > 1]
    if twice:
        said.append(f"Looked at more than once: {listed(twice)}; p holds for a first look.")
    if len(judged) > 1:
        said.append(
            "Each p is that of one run alone: the best of several looks better than it is, so choose on 'select' and "
            "not in this table."
        )
    return said


def table(found: list[Row]) -> Table:
    """The table and what to hold against it, for a terminal."""
    return stacked(*(each.rich() for each in grids(found, narrow=True)), lines(remarks(found)))


def figure(found: list[Row], ax: Axes | None = None) -> Axes:
    """Net (fixed − broken) of each run as a share of its examples, with its 95 % bootstrap interval.

    Worry about a run whose interval holds zero: it may have repaired nothing.
    """
    judged = [(r.name, r.run.verify) for r in found if r.run.verify and r.run.verify.n][:MOST]
    ax = ax or rows(len(judged))
    for place, (_, v) in enumerate(judged):
        net, low, high = (100 * x / v.n for x in (v.net, v.net_interval.low, v.net_interval.high))
        ax.errorbar(
            net, place, xerr=[[max(net - low, 0)], [max(high - net, 0)]], fmt="o", markersize=6, elinewidth=1.6,
            color=VERMILLION if net < 0 else BLUE,
        )  # fmt: skip
    ax.axvline(0, color=MUTED, linewidth=0.9)
    name_rows(ax, [label(plain(name, 28)) for name, _ in judged])
    more = f", {len(judged)} of {len(found)} runs" if len(judged) < len(found) else ""
    dress(ax, title=f"What each repair gains{more}", x="net, % of the verified examples, with 95 % interval")
    ax.xaxis.label.set_color(INK)
    return ax


def page(found: list[Row]) -> str:
    """The page as text: table, picture, and what to hold against them."""
    judged = [(r.name, r.run.verify) for r in found if r.run.verify and r.run.verify.n]
    alt = "; ".join(f"{plain(name, 40)}: net {signed(v.net)} of {count(v.n)}" for name, v in judged[:MOST])
    return render(
        "runs.html.j2",
        title=f"{len(found)} runs side by side",
        names=listed([r.name for r in found]),
        chart=image(lambda: figure(found), f"Net gain of each run. {alt}") if judged else None,
        grids=grids(found),
        origins=origins(found),
        remarks=remarks(found),
        terms=terms_of_several(row.run for row in found),
    )


def markdown(found: list[Row]) -> str:
    """For a pull request."""
    said = [escaped(sentence) for sentence in remarks(found)]
    return "\n".join(
        [
            f"# {len(found)} runs side by side",
            "",
            *(each.markdown() for each in grids(found)),
            origins(found).markdown(),
            *(f"- {s}" for s in said),
            "",
        ]
    )


def to_json(found: list[Row]) -> dict[str, Any]:
    """Plain data, a mapping per run, with the names of ``verify/result.json``; what was not reached is left out."""
    return {"runs": [_data(row) for row in found], "remarks": remarks(found)}


def _data(row: Row) -> dict[str, Any]:
    t, v = row.run.treat, row.run.verify
    data: dict[str, Any] = {"run": row.name, "path": str(row.run.path), "title": row.run.title, "missing": row.missing}
    if row.run.diagnose is not None:
        every = row.run.diagnose.to_dict()
        data |= {"pairs": every["pairs"], "causes": every["causes"]}
    if t is not None:
        data |= {"plan": t.plan.name, "excluded": t.excluded, "kept": t.kept, "groups": list(t.groups)}
        data |= {"cost": {"seconds": t.cost.seconds, "flops": t.cost.flops}}
    if v is not None:
        every = v.to_dict()
        data |= {name: every[name] for name in NUMBERS}
    return data


def export(found: list[Row], form: str, out: Path) -> None:
    """Write several runs as one page, as Markdown or as JSON, atomically."""
    if form == "json":
        write_json(out, to_json(found))
    else:
        write_atomic(out, page(found) if form == "html" else markdown(found))
