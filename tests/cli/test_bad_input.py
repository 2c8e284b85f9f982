"""Bad input: one clear sentence on standard error, exit code 2, nothing written, nothing run."""

import csv
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from suture.patch import load_patch
from tests import pictures, toys
from tests.cli.conftest import Suture, Toy, digests
from tests.test_loading import BROKEN_WEIGHTS, EVIL, MISFITS, Evil

CODE = """\
import torch
from torch import nn
from tests import toys

def raises(): raise ValueError('no width')
def nothing(): ...
def needs(width): ...
def no_numbers(): return nn.Flatten()
def nan():
    net = toys.network()
    net.last.bias.data.fill_(float('nan'))
    return net
def vector(): return nn.Sequential(nn.Linear(2, 3), nn.Flatten(0))
def wide(): return nn.Linear(7, 3)

def load_raises(): raise OSError('the disk is gone')
def load_number(): return 3
def load_empty(): return []
def load_bare(): return [1, 2, 3]
def load_broken():
    class Data(list):
        def __getitem__(self, i): return 1 / 0
    return Data(toys.data())
def load_exits():
    class Data(list):
        def __getitem__(self, i): raise SystemExit(0)
    return Data(toys.data())
def load_outside(): return [(x, y + 5) for x, y in toys.data()]
def load_negative(): return [(x, -1) for x, y in toys.data()]
def load_fractions(): return [(x, float(y)) for x, y in toys.data()]
def load_splits(): return {'diagnose': toys.data(), 'repair': toys.points(90, seed=8), 'test': toys.points(90, seed=9)}
def load_two(): return {'diagnose': toys.data(), 'repair': toys.points(90, seed=8)}
def load_same(): return {'diagnose': toys.data(), 'repair': toys.data(), 'verify': toys.points(90, seed=9)}
def load_sizes(): return [(torch.rand(3, 8 + i % 2, 8), i % 2) for i in range(40)]
def load_three(): return toys.data()[:3]

class Sick(nn.Module):
    def __init__(self, sick):
        super().__init__()
        self.good, self.bad, self.sick = nn.Linear(2, 3), nn.Linear(2, 3), sick
    def forward(self, x):
        y = self.good(x)
        return y + (self.bad(x) * 0).sqrt() if self.sick == 'slope' else nn.functional.dropout(y)
def slope(): return Sick('slope')
def dropout(): return Sick('dropout')
def load_one(): return toys.data()[:1]

class Halfway:
    def outputs(self, model, batch): ...
"""
PLANS = {
    "typo.toml": "[how]\nkind = 'finetune'\n[how.recipe]\nepoch = 3\n",
    "kind.toml": "[how]\nkind = 'magic'\n",
    "range.toml": "[how]\nkind = 'finetune'\n[how.recipe]\nepochs = 0\n",
    "text.toml": "this is no TOML\n",
    "group.toml": "[where]\nkind = 'groups'\nnames = ['layer9']\n",
}
GROUPS = {
    "hollow.json": '{"a": []}',
    "list.json": "[1]",
    "text.json": "{",
    "numbers.json": '{"a": [1]}',
    "none.json": '{"a": ["layer9.*"]}',
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, toy: Toy) -> Path:
    """A folder of everything that can be wrong."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "code.py").write_text(CODE)
    (folder / "syntax.py").write_text("def net(:")
    (folder / "script.py").write_text("import sys; sys.exit(0)")
    for name, text in (PLANS | GROUPS).items():
        (folder / name).write_text(text)
    state = dict(toys.trained())
    for name, (change, _) in MISFITS.items():
        torch.save(change(dict(state)), folder / f"{name}.pt")
    for name, (file, content, _) in BROKEN_WEIGHTS.items():
        (folder / name).mkdir()
        (folder / name / file).write_bytes(content)
    (folder / "evil.pt").write_bytes(EVIL["protocol 4"](Evil(folder / "it-ran")))
    (folder / "evil-zip.pt").write_bytes(EVIL["zip"](Evil(folder / "it-ran")))
    (folder / "evil.safetensors").write_bytes(EVIL["protocol 2"](Evil(folder / "it-ran")))
    shutil.copy(toy.log, folder / "log.csv")
    (folder / "no-lr.csv").write_text("epoch,loss\n1,2\n")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.txt").write_text("two years of work")
    (folder / "file").touch()
    pictures.network(folder / "net.py")
    pictures.network(folder / "grey.py", channels=1)
    both = pictures.files({"cat": 4, "dog": 4})
    jpeg = pictures.encoded(pictures.pixels(3), "JPEG")
    layouts = {
        "empty": {"readme.txt": b"nothing here"},
        "good": both,
        "flat": {"1.png": pictures.encoded(pictures.pixels(1))},
        "splits": pictures.files({"train/cat": 2, "train/dog": 2, "test/cat": 2, "test/dog": 2}),
        "hollow": both | {"emu/": b""},
        "corrupt": both | {"cat/photo.jpg": jpeg[: len(jpeg) // 2]},
        "sizes": both | {"cat/large.png": pictures.encoded(pictures.pixels(9, 16, 16))},
        "large": {
            f"{name}/{i}.png": pictures.encoded(pictures.pixels(600 + 10 * k + i, 12, 16))
            for k, name in enumerate(("cat", "dog"))
            for i in range(4)
        },
        "bomb": both | {"cat/bomb.png": pictures.encoded(pictures.Image.new("1", (20_000, 20_000)))},
        "diagnose": pictures.files({"cat": 4, "dog": 4}, seed=1),
        "repair": pictures.files({"cat": 4, "dog": 4}, seed=2),
        "verify": pictures.files({"cat": 4, "dog": 4}, seed=3),
        "catless": pictures.files({"dog": 4}, seed=4),
        "resaved": pictures.files({"cat": 4, "dog": 4}, seed=5)
        | {"dog/other name.bmp": pictures.encoded(pictures.pixels(10_001), "BMP")},
    }
    for name, content in layouts.items():
        pictures.folder(folder / name, content)
    pictures.archive(folder / "slip.zip", both | {"../x.png": pictures.encoded(pictures.pixels(1))})
    pictures.archive(folder / "empty.zip", {"readme.txt": b"nothing here"})
    (folder / "torn.zip").write_bytes((folder / "slip.zip").read_bytes()[:200])
    return folder


@pytest.fixture
def nothing_happens(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand among the bad files; afterwards they are what they were, and the run directory is not there."""
    monkeypatch.chdir(bad)
    before = digests(bad)
    yield tmp_path / "run"
    assert digests(bad) == before
    assert not (tmp_path / "run").exists()


