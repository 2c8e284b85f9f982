"""Studies from file to tables: resumed after a kill, with failures, in directories of others, as documented."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suture.errors import InvalidArgumentError, RunError
from suture.studies.engine import default_directory, run_study

ROOT = Path(__file__).parents[2]
FINAL = ("rows.csv", "means.csv", "results.json", "page.md")


def written(folder, function="square", axes="x = [1, 2, 3, 4]", rest="", name="mine"):
    path = folder / f"{name}.toml"
    path.write_text(f'title = "Squares"\ncell = "tests.studies.functions:{function}"\n[axes]\n{axes}\n{rest}')
    return path


def final(directory):
    return {name: (directory / name).read_text() for name in FINAL if (directory / name).exists()}


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Which cells were done, in order, also by other processes."""
    path = tmp_path / "calls.txt"
    monkeypatch.setenv("SUTURE_TEST_CALLS", str(path))
    return lambda: [int(line) for line in path.read_text().split()] if path.exists() else []


def test_a_study_leaves_rows_results_and_a_page(tmp_path):
    outcome = run_study(written(tmp_path), tmp_path / "out")
    assert [row["y"] for row in outcome.rows] == [1, 4, 9, 16]
    assert (outcome.total, outcome.failed, outcome.complaint) == (4, {}, "")
    with open(tmp_path / "out" / "rows.csv") as file:
        assert list(csv.DictReader(file)) == [{"x": str(x), "y": f"{x * x}.0"} for x in (1, 2, 3, 4)]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["study"], results["cells"], results["rows"]) == ("mine", 4, outcome.rows)
    page = (tmp_path / "out" / "page.md").read_text()
    assert page.startswith("# Squares\n\nMade by `suture study mine`")
    assert "| 4 | 16 |" in page
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cells", "lock", "page.md", "results.json", "rows.csv", "study.json",
    ]  # fmt: skip


def test_finished_cells_are_not_done_again_and_the_files_stay_the_same(tmp_path, calls):
    study = written(tmp_path)
    run_study(study, tmp_path / "out")
    before = final(tmp_path / "out")
    run_study(study, tmp_path / "out")
    assert calls() == [1, 2, 3, 4]
    assert final(tmp_path / "out") == before


def test_more_values_on_an_axis_do_only_those(tmp_path, calls):
    run_study(written(tmp_path, axes="x = [1, 2]"), tmp_path / "out")
    outcome = run_study(written(tmp_path, axes="x = [2, 5, 1]"), tmp_path / "out")
    assert calls() == [1, 2, 5]
    assert [row["x"] for row in outcome.rows] == [2, 5, 1]


def test_another_fixed_value_does_all_again(tmp_path, calls):
    run_study(written(tmp_path, axes="x = [1, 2]"), tmp_path / "out")
    outcome = run_study(written(tmp_path, axes="x = [1, 2]", rest="[fixed]\nshift = 1"), tmp_path / "out")
    assert calls() == [1, 2, 1, 2]
    assert [row["y"] for row in outcome.rows] == [2, 5]


