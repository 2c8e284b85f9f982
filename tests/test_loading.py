"""The one door: other people's code by name, weights without code, data by name."""

import io
import os
import pickle
import shutil
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from suture.errors import (
    DataError,
    InvalidArgumentError,
    MissingFileError,
    SutureError,
    UnknownNameError,
    UnsafeFileError,
    WeightsMismatchError,
)
from suture.images import ImageFolder
from suture.loading import load_data, load_model, load_object, load_task, source_of
from suture.patch import same_bits
from suture.tasks import Classification
from suture.weights import load_checkpoint
from tests import pictures, toys, zoo

State = dict[str, Tensor]


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


def refused(kind: type[SutureError], do: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(kind) as caught:
        do()
    for part in parts:
        assert part in str(caught.value)


@pytest.fixture
def code(tmp_path: Path) -> Callable[[str], str]:
    """Writes a file of code; its path."""

    def write(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


# Code by name


def test_an_object_by_file_and_by_module(code: Callable[..., str]) -> None:
    assert load_object(code("answer = 42") + ":answer") == 42
    assert load_object("suture.errors:SutureError") is SutureError


def test_a_file_may_import_its_neighbours_then_and_later(code: Callable[..., str]) -> None:
    code("size = 3", "neighbour_one.py")
    code("size = 4", "neighbour_two.py")
    path = code(
        "import neighbour_one\nfrom torch import nn\n"
        "def net():\n    import neighbour_two\n    return nn.Linear(neighbour_one.size, neighbour_two.size)"
    )
    before = list(sys.path)
    network = load_model(f"{path}:net")
    assert tuple(network.weight.shape) == (4, 3)
    assert sys.path == before


def test_a_file_may_define_dataclasses(code: Callable[..., str]) -> None:
    path = code(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Config:\n    width: int = 3\nconfig = Config()"
    )
    assert load_object(f"{path}:config").width == 3


@pytest.mark.parametrize("spec", ["model.py", ":net", "model.py:", "", ":"])
def test_a_spec_that_names_nothing(spec: str) -> None:
    refused(InvalidArgumentError, lambda: load_object(spec), f"'{spec}' names no object", "FILE.py:NAME")


def test_a_file_is_executed_once_until_it_changes(code: Callable[..., str]) -> None:
    path = code("things = []\nthings.append(1)\n")
    first = load_object(f"{path}:things")
    assert load_object(f"{path}:things") is first == [1]
    code("things = [2]\n")
    assert load_object(f"{path}:things") == [2]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused(MissingFileError, lambda: load_object(f"{tmp_path}/absent.py:net"), f"no file {tmp_path}/absent.py")


def test_a_name_that_is_not_there(code: Callable[..., str]) -> None:
    path = code("import os\nwidth = 3\ndef resnet20(): ...\ndef vgg(): ...")
    refused(UnknownNameError, lambda: load_object(f"{path}:resnet2"), "has no 'resnet2'", "did you mean 'resnet20'?")
    refused(UnknownNameError, lambda: load_object(f"{path}:xyz"), "there are resnet20, vgg")
    refused(UnknownNameError, lambda: load_object("suture.errors:SutureEror"), "did you mean 'SutureError'?")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def net(:", "SyntaxError"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise RuntimeError('first\\nsecond')", "RuntimeError: first"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import argparse; argparse.ArgumentParser().parse_args(['--x'])", "SystemExit"),
    ],
    ids=["syntax", "import", "raises", "exits", "a script"],
)
def test_a_file_that_fails(code: Callable[..., str], text: str, part: str) -> None:
    path = code(text)
    refused(InvalidArgumentError, lambda: load_object(f"{path}:net"), f"importing {path} failed", part)


def test_a_module_that_is_not_installed() -> None:
    refused(InvalidArgumentError, lambda: load_object("no_such_package.models:net"), "importing no_such_package.models")


def test_the_source_of_a_file_follows_its_content(code: Callable[..., str]) -> None:
    path = code("x = 1")
    first = source_of(f"{path}:x")
    assert source_of(f"{path}:y") == first
    code("x = 2")
    assert source_of(f"{path}:x") != first
    assert source_of("torch.nn:Linear") == "torch.nn:Linear"


def test_the_source_of_a_file_includes_what_it_imports_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("width = 2")
    (tmp_path / "unrelated.py").write_text("width = 2")
    (tmp_path / "model.py").write_text("import beside_it\ndef net(): import later_on; return beside_it.width")
    (tmp_path / "later_on.py").write_text("")
    spec = f"{tmp_path / 'model.py'}:net"
    told = {}
    load_object(spec)
    told["first"] = source_of(spec)
    (tmp_path / "unrelated.py").write_text("width = 3")
    assert source_of(spec) == told["first"]
    (tmp_path / "beside_it.py").write_text("width = 3")
    told["beside"] = source_of(spec)
    refused(InvalidArgumentError, lambda: load_model(spec), "gave int")
    told["called"] = source_of(spec)
    (tmp_path / "later_on.py").write_text("x = 1")
    told["later"] = source_of(spec)
    assert len(set(told.values())) == 4


def test_the_source_of_a_module_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_module_of_mine.py").write_text("x = 1")
    load_object("a_module_of_mine:x")
    first = source_of("a_module_of_mine:x")
    (tmp_path / "a_module_of_mine.py").write_text("x = 2")
    assert source_of("a_module_of_mine:x") != first
    assert source_of("suture.demo:network") == "suture.demo:network"


# Models


def test_a_model_comes_in_eval_mode(code: Callable[..., str]) -> None:
    path = code("from torch import nn\ndef net(): return nn.Sequential(nn.Linear(2, 2), nn.Dropout())")
    assert not any(module.training for module in load_model(f"{path}:net").modules())


def test_a_model_may_be_a_class_a_function_or_a_module() -> None:
    ready = toys.Net()
    assert isinstance(load_model("tests.toys:Net"), nn.Module)
    assert isinstance(load_model(toys.Net), toys.Net)
    assert load_model(ready) is ready


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def net(): raise ValueError('no width')", "calling {path}:net failed: ValueError: no width"),
        ("def net(width): ...", "missing 1 required positional argument: 'width'"),
        ("def net(): import sys; sys.exit('bye')", "SystemExit: bye"),
        ("net = 3", "'int' object is not callable"),
        ("def net(): ...", "gave NoneType and no torch.nn.Module"),
        ("def net(): return {'weight': 1}", "gave dict and no torch.nn.Module"),
        ("from torch import nn\ndef net(): return nn.Linear", "gave type and no torch.nn.Module"),
    ],
    ids=["raises", "arguments", "exits", "number", "nothing", "a state", "a class"],
)
def test_a_function_that_gives_no_model(code: Callable[..., str], text: str, part: str) -> None:
    path = code(text)
    refused(InvalidArgumentError, lambda: load_model(f"{path}:net"), part.format(path=path))


