"""The verb study: its list, its tables, its exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from suture.studies.definitions import catalog
from tests.cli.conftest import Suture


def written(folder: Path, function: str, rest: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(
        f'title = "Mine"\ncell = "tests.studies.functions:{function}"\n{rest}\n[axes]\nx = [1, 2]\n'
        "[presets.one]\naxes = {x = [1]}\n"
    )
    return path


def test_alone_it_lists_the_catalog(suture: Suture) -> None:
    answer = suture("study")
    assert answer.code == 0
    assert all(name in answer.out for name in catalog())
    assert "Which numbers of the paper" in answer.out


def test_it_prints_the_table_and_where_the_results_are(suture: Suture, tmp_path: Path) -> None:
    answer = suture("study", written(tmp_path, "square"), "--out", tmp_path / "out")
    assert (answer.code, answer.err) == (0, "")
    assert "│ 2 │ 4 │" in answer.out
    assert answer.out.endswith(f"results: {tmp_path / 'out'}\n")


def test_failed_cells_make_it_3_after_the_table(suture: Suture, tmp_path: Path) -> None:
    answer = suture("study", written(tmp_path, "some_fail"), "--out", tmp_path / "out")
    assert answer.code == 3
    assert "│ 1 │ 1 │" in answer.out
    assert "x=2 failed: ValueError: two is too much\n" in answer.err
    assert answer.error.startswith("error: 1 of 2 cells failed; ")
    assert answer.error.endswith("says why, and the same command tries it again")


def test_a_preset_and_an_executor_by_name(suture: Suture, tmp_path: Path) -> None:
    study = written(tmp_path, "square")
    answer = suture("study", study, "--out", tmp_path / "out", "--preset", "one", "--executor", "inline")
    assert answer.code == 0
    assert "│ 2 │ 4 │" not in answer.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["paper/audt"], "no study is called 'paper/audt'; did you mean 'paper/audit'?"),
        (["nowhere.toml"], "there is no file nowhere.toml"),
        (["paper/audit", "--preset", "small"], "no preset is called 'small'; there are none"),
        (["paper/audit", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["paper/audit", "--executor", "ray"], "no executor is called 'ray'"),
    ],
)
def test_bad_input_is_one_sentence_and_2(suture: Suture, tmp_path: Path, words: list[str], sentence: str) -> None:
    answer = suture("study", *words, "--out", tmp_path / "out")
    assert answer.code == 2
    assert sentence in answer.error
    assert not (tmp_path / "out").exists()


def test_a_file_full_of_mistakes_is_one_sentence(suture: Suture, tmp_path: Path) -> None:
    answer = suture("study", written(tmp_path, "square", "axis = 3\ncells = 4"), "--out", tmp_path / "out")
    assert answer.code == 2
    assert "unknown key 'axis', did you mean 'axes'?; unknown key 'cells', did you mean 'cell'?" in answer.error


def test_an_interrupt_is_130(suture: Suture, tmp_path: Path) -> None:
    assert suture("study", written(tmp_path, "interrupted"), "--out", tmp_path / "out").code == 130


def test_help_and_the_engine_need_no_torch() -> None:
    code = (
        "import sys, suture.cli.research, suture.studies.executors, suture.studies.definitions;"
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
