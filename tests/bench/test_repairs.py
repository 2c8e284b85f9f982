"""Tables of repairs: sums over seeds, in units of full fine-tuning, and nothing where nothing was measured."""

import io
from typing import Any

import pandas as pd
import pytest

from suture.bench.repairs import TABLES, by_fault, on_other_draws, repairs, summary
from suture.stats import ratio_interval


def row(plan: str, seed: int, fixed: int, broken: int, **more: Any) -> dict[str, Any]:
    return {
        "network": "digits", "plan": plan, "fault": "", "seed": seed, "kept": plan, "before": 0.8,
        "after": 0.8 + (fixed - broken) / 100, "fixed": fixed, "broken": broken, "regression_rate": broken / 80,
        "flops": 100.0 if plan == "full" else 60.0, "seconds": 2.4,
    } | more  # fmt: skip


ROWS = [row("full", 0, 12, 6), row("full", 1, 10, 2), row("few", 0, 8, 0), row("few", 1, 3, 0), row("none", 0, 0, 0)]


def body(table: str) -> dict[str, list[str]]:
    """First cell → the cells of its line."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.replace("\xa0", " ").splitlines()]
    return {first: rest for first, *rest in cells}


def test_numbers_are_sums_over_seeds() -> None:
    table = pd.read_csv(io.StringIO(str(summary(ROWS)["summary.csv"]))).set_index("plan")
    assert list(table.loc["full", ["n", "fixed", "broken", "net", "above"]]) == [2, 22, 8, 14, 1]
    assert table.loc["full", "low"] == pytest.approx(ratio_interval(22, 8).low)
    assert table.loc["full", "regression_rate"] == pytest.approx((6 / 80 + 2 / 80) / 2)
    assert list(table["flops"]) == [1.0, 0.6, 0.6]


def test_a_line_has_what_one_asks_for() -> None:
    lines, interval = body(repairs(ROWS)), ratio_interval(22, 8)
    told = f"2.75 [{interval.low:.2f}, {interval.high:.2f}]"
    assert lines["`full`"] == ["87.0 %", "22 : 8", told, "+14", "5.0 %", "1.00", "2"]
    assert lines["`few`"][1:4] == ["11 : 0", f"[{ratio_interval(11, 0).low:.1f}, ∞]", "+11"]
    assert lines["`none`"] == ["80.0 %", "0 : 0", "", "0", "0.0 %", "0.60", "2"]


def test_a_ratio_above_ten_has_a_digit_less() -> None:
    interval = ratio_interval(300, 20)
    assert f"| 15.0 [{interval.low:.1f}, {interval.high:.0f}] |" in repairs([row("full", 0, 300, 20)])


def test_many_seeds_are_counted_in_which_more_broke_than_was_promised() -> None:
    many = [row("full", seed, 20, 6 if seed < 3 else 1) for seed in range(20)]
    assert "| 3 of 20 |" in repairs(many)
    assert " of 9" not in repairs(many[:9])


def test_what_differs_between_cases_stands_before_the_plan() -> None:
    two = repairs([*ROWS, *(each | {"network": "other"} for each in ROWS)])
    assert "| digits | `full` | 87.0" in two
    assert "| other | `few` |" in two


def test_faults_stand_in_rows_and_plans_in_columns() -> None:
    damaged = [each | {"fault": "zero layer1"} for each in ROWS] + [row("full", 0, 5, 1, fault="noise layer2")]
    lines = body(by_fault(damaged))
    assert lines["fault"] == ["`full`", "`few`", "`none`"]
    assert lines["zero layer1"] == ["22 : 8, +14", "11 : 0, +11", "0 : 0, 0"]
    assert lines["noise layer2"] == ["5 : 1, +4", "", ""]
    assert lines["**all**"][0] == "27 : 9, **+18**"
    assert lines["FLOPs, of `full`"] == ["1.00", "0.60", "0.60"]
    assert by_fault(ROWS) == ""


def test_other_draws_are_told_where_they_were_made() -> None:
    draws = {
        "resplit_net": 37.25, "resplit_ratio": 3.1, "resplit_none": 0.01, "promise_broken": 0.02, "highest_net": 30.0,
        "highest_ratio": None,
    }  # fmt: skip
    drawn = [row("auto", 0, 9, 1, **draws), row("full", 0, 9, 1)]
    assert body(on_other_draws(drawn))["`auto`"] == ["37.2", "3.10", "1.0 %", "2.0 %", "30.0", ""]
    assert "`full`" not in on_other_draws(drawn)
    assert on_other_draws(ROWS) == ""
    chapters = str(summary(drawn)["summary.md"])
    assert repairs(drawn) in chapters
    assert on_other_draws(drawn) in chapters


def test_nothing_measured_makes_no_table() -> None:
    for rows in ([], [{"skipped": "no group stands out"}]):
        assert summary(rows) == {}
        assert {name: table(rows) for name, table in TABLES.items()} == dict.fromkeys(TABLES, "")
