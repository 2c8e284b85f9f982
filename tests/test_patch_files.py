"""Patch files from strangers: bounded, checked word by word; and what an inspection says of them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from suture.errors import BaseMismatchError, DataError, InvalidArgumentError, MissingFileError
from suture.patch import PATCH, UNDO, Patch, apply, between, inspect, load_patch
from suture.patch.file import MOST_HEADER, MOST_METRICS, MOST_WORDS
from suture.patch.inspection import group_names, in_order

A, B = "a" * 64, "b" * 64


def written(path: Path, tensors: dict[str, Any] | None = None, **words: str) -> Path:
    """A file as anybody can write it."""
    save_file({"w": torch.zeros(2)} if tensors is None else tensors, path, metadata={"base_sha256": A} | words)
    return path


# metrics


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.floats(-1e300, 1e300)))
def test_metrics_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, float]) -> None:
    path = tmp_path_factory.mktemp("patch") / "p.safetensors"
    Patch({"w": torch.ones(2)}, A, B, metrics=metrics).save(path)
    assert load_patch(path).metrics == metrics


def test_a_patch_without_metrics_has_none(tmp_path: Path) -> None:
    assert Patch({}, A, B).metrics == {}
    assert load_patch(written(tmp_path / "old.safetensors")).metrics == {}


def test_numbers_of_other_libraries_are_metrics_too(tmp_path: Path) -> None:
    metrics: Any = {"fixed": np.int64(3), "share": np.float32(0.5), "net": torch.tensor(2)}
    Patch({}, A, B, metrics=metrics).save(tmp_path / "p.safetensors")
    assert load_patch(tmp_path / "p.safetensors").metrics == {"fixed": 3, "share": 0.5, "net": 2}


@pytest.mark.parametrize(
    "metrics",
    [
        {"x": math.nan}, {"x": math.inf}, {"x": True}, {"x": "3"}, {"x": None}, {"x": [1]}, {"x": {"y": 1}},
        {"x": 10**400}, {str(i): 0 for i in range(MOST_METRICS + 1)}, {"n" * MOST_WORDS: 0}, {"x": object()},
    ],
    ids=["nan", "inf", "bool", "text", "none", "list", "dict", "huge", "many", "long", "object"],
)  # fmt: skip
def test_metrics_that_are_no_numbers_are_not_written(tmp_path: Path, metrics: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"the patch cannot be written: .*(metric|JSON|float)"):
        Patch({}, A, B, metrics=metrics).save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "metrics are no JSON"),
        ("[1]", "metrics are no JSON object"),
        ("3", "metrics are no JSON object"),
        ("[" * 9_000, "metrics are no JSON"),
        ('{"x": NaN}', "metric 'x' is no finite number"),
        ('{"x": 1e999}', "metric 'x' is no finite number"),
        ('{"x": 1' + "0" * 400 + "}", "metric 'x' is no finite number"),
        ('{"x": 1' + "0" * 5_000 + "}", "metrics are no JSON"),
        ('{"x": true}', "metric 'x' is no finite number"),
        ('{"\\u001b[31m": "red"}', r"metric '\\x1b\[31m' is no finite number"),
        (json.dumps({str(i): 0 for i in range(MOST_METRICS + 1)}), "201 metrics"),
        (json.dumps({"x" * MOST_WORDS: 0}), "metrics takes 10007 characters"),
    ],
)
def test_junk_for_metrics_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        load_patch(written(tmp_path / "p.safetensors", metrics=text))


# the other words


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"base_sha256": "[bold]no[/]"}, "base_sha256 is no sha256"),
        ({"base_sha256": ""}, "base_sha256 is no sha256"),
        ({"base_sha256": A + "\n"}, "base_sha256 is no sha256"),
        ({"result_sha256": "\x1b[31m" + A}, "result_sha256 is no sha256"),
        ({"aliases": '["h"]'}, "aliases are no JSON object"),
        ({"aliases": '{"h": ["w"]}'}, "aliases are no names by name"),
        ({"aliases": '{"w": "v"}'}, "'w' is changed and also said to stand for another"),
        ({"plan": "p" * (MOST_WORDS + 1)}, "plan takes 10001 characters"),
        ({"suture_version": "1" * (MOST_WORDS + 1)}, "suture_version takes"),
    ],
)
def test_words_that_make_no_sense_are_refused(tmp_path: Path, words: dict[str, str], why: str) -> None:
    with pytest.raises(DataError, match=f"is a damaged patch: .*{why}.*fetch it again"):
        load_patch(written(tmp_path / "p.safetensors", **words))


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "p.safetensors", junk="x" * (MOST_HEADER + 1))
    opened: list[object] = []
    monkeypatch.setattr("suture.patch.file.safetensors.safe_open", lambda *args, **_: opened.append(args))
    with pytest.raises(DataError, match=f"at most {MOST_HEADER} are read"):
        load_patch(path)
    assert not opened


@given(st.binary(max_size=200))
def test_any_bytes_are_one_sentence(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "p.safetensors"
    for content in (junk, len(junk).to_bytes(8, "little") + junk):
        path.write_bytes(content)
        with pytest.raises(DataError):
            load_patch(path)


def test_a_file_that_breaks_off(tmp_path: Path) -> None:
    path = written(tmp_path / "p.safetensors")
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match="not readable as a patch"):
            load_patch(path)


def test_names_in_errors_cannot_steer_a_terminal(tmp_path: Path) -> None:
    name = "\x1b[2J\u202e" + "n" * 500
    patch = load_patch(written(tmp_path / "p.safetensors", {name: torch.zeros(2)}))
    with pytest.raises(BaseMismatchError) as error:
        apply({"w": torch.zeros(2)}, patch)
    assert r"'\x1b[2J\u202e" in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 200


def test_a_tied_copy_of_another_form_is_refused() -> None:
    before = {"w": torch.zeros(2)}
    patch, _ = between(before, {"w": torch.ones(2)}, aliases={"h": "w"})
    assert apply({**before, "h": torch.zeros(2)}, patch)[0]["h"].tolist() == [1, 1]
    with pytest.raises(BaseMismatchError, match=r"'h' as torch.float32 \(2,\), these weights as torch.float32 \(3,\)"):
        apply({**before, "h": torch.zeros(3)}, patch)


# inspection


def pair(folder: Path, before: dict[str, Any], after: dict[str, Any], **more: Any) -> tuple[Path, Path]:
    """Patch and undo beside each other."""
    patch, undo = between(before, after, "A")
    replace(patch, **more).save(folder / PATCH)
    undo.save(folder / UNDO)
    return folder / PATCH, folder / UNDO


BEFORE = {"l2.w": torch.tensor([3.0, 4.0]), "l10.w": torch.zeros(2), "l10.b": torch.ones(1), "l1.w": torch.ones(1)}
AFTER = BEFORE | {"l2.w": torch.tensor([3.0, 5.0]), "l10.w": torch.tensor([0.0, 2.0]), "l10.b": torch.zeros(1)}


def test_an_inspection_with_the_undo_beside_it(tmp_path: Path) -> None:
    path, undo = pair(tmp_path, BEFORE, AFTER, metrics={"fixed": 3})
    found = inspect(path)
    assert (found.file, found.note, found.patch.metrics) == (PATCH, "", {"fixed": 3})
    assert list(found.tensors.index) == ["l2.w", "l10.b", "l10.w"]
    assert found.tensors["changed"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(found.tensors["change"], [0.2, 1, math.inf])
    assert list(found.groups.index) == ["l2", "l10"]
    assert found.groups[["tensors", "parameters", "changed"]].to_numpy().tolist() == [[1, 2, 1], [2, 3, 2]]
    np.testing.assert_allclose(found.groups["change"], [0.2, 5**0.5])
    np.testing.assert_allclose(found.change, (6 / 26) ** 0.5)
    assert found.changed == 3
    back = inspect(undo)
    assert back.patch.undo
    np.testing.assert_allclose(back.tensors["norm_change"], found.tensors["norm_change"])


def test_an_inspection_of_a_patch_alone(tmp_path: Path) -> None:
    path, undo = pair(tmp_path, BEFORE, AFTER)
    undo.unlink()
    found = inspect(path)
    assert found.note == "There is no undo.safetensors beside it, so how far the values moved is not known."
    assert math.isnan(found.changed)
    assert math.isnan(found.change)
    assert found.groups["change"].isna().all()
    assert found.groups["parameters"].tolist() == [2, 3]
    undo.write_bytes(b"junk")
    assert "cannot be read" in inspect(path).note
    between(BEFORE, BEFORE | {"l2.w": torch.zeros(2)})[1].save(undo)
    assert "belongs to another patch" in inspect(path).note
    liar = replace(between(BEFORE, AFTER)[1], tensors={"l2.w": torch.zeros(7)})
    liar.save(undo)
    assert "belongs to another patch" in inspect(path).note


def test_an_empty_patch_and_odd_values(tmp_path: Path) -> None:
    path, _ = pair(tmp_path, BEFORE, BEFORE)
    found = inspect(path)
    assert (len(found.tensors), len(found.groups), found.changed, found.change) == (0, 0, 0, 0)
    odd = {
        "nan": torch.tensor([math.nan]), "none": torch.zeros(0), "int": torch.tensor([2]), "c": torch.tensor([1j]),
        "b": torch.tensor([True]), "f8": torch.ones(3).to(torch.float8_e4m3fn), "z": torch.tensor(-0.0),
    }  # fmt: skip
    was = {
        "nan": torch.tensor([1.0]), "none": torch.zeros(0), "int": torch.tensor([1]), "c": torch.tensor([1 + 0j]),
        "b": torch.tensor([False]), "f8": torch.zeros(3).to(torch.float8_e4m3fn), "z": torch.tensor(0.0),
    }  # fmt: skip
    found = inspect(pair(tmp_path, was, odd)[0])
    assert found.nonfinite == ["nan"]
    assert found.tensors["changed"].to_dict() == {"b": 1, "c": 1, "f8": 3, "int": 1, "nan": 1, "z": 1}
    assert found.tensors.loc["z", "change"] == 0
    assert math.isnan(found.tensors.loc["nan", "change"])  # type: ignore[arg-type]


def test_what_cannot_be_inspected(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no patch"):
        inspect(tmp_path / "absent.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="no patch of suture"):
        inspect(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["conv1.w", "layer1.0.w", "layer1.1.w"], ["conv1", "layer1", "layer1"]),
        (["layer4.0.w", "layer4.1.w", "layer4.1.b"], ["layer4.0", "layer4.1", "layer4.1"]),
        (["model.layers.5.q.w", "model.layers.6.q.w"], ["model.layers.5", "model.layers.6"]),
        (["model.norm.w", "model.layers.6.q.w"], ["model.norm", "model.layers"]),
        (["fc.weight", "fc.bias"], ["fc", "fc"]),
        (["scale"], ["scale"]),
        (["", ".", "a..b"], ["", "", "a"]),
        ([], []),
    ],
)
def test_groups_by_the_first_part_that_tells_tensors_apart(names: list[str], groups: list[str]) -> None:
    assert group_names(names) == groups


def test_names_are_sorted_as_a_reader_would() -> None:
    assert in_order(["l10", "l9", "l2.b", "l2.a"]) == ["l2.a", "l2.b", "l9", "l10"]
    assert in_order(["1" * 10_000, "²", "2"]) == ["2", "1" * 10_000, "²"]
