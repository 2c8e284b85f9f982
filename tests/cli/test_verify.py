"""The verb verify: runs and patches, drift, examples to keep, and gates for scripts."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from suture.wording import percent
from tests import toys
from tests.cli.conftest import Suture, Toy, digests

OTHERS = """\
from tests import toys
def others(): return toys.points(300, seed=5)
def same(): return toys.data()
def unlabelled(): return [(x, None) for x, _ in toys.points(90, seed=5)]
"""


def result(run: Path) -> dict[str, Any]:
    """What ``verify/result.json`` says."""
    read: dict[str, Any] = json.loads((run / "verify" / "result.json").read_text())
    return read


@pytest.fixture
def others(tmp_path: Path) -> str:
    """A file whose functions give untouched data."""
    path = tmp_path / "others.py"
    path.write_text(OTHERS)
    return str(path)


def words_of(toy: Toy, patch: Path) -> list[object]:
    """The words that verify somebody else's patch."""
    return ["verify", "--patch", patch, "--model", toy.model, "--weights", toy.weights, "--data", toy.data]


def test_verify_of_somebody_elses_patch(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    patch = finished / "treat" / "patch.safetensors"
    words = words_of(toy, patch)
    before = digests(finished)
    answer = suture(*words)
    assert (answer.code, answer.err) == (0, "")
    assert "On 600 examples: better" in answer.out
    assert digests(finished) == before


def test_verify_of_a_patch_for_a_model_that_brings_its_weights(suture: Suture, finished: Path) -> None:
    model = f"{toys.__file__}:network"
    words = ("--patch", finished / "treat" / "patch.safetensors", "--model", model, "--data", f"{toys.__file__}:data")
    assert suture("verify", *words, "--require", "better").code == 0


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--require", "better"], 0, ""),
        (["--max-regression", "1"], 0, ""),
        (["--require", "better", "--max-regression", "0.5"], 0, ""),
        (["--max-regression", "0"], 3, "at most 0.0 % is allowed, which no number of examples can promise"),
    ],
    ids=["better", "lax", "both", "strict"],
)
def test_a_gate_for_scripts(suture: Suture, toy: Toy, finished: Path, words: list[str], code: int, part: str) -> None:
    assert result(finished)["broken"] > 0, "nothing was broken, so no bound can be exceeded"
    for verb in (("verify", finished), toy.run(finished, "--history", toy.log)):
        answer = suture(*verb, *words)
        assert answer.code == code
        assert part in (answer.error if code else answer.err)
        assert len(answer.out.splitlines()) > 3, "the numbers are shown whatever the gate says"


def test_a_requirement_that_is_not_met(suture: Suture, finished: Path) -> None:
    assert suture("treat", finished, "--plan", "none").code == 0
    answer = suture("verify", finished, "--require", "better")
    assert answer.code == 3
    assert "the verdict is 'no measurable change' and not 'better' as required" in answer.error


def test_verify_of_a_patch_takes_the_options_of_run(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from suture.tasks import Classification\n"
        "class Silent(Classification):\n"
        "    predictions = property()\n"  # an attribute that cannot be read is not there
    )
    words = words_of(toy, finished / "treat" / "patch.safetensors")
    plain = suture(*words)
    same = suture(*words, "--device", "cpu", "--batch-size", "7", "--seed", "42", "--skip-bad")
    assert (same.code, same.out) == (0, plain.out)
    assert "churn" in plain.out
    silent = suture(*words, "--task", f"{own}:Silent")
    assert silent.code == 0, silent.err
    assert "churn" not in silent.out


@pytest.mark.parametrize(
    "flags",
    [
        ["--task", "classification"],
        ["--seed", "1"],
        ["--device", "cpu"],
        ["--batch-size", "8"],
        ["--skip-bad"],
        ["--classes", "names.txt"],
    ],
    ids=lambda flags: flags[0],
)
def test_options_of_a_patch_do_not_go_with_a_run(suture: Suture, finished: Path, flags: list[str]) -> None:
    before = digests(finished)
    answer = suture("verify", finished, *flags)
    assert answer.code == 2
    assert f"{flags[0]} goes with --patch; a run knows its own" in answer.error
    assert digests(finished) == before


# The bound on the regression rate


def test_the_bound_is_what_is_promised_and_not_the_rate(suture: Suture, finished: Path) -> None:
    found = result(finished)
    rate, bound = found["regression_rate"], found["regression_bound"]
    assert rate < bound
    between = suture("verify", finished, "--max-regression", (rate + bound) / 2)
    assert between.code == 3
    assert f"({percent(rate)}), and a regression rate up to {percent(bound)} cannot be ruled out" in between.error
    assert suture("verify", finished, "--max-regression", bound).code == 0


