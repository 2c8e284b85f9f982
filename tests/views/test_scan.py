"""Scan as figures, tables and sentences, for one run and for several side by side."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from suture.stages.scan import Scan, scan
from suture.views import scan as view
from suture.views import scan_tables, scans, style
from suture.views.export import markdown
from tests.views.results import HOSTILE, SCRIPT, UNWRITABLE, write_run
from tests.views.test_page import Page

N = 40


def scanned(n: int = N, **changes: Any) -> Scan:
    """A cosine run that swings until it is no longer underdamped."""
    settings = {k: changes.pop(k) for k in ("form", "tolerance", "thresholds", "early", "curvature") if k in changes}
    t = np.arange(n)
    accuracy = np.where(t < 0.8 * n, 0.6 + 0.3 * np.sin(t), 0.9 + 0.05 * t / n)
    columns = {
        "epoch": t + 1, "lr": 0.05 * (1 + np.cos(np.pi * t / n)) + 1e-4, "momentum": 0.9,
        "loss": 2 - 2 * accuracy, "test_acc": accuracy.clip(0, 1),
    }  # fmt: skip
    return scan(pd.DataFrame(columns | changes), **settings)


def printed(table: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table, highlight=False)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


KINDS: dict[str, Any] = {
    "whole": lambda: scanned(),
    "exact": lambda: scanned(form="exact", tolerance=0.1),
    "curvature": lambda: scanned(curvature=0.01),
    "own curvature": lambda: scanned(sharpness=np.linspace(0.1, 3, N)),
    "curvature missing at first": lambda: scanned(sharpness=np.where(np.arange(N) < 5, np.nan, 1.0)),
    "adam": lambda: scanned(optimizer="AdamW"),
    "no loss": lambda: scanned(loss=np.nan),
    "no accuracy": lambda: scanned(test_acc=np.nan),
    "neither": lambda: scanned(loss=np.nan, test_acc=np.nan),
    "holes": lambda: scanned(loss=np.where(np.arange(N) % 3, np.nan, 1.0)),
    "one epoch": lambda: scanned(1),
    "two epochs": lambda: scanned(2),
    "long": lambda: scanned(6000),
    "lr that ends at 0": lambda: scanned(lr=np.linspace(0.1, 0, N)),
    "lr missing at first": lambda: scanned(lr=np.where(np.arange(N) < 3, np.nan, 0.1)),
    "changing regimes": lambda: scanned(momentum=np.where(np.arange(N) % 2, 0.9, 0.1)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_drawn_printed_and_rendered(name: str) -> None:
    result = KINDS[name]()
    words = printed(result.table())
    page = Page(f"<p>{result._repr_html_()}</p>")
    for text in (words.lower(), page.text.lower()):
        assert "nan" not in text
        assert "none" not in text
    assert len(page.all("caption")) == len(page.all("table"))
    assert len(page.all("img")) == 1 + ("loss" in result.epochs or "accuracy" in result.epochs)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", ["whole", "own curvature", "adam", "changing regimes", "tiny lr"])
def test_tables_fit_a_terminal_without_breaking_words(kind: str, width: int) -> None:
    result = scanned(lr=np.linspace(2.1e-5, 1.234e-6, N)) if kind == "tiny lr" else KINDS[kind]()
    words = printed(result.table(), width)
    assert max(map(len, words.splitlines())) <= width
    for line in words.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert not cells or cells[0], f"a cell was broken into two lines: {line}"


def test_figure_1_has_momentum_its_zones_and_the_learning_rate() -> None:
    ax = view.figure(scanned())
    momentum, lr = ax.get_figure().axes  # type: ignore[union-attr]
    assert [panel.get_title(loc="left") for panel in (momentum, lr)] == [
        "Momentum against critical damping", "Learning rate"
    ]  # fmt: skip
    assert lr.get_xlabel() == "epoch"
    assert lr.get_lines()[0].get_ydata()[0] == pytest.approx(0.1001)
    legend = [text.get_text() for text in momentum.get_legend().get_texts()]
    assert "critical: μ_c = 1 − 2√α" in legend
    assert any(text.startswith("underdamped: ") for text in legend)
    assert len([c for c in momentum.collections if c.get_alpha()]) == 3
    assert "μ_c = (1 − √(λα))²" in view.formula(scanned(form="exact", curvature=2.0))


def test_figure_2_marks_where_thresholds_were_first_reached() -> None:
    result = scanned(thresholds=(0.5, 0.8, 0.99))
    ax = view.progress(result)
    reached = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "|"]
    assert reached == [m.epoch for m in result.milestones if m.epoch is not None]
    assert len(reached) == 2
    assert ax.get_title(loc="left") == "Accuracy per epoch (test_acc)"
    assert view.progress(scanned(test_acc=np.nan)).get_title(loc="left") == "Loss per epoch"
    assert not view.progress(scanned(loss=np.nan, test_acc=np.nan)).axison


def test_adam_is_drawn_without_a_critical_curve_and_says_why() -> None:
    result = scanned(optimizer="AdamW")
    ax = view.figure(result)
    assert len(ax.get_lines()) == 1
    assert not ax.collections
    assert not view.grid(result)
    html = str(view.html(result))
    assert "AdamW rescales the gradient" in html
    assert "The critical curve assumes" not in html
    assert "AdamW rescales" in " ".join(printed(result.table(), 200).split())


def test_table_15_shows_where_the_regime_changes() -> None:
    result = scanned(200)
    grid = scan_tables.by_epoch(result, 12)
    regimes = [row[-1] for row in grid.rows]
    assert grid.rows[0][0] == "1"
    assert grid.rows[-1][0] == "200"
    assert len(grid.rows) <= 12
    assert grid.note == f"{len(grid.rows)} of 200 epochs."
    numbers = [int(row[0]) for row in grid.rows]
    changes = [i for i in range(1, len(regimes)) if regimes[i] != regimes[i - 1]]
    assert changes
    assert all(numbers[i] - numbers[i - 1] == 1 for i in changes)
    assert len(scan_tables.by_epoch(scanned(20)).rows) == 20
    assert not scan_tables.by_epoch(scanned(20)).note


def test_every_number_of_the_oscillation_stands_beside_noise() -> None:
    result = scanned()
    grid = scan_tables.motion(result)
    row, stretch = grid.rows[0], result.stretches[0]
    assert row == [
        "loss", f"{stretch.first}–{stretch.last}", "underdamped", str(stretch.moved.motion), str(stretch.agreement),
        str(stretch.moved.turns), str(round(stretch.moved.turns_noise or 0)), row[7], row[8], str(stretch.moved.swings),
    ]  # fmt: skip
    points = next(r for r in grid.rows if r[0] == "accuracy")[7]
    assert points.endswith(" points")
    assert len(scan_tables.motion(scanned(momentum=np.where(np.arange(N) % 2, 0.9, 0.1))).rows) == scan_tables.LONGEST


def test_findings_say_what_agrees_and_what_cannot_be_told() -> None:
    said = " ".join(scan_tables.findings(scanned()))
    assert "Moved as predicted: " in said
    assert "(underdamped, fluctuates)" in said
    assert "an oscillation of the underdamped epochs takes" in said
    nothing = " ".join(scan_tables.findings(scanned(loss=np.nan, test_acc=np.nan)))
    assert "cannot be told: neither loss nor accuracy was logged" in nothing
    assert "too few epochs to tell" in " ".join(scan_tables.findings(scanned(3)))
    steady = scan_tables.findings(scanned(test_acc=np.linspace(0, 1, N), loss=np.nan))
    assert steady[0].startswith("Moved against the prediction: accuracy in epochs 1–34 (underdamped, steady); 2 str")


def test_milestones_hold_first_last_early_and_best() -> None:
    result = scanned(thresholds=(0.5, 0.925, 0.999), early=(1, 10, 999))
    rows = {row[0].replace("\xa0", " "): row[1:] for row in scan_tables.milestones(result).rows}
    assert list(rows)[:3] == ["50 % reached", "92.5 % reached", "99.9 % reached"]
    assert rows["99.9 % reached"] == ["–", "–"]
    assert "epoch 10" in rows
    assert "epoch 999" not in rows
    assert any(name.startswith("best, epoch ") for name in rows)


def test_markdown_of_a_run_has_the_scan_s_tables(tmp_path: Path) -> None:
    text = markdown(write_run(tmp_path, scanned()))
    for title in ("Damping regimes of 40 epochs", "Accuracy (test\\_acc)", "Predicted and observed oscillation"):
        assert f"**{title}**" in text


# Several side by side

RUNS = {
    "baseline": lambda: scanned(60),
    "physics": lambda: scanned(60, momentum=np.linspace(0.4, 0.98, 60)),
    "adam": lambda: scanned(30, optimizer="Adam"),
    "bare": lambda: scanned(10, loss=np.nan, test_acc=np.nan),
}


@pytest.fixture
def several() -> dict[str, Scan]:
    return {name: make() for name, make in RUNS.items()}


def test_tables_4_5_and_6_have_a_row_per_run(several: dict[str, Scan]) -> None:
    regimes, milestones, early = scans.regimes(several), scans.milestones(several), scans.early(several)
    assert [[row[0] for row in grid.rows] for grid in (regimes, milestones, early)] == [list(RUNS)] * 3
    n = several["baseline"].counts["underdamped"]
    assert regimes.rows[0][2] == f"{n} ({100 * n / 60:.1f}\xa0%)"
    assert regimes.rows[2][2:] == ["–"] * 3
    assert milestones.rows[3][1:] == ["–"] * 6
    assert [c.label for c in milestones.columns[1:3]] == ["Best", "80\xa0%"]
    words = printed(scans.table(several))
    assert "adam: Adam rescales the gradient" in " ".join(words.split())
    assert max(map(len, words.splitlines())) <= 80


def test_figures_1_2_and_3_have_a_line_or_a_strip_per_run(several: dict[str, Scan]) -> None:
    momentum, accuracy, strips = scans.momentum(several), scans.accuracy(several), scans.strips(several)
    names = [text.get_text() for text in momentum.get_legend().get_texts()]
    assert names == [*RUNS, "critical"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["baseline", "physics", "adam"]
    assert [label.get_text() for label in strips.get_yticklabels()] == list(RUNS)
    for ax in (momentum, accuracy, strips):
        assert ax.get_title(loc="left")
        assert ax.get_xlabel() == "epoch"
    assert not scans.accuracy({"bare": several["bare"]}).axison
    many = {str(i): several["bare"] for i in range(20)}
    assert style.svg(lambda: scans.momentum(many)).startswith(b"<?xml")


def test_the_page_is_one_file_that_fetches_and_runs_nothing(several: dict[str, Scan]) -> None:
    odd = dict.fromkeys([*HOSTILE, UNWRITABLE], several["bare"])
    shown = {"baseline": several["baseline"]} | odd
    html = str(scans.page(shown))
    html.encode()
    page = Page(html.removeprefix("<!DOCTYPE html>"))
    assert SCRIPT in page.text
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
    assert all(str(attributes["src"]).startswith("data:image/svg") for attributes in page.all("img"))
    assert len(page.all("h2")) == len(shown)
    alone = Page(str(scans.page({"only": several["baseline"]})).removeprefix("<!DOCTYPE html>"))
    assert not alone.all("h2")
    assert len(alone.all("img")) == 2
