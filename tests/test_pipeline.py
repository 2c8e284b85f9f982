"""A run: done once, resumed anywhere, refused for another case; killed with a real signal."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

import suture
from suture.asked import Asked
from suture.errors import InvalidArgumentError, RunError, UnknownNameError
from suture.patch import base_sha256
from suture.pipeline import Run, open_run, run
from suture.rundir import STAGES, RunDir
from suture.training import Augment, Recipe
from suture.treatments import FineTune, Plan
from tests import toys

ROOT = Path(__file__).parents[1]
ASKED = Asked(model="tests.toys:network", data="tests.toys:data")


def digests(directory: Path) -> dict[str, str]:
    """sha256 of every result of a run that does not hold times; of the tensors where there are any."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.suffix == ".safetensors":
            found[name] = base_sha256(load_file(path))  # the order of a file's metadata is random
        elif path.name in ("pairs.csv", "scores.csv", "gallery.csv", "per_class.csv"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    verify = json.loads((directory / "verify/result.json").read_text())
    return found | {"verify": json.dumps(verify, sort_keys=True)}


def test_a_run_leaves_everything_behind_and_a_second_call_does_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    history = pd.DataFrame({"lr": [0.1, 0.01]})
    results = run(toys.case(), tmp_path / "run", plan=toys.PLAN, history=history, say=said.append)
    assert list(results) == list(STAGES)
    assert [line for line in said if line.endswith("…")] == [f"{stage} …" for stage in STAGES]
    assert len(said) == 6  # and what treating will take
    for name in (
        "case.json",
        "splits.csv",
        "report.html",
        "log.txt",
        "treat/patch.safetensors",
        "treat/undo.safetensors",
    ):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert not list((tmp_path / "run/treat").glob("checkpoint*"))
    before = digests(tmp_path / "run")
    run(toys.case(), tmp_path / "run", plan=toys.PLAN, history=history, say=said.append)
    assert len(said) == 6
    assert digests(tmp_path / "run") == before


def test_splits_are_recorded(tmp_path: Path) -> None:
    case = toys.case()
    run(case, tmp_path / "run", plan="none")
    recorded = pd.read_csv(tmp_path / "run/splits.csv")
    for name, split in case.splits.items():
        assert recorded[recorded["split"] == name]["index"].tolist() == split.indices
        assert recorded[recorded["split"] == name]["sha256"].tolist() == split.hashes


def test_stopping_after_a_stage_and_going_on(tmp_path: Path) -> None:
    first = run(toys.case(), tmp_path / "run", plan=toys.PLAN, until="diagnose")
    assert list(first) == ["localize", "diagnose"]
    assert (tmp_path / "run/report.html").exists()
    said: list[str] = []
    run(toys.case(), tmp_path / "run", plan=toys.PLAN, say=said.append)
    assert said[0::2] == ["treat …", "verify …"]
    assert said[1].startswith("treating by short: about")


def test_doing_a_stage_again_does_what_follows_again(tmp_path: Path) -> None:
    run(toys.case(), tmp_path / "run", plan=toys.PLAN)
    said: list[str] = []
    run(toys.case(), tmp_path / "run", plan=toys.PLAN, redo="treat", say=said.append)
    assert said[0::2] == ["treat …", "verify …"]
    assert said[1].startswith("treating by short: about")


def test_another_plan_treats_again_and_verify_counts_its_looks(tmp_path: Path) -> None:
    first = run(toys.case(), tmp_path / "run", plan=toys.PLAN)
    longer = Plan(name="longer", how=FineTune(recipe=Recipe(epochs=8, lr=0.05, augment=Augment(pad=0))))
    second = run(toys.case(), tmp_path / "run", plan=longer)
    assert second["treat"].plan.name == "longer"  # type: ignore[attr-defined]
    assert [r["verify"].looks for r in (first, second)] == [1, 2]  # type: ignore[attr-defined]
    again = run(toys.case(), tmp_path / "run", plan=toys.PLAN)
    assert again["verify"].looks == 2  # type: ignore[attr-defined] # the same patch as at first: nothing new was seen


@pytest.mark.parametrize(
    ("other", "part"),
    [({"seed": 3}, "seed"), ({"groups": "tensor"}, "groups"), ({"batch_size": 7}, "batch size")],
    ids=["seed", "groups", "batch"],
)
def test_the_directory_of_another_case_is_refused_and_left_alone(
    tmp_path: Path, other: dict[str, Any], part: str
) -> None:
    run(toys.case(), tmp_path / "run", plan=toys.PLAN)
    before = digests(tmp_path / "run")
    with pytest.raises(RunError, match=f"another case \\(other {part}\\)"):
        run(toys.case(**other), tmp_path / "run", plan=toys.PLAN)
    assert digests(tmp_path / "run") == before


def test_foreign_directories_and_bad_input_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(RunError, match="no run directory"):
        run(toys.case(), tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    bad = [(x, 7) for x, _ in toys.data()]
    with pytest.raises(suture.SutureError, match="label 7"):
        run(suture.Case(toys.network(), bad), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UnknownNameError):
        run(toys.case(), tmp_path / "new", plan="Z")
    with pytest.raises(InvalidArgumentError, match="did you mean 'treat'"):
        run(toys.case(), tmp_path / "new", until="treta")
    with pytest.raises(suture.SutureError, match="'diagnose'"):
        run(suture.Case(toys.network(), verify=toys.data()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_stages_of_a_run_that_was_asked_for_by_name_can_be_done_one_by_one(tmp_path: Path) -> None:
    run(ASKED.case(), tmp_path / "run", plan="none", until="localize", asked=ASKED)
    this = open_run(tmp_path / "run")
    with pytest.raises(RunError, match="no finished treat; run suture treat"):
        this.verify()
    this.diagnose()
    treatment = this.treat(toys.PLAN)
    assert this.verify().fixed > 0
    assert treatment.kept == "short"


def test_runs_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no case"):
        open_run(tmp_path)
    run(toys.case(), tmp_path / "run", plan="none", until="localize")
    with pytest.raises(RunError, match="made from Python"):
        open_run(tmp_path / "run")


def test_a_result_made_from_other_inputs_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    this = Run(toys.case(), tmp_path)
    first = this.localize()
    second = this.localize(localizers=["rms"])
    assert list(second.scores.columns) == ["rms"] != list(first.scores.columns)


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import torch; torch.set_num_threads(1)
from suture.pipeline import run
from suture.training import Augment, Recipe
from suture.treatments import FineTune, Plan
from tests import toys
plan = Plan(name="long", how=FineTune(recipe=Recipe(epochs=40, batch_size=8, lr=0.02, augment=Augment(pad=0))))
run(toys.case(), {out!r}, plan=plan)
"""


def start(out: Path) -> subprocess.Popen[bytes]:
    """The same run in a process of its own."""
    program = PROGRAM.format(root=str(ROOT), out=str(out))
    return subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the run leaves when nobody kills it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert start(out).wait(timeout=120) == 0
    return digests(out)


@pytest.mark.parametrize("epochs", [1, 20])
def test_a_process_killed_during_treat_ends_like_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, str], epochs: int
) -> None:
    victim, treat = start(tmp_path), tmp_path / "treat"
    deadline = time.monotonic() + 100
    while _epochs_done(treat) < epochs and time.monotonic() < deadline:
        time.sleep(0.001)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait(timeout=30) == -signal.SIGKILL
    assert not (treat / "result.json").exists()
    assert epochs <= _epochs_done(treat) < 40
    assert start(tmp_path).wait(timeout=120) == 0
    assert digests(tmp_path) == undisturbed
    assert pd.read_csv(treat / "history.csv")["epoch"].tolist() == list(range(1, 41))


def _epochs_done(treat: Path) -> int:
    return max((int(path.stem.split("-")[1]) for path in treat.glob("checkpoint-*.safetensors")), default=0)


def test_nothing_of_an_earlier_answer_stays_beside_a_new_one(tmp_path: Path) -> None:
    run(ASKED.case(), tmp_path / "run", plan=toys.PLAN, asked=ASKED)
    this = open_run(tmp_path / "run")
    assert this.verify().fixed > 0
    this.treat("none")
    found = this.verify()
    assert found.fixed == 0
    assert found.looks == 2
    assert not (tmp_path / "run/verify/gallery.csv").exists()
    assert not (tmp_path / "run/treat/history.csv").exists()


def test_a_directory_that_another_process_made_meanwhile_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = RunDir.lock

    def slow(directory: RunDir) -> Any:
        monkeypatch.setattr(RunDir, "lock", lock)
        run(toys.case(seed=1), directory.path, plan="none")  # somebody else is first, and finishes
        return lock(directory)

    monkeypatch.setattr(RunDir, "lock", slow)
    with pytest.raises(RunError, match="another case"):
        run(toys.case(), tmp_path / "run", plan="none")
    assert (tmp_path / "run/verify/result.json").exists()
