"""Several runs side by side: finished, unfinished, on other data, with hostile names."""

import json
from pathlib import Path

import pytest

from suture.errors import InvalidArgumentError, RunError
from suture.stats import Flips, Verdict
from suture.views.runs import export, figure, markdown, read_runs, remarks, table, to_json
from tests.views.results import CASE, HOSTILE, diagnosed, localized, treated, verified, verified_in_full, write_run
from tests.views.test_page import Page
from tests.views.test_views import printed

SAME = CASE["identity"] | {"data": {"verify": "e" * 64, "diagnose": "d" * 64}}


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    worse = verified(moves=Flips(fixed=4, broken=20, both_right=130, both_wrong=46), verdict=Verdict.WORSE)
    return [
        write_run(tmp_path / "a", localized(), treated(), verified(), identity=SAME),
        write_run(tmp_path / "b", localized(), treated(kept="A x 0.5"), worse, identity=SAME),
    ]


def test_a_row_per_run_with_its_numbers(pair: list[Path]) -> None:
    written = markdown(read_runs(pair))
    for part in ("| a | 200 | 75.0 % → 87.0 % | 30 | 6 | +24 | 5.0 : 1 (2.0 to 15) |", "| worse |", "A x 0.5", "−16"):
        assert part in written.replace("\N{NO-BREAK SPACE}", " ")
    assert "the best of several looks better than it is" in written
    assert "same examples" not in written


def test_the_terminal_has_few_columns_and_fits(pair: list[Path]) -> None:
    shown = printed(table(read_runs(pair)), width=80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "no measurable" not in shown
    for part in ("75.0\xa0% → 87.0\xa0%", "better", "worse"):
        assert part in shown


def test_a_run_that_plain_repairs_beat_is_said_to_be(tmp_path: Path) -> None:
    beside = verified_in_full().baselines
    beside.loc[1:, "word"] = ["worse"] + [""] * (len(beside) - 2)
    names = ["a", "b"]
    runs = [
        write_run(tmp_path / name, treated(), verified(baselines=beside[:n]), identity=SAME)
        for name, n in zip(names, (0, 9), strict=True)
    ]
    said = remarks(read_runs(runs))
    (about,) = [text for text in said if "more right than the repair" in text]
    assert about.startswith("b: On the same examples ")
    assert about in markdown(read_runs(runs)).replace("\\", "")


def test_unfinished_and_other_data_are_said(pair: list[Path], tmp_path: Path) -> None:
    paper = CASE["identity"] | {"protocol": "paper", "data": {"diagnose": "f" * 64}}
    other = write_run(tmp_path / "c", verified(optimistic=True, looks=3), identity=paper)
    early = write_run(tmp_path / "d", localized(), identity=SAME)
    found = read_runs([*pair, other, early])
    said = " ".join(remarks(found))
    for part in (
        "d is not finished: diagnose, treat and verify missing.", "not verified on the same examples",
        "diagnosed too: c.", "more than once: c",
    ):  # fmt: skip
        assert part in said
    assert "no diagnose yet" in markdown(found)
    data = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert [row["run"] for row in data["runs"]] == ["a", "b", "c", "d"]
    assert data["runs"][3]["missing"] == ["diagnose", "treat", "verify"]
    assert "net" not in data["runs"][3]
    assert data["runs"][0]["net"] == 24


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / where / "run", verified()) for where in ("x", "y")]
    assert [row.name for row in read_runs(runs)] == ["x/run", "y/run"]


def test_what_cannot_be_set_side_by_side_is_refused(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="given twice"):
        read_runs([pair[0], pair[0].parent / "a"])
    with pytest.raises(RunError, match="is no run directory"):
        read_runs([pair[0], tmp_path])


def test_the_page_is_whole_and_names_do_nothing(tmp_path: Path) -> None:
    asked = CASE["asked"] | {"model": f"/x/{HOSTILE[0]}", "data": HOSTILE[4]}
    name = "<script>alert(1)<&$x_$"
    runs = [write_run(tmp_path / name, treated(kept=HOSTILE[1]), verified(), asked=asked),
            write_run(tmp_path / "early")]  # fmt: skip
    out = tmp_path / "out" / "both.html"
    export(read_runs(runs), "html", out)
    page = Page(out.read_text(encoding="utf-8"))
    assert not page.all("script")
    assert HOSTILE[1] in page.text
    assert name in page.text
    assert len(page.all("img")) == 1
    assert "early is not finished" in page.text


def test_no_verdict_at_all_has_no_figure(tmp_path: Path) -> None:
    found = read_runs([write_run(tmp_path / name) for name in "ab"])
    export(found, "html", tmp_path / "page.html")
    assert "<img" not in (tmp_path / "page.html").read_text()
    assert figure(found).get_xlabel()


def test_runs_that_were_only_diagnosed_have_their_confusions_and_causes(tmp_path: Path) -> None:
    found = read_runs([write_run(tmp_path / name, localized(), diagnosed(), identity=SAME) for name in "ab"])
    written = markdown(found)
    for run in "ab":
        assert f"| {run} | cat → dog | 5 (2.5) | texture |" in written
        assert f"| {run} | ship → cat | 3 (2.5) | not asked |" in written
    assert "repaired and broke" not in written, "a table of dashes"
    shown = printed(table(found), width=80)
    assert "texture" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    export(found, "html", tmp_path / "both.html")
    page = Page((tmp_path / "both.html").read_text(encoding="utf-8"))
    assert "What is confused most" in page.text
    assert "by chance" in page.text.split("How to read this")[1]
    assert "McNemar" not in page.text
    assert to_json(found)["runs"][0]["causes"]["rows"]


def test_a_plan_that_left_examples_out_says_so(pair: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "c", localized(), treated(excluded=12), verified(), identity=SAME)
    assert "| A, 12 examples left out |" in markdown(read_runs([*pair, other]))