def refused(answer: object, *parts: str, stages: bool = False) -> None:
    """Exit code 2 and one sentence with these parts; a stage may have been announced before."""
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    for part in parts:
        assert part in answer.error
    others = [line for line in answer.err.splitlines() if line != answer.error]
    assert stages or not others, answer.err


TOYS = [
    # the model
    ({"--model": "absent.py:net"}, ["there is no file", "absent.py"]),
    ({"--model": "code.py"}, ["'code.py' names no object", "FILE.py:NAME"]),
    ({"--model": "code.py:netz"}, ["code.py has no 'netz'"]),
    ({"--model": "code.py:nothin"}, ["did you mean 'nothing'?"]),
    ({"--model": "no_such_package:net"}, ["importing no_such_package failed", "ModuleNotFoundError"]),
    ({"--model": "syntax.py:net"}, ["importing", "syntax.py failed: SyntaxError"]),
    ({"--model": "script.py:net"}, ["importing", "script.py failed: SystemExit"]),
    ({"--model": "code.py:raises"}, ["code.py:raises failed: ValueError: no width"]),
    ({"--model": "code.py:needs"}, ["missing 1 required positional argument: 'width'"]),
    ({"--model": "code.py:nothing"}, ["code.py:nothing gave NoneType and no torch.nn.Module"]),
    ({"--model": "code.py:no_numbers", "--weights": None}, ["Flatten has no parameters"]),
    # the weights
    ({"--weights": "absent.pt"}, ["the weights file absent.pt does not exist"]),
    ({"--weights": "good"}, ["good is a folder"]),
    ({"--weights": "evil.pt"}, ["evil.pt is a pickle that asks for posix.system", "it was not run"]),
    ({"--weights": "evil-zip.pt"}, ["evil-zip.pt is a pickle that asks for posix.system", "it was not run"]),
    ({"--weights": "evil.safetensors"}, ["evil.safetensors is no safetensors file but a pickle"]),
    ({"--reference": "absent.pt"}, ["the weights file absent.pt does not exist"]),
    *(({"--weights": f"{name}.pt"}, parts) for name, (_, parts) in MISFITS.items()),
    *(({"--weights": f"{name}/{file}"}, [file, part]) for name, (file, _, part) in BROKEN_WEIGHTS.items()),
    # the data
    ({"--data": "absent"}, ["there is no data at absent"]),
    ({"--data": "absent.py:load"}, ["there is no file", "absent.py"]),
    ({"--data": "code.py"}, ["neither a folder of class folders nor a zip", "code.py:NAME"]),
    ({"--data": None}, ["no data", "diagnose, repair and verify"]),
    ({"--diagnose": "code.py:load_three"}, ["either one data set or the three splits"]),
    ({"--data": None, "--verify": f"{toys.__file__}:data"}, ["no examples to diagnose on"]),
    ({"--data": "code.py:load_raises"}, ["failed: OSError: the disk is gone"]),
    ({"--data": "code.py:load_number"}, ["int", "a length and indexing"]),
    ({"--data": "code.py:load_empty"}, ["is empty"]),
    ({"--data": "code.py:load_bare"}, ["example 0 of data is int, not a pair (input, target)"]),
    ({"--data": "code.py:load_broken"}, ["reading example 0 of data failed: ZeroDivisionError"]),
    ({"--data": "code.py:load_exits"}, ["ended the program"]),
    ({"--data": "code.py:load_splits"}, ["no split 'test'"]),
    ({"--data": "code.py:load_two"}, ["no examples to verify on"]),
    ({"--data": "code.py:load_same"}, ["also stand in 'diagnose'", "example 0", "remove one copy"]),
    ({"--data": "code.py:load_three"}, ["too few examples"]),
    ({"--data": "code.py:load_one"}, ["too few examples"]),
    # names
    ({"--groups": "blocks"}, ["no grouping is called 'blocks'; did you mean 'block'?"]),
    ({"--groups": "absent.json"}, ["there is no absent.json"]),
    ({"--groups": "list.json"}, ["list.json must hold {name: [glob, …]}"]),
    ({"--groups": "numbers.json"}, ["numbers.json must hold"]),
    ({"--groups": "text.json"}, ["text.json is no JSON"]),
    ({"--groups": "hollow.json"}, ["the group 'a' has no globs, so no parameters"]),
    ({"--groups": "none.json"}, ["'layer9.*' of group 'a' matches no parameter"]),
    ({"--task": "clasification"}, ["no task is called 'clasification'; did you mean 'classification'?"]),
    ({"--task": "code.py:Halfway"}, ["is no task: it needs the methods outputs, losses and verdicts"]),
    ({"--protocol": "papers"}, ["no protocol is called 'papers'; did you mean 'paper'?"]),
    ({"--device": "gpu"}, ["no device is called 'gpu'; did you mean 'cuda'?"]),
    ({"--device": "cpus"}, ["did you mean 'cpu'?"]),
    ({"--device": "xpu:7"}, ["--device xpu:7 cannot be used here"]),
    ({"--localizers": "gradnorm"}, ["no localizer is called 'gradnorm'; did you mean 'grad_norm'?"]),
    ({"--localizers": "grad_norm,"}, ["no localizer is called ''"]),
    ({"--localizers": "rms,rms"}, ["one or more different names"]),
    ({"--rule": "above_medium"}, ["no flagging rule is called 'above_medium'; did you mean 'above_median'?"]),
    ({"--rule": "top_0"}, ["no flagging rule is called 'top_0'"]),
    ({"--max-memory": "much"}, ["--max-memory takes a number of bytes, such as 500MB or 2GiB, not 'much'"]),
    ({"--max-memory": "0"}, ["--max-memory takes a number of bytes"]),
    ({"--until": "localise"}, ["there is no stage 'localise'; did you mean 'localize'?"]),
    ({"--redo": "train"}, ["there is no stage 'train'; did you mean 'treat'?"]),
    ({"--until": "scan"}, ["--until scan needs --history"]),
    ({"--require": "beter"}, ["--require takes 'better', not 'beter'"]),
    ({"--require": "worse"}, ["--require takes 'better', not 'worse'"]),
    # the plan
    ({"--plan": "B9"}, ["no plan and no TOML file is called 'B9'"]),
    ({"--plan": "absent.toml"}, ["absent.toml"]),
    ({"--plan": "typo.toml"}, ["typo.toml", "recipe.epoch'"]),
    ({"--plan": "kind.toml"}, ["kind.toml", "'how'"]),
    ({"--plan": "range.toml"}, ["range.toml", "recipe.epochs'"]),
    ({"--plan": "text.toml"}, ["text.toml is not TOML"]),
    # the log
    ({"--history": "absent.csv"}, ["there is no training log absent.csv"]),
    ({"--history": "no-lr.csv"}, ["no column 'lr' but epoch, loss"]),
    # words
    ({"--mean": "a,b"}, ["--mean takes numbers separated by commas, not 'a,b'"]),
    ({"--std": "1;1"}, ["--std takes numbers separated by commas, not '1;1'"]),
    ({"--mean": "0.5,0.5"}, ["--mean has 2", "one each for grey pictures or three each for RGB"]),
    ({"--mean": "0.5", "--std": "1,1,1"}, ["--mean has 1 and --std 3 values"]),
    ({"--mean": "0.5,0.5,0.5"}, ["--mean is given without --std", "--std 1,1,1 if"]),
    ({"--mean": "127.5"}, ["--mean must lie between 0 and 1", "divided by 255"]),
    ({"--std": "0"}, ["--std must be positive"]),
    ({"--seed": "first"}, ["Invalid value for '--seed'", "suture run --help"]),
    ({"--size": "0"}, ["Invalid value for '--size'"]),
    ({"--batch-size": "0"}, ["Invalid value for '--batch-size'"]),
    ({"--max-regression": "5"}, ["Invalid value for '--max-regression'"]),
    ({"--model": None}, ["'--model'", "suture run --help"]),
    ({"--wieghts": "w.pt"}, ["--wieghts", "--weights"]),
]  # fmt: skip