def test_too_few_examples_for_any_promise_are_said_with_the_number_needed(
    suture: Suture, toy: Toy, finished: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.py"
    few.write_text("from tests import toys\ndef few(): return toys.points(30, seed=8)\n")
    words = words_of(toy, finished / "treat" / "patch.safetensors")[:-1]
    answer = suture(*words, f"{few}:few", "--max-regression", "0.05")
    assert answer.code == 3
    assert "at most 5.0 % is allowed, which takes at least 59 right examples, none of them broken" in answer.error


def test_a_repair_that_changes_nothing_keeps_any_promise(suture: Suture, finished: Path) -> None:
    assert suture("treat", finished, "--plan", "none").code == 0
    assert suture("verify", finished, "--max-regression", "0").code == 0


# Drift


def test_drift_on_untouched_data_of_a_run_and_of_a_patch(suture: Suture, toy: Toy, finished: Path, others: str) -> None:
    words = words_of(toy, finished / "treat" / "patch.safetensors")
    answer = suture(*words, "--untouched", f"{others}:others")
    assert answer.code == 0, answer.err
    assert "Drift on 300 untouched examples" in answer.out
    assert suture("verify", finished, "--untouched", f"{others}:others").code == 0
    found = result(finished)
    assert found["drift"]["n"] == 300
    assert found["looks"] == 1, "the same patch was not looked at anew"
    assert suture("report", finished, "--format", "md").code == 0
    assert "Drift on 300 untouched examples" in (finished / "report.md").read_text()
    assert suture("verify", finished, "--untouched", f"{others}:unlabelled").code == 0
    assert result(finished)["drift"]["accuracy_before"] is None


def test_what_was_measured_on_untouched_data_stays_with_the_patch(
    suture: Suture, toy: Toy, finished: Path, others: str
) -> None:
    assert suture("verify", finished, "--untouched", f"{others}:others").code == 0
    drift = result(finished)["drift"]
    answer = suture("verify", finished, "--max-regression", "0.5")
    assert answer.code == 0
    assert result(finished)["drift"] == drift
    assert "Drift on 300 untouched examples" in answer.out
    assert suture("treat", finished, "--plan", "none").code == 0
    assert suture("verify", finished).code == 0
    assert result(finished)["drift"] is None, "that was of another patch"


def test_a_page_that_is_there_shows_what_was_verified_last(suture: Suture, finished: Path, others: str) -> None:
    page = finished / "report.html"
    assert suture("report", finished).code == 0
    assert "untouched example" not in page.read_text()
    assert suture("verify", finished, "--untouched", f"{others}:others").code == 0
    assert "Drift on 300 untouched examples" in page.read_text()
    assert suture("treat", finished, "--plan", "none").code == 0
    assert "Not verified yet" in page.read_text()
    (finished / "scan" / "result.json").write_text('{"epochs": 1}')
    answer = suture("diagnose", finished)
    assert answer.code == 0
    assert "report.html is older than this result" in answer.err
    page.unlink()
    assert suture("diagnose", finished).code == 0
    assert not page.exists(), "nobody asked for one"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("{others}:same", "untouched examples also stand in"),
        ("absent", "there is no data at absent"),
        ("{others}:nothing", "nothing"),
    ],
    ids=["known", "absent", "no function"],
)
def test_untouched_data_that_cannot_be_used_costs_no_finished_stage(
    suture: Suture, finished: Path, others: str, name: str, part: str
) -> None:
    before = digests(finished)
    answer = suture("verify", finished, "--untouched", name.format(others=others))
    assert answer.code == 2
    assert part in answer.error
    assert digests(finished) == before


# Must keep


def outcomes(run: Path) -> dict[str, list[str]]:
    """Examples of a run that were fixed and that were broken."""
    rows = result(run)["gallery"]["rows"]
    return {kind: [row[1] for row in rows if row[0] == kind] for kind in ("fixed", "broken")}


def test_an_example_that_may_not_break_and_does_is_named(suture: Suture, finished: Path, tmp_path: Path) -> None:
    fixed, broken = outcomes(finished)["fixed"], outcomes(finished)["broken"]
    assert broken, "nothing was broken, so nothing can be named"
    keep = tmp_path / "keep.txt"
    keep.write_text("\n".join([fixed[0], broken[0]]) + "\n")
    answer = suture("verify", finished, "--must-keep", keep, "--require", "better")
    assert answer.code == 3
    assert answer.error == f"error: 1 example that may not break is broken: {broken[0]}"
    assert result(finished)["broken_must_keep"] == [broken[0]]
    assert result(finished)["wrong_must_keep"] == [fixed[0]]
    assert f"Broken although they may not break: {broken[0]}." in answer.out
    keep.write_text(fixed[0])
    assert suture("verify", finished, "--must-keep", keep).code == 0


