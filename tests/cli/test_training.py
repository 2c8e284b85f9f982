"""The verbs train and compare, as they are typed."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from suture.cli.app import _run
from tests import pictures

MODEL, DATA = "tests.toys:untrained", "tests.toys:data"


def train(out: Path, *more: str) -> int:
    return _run(["train", "--model", MODEL, "--data", DATA, "--epochs", "2", "--out", str(out), *more])


def test_train_then_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "a", "--preset", "physics", "--test", DATA) == 0
    assert train(tmp_path / "b", "--preset", "adam") == 0
    said = capsys.readouterr().out
    assert "accuracy" in said
    log = pd.read_csv(tmp_path / "a/history.csv")
    assert log["momentum"].iloc[0] == 0.5
    assert "test_accuracy" in log
    models = [f"{n}={MODEL}@{tmp_path / n / 'weights.safetensors'}" for n in ("a", "b")]
    assert _run(["compare", *models, "--data", DATA, "--out", str(tmp_path / "c")]) == 0
    result = json.loads((tmp_path / "c/result.json").read_text())
    assert result["n"] == 600
    assert (tmp_path / "c/pairs.csv").exists()


def test_a_second_call_does_not_train_again(tmp_path: Path) -> None:
    assert train(tmp_path / "a") == 0
    before = (tmp_path / "a/weights.safetensors").stat().st_mtime_ns
    assert train(tmp_path / "a") == 0
    assert (tmp_path / "a/weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "phisics"], "did you mean 'physics'"),
        (["--preset", "absent.toml"], "no file absent.toml"),
        (["--lr", "-1"], "'lr'"),
        (["--test", "absent.zip"], "no data at"),
        (["--device", "tpu"], "tpu"),
    ],
    ids=["preset", "file", "lr", "test", "device"],
)
def test_trainings_that_cannot_start_say_why_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert train(tmp_path / "a", *arguments) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err
    assert not (tmp_path / "a").exists()


def test_a_directory_of_another_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "a") == 0
    capsys.readouterr()
    assert train(tmp_path / "a", "--seed", "7") == 2
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path / 'a'} holds another training (seed 42 there, 7 here); choose another --out\n"


def test_every_setting_that_differs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "a", "--lr", "0.01") == 0
    capsys.readouterr()
    other = [
        "--lr",
        "0.1",
        "--preset",
        "physics",
        "--mean",
        "0.5",
        "--std",
        "0.25",
        "--skip-bad",
        "--test",
        "tests.toys:data",
    ]
    assert train(tmp_path / "a", *other) == 2
    said = capsys.readouterr().err
    parts = [
        "lr 0.01 there, 0.1 here", "momentum 0.9 there, critical here", "mean none there, 0.5 here",
        "std none there, 0.25 here",
        "skip_bad no there, yes here", "test none there, tests.toys:data here", "choose another --out",
    ]  # fmt: skip
    assert [part for part in parts if part not in said] == []
    assert not set("{}[]'") & set(said)
    assert said.count(" there, ") == 6


def test_other_code_and_trainings_of_earlier_releases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = tmp_path / "net.py", tmp_path / "a"
    words = ["train", "--model", f"{code}:net", "--data", DATA, "--epochs", "1", "--out", str(out)]
    code.write_text("from torch import nn\ndef net(): return nn.Linear(2, 3)\n")
    assert _run(words) == 0
    description = json.loads((out / "training.json").read_text())
    old = {name: description[name] for name in ("key", "recipe", "seed")}
    (out / "training.json").write_text(json.dumps(old))
    assert _run(words) == 0, "a training that an earlier release began is still the same"
    code.write_text("from torch import nn\ndef net(): return nn.Linear(2, 3)  # other\n")
    capsys.readouterr()
    assert _run(words) == 2
    assert "another training (other code or data); choose another --out" in capsys.readouterr().err
    (out / "training.json").write_text(json.dumps(old))
    assert _run(words) == 2
    assert "another training (other code or data); choose another --out" in capsys.readouterr().err


def test_crops_that_lose_much_of_a_picture_are_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures.folder(tmp_path / "data", pictures.files({"cat": 4, "dog": 4}))
    words = ["train", "--model", pictures.network(tmp_path / "net.py"), "--data", str(data), "--epochs", "1"]
    for pad, lines in ((2, 1), (1, 0)):
        recipe = tmp_path / f"{pad}.toml"
        recipe.write_text(f"[augment]\npad = {pad}\n")
        assert _run([*words, "--preset", str(recipe), "--out", str(tmp_path / recipe.stem)]) == 0
        said = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: [augment] pad = 2 is")
        ]
        assert len(said) == lines
        assert all("may keep as little as 56 % of one" in line for line in said)


def test_a_training_that_diverges_ends_with_2_and_says_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "a", "--lr", "1e30") == 2
    assert "not finite in epoch" in capsys.readouterr().err
    assert (tmp_path / "a/weights.safetensors").exists()
    assert train(tmp_path / "a", "--lr", "1e30") == 2, "it has not become better since"
    assert "not finite in epoch" in capsys.readouterr().err


def test_other_pictures_under_the_same_names_are_another_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = pictures.files({"cat": 4, "dog": 4})
    data = pictures.folder(tmp_path / "data", files)
    words = ["train", "--model", pictures.network(tmp_path / "net.py"), "--data", str(data), "--epochs", "1"]
    assert _run([*words, "--out", str(tmp_path / "a")]) == 0
    assert _run([*words, "--out", str(tmp_path / "a")]) == 0
    cats, dogs, away = data / "cat", data / "dog", data.parent / "away"
    for old, new in ((cats, away), (dogs, cats), (away, dogs)):
        old.rename(new)
    capsys.readouterr()
    assert _run([*words, "--out", str(tmp_path / "a")]) == 2
    assert "another training (other code or data)" in capsys.readouterr().err


def test_other_code_beside_the_model_is_another_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    code = tmp_path / "net.py"
    code.write_text("import beside\nfrom torch import nn\ndef net(): return nn.Linear(2, 3)\n")
    command = [
        sys.executable, "-m", "suture", "train", "--model", f"{code}:net", "--data", DATA, "--epochs", "1", "--out",
        str(tmp_path / "a"),
    ]  # fmt: skip
    assert subprocess.run(command, check=False).returncode == 0
    assert subprocess.run(command, check=False).returncode == 0
    (tmp_path / "beside.py").write_text("WIDTH = 5\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another training (other code or data)" in done.stderr


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (["a"], "names no model"),
        ([f"a={MODEL}"], "two models or more"),
        ([f"a={MODEL}", f"a={MODEL}"], "two models are called 'a'"),
        ([f"a={MODEL}@absent.pt", f"b={MODEL}"], "the weights file absent.pt"),
    ],
    ids=["form", "one", "twice", "file"],
)
def test_comparisons_that_are_none(capsys: pytest.CaptureFixture[str], models: list[str], words: str) -> None:
    assert _run(["compare", *models, "--data", DATA]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said


@pytest.mark.parametrize(
    ("build", "words"),
    [("nn.Linear(7, 3)", "cannot take the training examples"), ("nn.Linear(2, 2)", "outside the model's 2 classes")],
    ids=["inputs", "labels"],
)
def test_a_model_that_does_not_fit_the_data_leaves_nothing_and_can_be_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], build: str, words: str
) -> None:
    code = tmp_path / "net.py"
    arguments = ["train", "--model", f"{code}:net", "--data", DATA, "--epochs", "1", "--out", str(tmp_path / "a")]
    code.write_text(f"from torch import nn\ndef net():\n    return {build}\n")
    assert _run(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert not (tmp_path / "a").exists()
    code.write_text("from torch import nn\ndef net():\n    return nn.Linear(2, 3)\n")
    assert _run(arguments) == 0


def test_a_module_beside_which_the_command_is_typed_is_found(tmp_path: Path) -> None:
    (tmp_path / "localnet.py").write_text("net = None\n")
    program = Path(sys.executable).with_name("suture")
    command = [program, "run", "--model", "localnet:absent", "--data", "photos", "--out", "run"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "localnet has no 'absent'" in answer.stderr