@pytest.mark.parametrize(("jobs", "victim"), [(1, "self"), (2, "parent")])
def test_a_killed_study_continues_to_the_same_end(jobs, victim, tmp_path, calls, monkeypatch):
    study = written(tmp_path, "killer", axes="x = [1, 2, 3, 4, 5]", rest='[table]\nby = ["x"]\nmean = ["y"]')
    out = tmp_path / "out"
    command = [sys.executable, "-m", "suture", "study", study, "--out", out, "--jobs", str(jobs)]
    env = os.environ | {"SUTURE_TEST_KILL": victim, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -9
    assert not (out / "rows.csv").exists()
    done = [path.parent.name.split("-")[0] for path in out.glob("cells/*/result.json")]
    assert "x=3" not in done
    assert {"x=1", "x=2"} & set(done)

    outcome = run_study(study, out)  # the dead process holds no lock
    assert [row["y"] for row in outcome.rows] == [1, 4, 9, 16, 25]
    for name in done:
        assert calls().count(int(name[2:])) == 1
    run_study(study, tmp_path / "undisturbed")
    assert final(out) == final(tmp_path / "undisturbed")  # whichever executor did a cell
    assert len(final(out)) == 4


def test_what_a_kill_leaves_half_written_is_done_again(tmp_path, calls):
    study = written(tmp_path)
    run_study(study, tmp_path / "out")
    (second,) = (tmp_path / "out" / "cells").glob("x=2-*")
    (second / "result.json").rename(second / ".result.json.123.tmp")
    (tmp_path / "out" / "rows.csv").write_text("half")
    outcome = run_study(study, tmp_path / "out")
    assert calls() == [1, 2, 3, 4, 2]
    assert len(outcome.rows) == 4


def test_failing_cells_are_told_and_tried_again(tmp_path):
    study = written(tmp_path, "some_fail")
    told = []
    outcome = run_study(study, tmp_path / "out", say=told.append)
    assert [row["x"] for row in outcome.rows] == [1, 4]
    assert told == ["x=2 failed: ValueError: two is too much", "x=3 failed: SystemExit: 7"]
    assert outcome.complaint.startswith(f"2 of 4 cells failed; {tmp_path / 'out' / 'cells' / 'x=2-'}")
    assert list(outcome.failed.values()) == ["ValueError: two is too much", "SystemExit: 7"]
    assert "2 of 4 cells failed and are missing here." in (tmp_path / "out" / "page.md").read_text()
    assert json.loads((tmp_path / "out" / "results.json").read_text())["failed"] == outcome.failed
    again = run_study(study, tmp_path / "out")
    assert again.failed == outcome.failed


def test_an_interrupt_keeps_what_is_finished(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_study(written(tmp_path, "interrupted"), tmp_path / "out")
    assert (tmp_path / "out" / "rows.csv").read_text() == "x,y\n1,1\n"


def test_presets_have_directories_of_their_own(tmp_path):
    study = written(tmp_path, rest="[presets.small]\naxes = {x = [7]}")
    outcome = run_study(study, tmp_path / "small", preset="small")
    assert [row["x"] for row in outcome.rows] == [7]
    assert "suture study mine --preset small" in (tmp_path / "small" / "page.md").read_text()
    with pytest.raises(RunError, match=r"belongs to the study mine .* with the preset small and not to the study mine"):
        run_study(study, tmp_path / "small")


def test_directories_of_others_are_refused_and_not_touched(tmp_path):
    run_study(written(tmp_path), tmp_path / "out")
    before = sorted(p.name for p in (tmp_path / "out").rglob("*"))
    with pytest.raises(RunError, match=r"belongs to the study mine .* not to the study other .*choose another --out"):
        run_study(written(tmp_path, name="other"), tmp_path / "out")
    with pytest.raises(RunError, match="belongs to"):
        run_study(written(tmp_path, "some_fail"), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == before
    run = tmp_path / "run"
    run.mkdir()
    (run / "case.json").write_text("{}")
    with pytest.raises(RunError, match=r"holds 'case\.json' and is no study's directory"):
        run_study(written(tmp_path), run)
    assert [p.name for p in run.iterdir()] == ["case.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        run_study(written(tmp_path), tmp_path / "file")


def test_a_directory_whose_process_died_at_its_beginning_is_taken(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "lock").touch()
    (out / ".study.json.77.tmp").write_text("{")
    assert len(run_study(written(tmp_path), out).rows) == 4


def test_a_damaged_identity_is_told(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.json").write_text("{")
    with pytest.raises(RunError, match="not readable as JSON"):
        run_study(written(tmp_path), tmp_path / "out")
    (tmp_path / "out" / "study.json").write_text("[]")
    with pytest.raises(RunError, match="belongs to something else"):
        run_study(written(tmp_path), tmp_path / "out")


def test_a_directory_in_use_is_refused(tmp_path):
    from suture.rundir import RunDir

    with RunDir(tmp_path / "out").lock(), pytest.raises(RunError, match="another suture process"):
        run_study(written(tmp_path), tmp_path / "out")


def test_bad_questions_leave_nothing_behind(tmp_path):
    for study, options, sentence in [
        (written(tmp_path), {"jobs": 0}, "jobs must be at least 1"),
        (written(tmp_path), {"executor": "ray"}, "no executor is called 'ray'"),
        (written(tmp_path), {"preset": "x"}, "no preset is called 'x'"),
        (written(tmp_path, axes="y = [1]"), {}, "takes no parameter 'y'"),
    ]:
        with pytest.raises(Exception, match=sentence) as caught:
            run_study(study, tmp_path / "out", **options)
        assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_column_that_does_not_exist_is_told_at_the_end(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"table\.mean: the results have no column 'z'"):
        run_study(written(tmp_path, rest='[table]\nmean = ["z"]'), tmp_path / "out")
    assert (tmp_path / "out" / "rows.csv").exists()


def test_the_name_of_the_directory_when_none_is_given(tmp_path, monkeypatch):
    assert default_directory("paper/exp1", "small") == Path("paper-exp1-small")
    monkeypatch.chdir(tmp_path)
    assert run_study(written(tmp_path)).directory == Path("mine")
    assert (tmp_path / "mine" / "study.json").exists()


def test_the_documented_example_does_what_the_document_says(tmp_path):
    text = (ROOT / "docs" / "studies.md").read_text()
    code, toml = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL).group(1) for kind in ("python", "toml"))
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "mine.toml").write_text(toml)
    outcome = run_study(tmp_path / "mine.toml", tmp_path / "results")
    assert (outcome.total, len(outcome.rows)) == (6, 6)
    distance = {(row["method"], row["seed"]): row["distance"] for row in outcome.rows}
    assert distance["momentum", 1] < distance["plain", 1]
    assert len((tmp_path / "results" / "means.csv").read_text().splitlines()) == 3
    assert len(run_study(tmp_path / "mine.toml", tmp_path / "small", preset="small").rows) == 4
