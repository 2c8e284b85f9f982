"""``suture report PATCH`` from outside, and what a composed and a scaled patch do there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from suture.patch import base_sha256, between, compose, load_patch, scaled
from suture.weights import load_checkpoint
from tests import toys
from tests.cli.conftest import Suture, Toy
from tests.cli.test_bad_input import refused
from tests.cli.test_verbs import equal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A patch for the toy's weights and its undo, without a run around them."""
    before = dict(toys.trained())
    patch, undo = between(before, before | {"last.bias": before["last.bias"] + 1}, "mine")
    replace(patch, metrics={"fixed": 12, "broken": 3}).save(tmp_path / "patch.safetensors")
    undo.save(tmp_path / "undo.safetensors")
    return tmp_path


@pytest.mark.parametrize(("form", "begins"), [("html", "<!doctype html>"), ("md", "# patch"), ("json", "{")])
def test_a_patch_in_each_format(suture: Suture, folder: Path, form: str, begins: str) -> None:
    answer = suture("report", folder / "patch.safetensors", "--format", form)
    assert (answer.code, answer.err) == (0, "")
    path = folder / f"patch.report.{form}"
    assert answer.out.splitlines()[-1] == str(path)
    assert path.read_text().lower().startswith(begins)
    for word in ("plan: mine", load_patch(folder / "patch.safetensors").base, "fixed", "12", "last"):
        assert word in answer.out


def test_a_patch_of_a_run(suture: Suture, finished: Path, tmp_path: Path) -> None:
    patch = finished / "treat" / "patch.safetensors"
    answer = suture("report", patch, "--format", "json", "--out", tmp_path / "deep" / "x.json")
    assert (answer.code, answer.err) == (0, "")
    data = json.loads((tmp_path / "deep" / "x.json").read_text())
    assert data["base_sha256"] == base_sha256(toys.trained())
    assert data["by_tensor"].keys() == load_file(patch).keys()
    assert 0 < data["change"] < 10
    back = suture("report", patch.with_name("undo.safetensors"), "--out", tmp_path / "undo.html")
    assert "undo: leads back from a repair" in back.out


def test_what_is_no_patch(suture: Suture, toy: Toy, folder: Path) -> None:
    before = set(folder.iterdir())
    (folder / "text.safetensors").write_text("hello")
    save_file({"w": torch.zeros(1)}, folder / "half.safetensors", metadata={"base_sha256": "a" * 64, "metrics": "{"})
    refused(suture("report", folder / "absent.safetensors"), "there is no patch")
    refused(suture("report", folder / "text.safetensors"), "not readable as a patch")
    refused(suture("report", folder / "half.safetensors"), "damaged patch: metrics are no JSON")
    refused(suture("report", toy.weights), "no patch of suture: it does not say which weights it is for")
    refused(suture("report", toy.log), "history.csv is no patch", "give a run directory")
    refused(suture("report", folder / "patch.safetensors", "--format", "pdf"), "--format takes html, md, json")
    refused(
        suture("report", folder / "patch.safetensors", "--out", folder / "undo.safetensors"),
        "named like weights or a patch",
    )
    assert {path.name for path in set(folder.iterdir()) - before} == {"text.safetensors", "half.safetensors"}


def test_a_stranger_cannot_steer_the_terminal(suture: Suture, tmp_path: Path) -> None:
    words = {"base_sha256": "a" * 64, "plan": "\x1b[2J[red]plan[/red]", "metrics": '{"\\u001b[1m[b]m[/b]": 1}'}
    save_file({"\x1b[31m[bold]t[/bold].w": torch.zeros(1)}, tmp_path / "p.safetensors", metadata=words)
    answer = suture("report", tmp_path / "p.safetensors")
    assert answer.code == 0
    assert "\x1b" not in answer.out
    for word in ("[red]plan[/red]", "[b]m[/b]", "[bold]t[/bold]"):
        assert word in answer.out


def test_apply_takes_composed_and_scaled_patches(suture: Suture, toy: Toy, folder: Path) -> None:
    start = load_checkpoint(toy.weights).state
    first = load_patch(folder / "patch.safetensors")
    middle = {**start, **first.tensors}
    second, second_undo = between(middle, {**middle, "first.bias": middle["first.bias"] * 2}, "more")
    compose(first, second).save(folder / "both.safetensors")
    compose(second_undo, load_patch(folder / "undo.safetensors")).save(folder / "back.safetensors")
    assert suture("apply", folder / "both.safetensors", "--weights", toy.weights, "--out", folder / "w2.pt").code == 0
    assert equal(load_checkpoint(folder / "w2.pt").state, {**middle, **second.tensors})
    words = ("--weights", folder / "w2.pt", "--out", folder / "w0.safetensors")
    assert suture("revert", folder / "back.safetensors", *words).code == 0
    assert equal(load_file(folder / "w0.safetensors"), load_file(toy.weights))
    scaled(start, first, 0.25).save(folder / "quarter.safetensors")
    for name, patch, more in (("a", "quarter", ()), ("b", "patch", ("--weight", "0.25"))):
        words = ("--weights", toy.weights, "--out", folder / f"{name}.safetensors")
        assert suture("apply", folder / f"{patch}.safetensors", *words, *more).code == 0
    assert equal(load_file(folder / "a.safetensors"), load_file(folder / "b.safetensors"))


def test_apply_refuses_a_patch_of_other_weights_and_says_what_to_do(suture: Suture, folder: Path) -> None:
    save_file(dict(toys.untrained().state_dict()), folder / "other.safetensors")
    words = ("--weights", folder / "other.safetensors", "--out", folder / "new.safetensors")
    refused(suture("apply", folder / "patch.safetensors", *words), "give the weights it was made for")
    assert not (folder / "new.safetensors").exists()
