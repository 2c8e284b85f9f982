"""How good the repairs are: rows of ``bench/treat`` → one table of numbers, and tables to read.

``bench/treat.toml`` names `summary` under `summary`, and the engine of the studies calls it on all rows. The tables of
docs/treatment.md are these, made from the rows in docs/measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from suture.bench.markdown import pipes
from suture.stats import ratio_interval
from suture.views.text import count, percent, signed

Row = Mapping[str, Any]

CASE = ("network", "shift", "fault", "repair", "extra", "protocol")
ON_OTHER_DRAWS = ("resplit_net", "resplit_ratio", "resplit_none", "promise_broken", "highest_net", "highest_ratio")
UNIT = "full"  # costs are in units of this plan's
PROMISE = 0.05  # what `auto` and `route` may break, as a share of what was right
MANY = 10  # seeds from which on it is worth counting those in which more broke


def summary(rows: Sequence[Row]) -> dict[str, str | bytes]:
    """Files of a finished study: per network, case and plan, over seeds.

    `n`: seeds; accuracy before and after; fixed, broken and net, summed; `ratio` with its exact 95 % interval; the
    regression rate and the number of seeds in which it was `above` 5 %; `flops` over those of the plan ``full``;
    seconds; what was kept, most often first.
    """
    table = totals(rows)
    if table.empty:
        return {}
    chapters = ("## What is fixed, and what breaks", repairs(rows)), ("## By fault", by_fault(rows)), (
        "## On other draws of `select`", on_other_draws(rows),
    )  # fmt: skip
    text = "\n\n".join(f"{title}\n\n{body}" for title, body in chapters if body)
    return {"summary.csv": table.to_csv(index=False), "summary.md": text}


def totals(rows: Sequence[Row], pooled: Sequence[str] = ()) -> pd.DataFrame:
    """Everything of `summary` as numbers: a row for every case and plan, cases told apart by all but `pooled`."""
    table = pd.DataFrame(rows)
    if not len(table) or "fixed" not in table:
        return pd.DataFrame()
    keys = [key for key in CASE if key in table and key not in pooled]
    table = table[table["fixed"].notna()].fillna(dict.fromkeys(keys, ""))
    lines = []
    for key, case in table.groupby(keys, sort=False) if keys else [((), table)]:
        unit = float(case.loc[case["plan"] == UNIT, "flops"].mean())
        for plan, members in case.groupby("plan", sort=False):
            fixed, broken = int(members["fixed"].sum()), int(members["broken"].sum())
            interval = ratio_interval(fixed, broken)
            line = dict(zip(keys, key, strict=True)) | {
                "plan": plan, "n": len(members), "before": members["before"].mean(), "after": members["after"].mean(),
                "fixed": fixed, "broken": broken, "net": fixed - broken,
                "ratio": fixed / broken if broken else None, "low": interval.low,
                "high": interval.high if broken else None, "regression_rate": members["regression_rate"].mean(),
                "above": int((members["regression_rate"] > PROMISE).sum()),
                "flops": members["flops"].mean() / unit if unit > 0 else None, "seconds": members["seconds"].mean(),
                "kept": ", ".join(f"{name} {times}" for name, times in members["kept"].value_counts().items()),
            }  # fmt: skip
            line |= {name: members[name].astype(float).mean() for name in ON_OTHER_DRAWS if name in members}
            lines.append(line)
    return pd.DataFrame(lines)


# --- for people ------------------------------------------------------------------------------------------------


def repairs(rows: Sequence[Row]) -> str:
    """Every plan, over seeds: accuracy, what was fixed and what broke, and the price."""
    table = totals(rows)
    if table.empty:
        return ""
    keys, many = _told_apart(table), int(table["n"].max()) >= MANY
    head = [*keys, "plan", "accuracy", "fixed : broken", "ratio [95 %]", "net", "regression rate"]
    head += [f"above {percent(PROMISE, 0)} in"] * many + [f"FLOPs, of `{UNIT}`", "seconds"]
    body = []
    for line in _lines(table):
        cells = [*(str(line[key]) for key in keys), f"`{line['plan']}`", percent(line["after"]), _moves(line),
                 _ratio(line), signed(line["net"]), percent(line["regression_rate"])]  # fmt: skip
        cells += [f"{line['above']} of {line['n']}"] * many
        body.append([*cells, _fixed(line["flops"]), count(line["seconds"])])
    return pipes(head, body)


def by_fault(rows: Sequence[Row]) -> str:
    """What was fixed, what broke and the net: faults in rows, plans in columns; empty for fewer than two faults."""
    table = totals(rows)
    if table.empty or "fault" not in table or table["fault"].nunique() < 2:
        return ""
    sums = {line["plan"]: line for line in _lines(totals(rows, pooled=["fault"]))}
    found = {(line["fault"], line["plan"]): line for line in _lines(table)}
    plans, faults = list(sums), list(dict.fromkeys(table["fault"]))
    body = [[str(fault or "none"), *(_gain(found.get((fault, plan))) for plan in plans)] for fault in faults]
    body.append(["**all**", *(_gain(sums[plan], strong=True) for plan in plans)])
    body.append([f"FLOPs, of `{UNIT}`", *(_fixed(sums[plan]["flops"]) for plan in plans)])
    return pipes(["fault", *(f"`{plan}`" for plan in plans)], body)


def on_other_draws(rows: Sequence[Row]) -> str:
    """How the rule did on other draws of `select`; empty where none were made."""
    table = totals(rows)
    if "promise_broken" not in table:
        return ""
    table = table[table["promise_broken"].notna()]
    keys = _told_apart(table)
    head = [*keys, "plan", "net per 1,000", "ratio", "kept the original", f"promise of {percent(PROMISE, 0)} broken",
            "highest score: net", "ratio"]  # fmt: skip
    body = [
        [*(str(line[key]) for key in keys), f"`{line['plan']}`", _fixed(line["resplit_net"], 1),
         _fixed(line["resplit_ratio"]), percent(line["resplit_none"]), percent(line["promise_broken"]),
         _fixed(line["highest_net"], 1), _fixed(line["highest_ratio"])]
        for line in _lines(table)
    ]  # fmt: skip
    return pipes(head, body) if body else ""


TABLES = {"repairs": repairs, "by_fault": by_fault, "on_other_draws": on_other_draws}
"""Name → table in Markdown, from rows of ``bench/treat``."""


def _lines(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in line.items()} for line in table.to_dict("records")]


def _told_apart(table: pd.DataFrame) -> list[str]:
    return [key for key in CASE if key in table and table[key].nunique() > 1]


def _moves(line: Row) -> str:
    return f"{count(line['fixed'])} : {count(line['broken'])}"


def _gain(line: Row | None, strong: bool = False) -> str:
    if line is None:
        return ""
    net = f"**{signed(line['net'])}**" if strong else signed(line["net"])
    return f"{_moves(line)}, {net}"


def _ratio(line: Row) -> str:
    """Fixed per broken one with its interval; above ten with a digit less."""
    if not line["fixed"] and not line["broken"]:
        return ""
    if not line["broken"]:
        return f"[{line['low']:.1f}, ∞]"
    few = line["ratio"] < 10
    low, high = (f"{line['low']:.2f}", f"{line['high']:.2f}") if few else (f"{line['low']:.1f}", f"{line['high']:.0f}")
    return f"{line['ratio']:.{2 if few else 1}f} [{low}, {high}]"


def _fixed(value: Any, digits: int = 2) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.{digits}f}"
