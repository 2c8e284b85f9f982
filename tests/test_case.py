"""Splits: disjoint by content, stratified, reproducible; and what a case refuses."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from suture.case import Case
from suture.errors import DataError, InvalidArgumentError, SplitOverlapError
from suture.moments import Moments
from suture.patch import base_sha256, canonical_state
from tests import toys


def test_one_data_set_is_split_and_the_seed_says_how() -> None:
    splits = toys.case().splits
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes == {"diagnose": 120, "repair": 180, "select": 60, "verify": 240}
    assert toys.case().splits["verify"].indices == splits["verify"].indices
    assert toys.case(seed=1).splits["verify"].indices != splits["verify"].indices
    for label in range(3):
        assert splits["select"].strata.count(label) == 20


def test_under_protocol_paper_verify_is_diagnose_and_repair_is_disjoint() -> None:
    splits = toys.case(protocol="paper").splits
    assert splits["verify"].indices == splits["diagnose"].indices
    assert len(splits["verify"]) == 360
    assert not set(splits["verify"].indices) & set(splits["repair"].indices + splits["select"].indices)


def test_the_model_given_is_copied() -> None:
    model = toys.network().train()
    before = copy.deepcopy(model.state_dict())
    case = Case(model, toys.data())
    with torch.no_grad():
        for p in case.model.parameters():
            p.zero_()
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_three_splits_given_by_hand() -> None:
    data = toys.data()
    case = Case(toys.network(), diagnose=data[:100], repair=data[100:300], verify=data[300:])
    assert {n: len(s) for n, s in case.splits.items()} == {
        "diagnose": 100, "repair": 150, "select": 50, "verify": 300,
    }  # fmt: skip
    as_dict = Case(toys.network(), {"diagnose": data[:100], "repair": data[100:300], "verify": data[300:]})
    assert as_dict.fingerprint == case.fingerprint


def test_an_example_in_two_splits_is_refused_whatever_its_label() -> None:
    data = toys.data()
    copied = (data[3][0].clone(), (data[3][1] + 1) % 3)
    said = r"1 inputs of 'verify' also stand in 'diagnose' \(1 with another label there\).*example 3"
    with pytest.raises(SplitOverlapError, match=said):
        Case(toys.network(), diagnose=data[:100], repair=data[100:300], verify=[*data[300:], copied])


def test_copies_inside_one_data_set_stay_on_one_side() -> None:
    data = toys.data()
    case = Case(toys.network(), [*data, *data[:200]])
    hashes = {name: set(split.hashes) for name, split in case.splits.items()}
    assert sum(map(len, hashes.values())) == len(set().union(*hashes.values())) == 600


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no data"),
        ({"data": []}, "is empty"),
        ({"data": 3}, "length and indexing"),
        ({"data": [torch.zeros(2)] * 4}, "not a pair"),
        ({"data": toys.data()[:1]}, "too few examples"),
        ({"data": toys.data(), "verify": toys.data()}, "not both"),
        ({"data": {"diagnose": toys.data(), "train": toys.data()}}, "no split 'train'"),
        ({"protocol": "paper", "diagnose": toys.data(), "verify": toys.data()}, "verify is diagnose"),
        ({"data": [(object(), 0)] * 4}, "cannot be compared"),
    ],
    ids=["nothing", "empty", "number", "singles", "few", "both", "name", "paper", "opaque"],
)
def test_unusable_data(options: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Case(toys.network(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"protocol": "papre"}, "papre"), ({"device": "tpu9"}, "tpu9"), ({"batch_size": 0}, "at least 1")],
    ids=["protocol", "device", "batch"],
)
def test_unusable_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        toys.case(**options)


def test_a_case_to_verify_a_patch_needs_nothing_else() -> None:
    case = Case(toys.network(), verify=toys.data())
    assert len(case.splits["verify"]) == 600
    with pytest.raises(DataError, match="'diagnose'"):
        case.splits["diagnose"]


HEALTHY = {"first": Moments(torch.zeros(1), torch.ones(1))}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"seed": 7}, ["seed", "data"]),
        ({"groups": "tensor"}, ["groups"]),
        ({"protocol": "paper"}, ["protocol", "data"]),
        ({"classes": ["a", "b", "c"]}, ["classes"]),
        ({"batch_size": 64}, ["batch size"]),
        ({"reference": toys.untrained()}, ["reference"]),
        ({"moments": HEALTHY}, ["moments"]),
        ({"friction": {"last.bias": torch.ones(3)}}, ["friction"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_fingerprint_changes_with_what_results_depend_on(change: dict[str, Any], parts: list[str]) -> None:
    changed, case = toys.case(**change), toys.case()
    assert changed.fingerprint != case.fingerprint
    assert [part for part, value in case.identity.items() if changed.identity[part] != value] == parts


def test_the_fingerprint_is_stable_and_knows_the_weights() -> None:
    assert toys.case().fingerprint == toys.case().fingerprint
    assert toys.case().weights_sha256 == base_sha256(canonical_state(toys.network()))
    assert Case(toys.untrained(), toys.data()).fingerprint != toys.case().fingerprint


def test_pictures_are_there_only_for_pictures(toy_case: Case) -> None:
    assert toy_case.pictures("diagnose", [0, 1]) is None
    pictures = [(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(i)), i % 2) for i in range(20)]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    drawn = Case(model, pictures).pictures("verify", [0, 2])
    assert drawn is not None
    assert drawn.shape == (2, 8, 8, 3)
    assert drawn.dtype == np.uint8


def test_an_output_without_a_name_is_not_taken_for_a_class_that_is_called_so() -> None:
    case = toys.case(classes=["2", "5", "7"])
    assert [case.class_name(label) for label in (0, 2, 5, -1)] == ["2", "7", "output 5", "output -1"]
    assert toys.case().class_name(5) == "5"


def test_classes_of_one_name_are_told_apart() -> None:
    case = toys.case(classes=["crane", "emu", "crane"])
    assert [case.class_name(label) for label in range(3)] == ["crane (0)", "emu", "crane (2)"]


def test_names_that_are_no_utf8_can_be_written_down() -> None:
    data = toys.data()

    class Named(list):  # type: ignore[type-arg]
        names = tuple(f"\udcff{i}" for i in range(len(data)))
        classes = ("a", "b", "\udcfe")

    case = Case(toys.network(), Named(data))
    assert case.splits["verify"].label(0).encode().startswith(b"?")
    assert case.class_name(2).encode() == b"?"
