"""A study's own summary: files beside the rows, texts and pictures on the page."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from suture.errors import InvalidArgumentError, SutureError
from suture.studies.engine import run_study
from suture.studies.summaries import on_page, summarised

WHOLE = """
def files(rows):
    total = sum(row["y"] for row in rows)
    text = f"## Total\\n\\n{total:g} of {len(rows)}"
    return {"total.csv": f"total\\n{total:g}\\n", "total.md": text, "dot.png": b"\\x89PNG"}

def fails(rows):
    raise KeyError("y")

number = 3
"""


def study(folder: Path, summary: str) -> Path:
    (folder / "own.py").write_text(WHOLE)
    path = folder / "mine.toml"
    path.write_text(
        f'title = "Squares"\ncell = "tests.studies.functions:square"\nsummary = "{summary}"\n[axes]\nx = [1, 2, 3]\n'
    )
    return path


def test_files_of_a_summary_stand_beside_the_rows_and_on_the_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run_study(study(tmp_path, "own.py:files"), out)
    assert (out / "total.csv").read_text() == "total\n14\n"
    assert (out / "dot.png").read_bytes() == b"\x89PNG"
    page = (out / "page.md").read_text()
    assert page == outcome.page()
    assert "![dot.png](dot.png)" in page
    assert "## Total\n\n14 of 3" in page
    assert "| 3 | 9 |" not in page  # all rows are in rows.csv
    terminal = Console(width=80, file=StringIO())
    terminal.print(outcome.table())
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "14 of 3" in shown
    assert "┃" not in shown  # no table of all rows
    again = run_study(study(tmp_path, "own.py:files"), out)
    assert (again.page(), (out / "page.md").read_text()) == (page, page)


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ("own.py:number", "is a int and no function"),
        ("own.py:missing", "missing"),
        ("own.py:fails", r"the summary of the study failed \(KeyError: 'y'\)"),
    ],
)
def test_a_summary_that_does_not_work_is_said(tmp_path: Path, summary: str, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        run_study(study(tmp_path, summary), tmp_path / "out")
    assert (tmp_path / "out" / "rows.csv").exists() == (summary == "own.py:fails")


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([], "returns"),
        ({"a.csv": 3}, "returns"),
        ({"rows.csv": ""}, "a file called 'rows.csv'"),
        ({"../a.csv": ""}, "a file called '../a.csv'"),
        ({"a/b.csv": ""}, "a file called 'a/b.csv'"),
        ({"": ""}, "a file called ''"),
    ],
)
def test_only_files_of_its_own_are_written(returned: object, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        summarised(lambda rows: returned, [])  # type: ignore[arg-type,return-value]


def test_a_page_without_a_summary_has_nothing_of_it() -> None:
    assert on_page({}) == on_page({"a.csv": "1"}) == ""
