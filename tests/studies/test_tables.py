"""Means against SciPy's, and tables of awkward values."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from suture.errors import InvalidArgumentError
from suture.stats import wilson
from suture.studies import tables
from suture.studies.grid import Shown

ROWS = [
    {"method": "a", "seed": 1, "score": 0.5, "hit": True},
    {"method": "a", "seed": 2, "score": 0.7, "hit": False},
    {"method": "a", "seed": 3, "score": None, "hit": True},
    {"method": "b", "seed": 1, "score": 0.25, "hit": True},
]
MEANS = Shown(by=["method"], mean=["score", "hit"])


def text(*things):
    console = Console(file=io.StringIO(), width=200)
    console.print(*things)
    return console.file.getvalue()


def test_the_mean_of_numbers_has_students_interval():
    values = [0.3, 0.1, 0.4, 0.15]
    found = tables.mean_of([*values, None])
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.n == 4
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_the_mean_of_true_and_false_has_wilsons():
    found = tables.mean_of([True, True, False])
    expected = wilson(2, 3)
    assert (found.n, found.mean, found.low, found.high) == (3, 2 / 3, expected.low, expected.high)


def test_one_number_has_no_interval_and_none_no_mean():
    assert tables.mean_of([0.5]) == tables.Mean(1, 0.5, None, None)
    assert tables.mean_of([None]) is None
    assert tables.mean_of([2, 2, 2]) == tables.Mean(3, 2, 2, 2)


def test_a_mean_of_texts_is_refused():
    with pytest.raises(InvalidArgumentError, match="a mean is taken of numbers"):
        tables.mean_of([1, "x"])


def test_means_by_group_as_csv():
    lines = list(csv.DictReader(io.StringIO(tables.means_csv(ROWS, MEANS))))
    assert [(line["method"], line["column"], line["n"]) for line in lines] == [
        ("a", "score", "2"), ("a", "hit", "3"), ("b", "score", "1"), ("b", "hit", "1"),
    ]  # fmt: skip
    assert float(lines[0]["mean"]) == pytest.approx(0.6)
    assert (lines[2]["low"], lines[2]["high"]) == ("", "")


def test_a_group_without_a_single_value_has_n_0():
    rows = [{"m": "a", "score": None}]
    (line,) = csv.DictReader(io.StringIO(tables.means_csv(rows, Shown(by=["m"], mean=["score"]))))
    assert (line["n"], line["mean"]) == ("0", "")


def test_csv_keeps_every_column_and_kind():
    rows = [{"a": 1, "b": [1, "x"]}, {"a": 2.5, "c": 'say "no", twice\n'}, {"c": True}]
    lines = list(csv.reader(io.StringIO(tables.to_csv(rows))))
    assert lines == [
        ["a", "b", "c"],
        ["1", '[1, "x"]', ""],
        ["2.5", "", 'say "no", twice\n'],
        ["", "", "True"],
    ]
    assert tables.to_csv([]) == "\n"


def test_the_terminal_shows_means_where_there_are_any():
    shown = text(*tables.terminal(ROWS, MEANS))
    assert "0.6 [" in shown
    assert "(n = 2)" in shown
    assert "seed" not in shown


def test_the_terminal_shows_rows_under_their_headings_otherwise():
    shown = text(*tables.terminal(ROWS, Shown(columns=["seed", "score"], heading="method")))
    assert [line.strip() for line in shown.splitlines() if line.strip() in ("a", "b")] == ["a", "b"]
    assert "hit" not in shown
    assert tables.terminal([], Shown()) == []


def test_strings_from_elsewhere_are_neither_markup_nor_markdown():
    rows = [{"x": "[red]|a*b\n\x1b[31m<b>"}]
    shown = text(*tables.terminal(rows, Shown()))
    assert "[red]|a*b" in shown
    assert "\x1b" not in shown
    line = tables.markdown(rows, Shown()).splitlines()[2]
    assert line.count("|") - line.count("\\|") == 2
    assert "<b>" not in line


def test_a_page_has_means_and_rows_by_chapter():
    page = tables.markdown(ROWS, Shown(by=["method"], mean=["score"], heading="method", columns=["method", "seed"]))
    assert page.index("| method | score |") < page.index("## a") < page.index("## b")
    assert page.count("| seed |") == 2


def test_counts_of_words():
    assert tables.counted(ROWS, Shown(count="method")) == "3 a · 1 b"
    assert tables.counted(ROWS, Shown()) == ""


def test_columns_to_show_have_to_exist():
    tables.check_columns(ROWS, MEANS)
    with pytest.raises(
        InvalidArgumentError, match=r"table\.mean: the results have no column 'scor'; did you mean 'score'"
    ):
        tables.check_columns(ROWS, Shown(mean=["scor"]))
    with pytest.raises(InvalidArgumentError, match=r"table\.heading: the results have no column 'x'"):
        tables.check_columns(ROWS, Shown(heading="x"))