def test_a_run_knows_what_may_not_break(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep.txt"
    keep.write_text(outcomes(finished)["broken"][0])
    answer = suture(*toy.run(finished, "--history", toy.log), "--must-keep", keep)
    assert answer.code == 3
    assert answer.error.startswith("error: 1 example that may not break is broken:")
    keep.write_text("example 6000")
    answer = suture(*toy.run(tmp_path / "new"), "--must-keep", keep)
    assert (answer.code, (tmp_path / "new").exists()) == (2, False)
    assert "no example is called 'example 6000'" in answer.error


def test_everything_that_is_not_met_is_said(suture: Suture, finished: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep.txt"
    keep.write_text("\n".join(outcomes(finished)["broken"]))
    answer = suture("verify", finished, "--must-keep", keep, "--max-regression", "0.001")
    assert answer.code == 3
    assert "may not break" in answer.error
    assert "cannot be ruled out" in answer.error


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("example 3\nexample 600\n", "no example is called 'example 600'; --must-keep names them as splits.csv"),
        ("\n\n", "keep.txt names no example"),
        (None, "there is no file"),
    ],
    ids=["unknown", "empty", "absent"],
)
def test_a_list_that_is_none(
    suture: Suture, toy: Toy, finished: Path, tmp_path: Path, text: str | None, part: str
) -> None:
    keep = tmp_path / "keep.txt"
    if text is not None:
        keep.write_text(text)
    before = digests(finished)
    patch = words_of(toy, finished / "treat" / "patch.safetensors")
    for words in (["verify", finished], patch):
        answer = suture(*words, "--must-keep", keep)
        assert answer.code == 2
        assert part in answer.error
    assert digests(finished) == before


# Looks


def test_a_second_patch_is_a_second_look_and_that_is_said(suture: Suture, toy: Toy, finished: Path) -> None:
    assert "looked at" not in suture("verify", finished).out
    assert suture("treat", finished, "--plan", "none").code == 0
    answer = suture("verify", finished)
    assert "These examples were looked at 2 times, for a patch each" in " ".join(answer.out.split())
    suture("report", finished, "--format", "md")
    assert "looked at 2 times" in (finished / "report.md").read_text()


# JUnit


def cases(path: Path) -> dict[str, str]:
    """Test case → what it failed with, empty where it passed."""
    (suite,) = ElementTree.fromstring(path.read_bytes())
    return {case.attrib["name"]: "".join(f.attrib["message"] for f in case) for case in suite.iter("testcase")}


def test_gates_as_junit_are_written_whether_they_hold_or_not(
    suture: Suture, toy: Toy, finished: Path, tmp_path: Path
) -> None:
    held, failed, other = (tmp_path / "new" / f"{name}.xml" for name in ("held", "failed", "other"))
    assert suture("verify", finished, "--require", "better", "--junit", held).code == 0
    assert cases(held) == {"verdict: better": ""}
    keep = tmp_path / "keep.txt"
    keep.write_text(outcomes(finished)["broken"][0])
    answer = suture("verify", finished, "--max-regression", "0.001", "--must-keep", keep, "--junit", failed)
    assert answer.code == 3
    said = cases(failed)
    assert answer.error == "error: " + "; ".join(filter(None, said.values()))
    assert sum(map(bool, said.values())) == 2
    patch = words_of(toy, finished / "treat" / "patch.safetensors")
    assert suture(*patch, "--require", "better", "--junit", other).code == 0
    assert cases(other) == {"verdict: better": ""}


def test_a_run_writes_its_gates_as_junit_even_where_it_was_finished_before(
    suture: Suture, toy: Toy, finished: Path, tmp_path: Path
) -> None:
    held, failed = tmp_path / "held.xml", tmp_path / "failed.xml"
    words = toy.run(finished, "--history", toy.log)
    answer = suture(*words, "--require", "better", "--junit", held)
    assert (answer.code, "verify …" in answer.err) == (0, False)
    assert cases(held) == {"verdict: better": ""}
    answer = suture(*words, "--redo", "verify", "--max-regression", "0", "--junit", failed)
    assert (answer.code, "verify …" in answer.err) == (3, True)
    assert answer.error == "error: " + cases(failed)["regression rate at most 0"]


@pytest.mark.parametrize(
    ("gate", "value"),
    [("--junit", "gate.xml"), ("--require", "better"), ("--max-regression", "0.05"), ("--must-keep", "gold.txt")],
)
def test_a_run_that_stops_before_its_verdict_has_no_gates(
    suture: Suture, toy: Toy, tmp_path: Path, gate: str, value: str
) -> None:
    words = toy.run(tmp_path / "run", "--until", "treat")
    answer = suture(*words, gate, tmp_path / value if "." in value and value[0] != "0" else value)
    assert answer.code == 2
    assert f"{gate} asks for a verdict, which --until treat does not reach" in answer.error
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_an_earlier_gate_does_not_outlive_a_run_without_a_verdict(
    suture: Suture, finished: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate.xml"
    assert suture("verify", finished, "--junit", gate).code == 0
    assert gate.exists()
    assert suture("verify", finished, "--untouched", tmp_path / "nowhere", "--junit", gate).code == 2
    assert not gate.exists()


def test_a_patch_that_was_changed_afterwards_has_no_verdict(suture: Suture, finished: Path) -> None:
    path = finished / "treat/patch.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: torch.zeros_like(t) for name, t in load_file(path).items()}, path, metadata)
    answer = suture("verify", finished, "--require", "better")
    assert answer.code == 2
    assert "it was changed after it was made" in answer.error


def test_bad_input_writes_no_junit(suture: Suture, finished: Path, tmp_path: Path) -> None:
    assert suture("verify", finished, "--require", "best", "--junit", tmp_path / "gate.xml").code == 2
    assert not (tmp_path / "gate.xml").exists()
