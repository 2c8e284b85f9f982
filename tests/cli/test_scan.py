"""suture scan on the command line: logs of every kind, schedules, several at once, and what makes no sense."""

import json
from pathlib import Path

import numpy as np
import pytest

from suture.stages.scan import Scan
from tests.cli.conftest import Suture


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of logs, which is also where the command runs."""
    monkeypatch.chdir(tmp_path)
    t = np.arange(40)
    lr, accuracy = 0.05 * (1 + np.cos(np.pi * t / 40)) + 1e-4, 95 * (1 - np.exp(-t / 8))
    for name, momentum in (("a", "0.9"), ("b", "0.5")):
        (tmp_path / name).mkdir()
        rows = [f"{e},{x},{momentum},{a}" for e, x, a in zip(t, lr, accuracy, strict=True)]
        (tmp_path / name / "history.csv").write_text("\n".join(["epoch,lr,momentum,val_acc", *rows, ""]))
    records = [{"epoch": e + 1.0, "step": e, "learning_rate": 1e-4 * (e + 1), "loss": 2.0 - e} for e in range(2)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": records}))
    (tmp_path / "steps.csv").write_text("step,rate\n" + "".join(f"{s},0.1\n" for s in range(30)))
    return tmp_path


def test_a_log_prints_regimes_epochs_milestones_and_oscillation(suture: Suture, logs: Path) -> None:
    answer = suture("scan", "a/history.csv")
    assert (answer.code, answer.err) == (0, "")
    for part in (
        "Damping regimes of 40 epochs", "Epoch by epoch", "Accuracy (val_acc)", "80\xa0% reached",
        "Predicted and observed oscillation", "Epochs are counted from 1", "'val_acc' was taken to be in per cent",
    ):  # fmt: skip
        assert part in answer.out
    assert suture("scan", "a").out == answer.out


def test_several_logs_and_schedules_stand_side_by_side(suture: Suture, logs: Path) -> None:
    answer = suture("scan", "a/history.csv", "b/history.csv", "--schedule", "physics", "--epochs", 40)
    assert (answer.code, answer.err) == (0, "")
    for part in ("a/history.csv", "b/history.csv", "physics", "Epochs to an accuracy", "Early accuracy"):
        assert part in answer.out
    assert "1: a" in suture("scan", "a", "a").out


def test_schedules_alone(suture: Suture, logs: Path) -> None:
    answer = suture("scan", "--schedule", "physics", "--epochs", 200, "--lr", 0.1, "--lr-min", "1e-4")
    assert (answer.code, answer.err) == (0, "")
    assert "│     66 │ 33.0\xa0% │" in answer.out
    assert "│    134 │ 67.0\xa0% │" in answer.out
    names = ("constant", "0.9", "1cycle", "inverse", "hybrid-ep52")
    answer = suture("scan", *(word for name in names for word in ("--schedule", name)))
    assert answer.out.count("170 (85.0\xa0%)") == 3
    assert answer.out.count("180 (90.0\xa0%)") == 2


def test_options_reach_the_scan(suture: Suture, logs: Path) -> None:
    out = suture("scan", "steps.csv", "--column", "lr=rate", "--steps-per-epoch", 10, "--form", "exact",
                 "--curvature", 2, "--tolerance", 0.5, "--out", "x").out  # fmt: skip
    assert "Damping regimes of 3 epochs" in out
    found = Scan.load(logs / "x")
    assert (found.form, found.curvature, found.tolerance, len(found.epochs)) == ("exact", 2.0, 0.5, 3)
    out = suture("scan", "a", "--thresholds", "50,93.5", "--early", "3").out
    assert "50\xa0% reached" in out
    assert "93.5\xa0% reached" in out
    assert "80\xa0% reached" not in out
    assert "epoch 3 " in out


def test_an_adam_run_says_why_there_are_no_regimes(suture: Suture, logs: Path) -> None:
    answer = suture("scan", "trainer_state.json")
    text = " ".join(answer.out.split())
    assert answer.code == 0
    assert "AdamW rescales the gradient" in text
    assert "Assumed: the log names no optimizer; AdamW, the usual one, is assumed" in text
    assert "Damping regimes of 2 epochs" in suture("scan", "trainer_state.json", "--optimizer", "sgd").out
    assert "AdamW rescales" not in suture("scan", "trainer_state.json", "--curvature", 100).out


def test_out_holds_the_page_and_the_data(suture: Suture, logs: Path) -> None:
    answer = suture("scan", "a", "--out", "one")
    assert "scan: one/scan.html" in answer.out
    assert {p.name for p in (logs / "one").iterdir()} == {"scan.html", "result.json", "epochs.csv"}
    assert (logs / "one" / "scan.html").read_text().startswith("<!DOCTYPE html>")
    suture("scan", "a", "b", "--out", "two")
    assert {p.name for p in (logs / "two").iterdir()} == {"scan.html", "1", "2"}
    assert len(Scan.load(logs / "two" / "2").epochs) == 40


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--epochs", "3"], "give RUN, LOG or --schedule"),
        (["a", "--epochs", "3"], "--epochs, --lr and --lr-min go with --schedule"),
        (["--schedule", "physics", "--optimizer", "adam"], "--optimizer, --steps-per-epoch and --column go with a log"),
        (["--schedule", "phsyics"], "did you mean 'physics'"),
        (["--schedule", "hybrid-90"], "a schedule alone does not have"),
        (["--schedule", "physics", "--lr", "-1"], "'lr'"),
        (["--schedule", "1.5"], "at least 0 and less than 1, not 1.5"),
        (["a", "--form", "exakt"], "did you mean 'exact'"),
        (["a", "--curvature", "0"], "curvature must be positive"),
        (["a", "--tolerance", "-1"], "tolerance must be a number from 0 up, got -"),
        (["a", "--thresholds", "200"], "thresholds are shares between 0 and 1, got 2"),
        (["a", "--thresholds", "ninety"], "--thresholds takes numbers separated by commas, not 'ninety'"),
        (["a", "--early", "1.5"], "--early takes whole numbers"),
        (["a", "--column", "lr"], "--column takes ROLE=NAME"),
        (["a", "--column", "lr=rate"], "has no column 'rate'"),
        (["a", "--column", "rate=lr"], "called for as 'rate'"),
        (["steps.csv"], "if 'rate' is it, say --column lr=rate"),
        (["a", "absent"], "there is no training log absent"),
        (["--history", "a"], "no run directory"),
        (["."], "Trainer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_in_a_sentence(suture: Suture, logs: Path, words: list[str], part: str) -> None:
    if words == ["."]:
        (logs / "trainer_state.json").unlink()
        part = "there is no training log in ."
    answer = suture("scan", *words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert part in answer.err


def test_a_run_keeps_its_scan(suture: Suture, finished: Path) -> None:
    answer = suture("scan", finished)
    assert answer.code == 0
    for words in (("--tolerance", 0.1), ("--history", "x.csv", "--optimizer", "adam")):
        refused = suture("scan", finished, *words)
        assert refused.code == 2
        assert "option" in refused.err
    assert suture("scan", finished, finished).code == 0