SEEN_BY_A_STAGE = [
    ({"--model": "code.py:dropout", "--weights": None}, ["gives different outputs for the same inputs", "F.dropout"]),
    ({"--model": "code.py:slope", "--weights": None}, ["the gradient of 'bad.weight' is not finite"]),
    ({"--localizers": "swap"}, ["'swap' cannot be used here", "--reference"]),
    ({"--rule": "exceeds_null", "--localizers": "alpha"}, ["'exceeds_null' needs a score on correct examples"]),
    ({"--rule": "exceeds_null", "--protocol": "paper"}, ["protocol 'paper' flags by above_median"]),
    ({"--model": "code.py:nan", "--weights": None}, ["not finite on", "check its weights"]),
    ({"--model": "code.py:vector", "--weights": None}, ["needs logits of shape (examples, classes)"]),
    ({"--data": "code.py:load_outside"}, ["is outside the model's 3 classes (0 to 2)"]),
    ({"--data": "code.py:load_negative"}, ["label -1 is outside the model's 3 classes"]),
    ({"--data": "code.py:load_fractions"}, ["labels must be integers"]),
]


def _id(change: dict[str, str | None]) -> str:
    return " ".join(f"{key} {Path(value).name}" if value else f"no {key}" for key, value in change.items())


def _params(table: list[tuple[dict[str, str | None], list[str]]]) -> list[object]:
    return [pytest.param(change, parts, id=_id(change)) for change, parts in table]