# Weights: the wrappings that are undone


@pytest.fixture
def state() -> State:
    return {name: tensor.clone() for name, tensor in toys.trained().items()}


def _prefixed(state: State, prefix: str) -> State:
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "DataParallel": lambda s: _prefixed(s, "module."),
    "torch.compile": lambda s: _prefixed(s, "_orig_mod."),
    "compiled DataParallel": lambda s: _prefixed(s, "_orig_mod.module."),
    "Lightning": lambda s: {"state_dict": _prefixed(s, "model."), "epoch": 3, "hparams": {"lr": 0.1}},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best": 0.9},
    "model": lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": torch.tensor(1.0)},
    "net of model": lambda s: {"model": {"net": s}},
    "everything": lambda s: {"state_dict": _prefixed(s, "module._orig_mod.net.")},
    "parameters": lambda s: {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappers_are_undone_and_done_again(tmp_path: Path, state: State, wrapping: str) -> None:
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "w.pt")
    model = load_model(toys.Net, tmp_path / "w.pt")
    assert equal(model.state_dict(), state)
    checkpoint = load_checkpoint(tmp_path / "w.pt", names=set(state))
    assert equal(checkpoint.state, state)
    checkpoint.save(tmp_path / "again.pt", checkpoint.state)
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("w.pt", "again.pt"))
    assert _shape(first) == _shape(second)


def _shape(thing: Any) -> Any:
    """The same dicts and values, tensors by their bytes."""
    if isinstance(thing, dict):
        return {key: _shape(value) for key, value in thing.items()}
    return thing.detach().numpy().tobytes() if isinstance(thing, Tensor) else thing


def test_safetensors_keep_names_and_metadata(tmp_path: Path, state: State) -> None:
    save_file(_prefixed(state, "module."), tmp_path / "w.safetensors", metadata={"format": "pt", "by": "me"})
    checkpoint = load_checkpoint(tmp_path / "w.safetensors", names=set(state))
    assert equal(checkpoint.state, state)
    checkpoint.save(tmp_path / "again.safetensors", checkpoint.state)
    assert equal(load_file(tmp_path / "again.safetensors"), _prefixed(state, "module."))
    assert load_checkpoint(tmp_path / "again.safetensors").metadata == {"format": "pt", "by": "me"}


