"""Treat as tables and sentences: candidates, cost, the plan, and what was tried on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from suture.treatments import STANDARD, Plan
from suture.treatments.choice import NONE
from suture.views.grid import Column, Grid, column
from suture.views.text import NOTHING, count, flops, known, listed, number, percent, seconds, signed
from suture.wording import plain, several

if TYPE_CHECKING:
    from suture.stages.treat import Treatment

SHOWN, ON_PAGE, IN_TERMINAL = 12, 8, 6  # candidates in a table; treat/tried.csv has all
NAME = 24  # characters of a candidate's name where there is little room


def candidates(result: Treatment) -> list[dict[str, Any]]:
    """A row per candidate, best score first, ``none`` among them."""
    rows = [{str(key): value for key, value in row.items()} for row in result.tried.to_dict("records")]
    return sorted(rows, key=lambda row: -score_of(row))


def score_of(row: dict[str, Any]) -> float:
    """The score of a candidate; in results older than it, net."""
    score = row.get("score", row["net"])
    return float(score) if known(score) else float("-inf")


def is_over(row: dict[str, Any]) -> bool:
    """Whether a candidate may break more than the plan promised."""
    return not bool(row.get("allowed", True))


def tried(result: Treatment, most: int | None = None, *, narrow: bool = False) -> Grid:
    """Candidates and what each did to the examples they were judged on; nothing where there was none to judge.

    Args:
        most: rows at most; the kept one and ``none`` are always among them.
        narrow: for a terminal of 80 characters, or half a page: names shortened, no more columns than needed.
    """
    every = candidates(result)
    if len(every) < 2:
        return Grid("", [], [])
    shown = _shortened(every, most, {NONE, result.kept})
    bounded = result.plan.choose.max_regression is not None and all("bound" in row for row in every)
    scored = any(score_of(row) != float(row["net"]) for row in every)
    over = any(is_over(row) for row in every)
    content: dict[str, Any] = {
        "Fixed": lambda row: count(row["fixed"]),
        "Broken": lambda row: count(row["broken"]),
        **({} if narrow and scored else {"Net": lambda row: signed(row["net"])}),
        **({"May break": _may_break} if bounded else {}),
        **({"Score": lambda row: _score(row)} if scored else {}),
    }
    rows = [
        [plain(row["candidate"], NAME) if narrow else str(row["candidate"]),
         *(cell(row) for cell in content.values()), _mark(row, result)]
        for row in shown
    ]  # fmt: skip
    marked = frozenset(i for i, row in enumerate(shown) if row["candidate"] == result.kept)
    notes = [
        f"{several(len(every) - len(shown), 'more candidate')} in treat/tried.csv." if len(shown) < len(every) else "",
        _explained(result, over) if bounded else "",
        f"Score: fixed − {result.plan.choose.broken_costs:g} × broken." if scored else "",
    ]
    columns = [Column("Candidate"), *column(*content), Column("")]
    return Grid("What was tried, best first", columns, rows, marked, " ".join(filter(None, notes)))


def _shortened(every: list[dict[str, Any]], most: int | None, always: set[str]) -> list[dict[str, Any]]:
    if most is None or len(every) <= most:
        return every
    needed = sum(row["candidate"] in always for row in every)
    others = [row for row in every if row["candidate"] not in always][: most - needed]
    return [row for row in every if row["candidate"] in always or row in others]


def _may_break(row: dict[str, Any]) -> str:
    return NOTHING if row["candidate"] == NONE else percent(row["bound"])


def _score(row: dict[str, Any]) -> str:
    score = score_of(row)
    return signed(score) if known(score) and score == round(score) else number(score)


def _mark(row: dict[str, Any], result: Treatment) -> str:
    marks = (("kept", row["candidate"] == result.kept), ("over bound", is_over(row)))
    return ", ".join(mark for mark, holds in marks if holds)


def _explained(result: Treatment, over: bool) -> str:
    promised = percent(result.plan.choose.max_regression)
    said = f"May break: exact 95 % upper bound on the share of right answers that break; the plan allows {promised}."
    return f"{said} What is over it is not kept." if over and not _kept_over(result) else said


def _kept_over(result: Treatment) -> bool:
    """Under protocol "paper" the treated network is kept whatever it does."""
    return any(is_over(row) for row in candidates(result) if row["candidate"] == result.kept)


def cost(result: Treatment) -> Grid:
    """Measured cost against full fine-tuning for as many epochs; what was not measured has no row."""
    c = result.cost
    rows = []
    if c.all_parameters:
        share = _share(c.parameters, c.all_parameters)
        rows.append(["parameters trained", count(c.parameters), count(c.all_parameters), share])
    if c.full_flops:
        rows.append(["compute, measured", flops(c.flops), flops(c.full_flops), percent(c.share)])
    if c.full_seconds:
        timed = f"about {seconds(c.full_seconds)}"
        rows.append(["time", seconds(c.seconds), timed, percent(c.seconds / c.full_seconds)])
    if c.all_groups and c.full_flops:
        groups, every = several(c.groups, "group"), several(c.all_groups, "group")
        rows.append(["the paper's formula", groups, every, percent(c.paper_share)])
    ours = "all trainings" if _several_trainings(result) else "this repair"
    columns = [Column("Cost"), *column(ours, "full fine-tuning", "share")]
    return Grid("What it cost", columns, rows, note=" ".join([took(result), *_compared(result)]) if rows else "")


def took(result: Treatment) -> str:
    """Epochs and seconds, and in how many full fine-tunings that is where several plans were trained.

    Epochs do not tell it: those of cross-fitting are over a part of the examples.
    """
    c = result.cost
    if not c.epochs:
        return f"An epoch that was broken off, in {seconds(c.seconds)}." if c.seconds else ""
    spent = f"{several(c.epochs, 'epoch')} in {seconds(c.seconds)}"
    full = c.one_full_flops
    if not (full and _several_trainings(result)):
        return f"{spent}."
    trained = f"{spent}, as much computing as {number(c.flops / full, 2)} full fine-tunings of {STANDARD.epochs} epochs"
    if not c.judging_flops:
        return f"{trained}."
    judged = f"{number(c.judging_flops / full, 2)} of one, {seconds(c.judging_seconds)}"
    return f"{trained}; and {judged}, to judge {several(_judged(result), 'candidate')}."


def _judged(result: Treatment) -> int:
    return sum(row["candidate"] != NONE for row in candidates(result))


def _compared(result: Treatment) -> list[str]:
    if not result.cost.full_flops:
        return []
    timed = " Its time is an estimate from a few such steps." if result.cost.full_seconds else ""
    return [
        f"Full fine-tuning: the same steps with every parameter trained.{timed}",
        "The paper's formula counts epochs × groups, as if groups were equally large and forward passes free.",
    ]


def _several_trainings(result: Treatment) -> bool:
    """Several plans, several cycles, or one plan on parts of the examples too, which the history does not show."""
    history = result.history
    if "plan" in history and history["plan"].nunique() > 1:
        return True
    again = "epoch" in history and bool(history["epoch"].duplicated().any())
    return again or result.cost.epochs > len(history) > 0


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else NOTHING


def findings(result: Treatment) -> list[str]:
    """What was kept and why, then what was tried on the way."""
    names = _names(result)
    return [_sentence(text, names) for text in (result.note, *result.account)]


def warnings(result: Treatment) -> list[str]:
    """What may be wrong with the data."""
    return [_sentence(text, _names(result)) for text in result.warnings]


def answering(result: Treatment) -> list[str]:
    """What is special about the patch: a route, a twin, baselines beside it."""
    said = []
    if result.patch.margin is not None:
        said.append(f"A route: of two networks {who_answers(result.patch.margin)} It takes two forward passes.")
    if result.twin is not None:
        said.append(
            "The same treatment was made once more with the examples in another order (treat/twin.safetensors), so "
            "that Verify can tell how much churn is chance."
        )
    return [*said, *_baselines(result)]


def _baselines(result: Treatment) -> list[str]:
    """Which baselines were carried out too, which groups were drawn by lot, and why one came to nothing."""
    table = result.baselines
    if not len(table):
        return []
    took = f"{listed(list(map(str, table['plan'])))}, in {seconds(table['seconds'].sum())}"
    said = [f"Baselines beside it, for Verify to hold it against: {took}."]
    for row in table.to_dict("records"):
        name, note = str(row["plan"]), str(row["note"])
        if row["kept"] == NONE:
            said.append(_sentence(note, {name}) if note.startswith(name) else f"{name}: {_sentence(note, set())}")
        elif name == "random_groups":
            said.append(f"{name} treated {row['groups']}.")
    return said


def who_answers(margin: float) -> str:
    """Which of the two networks of a route answers."""
    size = f"{abs(margin):g}"
    if margin < 0:
        return f"the treated one answers, unless the original is surer by {size} or more in probability."
    by = f"by more than {size} in probability" if margin else "at all"
    return f"the original answers, unless the treated one is surer {by}."


def _names(result: Treatment) -> set[str]:
    """Words that a sentence may begin with and that keep their small letter."""
    named = [result.plan.name, *map(str, result.tried["candidate"]), *(p.name for p in _inner(result.plan))]
    return {name.split()[0].strip(":,") for name in named if name.split()}


def _inner(plan: Plan) -> list[Plan]:
    """Plans within a plan."""
    fields = [value for _, value in plan.how]
    found = [each for value in fields for each in (value if isinstance(value, tuple) else (value,))]
    return [each for each in found if isinstance(each, Plan)]


def _sentence(text: str, names: set[str]) -> str:
    """A remark as a sentence: a capital, unless a name comes first, and a full stop."""
    first = text.split(maxsplit=1)[0].strip(":,") if text.split() else ""
    begun = text if first in names else text[:1].upper() + text[1:]
    return begun if begun.endswith((".", "?", "!")) else f"{begun}."


def plan(result: Treatment) -> Grid:
    """The plan, field by field; plans within it in a line each, where they differ from their defaults."""
    return Grid("The plan", [Column("Field"), Column("Value")], [[*row] for row in _fields(result.plan)])


def _fields(model: BaseModel, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for field, value in model:
        name = f"{prefix}{field}"
        if isinstance(value, Plan):
            rows.append((f"{name}: {value.name}", _in_words(value)))
        elif isinstance(value, BaseModel):
            rows += _fields(value, f"{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            rows += [(f"{name}: {_title(each)}", _in_words(each)) for each in value]
        else:
            rows.append((name, _leaf(value)))
    return rows


def _title(part: BaseModel) -> str:
    return str(getattr(part, "name", "") or getattr(part, "kind", ""))


def _in_words(part: BaseModel) -> str:
    """Kind, and whatever is not as by default."""
    if isinstance(part, Plan):
        return "; ".join(f"{field} {_in_words(getattr(part, field))}" for field in ("where", "how"))
    changed = dict(_fields(part))
    try:
        usual = dict(_fields(type(part)()))
    except ValueError:  # a field that has to be given
        usual = {}
    told = [f"{name} {value}" for name, value in changed.items() if name != "kind" and usual.get(name) != value]
    kind = getattr(part, "kind", "")
    return f"{kind} ({', '.join(told)})" if told else kind


def _leaf(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, tuple | list):
        return ", ".join(map(_leaf, value)) or "none"
    return "none" if value is None else str(value)
