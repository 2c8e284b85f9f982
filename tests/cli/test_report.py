"""The verb report: one run in four forms, several side by side, and what it refuses."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Suture, digests


@pytest.fixture
def pair(finished: Path, tmp_path: Path) -> list[Path]:
    """A finished run, and one that stopped before it treated anything."""
    early = Path(shutil.copytree(finished, tmp_path / "early"))
    for stage in ("treat", "verify"):
        shutil.rmtree(early / stage)
    return [finished, early]


@pytest.mark.parametrize(("form", "name"), [("html", "html"), ("md", "md"), ("json", "json"), ("junit", "xml")])
def test_one_run_in_each_form(suture: Suture, finished: Path, form: str, name: str) -> None:
    answer = suture("report", finished, "--format", form)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.strip() == str(finished / f"report.{name}")
    text = (finished / f"report.{name}").read_text()
    if form == "junit":
        assert ElementTree.fromstring(text.encode())[0].attrib["failures"] == "0"


def test_several_runs_have_a_table_and_a_page(
    suture: Suture, pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [digests(run) for run in pair]
    monkeypatch.chdir(tmp_path)
    answer = suture("report", *pair)
    assert answer.code == 0, answer.err
    assert "no treat yet" in answer.out
    assert answer.out.strip().endswith("suture-runs.html")
    assert "early is not finished" in (tmp_path / "suture-runs.html").read_text()
    assert suture("report", *pair, "--format", "json", "--out", tmp_path / "new" / "both.json").code == 0
    assert len(json.loads((tmp_path / "new" / "both.json").read_text())["runs"]) == 2
    assert suture("report", *pair, "--format", "md", "--out", "both.md").code == 0
    assert (tmp_path / "both.md").read_text().startswith("# 2 runs side by side")
    assert [digests(run) for run in pair] == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["{run}", "{run}"], "was given twice"),
        (["{run}", "{run}/treat/patch.safetensors"], "give it alone"),
        (["{run}", "absent"], "absent is no run directory"),
        (["{run}", "{early}", "--format", "junit"], "--format takes html, md, json with several runs, not 'junit'"),
        (["{run}/treat/patch.safetensors", "--format", "junit"], "--format takes html, md, json with a patch"),
        (["{run}/adapter"], "adapter is a LoRA adapter, which does not say what weights it is for"),
        (["{run}", "--format", "pdf"], "--format takes html, md, json, junit, not 'pdf'"),
        ([], "Missing argument"),
    ],
    ids=["twice", "patch", "absent", "junit of several", "junit of a patch", "adapter", "pdf", "nothing"],
)
def test_what_is_refused(
    suture: Suture, pair: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (pair[0] / "adapter").mkdir()
    (pair[0] / "adapter" / "adapter_config.json").write_text("{}")
    answer = suture("report", *(word.format(run=pair[0], early=pair[1]) for word in words))
    assert answer.code == 2
    assert part in answer.error
    assert not list(tmp_path.glob("suture-runs*"))