def _words(change: dict[str, str | None], options: dict[str, object]) -> list[object]:
    merged = options | change
    return [word for pair in merged.items() if pair[1] is not None for word in pair]


def run_toy(toy: Toy, out: Path, change: dict[str, str | None]) -> list[object]:
    options = {"--model": toy.model, "--weights": toy.weights, "--data": toy.data, "--plan": toy.plan, "--out": out}
    return ["run", *_words(change, options)]


@pytest.mark.parametrize(("change", "parts"), _params(TOYS))
def test_run_refuses(
    suture: Suture, toy: Toy, nothing_happens: Path, change: dict[str, str | None], parts: list[str]
) -> None:
    stages = bool({"--history", "--localizers"} & change.keys())
    refused(suture(*run_toy(toy, nothing_happens, change)), *parts, stages=stages)


@pytest.mark.parametrize(("change", "parts"), _params(SEEN_BY_A_STAGE))
def test_run_refuses_what_only_a_stage_can_see(
    suture: Suture, toy: Toy, nothing_happens: Path, change: dict[str, str | None], parts: list[str]
) -> None:
    refused(suture(*run_toy(toy, nothing_happens, change)), *parts, stages=True)


PICTURES = [
    ({"--data": "empty"}, ["empty holds no pictures"]),
    ({"--data": "empty.zip"}, ["empty.zip holds no pictures"]),
    ({"--data": "torn.zip"}, ["torn.zip is neither"]),
    ({"--data": "slip.zip"}, ["'../x.png' of", "outside the archive"]),
    ({"--data": "flat"}, ["'1.png' of", "lies in no class folder", "CLASS/PICTURE"]),
    ({"--data": "splits"}, ["test, train, which are splits and not classes"]),
    ({"--data": "hollow"}, ["the class folder 'emu' of", "holds no picture"]),
    ({"--data": "corrupt"}, ["'cat/photo.jpg' is not a readable picture", "--skip-bad"]),
    ({"--data": "bomb"}, ["'cat/bomb.png' is not a readable picture"]),
    ({"--data": "sizes"}, ["'cat/0.png' is 8x8", "'cat/large.png' is 16x16", "give --size"]),
    ({"--repair-extra": "large"}, ["pictures of 'data' are 8x8", "large' 16x12", "give --size"]),
    ({"--data": None, "--diagnose": "diagnose", "--repair": "repair", "--verify": "large"},
     ["pictures of 'diagnose' are 8x8 and those of 'verify' 16x12", "give --size"]),
    ({"--repair-extra": "catless"}, ["catless' lacks the class folder 'cat' that 'data' has"]),
    ({"--data": None, "--diagnose": "diagnose", "--repair": "repair", "--verify": "catless"},
     ["'verify' lacks the class folder 'cat'"]),
    ({"--data": None, "--diagnose": "diagnose", "--repair": "resaved", "--verify": "verify"},
     ["dog/other name.bmp", "cat/1.png", "remove one copy"]),
    ({"--data": None, "--diagnose": "diagnose", "--repair": "diagnose", "--verify": "verify"},
     ["also stand in 'diagnose'"]),
    ({"--data": None, "--diagnose": "diagnose", "--repair": "repair"}, ["no examples to verify on"]),
    ({"--classes": "absent.txt"}, ["there is no file absent.txt of class names"]),
    ({"--classes": "grey.py"}, ["the class folder 'cat' of", "is none of the"]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.* has one class")
@pytest.mark.parametrize(("change", "parts"), _params(PICTURES))
def test_run_refuses_pictures(
    suture: Suture, nothing_happens: Path, change: dict[str, str | None], parts: list[str]
) -> None:
    options = {"--model": "net.py:net", "--data": "good", "--out": nothing_happens}
    refused(suture("run", *_words(change, options)), *parts)


def test_functions_that_give_pictures_of_different_sizes(suture: Suture, nothing_happens: Path) -> None:
    answer = suture("run", "--model", "net.py:net", "--data", "code.py:load_sizes", "--out", nothing_happens)
    refused(answer, "inputs differ in size (one is 3x", "8x8", "9x8", "give --size", stages=True)


def test_one_class_is_warned_about_on_a_line_of_its_own(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "cats", pictures.files({"cat": 10}))
    pictures.network(tmp_path / "net.py")
    words = ("run", "--model", "net.py:net", "--data", "cats", "--out", "run", "--until", "localize")
    command = [sys.executable, "-m", "suture", *words]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (line,) = [line for line in answer.stderr.splitlines() if "one class" in line]
    assert line.startswith(f"warning: {data} has one class, 'cat', and a network cannot be judged on one class; if")
    assert "UserWarning" not in answer.stderr


def test_skip_bad_leaves_the_broken_picture_out_and_goes_on(suture: Suture, bad: Path, tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", pictures.files({"cat": 10, "dog": 10}) | {"cat/torn.jpg": b"\xff\xd8"})
    words = ("run", "--model", bad / "net.py:net", "--data", data, "--out", tmp_path / "run", "--until", "localize")
    assert suture(*words).code == 2
    with pytest.warns(UserWarning, match=r"1 picture left out that cannot be read \(1 of class 'cat'\), .*torn\.jpg"):
        assert suture(*words, "--skip-bad").code == 0
    assert "torn" not in (tmp_path / "run" / "splits.csv").read_text()


@pytest.mark.filterwarnings("ignore:.* has one class")
def test_named_classes_need_no_folder_each(suture: Suture, bad: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("dog\ncat\n")
    words = ("run", "--model", bad / "net.py:net", "--diagnose", bad / "diagnose", "--repair", bad / "repair",
             "--verify", bad / "catless", "--until", "localize", "--out")  # fmt: skip
    assert "or name all classes with --classes" in suture(*words, tmp_path / "run").error
    assert suture(*words, tmp_path / "run", "--classes", names).code == 0
    names.unlink()
    assert suture("localize", tmp_path / "run").code == 0  # the run knows them
    rows = csv.DictReader((tmp_path / "run" / "splits.csv").read_text().splitlines())
    labels = {(row["example"].partition("/")[0], row["label"]) for row in rows}
    assert labels == {("dog", "0"), ("cat", "1")}


@pytest.mark.parametrize(
    "change",
    [
        {"--model": "code.py:wide", "--weights": None},
        {"--model": "grey.py:net", "--weights": None, "--data": "good"},
    ],
    ids=["features", "channels"],
)
def test_a_model_that_cannot_take_these_inputs(
    suture: Suture, toy: Toy, nothing_happens: Path, change: dict[str, str | None]
) -> None:
    refused(suture(*run_toy(toy, nothing_happens, change)), "--size", stages=True)


@pytest.mark.parametrize(
    ("plan", "part"),
    [
        ("fulll", "no plan and no TOML file is called 'fulll'; did you mean 'full'?"),
        ("absent.toml", "there is no file absent.toml"),
        ("text.toml", "text.toml is not TOML"),
        ("typo.toml", "recipe.epoch'"),
    ],
)
def test_a_wrong_plan_is_said_before_the_data_is_read(
    suture: Suture, bad: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, plan: str, part: str
) -> None:
    case = json.loads((finished / "case.json").read_text())
    case["asked"]["data"] = "/gone/data"
    (finished / "case.json").write_text(json.dumps(case))
    monkeypatch.chdir(bad)
    refused(suture("treat", finished, "--plan", plan), part)
    refused(suture("treat", finished, "--plan", "full"), "/gone/data")


def test_a_plan_for_a_group_that_is_not_there(suture: Suture, toy: Toy, bad: Path, tmp_path: Path) -> None:
    answer = suture(*toy.run(tmp_path / "run", "--plan", bad / "group.toml"))
    refused(answer, "no group", "'layer9'", "there are first, norm, second, last", stages=True)


# Where to write


def test_out_is_a_folder_of_something_else(suture: Suture, toy: Toy, bad: Path, nothing_happens: Path) -> None:
    refused(suture(*run_toy(toy, bad / "occupied", {})), "occupied exists and is no run directory", "--out")


@pytest.mark.parametrize(("out", "words"), [("file", "is a file"), ("file/run", "Not a directory")])
def test_out_is_a_file(suture: Suture, toy: Toy, bad: Path, nothing_happens: Path, out: str, words: str) -> None:
    refused(suture(*run_toy(toy, bad / out, {})), str(bad / out), words)


def test_a_demo_does_not_move_in_with_strangers(suture: Suture, bad: Path, nothing_happens: Path) -> None:
    refused(suture("demo", "--out", bad / "occupied"), "occupied exists and is no run directory")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"--weights": None}, "weights"),
        ({"--data": "suture_test_data:other"}, "data"),
        ({"--groups": "tensor"}, "groups"),
        ({"--seed": "7"}, "seed"),
        ({"--protocol": "paper"}, "protocol"),
        ({"--batch-size": "64"}, "batch size"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_the_run_directory_of_another_case(
    suture: Suture, toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], part: str
) -> None:
    (finished.parent / "suture_test_data.py").write_text(
        "from tests import toys\ndef other(): return toys.points(600, 5)"
    )
    monkeypatch.syspath_prepend(finished.parent)
    before = digests(finished)
    answer = suture(*run_toy(toy, finished, change))
    refused(answer, f"{finished} holds a run of another case", f"(other {part})", "choose another --out")
    assert digests(finished) == before


def test_the_run_directory_of_an_earlier_release(suture: Suture, toy: Toy, finished: Path) -> None:
    stored = json.loads((finished / "case.json").read_text())
    del stored["identity"]["model"]
    (finished / "case.json").write_text(json.dumps(stored))
    before = digests(finished)
    refused(suture(*run_toy(toy, finished, {})), f"{finished} was begun by an earlier suture", "choose another --out")
    assert digests(finished) == before


def test_a_run_directory_in_which_somebody_works(suture: Suture, toy: Toy, finished: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from suture.rundir import RunDir\n"
        "with RunDir(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(finished)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        before = digests(finished)
        for answer in (suture(*toy.run(finished)), suture("diagnose", finished)):
            refused(answer, f"another suture process is working in {finished}")
        assert digests(finished) == before
        other.communicate(timeout=30)
    assert suture("diagnose", finished).code == 0


# Runs


@pytest.mark.parametrize("verb", ["localize", "diagnose", "treat", "verify", "report"])
def test_a_run_that_is_not_there(suture: Suture, nothing_happens: Path, bad: Path, verb: str) -> None:
    refused(suture(verb, nothing_happens), f"{nothing_happens} is no run directory", "suture run")
    refused(suture(verb, bad / "occupied"), "occupied is no run directory", "suture run")


@pytest.mark.parametrize(("verb", "needs"), [("diagnose", "localize"), ("treat", "localize"), ("verify", "treat")])
def test_a_stage_before_its_time(suture: Suture, finished: Path, verb: str, needs: str) -> None:
    (finished / needs / "result.json").unlink()
    before = digests(finished)
    refused(suture(verb, finished), f"has no finished {needs}", f"run suture {needs} {finished} first")
    assert digests(finished) == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["localize", "--localizers", "gradnorm"], "did you mean 'grad_norm'?"),
        (["localize", "--rule", "last"], "no flagging rule is called 'last'"),
        (["localize", "--export", "lora"], "no export is called 'lora'"),
        (["localize", "--out", "x.json"], "--out goes with --export"),
        (["localize", "--max-memory", "-1"], "--max-memory"),
        (["treat", "--plan", "absent.toml"], "absent.toml"),
        (["treat", "--plan", "B9"], "no plan and no TOML file is called 'B9'"),
        (["verify", "--require", "good"], "--require takes 'better'"),
        (["verify", "--max-regression", "-1"], "--max-regression"),
        (["verify", "--model", "m:f"], "--model goes with --patch"),
        (["scan", "--history", "absent.csv"], "no training log absent.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_misspelt_option_costs_no_finished_stage(suture: Suture, finished: Path, words: list[str], part: str) -> None:
    before = digests(finished)
    refused(suture(words[0], finished, *words[1:]), part)
    assert digests(finished) == before


def test_a_run_whose_files_have_gone(suture: Suture, finished: Path) -> None:
    case = json.loads((finished / "case.json").read_text())
    case["asked"]["weights"] = "/gone/weights.pt"
    (finished / "case.json").write_text(json.dumps(case))
    refused(suture("diagnose", finished), "/gone/weights.pt does not exist")


def test_a_run_made_from_python(suture: Suture, finished: Path) -> None:
    case = json.loads((finished / "case.json").read_text())
    (finished / "case.json").write_text(json.dumps(case | {"asked": None}))
    refused(suture("diagnose", finished), "was made from Python", "suture.run")


def test_a_case_file_torn_apart(suture: Suture, finished: Path) -> None:
    (finished / "case.json").write_text('{"asked": ')
    for command in (("diagnose", finished), ("verify", finished)):
        refused(suture(*command), "case.json is damaged, so nobody can tell")


@pytest.mark.parametrize("stage", ["localize", "verify"])
def test_a_result_that_is_no_result(suture: Suture, finished: Path, stage: str) -> None:
    (finished / stage / "result.json").write_text("[1]")
    refused(suture("report", finished), f"is no result of suture; run with --redo {stage}")
    if stage == "verify":
        refused(suture("verify", finished), f"is no result of suture; run with --redo {stage}")


@pytest.mark.parametrize("verb", ["report", "verify"])
def test_the_patch_of_another_treatment_in_a_run(suture: Suture, finished: Path, verb: str) -> None:
    patch = load_patch(finished / "treat/patch.safetensors")
    looks = (finished / "verify/looks.json").read_bytes()
    replace(patch, result="ab" * 32).save(finished / "treat/patch.safetensors")
    refused(suture(verb, finished), "is not the patch that was made here", "--redo treat")
    assert (finished / "verify/looks.json").read_bytes() == looks
    patch.save(finished / "treat/patch.safetensors")
    assert suture(verb, finished).code == 0


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_seeds_that_are_none(suture: Suture, toy: Toy, tmp_path: Path, seed: str) -> None:
    refused(suture(*toy.run(tmp_path / "run", "--seed", seed)), "--seed")


def test_redo_of_what_is_not_reached_again(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    refused(suture(*toy.run(tmp_path / "run", "--redo", "verify", "--until", "treat")), "lies behind --until treat")
    refused(suture(*toy.run(tmp_path / "run", "--redo", "scan")), "--redo scan needs --history")


def test_names_cannot_steer_a_terminal(suture: Suture, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "gold.txt").write_text("x\x1b]0;OWNED\x07\x1b[31mred\n")
    answer = suture("verify", finished, "--must-keep", tmp_path / "gold.txt")
    assert answer.code == 2
    assert "OWNED" in answer.error
    assert "\x1b" not in answer.err
    assert "\x07" not in answer.err


# Patches


PATCHES = [
    ("apply absent.safetensors --weights {weights} --out {out}", "there is no patch absent.safetensors"),
    ("apply {weights} --weights {weights} --out {out}", "no patch of suture"),
    ("apply evil.pt --weights {weights} --out {out}", "evil.pt is not readable as a patch"),
    ("apply {patch} --weights absent.pt --out {out}", "the weights file absent.pt does not exist"),
    ("apply {patch} --weights evil.pt --out {out}", "it was not run"),
    ("apply {patch} --weights missing.pt --out {out}", "this patch is for the weights with sha256"),
    ("apply {patch} --weights misshapen.pt --out {out}", "this patch is for the weights with sha256"),
    ("apply {patch} --weights {weights} --out {weights}", "exists; files are never changed in place"),
    ("apply {patch} --weights {weights} --out {out} --weight 1.5", "--weight must lie between 0"),
    ("apply {patch} --weights {weights} --out {out} --weight half", "Invalid value for '--weight'"),
    ("apply {patch} --weights {weights}", "'--out'"),
    ("apply {patch} --out {out}", "'--weights'"),
    ("apply", "PATCH"),
    ("revert absent.safetensors --weights {weights} --out {out}", "there is no patch absent.safetensors"),
    ("revert {patch} --weights absent.pt --out {out}", "does not exist"),
    ("revert {patch} --weights {weights} --out {weights}", "exists; files are never changed in place"),
    ("verify --patch {patch}", "--patch needs --model too"),
    ("verify --patch {patch} --model {model}", "--patch needs --data too"),
    ("verify --patch absent.safetensors --model {model} --data {data}", "there is no patch absent.safetensors"),
    ("verify --patch {patch} --model {model} --data {data}", "this patch is for the weights with sha256"),
    ("verify", "give a run directory, or --patch"),
    ("verify {run} --patch {patch}", "give a run directory, or --patch"),
]


@pytest.mark.parametrize(("line", "part"), PATCHES, ids=[line for line, _ in PATCHES])
def test_patches_that_cannot_be_used(
    suture: Suture, toy: Toy, finished_once: Path, nothing_happens: Path, line: str, part: str
) -> None:
    names = {
        "patch": finished_once / "treat" / "patch.safetensors", "weights": toy.weights, "model": toy.model,
        "data": toy.data, "run": finished_once, "out": nothing_happens,
    }  # fmt: skip
    before = digests(toy.folder)
    refused(suture(*(word.format(**names) for word in line.split())), part)
    assert digests(toy.folder) == before


def test_revert_without_the_undo_file(suture: Suture, toy: Toy, finished: Path) -> None:
    (finished / "treat" / "undo.safetensors").unlink()
    answer = suture(
        "revert", finished / "treat" / "patch.safetensors", "--weights", toy.weights, "--out", finished / "w.pt"
    )
    refused(answer, "there is no", "undo.safetensors", "give the undo file")
    assert not (finished / "w.pt").exists()


def test_revert_of_weights_that_were_changed_afterwards(suture: Suture, toy: Toy, finished: Path) -> None:
    patch = finished / "treat" / "patch.safetensors"
    repaired, changed, out = (finished.parent / f"{name}.safetensors" for name in ("repaired", "changed", "out"))
    assert suture("apply", patch, "--weights", toy.weights, "--out", repaired).code == 0
    state = load_file(repaired)
    save_file(state | {"last.bias": state["last.bias"] + 1}, changed)
    refused(suture("revert", patch, "--weights", changed, "--out", out), "changed after it")
    assert not out.exists()


def test_a_patch_with_code_in_it_is_never_run(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "patch.safetensors").write_bytes(pickle.dumps(Evil(tmp_path / "it-ran")))
    out = tmp_path / "out.safetensors"
    refused(suture("apply", tmp_path / "patch.safetensors", "--weights", toy.weights, "--out", out), "not readable")
    assert not (tmp_path / "it-ran").exists()


# Words


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["rnu"], ["No such command 'rnu'", "'run'", "suture --help"]),
        (["--models"], ["No such option", "suture --help"]),
        (["localize"], ["RUN", "suture localize --help"]),
        (["diagnose", "run", "again"], ["again", "suture diagnose --help"]),
        (["scan"], ["RUN", "suture scan --help"]),
        (["run"], ["'--model'", "suture run --help"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistyped_command_lines(suture: Suture, nothing_happens: Path, words: list[str], parts: list[str]) -> None:
    refused(suture(*words), *parts)


def test_scan_without_a_log(suture: Suture, finished: Path, bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bad)
    (finished / "scan" / "result.json").unlink()
    before = digests(finished)
    refused(suture("scan", finished), "has no finished scan", "--history")
    assert digests(finished) == before
    refused(suture("scan", "absent.csv"), "there is no training log absent.csv")
    refused(suture("scan", "log.csv", "--history", "log.csv"), "no run directory")


# The traceback


def test_a_traceback_only_with_debug(suture: Suture, toy: Toy, nothing_happens: Path) -> None:
    words = run_toy(toy, nothing_happens, {"--weights": "absent.pt"})
    plain, debugged = suture(*words), suture(*words, "--debug")
    assert "Traceback" not in plain.err
    assert "Traceback" in debugged.err
    assert "MissingFileError" in debugged.err
    assert (debugged.code, debugged.error) == (plain.code, plain.error)


def test_our_own_faults_say_so(suture: Suture, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture.cli.repair.check_require", lambda _: 1 / 0)
    answer = suture(*run_toy(toy, tmp_path / "run", {}))
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "a fault of suture's own, ZeroDivisionError" in answer.error
    assert "--debug" in answer.error
    assert "Traceback" in suture(*run_toy(toy, tmp_path / "run", {"--debug": None}), "--debug").err


def test_interrupted(suture: Suture, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("suture.cli.repair.check_require", interrupt)
    answer = suture(*run_toy(toy, tmp_path / "run", {}))
    assert (answer.code, answer.err) == (130, "interrupted; the same command continues where it stopped\n")


def test_as_a_process(toy: Toy, nothing_happens: Path) -> None:
    words = [str(word) for word in run_toy(toy, nothing_happens, {"--weights": "evil.pt"})]
    done = subprocess.run([sys.executable, "-m", "suture", *words], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "posix.system" in done.stderr
    assert not Path("it-ran").exists()


@pytest.mark.parametrize(
    "words", ["report RUN --out new.html", "apply PATCH --out new.pt", "apply PATCH --out new.safetensors"]
)
def test_no_room_for_what_is_written(toy: Toy, finished: Path, words: str) -> None:
    # No file of the process may grow past this, which the system says as it says that the disk is full.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))"
    patch = f"{finished / 'treat/patch.safetensors'} --weights {toy.weights}"
    typed = words.replace("RUN", str(finished)).replace("PATCH", patch).split()
    command = [sys.executable, "-c", f"{limit}; from suture.cli.app import main; main()", *typed]
    done = subprocess.run(command, cwd=finished.parent, capture_output=True, text=True, timeout=120)
    (said,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert said.startswith(f"error: {typed[-1]} cannot be written (")
    assert "File too large" in said
    assert list(finished.parent.iterdir()) == [finished]


def test_the_files_here_are_as_bad_as_they_look(bad: Path) -> None:
    with pytest.raises(Exception, match="weight"):
        toys.Net().load_state_dict(torch.load(bad / "misshapen.pt", weights_only=True))
    assert isinstance(toys.Net(), nn.Module)
    assert not (bad / "it-ran").exists()
    pickle.loads((bad / "evil.pt").read_bytes())
    assert (bad / "it-ran").exists()
    (bad / "it-ran").unlink()
