"""Diagnose on cases whose confusions have a known group and a known cause."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import suture
from suture.case import Case
from suture.errors import InvalidArgumentError, RunError
from suture.stages.diagnose import Diagnosis
from tests import toys
from tests.causes import scenes


@pytest.fixture(scope="module")
def coloured() -> tuple[Case, Diagnosis]:
    """Blue and red discs; ten red ones are called blue by their labels, and the network reads redness."""
    case, _ = scenes.case(*scenes.SCENES["colour"], seed=5, errors=10)
    named = Case(
        case.model, diagnose=[case.splits["diagnose"][i] for i in range(len(case.splits["diagnose"]))],
        image=scenes.FORMAT, classes=["blue", "red"], device="cpu",
    )  # fmt: skip
    found = suture.localize(named, ["grad_norm"], rule="above_median")
    return named, suture.diagnose(named, found)


def test_a_confusion_with_its_cause_and_its_pictures(coloured: tuple[Case, Diagnosis]) -> None:
    case, found = coloured
    assert found.n_errors == 10
    pair = found.pairs.iloc[0]
    assert (pair["true"], pair["predicted"], pair["count"]) == ("blue", "red", 10)
    assert found.causes.iloc[0]["family"] == "colour"
    assert set(found.probes["true"]) == {"blue"}
    assert found.through["group"].tolist() == list(case.groups)
    pictures, changed = found.pictures["blue → red"], found.changed["blue → red"]
    positions = found.exemplars["position"].tolist()
    assert len(pictures) == len(changed) == len(positions) == len(set(positions)) == 6
    assert (pictures == case.pictures("diagnose", positions)).all()
    assert (pictures != changed).any(axis=(1, 2, 3)).all()


def test_it_is_read_as_it_was_written(coloured: tuple[Case, Diagnosis], tmp_path: Path) -> None:
    _, found = coloured
    found.save(tmp_path)
    again = Diagnosis.load(tmp_path)
    assert again.to_dict() == found.to_dict()
    for name in ("pictures", "changed"):
        assert (getattr(again, name)["blue → red"] == getattr(found, name)["blue → red"]).all()


def test_what_an_older_suture_wrote_is_said_to_be_older(coloured: tuple[Case, Diagnosis], tmp_path: Path) -> None:
    coloured[1].save(tmp_path)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1, "exemplars": {"blue → red": [1]}}))
    with pytest.raises(RunError, match=r"an older suture wrote it.*--redo diagnose"):
        Diagnosis.load(tmp_path)


def test_causes_can_be_left_out(coloured: tuple[Case, Diagnosis]) -> None:
    case, _ = coloured
    found = suture.diagnose(case, suture.localize(case, ["grad_norm"], rule="above_median"), causes=0)
    assert found.causes.empty
    assert found.why_no_causes == "they were not asked for"
    assert len(found.pairs) == 1
    with pytest.raises(InvalidArgumentError, match="cannot be -1"):
        suture.diagnose(case, suture.localize(case, ["grad_norm"], rule="above_median"), causes=-1)


def test_inputs_that_are_no_pictures_have_pairs_and_say_why_they_have_no_causes() -> None:
    case = toys.case()
    found = suture.diagnose(case, suture.localize(case))
    assert found.pairs["count"].sum() <= found.n_errors
    assert found.confusion["expected"].notna().all()
    assert found.causes.empty
    assert found.why_no_causes


def test_a_network_without_errors_has_no_confusions() -> None:
    model = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(model.weight)
    examples = [(torch.eye(2)[i % 2] * (1 + i / 10), i % 2) for i in range(20)]
    case = Case(model, diagnose=examples, device="cpu")
    found = suture.diagnose(case, suture.localize(case, ["grad_norm"], rule="above_median"))
    assert found.n_errors == 0
    assert found.pairs.empty
    assert np.isclose(found.to_dict()["n_errors"], 0)