def test_a_torch_file_can_become_safetensors(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    checkpoint = load_checkpoint(tmp_path / "w.pt")
    checkpoint.save(tmp_path / "w.safetensors", checkpoint.state)
    assert equal(load_file(tmp_path / "w.safetensors"), state)


def test_a_prefix_that_belongs_to_the_model_stays(tmp_path: Path) -> None:
    model = nn.ModuleDict({"model": nn.Linear(2, 2)})
    torch.save(model.state_dict(), tmp_path / "w.pt")
    loaded = load_model(nn.ModuleDict({"model": nn.Linear(2, 2)}), tmp_path / "w.pt")
    assert equal(loaded.state_dict(), model.state_dict())


def test_content_counts_and_not_the_name(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "w.bin")
    assert equal(load_checkpoint(tmp_path / "w.bin").state, state)


def test_old_torch_files_are_read(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert equal(load_checkpoint(tmp_path / "w.pth").state, state)


def test_a_tied_tensor_may_be_in_the_file_once_under_either_name(tmp_path: Path) -> None:
    state = zoo.build("tied").state_dict()
    for absent in ("embed.weight", "head.weight"):
        torch.save({name: t for name, t in state.items() if name != absent}, tmp_path / "w.pt")
        torch.manual_seed(1)
        loaded = load_model(zoo.Tied, tmp_path / "w.pt")
        assert equal(loaded.state_dict(), state)


def test_files_from_before_batchnorm_counted_are_read(tmp_path: Path, state: State) -> None:
    torch.save({n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "w.pt")
    assert equal(
        load_model(toys.Net, tmp_path / "w.pt").state_dict()
        | {"norm.num_batches_tracked": state["norm.num_batches_tracked"]},
        state,
    )


def test_half_precision_is_read(tmp_path: Path, state: State) -> None:
    torch.save({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, tmp_path / "w.pt")
    loaded = load_model(toys.Net, tmp_path / "w.pt").state_dict()
    assert loaded["first.weight"].dtype == torch.float32
    torch.testing.assert_close(loaded["first.weight"], state["first.weight"], atol=1e-2, rtol=1e-2)


# Weights that do not fit


def _without(state: State, name: str) -> State:
    return {n: t for n, t in state.items() if n != name}


MISFITS: dict[str, tuple[Callable[[State], State], list[str]]] = {
    "missing": (lambda s: _without(s, "second.bias"), ["no tensor 'second.bias' in", "which has first, norm, second"]),
    "unexpected": (
        lambda s: s | {"layer4.weight": torch.zeros(1)},
        ["'layer4.weight'", "unknown to Net", "first, norm"],
    ),
    "misshapen": (
        lambda s: s | {"last.weight": torch.zeros(10, 16)},
        ["'last.weight' is float32 (10, 16) in", "and float32 (3, 16) in Net"],
    ),
    "integers": (lambda s: s | {"last.bias": torch.zeros(3, dtype=torch.int8)}, ["'last.bias' is int8 (3,)"]),
    "another architecture": (
        lambda s: {"conv1.weight": torch.zeros(3), "fc.weight": torch.zeros(3)},
        [
            "no tensor 'first.weight' (and 9 more)",
            "which has conv1, fc",
            "'conv1.weight' (and 1 more)",
            "really a Net?",
        ],
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path, state: State, misfit: str) -> None:
    change, parts = MISFITS[misfit]
    torch.save(change(state), tmp_path / "w.pt")
    model = toys.Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refused(WeightsMismatchError, lambda: load_model(model, tmp_path / "w.pt"), str(tmp_path / "w.pt"), *parts)
    assert equal(model.state_dict(), before)


# Files that are no weights, and files that are worse


class Evil:
    """Unpickling it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


def _hidden(data: dict[str, Any]) -> bytes:
    """A torch file, of which one pickle is not."""
    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


EVIL: dict[str, Callable[[Evil], bytes]] = {
    **{f"protocol {n}": (lambda evil, n=n: pickle.dumps(evil, protocol=n)) for n in range(6)},
    "beside tensors": lambda evil: pickle.dumps({"weight": [1.0, 2.0], "x": evil}),
    "zip": lambda evil: _hidden({"weight": torch.zeros(2), "x": evil}),
    "zip, state_dict": lambda evil: _hidden({"state_dict": {"weight": torch.zeros(2)}, "x": evil}),
}


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt", "safetensors"])
@pytest.mark.parametrize("kind", EVIL)
def test_code_in_weights_is_never_run(tmp_path: Path, kind: str, suffix: str) -> None:
    ran, path = tmp_path / "it-ran", tmp_path / f"w.{suffix}"
    path.write_bytes(EVIL[kind](Evil(ran)))
    with pytest.raises((UnsafeFileError, DataError)) as caught:
        load_checkpoint(path)
    assert not ran.exists()
    if suffix != "safetensors":
        assert isinstance(caught.value, UnsafeFileError)
        assert "asks for posix.system, which is code; it was not run" in str(caught.value)
    pickle.loads(EVIL["protocol 2"](Evil(ran)))
    assert ran.exists(), "the file was harmless, so the test shows nothing"


@pytest.mark.parametrize("kind", ["protocol 4", "zip"])
def test_a_pickle_called_safetensors_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(EVIL[kind](Evil(tmp_path / "it-ran")))
    refused(UnsafeFileError, lambda: load_checkpoint(path), str(path), "no safetensors file but a pickle")


def test_a_whole_model_is_refused_with_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    parts = ("torch.nn.modules.linear.Linear", "Save model.state_dict()")
    refused(UnsafeFileError, lambda: load_checkpoint(tmp_path / "w.pt"), *parts)


def test_a_pickled_state_dict_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps(nn.Linear(2, 2).state_dict()))
    refused(UnsafeFileError, lambda: load_checkpoint(tmp_path / "w.pt"), "Save model.state_dict() as safetensors")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("w/code/__torch__/net.py", "w/constants.pkl", "w/data.pkl", "w/version"):
            archive.writestr(name, b"...")
    refused(UnsafeFileError, lambda: load_checkpoint(tmp_path / "w.pt"), "TorchScript")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _safe() -> bytes:
    from safetensors.torch import save

    return save({"weight": torch.zeros(100)})


BROKEN_WEIGHTS: dict[str, tuple[str, bytes, str]] = {
    "empty torch file": ("w.pt", b"", "is empty"),
    "empty safetensors": ("w.safetensors", b"", "is empty"),
    "text": ("w.pt", b"hello\n", "is no weights file"),
    "text called safetensors": ("w.safetensors", b"hello, this is text\n", "not readable as safetensors"),
    "one byte": ("w.pt", b"\x80", "is no weights file"),
    "torch file cut short": ("w.pt", _cut(_hidden({"weight": torch.zeros(1000)})), "may be incomplete"),
    "safetensors cut short": ("w.safetensors", _cut(_safe()), "not readable as safetensors"),
    "endless header": ("w.safetensors", struct.pack("<Q", 2**60) + b"{}", "not readable as safetensors"),
    "a list": ("w.pt", _hidden([1, 2]), "holds no state_dict but list"),
    "a tensor": ("w.pt", _hidden(torch.zeros(2)), "holds no state_dict but Tensor"),
    "an empty dict": ("w.pt", _hidden({}), "holds no state_dict but nothing"),
    "no state": ("w.pt", _hidden({"epoch": 3, "optimizer": {}}), "holds no state_dict but epoch, optimizer"),
    "numbered": ("w.pt", _hidden({0: torch.zeros(2)}), "holds no state_dict but 0"),
    "a web page": ("w.safetensors", b"<!DOCTYPE html><html>404</html>", "not readable as safetensors"),
}


@pytest.mark.parametrize("kind", BROKEN_WEIGHTS)
def test_a_file_without_weights(tmp_path: Path, kind: str) -> None:
    name, content, part = BROKEN_WEIGHTS[kind]
    (tmp_path / name).write_bytes(content)
    refused(DataError, lambda: load_checkpoint(tmp_path / name), str(tmp_path / name), part)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    refused(MissingFileError, lambda: load_checkpoint(tmp_path / "w.pt"), f"{tmp_path}/w.pt does not exist")
    refused(MissingFileError, lambda: load_checkpoint(tmp_path), f"{tmp_path} is a folder")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 400])
def test_no_piece_of_a_file_passes_for_a_file(tmp_path: Path, size: int) -> None:
    for name, whole in (("w.safetensors", _safe()), ("w.pt", _hidden({"weight": torch.zeros(100)}))):
        (tmp_path / name).write_bytes(whole[:size])
        refused(SutureError, lambda name=name: load_checkpoint(tmp_path / name), name)


# Tasks


def test_a_task_by_name_by_file_and_as_it_is(code: Callable[..., str]) -> None:
    path = code("from suture.tasks import Classification\nclass Mine(Classification): ...")
    mine = Classification()
    assert isinstance(load_task("classification"), Classification)
    assert type(load_task(f"{path}:Mine")).__name__ == "Mine"
    assert load_task(mine) is mine


def test_tasks_that_are_none(code: Callable[..., str]) -> None:
    path = code("class Empty: ...\nclass Needy:\n    def __init__(self, x): ...")
    refused(UnknownNameError, lambda: load_task("clasification"), "no task is called", "did you mean 'classification'?")
    refused(InvalidArgumentError, lambda: load_task(f"{path}:Empty"), "is no task", "outputs, losses and verdicts")
    refused(InvalidArgumentError, lambda: load_task(f"{path}:Needy"), f"calling {path}:Needy failed: TypeError")


# Data


def test_data_from_a_folder_a_zip_and_a_function(tmp_path: Path, code: Callable[..., str]) -> None:
    content = pictures.files({"a": 2, "b": 1})
    folder, archive = pictures.folder(tmp_path / "data", content), pictures.archive(tmp_path / "data.zip", content)
    one, two = load_data(folder), load_data(str(archive))
    assert isinstance(one, ImageFolder)
    assert all(torch.equal(one[i][0], two[i][0]) and one[i][1] == two[i][1] for i in range(3))
    path = code("def load(): return [(1, 0)]\ndef splits(): return {'diagnose': [(1, 0)]}")
    assert load_data(f"{path}:load") == [(1, 0)]
    assert load_data(f"{path}:splits") == {"diagnose": [(1, 0)]}


def test_a_folder_with_a_colon_in_its_name_is_a_folder(tmp_path: Path) -> None:
    assert len(load_data(pictures.folder(tmp_path / "12:30", pictures.files({"a": 1, "b": 1})))) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_folder_of_one_class_is_read_with_a_warning(tmp_path: Path, count: int) -> None:
    folder = pictures.folder(tmp_path / "data", pictures.files({f"class {i}": 2 for i in range(count)}))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(load_data(folder)) == 2 * count
    texts = [f"{folder} has one class, 'class 0', and a network cannot be judged on one class"] * (2 - count)
    assert [str(each.message).split("; ")[0] for each in said] == texts


def test_what_is_left_out_of_a_folder_is_warned_about(tmp_path: Path) -> None:
    content = pictures.files({"a": 2, "b": 2}) | {"a/9.png": b"no picture", "b/9.heic": b"?"}
    folder = pictures.folder(tmp_path / "data", content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(load_data(folder, skip_bad=True)) == 4
    expected = ["1 picture left out that cannot be read", "1 file in class folders passed over"]
    assert [str(each.message).split(" (")[0] for each in said] == [f"{folder}: {text}" for text in expected]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def load(): raise OSError('disk')", "failed: OSError: disk"),
        ("def load(x): ...", "missing 1 required positional argument"),
        ("load = []", "'list' object is not callable"),
        ("def load(): ...", "gave nothing"),
    ],
    ids=["raises", "arguments", "a list", "nothing"],
)
def test_a_function_that_gives_no_data(code: Callable[..., str], text: str, part: str) -> None:
    path = code(text)
    refused(SutureError, lambda: load_data(f"{path}:load"), f"{path}:load", part)


def test_errors_of_ours_inside_a_strangers_function_stay_what_they_are(code: Callable[..., str]) -> None:
    path = code("from suture.errors import DataError\ndef load(): raise DataError('the table is empty')")
    refused(DataError, lambda: load_data(f"{path}:load"), "the table is empty")


def test_data_that_is_not_there(tmp_path: Path) -> None:
    refused(MissingFileError, lambda: load_data(tmp_path / "absent"), f"no data at {tmp_path}/absent")
    refused(SutureError, lambda: load_data(f"{tmp_path}/absent.py:load"), f"no file {tmp_path}/absent.py")


def test_what_is_loaded_is_left_as_it_was(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    shutil.copy(tmp_path / "w.pt", tmp_path / "copy.pt")
    model = load_model(toys.Net, tmp_path / "w.pt")
    model.first.weight.data.zero_()
    assert (tmp_path / "w.pt").read_bytes() == (tmp_path / "copy.pt").read_bytes()
