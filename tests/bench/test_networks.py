"""Networks of the bench: they have learnt something, and no example stands in two pools."""

import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from suture.bench import networks
from suture.bench.architectures import Plain, Residual
from suture.bench.examples import Pairs
from suture.bench.networks import FEW, NETWORKS, Subject, load_subject
from suture.errors import DataError, InvalidArgumentError, MissingFileError, UnknownNameError
from suture.groups import resolve
from suture.patch import base_sha256, canonical_state
from suture.splits import content_hash
from suture.studies.cells import load_function
from suture.studies.definitions import load_study
from suture.studies.grid import expand
from tests.conftest import ROOT

ARCHITECTURES = {
    "digits": networks.digits_network,
    "digits-plain": lambda: Plain(8, (8, 16, 32), 16, 32, 1),
    "resnet20": lambda: Residual((16, 32, 64), 3, 3),
    "resnet44": lambda: Residual((16, 32, 64), 7, 3),
    "plain": lambda: Plain(24, (32, 64, 128), 32, 128, 3),
}


def accuracy(model: nn.Module, pairs: Pairs) -> float:
    with torch.no_grad():
        return float((model(pairs.inputs).argmax(1) == pairs.targets).float().mean())


@pytest.mark.parametrize("name", ["digits", "digits-plain"])
def test_digits_are_learnt(name: str) -> None:
    subject = load_subject(name)
    assert accuracy(subject.model, subject.held_out) > 0.95
    assert not subject.model.training
    assert load_subject(name) is subject
    norms = [m for m in subject.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(norms) == (name == "digits")


def test_training_is_the_same_each_time() -> None:
    lessons, _ = networks.all_digits()
    few = Pairs(*lessons.read_batch(range(128)))
    first, second, other = (
        base_sha256(canonical_state(networks.taught(networks.digits_network, few, epochs=2, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert first == second != other


def test_no_example_stands_in_two_pools_nor_was_learnt_from() -> None:
    subject = load_subject("digits")
    hashes = {name: [content_hash(x) for x in pool.inputs] for name, pool in subject.pools(3).items()}
    assert {name: len(found) for name, found in hashes.items()} == FEW
    every = [one for found in hashes.values() for one in found] + [content_hash(x) for x in subject.trained_on.inputs]
    assert len(set(every)) == len(every)


def test_pools_follow_the_seed() -> None:
    subject = load_subject("digits")
    first, again, other = (subject.pools(seed) for seed in (3, 3, 4))
    for name in FEW:
        assert torch.equal(first[name].inputs, again[name].inputs)
        assert torch.equal(first[name].targets, again[name].targets)
        assert not torch.equal(first[name].inputs, other[name].inputs)


def test_too_few_examples_are_said() -> None:
    pairs = Pairs(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long))
    subject = Subject("small", nn.Identity(), pairs, pairs, networks.DIGITS)
    with pytest.raises(DataError, match="'small' has 5 held-out examples; it takes 2650"):
        subject.pools(0)


@pytest.mark.parametrize("name", ["resnet20", "resnet44", "plain"])
@pytest.mark.parametrize("data", ["", "nowhere"])
def test_a_missing_folder_is_one_sentence(name: str, data: str) -> None:
    with pytest.raises(MissingFileError, match=rf"the network '{name}' needs .*; pass as `data` the folder that has"):
        load_subject(name, data)


def test_a_misspelt_network_is_said() -> None:
    with pytest.raises(UnknownNameError, match="no network of the bench is called 'resnet-20'; did you mean"):
        load_subject("resnet-20")


def test_the_pretrained_network_is_that_of_the_example(shared: Path, cifar_model: nn.Module) -> None:
    subject = load_subject("resnet20", str(shared))
    some = Pairs(*subject.held_out.read_batch(range(0, 4949, 25)))
    assert accuracy(subject.model, some) > 0.7
    with torch.no_grad():
        assert torch.allclose(subject.model(some.inputs), cifar_model(some.inputs), atol=1e-4)
    assert len(subject.trained_on) == 1000


def test_the_deeper_checkpoint_fits_too(shared: Path) -> None:
    spec = importlib.util.spec_from_file_location("cifar_resnet", ROOT / "examples/cifar_resnet/model.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    own = {name: tuple(t.shape) for name, t in ARCHITECTURES["resnet44"]().state_dict().items()}
    assert own == {name: tuple(t.shape) for name, t in example.resnet44().state_dict().items()}


# --- the network that is trained here --------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data with a few random pictures in ten classes."""
    generator = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for file in (networks.TRAIN, networks.TEST):
        with zipfile.ZipFile(tmp_path / file, "w") as archive:
            for i in range(40):
                content = io.BytesIO()
                Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(content, "PNG")
                archive.writestr(f"images/class{i % 10}/{i}.png", content.getvalue())
    monkeypatch.setattr(networks, "LESSONS", 32)
    return tmp_path


def test_the_plain_network_is_trained_once_and_kept(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = NETWORKS["plain"]
    source = networks.Source(str(pictures), cache=pictures / "networks")
    first = build(source)
    monkeypatch.setattr(networks, "taught", lambda *args, **options: pytest.fail("trained again"))
    second = build(source)
    assert base_sha256(canonical_state(first.model)) == base_sha256(canonical_state(second.model))
    kept = source.cache / "plain.safetensors"
    assert not list(source.cache.glob("plain/*"))  # no checkpoint is left
    given = build(networks.Source(str(pictures), weights=str(kept)))
    assert base_sha256(canonical_state(given.model)) == base_sha256(canonical_state(first.model))
    assert (len(first.trained_on), len(first.held_out)) == (40, 40)
    assert sorted(first.held_out.targets.tolist()) == sorted(4 * list(range(10)))
    with pytest.raises(InvalidArgumentError, match="pass its weights"):
        build(networks.Source(str(pictures)))


def test_what_is_no_zip_is_said(pictures: Path) -> None:
    (pictures / networks.TEST).write_text("no zip")
    with pytest.raises(DataError, match="is no zip of pictures"):
        NETWORKS["plain"](networks.Source(str(pictures), cache=pictures / "networks"))


# --- the catalog -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bench/localize", "bench/natural", "bench/twins"])
def test_every_preset_of_the_catalog_calls_its_cell_rightly(name: str) -> None:
    study = load_study(name).study
    for preset in (None, *study.presets):
        for cell in expand(study, preset):
            assert callable(load_function(study.cell, list(cell.parameters)))


@pytest.mark.parametrize("preset", [None, *load_study("bench/localize").study.presets])
def test_the_catalog_names_every_group_of_each_network_and_no_other(preset: str | None) -> None:
    cells = [cell.point for cell in expand(load_study("bench/localize").study, preset)]
    for network in {point["network"] for point in cells}:
        groups = {p["group"] for p in cells if p["network"] == network and p["kind"] != "healthy"}
        assert groups == set(resolve(ARCHITECTURES[network](), "top"))
        assert any(p["kind"] == "healthy" for p in cells if p["network"] == network)
