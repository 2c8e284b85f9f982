"""Diagnose on cases whose confusions have a known group and a known cause."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import suture
from suture.case import Case
from suture.errors import InvalidArgumentError, RunError
from suture.images import ImageFormat
from suture.stages import diagnose as stage
from suture.stages.diagnose import MOST_SUSPECTS, SUSPECT, Diagnosis
from suture.tasks import Classification
from suture.views.page import report
from tests import toys
from tests.causes import scenes
from tests.views.results import write_run


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


def older(found: Diagnosis, path: Path, **changes: Any) -> Path:
    """What a suture of schema 1 wrote of the same: no intervals, causes, slices, suspects; exemplars by title."""
    found.save(path)
    now = json.loads((path / "result.json").read_text())
    pairs = found.pairs[["true", "predicted", "count", "share", "group", "score", "null", "ratio"]]
    confusion = found.confusion[["true", "predicted", "count", "share"]]
    then = {
        "stage": "diagnose",
        "schema": 1,
        "key": "k",
        "n_errors": now["n_errors"],
        "exemplars": {"blue → red": [7, 3]},
    }
    for name, table in (("pairs", pairs), ("confusion", confusion)):
        then[name] = {"columns": list(table.columns), "rows": table.to_numpy(object).tolist()}
    (path / "result.json").write_text(json.dumps(then | changes))
    return path


def test_what_an_older_suture_wrote_is_read_in_the_terms_of_today(
    coloured: tuple[Case, Diagnosis], tmp_path: Path
) -> None:
    found = Diagnosis.load(older(coloured[1], tmp_path / "diagnose"))
    assert found.exemplars[["true", "predicted", "kind", "position"]].to_numpy().tolist() == [
        ["blue", "red", "extreme", 7], ["blue", "red", "extreme", 3],
    ]  # fmt: skip
    assert found.exemplars["margin"].isna().all()
    assert "an older suture" in found.why_no_slices
    assert (found.pictures["blue → red"] == coloured[1].pictures["blue → red"]).all()
    assert "none stands out" in found._repr_html_()
    assert found.table() is not None
    write_run(tmp_path, case={})
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "blue" in page
    assert "No slices: an older suture" in page


@pytest.mark.parametrize("exemplars", [[1], {"blue → green": [1]}], ids=["a list", "a pair that is no error"])
def test_what_cannot_be_read_is_said_to_be_older(
    coloured: tuple[Case, Diagnosis], tmp_path: Path, exemplars: Any
) -> None:
    with pytest.raises(RunError, match=r"an older suture wrote it.*--redo diagnose"):
        Diagnosis.load(older(coloured[1], tmp_path, exemplars=exemplars))


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
    assert "no errors on 'diagnose'" in found.why_no_slices


SIDE, CLASSES = 8, ["low", "high"]
needs_cleanlab = pytest.mark.skipif(find_spec("cleanlab") is None, reason="suspects need cleanlab, the extra 'labels'")


class Dim(nn.Module):
    """Tells top from bottom light, unless the picture is dark: then it always says 1."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 12.0]]))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        light = x.mean((1, 2, 3))
        lower = x[:, 0, SIDE // 2 :].mean((1, 2)) - x[:, 0, : SIDE // 2].mean((1, 2))
        return self.head(torch.stack([-20 * lower, (light < 0.25).float()], dim=1))


class Lights(list[tuple[Tensor, int]]):
    """Pictures lit from below (class 1) or above; a quarter is dark, and every twentieth label is wrong."""

    def __init__(self, n: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        labels, dark = torch.randint(0, 2, (n,), generator=g), torch.rand(n, generator=g) < 0.25
        pictures = 0.5 + 0.05 * torch.randn(n, 1, SIDE, SIDE, generator=g)
        sign = (2 * labels - 1).float()[:, None, None, None] * 0.1
        pictures[:, :, SIDE // 2 :] += sign
        pictures[:, :, : SIDE // 2] -= sign
        pictures = torch.where(dark[:, None, None, None], pictures * 0.3, pictures).clamp(0, 1)
        self.flipped = [i for i in range(0, n, 20) if not dark[i]]
        super().__init__(
            (p, 1 - int(y) if i in self.flipped else int(y))
            for i, (p, y) in enumerate(zip(pictures, labels, strict=True))
        )
        self.metadata = {"light": ["dark" if each else "bright" for each in dark]}
        self.names = [f"{seed}/{i}.png" for i in range(n)]
        self.classes = CLASSES


def lit(**splits: Any) -> Case:
    return Case(Dim(), device="cpu", image=ImageFormat((0.0,), (1.0,)), **splits)


@pytest.fixture(scope="module")
def dim() -> tuple[Case, Diagnosis]:
    case = lit(diagnose=Lights(400, 1), repair=Lights(200, 2), verify=Lights(60, 3))
    return case, suture.diagnose(case, suture.localize(case, ["grad_norm"], rule="above_median"), causes=1)


def test_a_slice_with_what_sets_it_apart_and_what_helps_it(dim: tuple[Case, Diagnosis]) -> None:
    found = dim[1]
    assert not found.why_no_slices
    first = found.slices.iloc[0]
    assert first["rate"] > 0.8 > 0.2 > first["rate_outside"]
    assert first["classes"].startswith("low → high")
    traits = found.slice_traits[found.slice_traits["slice"] == first["slice"]]
    assert traits["value"].tolist() == ["dark"]
    probes = found.slice_probes
    assert 0 < len(probes) <= 3
    assert set(probes["slice"]) == {first["slice"]}
    assert (probes["change"] < 0).all()
    assert probes["change"].is_monotonic_increasing
    dark = found.pictures[first["slice"]]
    assert dark.shape[1:] == (SIDE, SIDE, 1)
    assert dark.mean() < 0.25 * 255


def test_a_value_of_the_metadata_under_which_more_is_wrong(dim: tuple[Case, Diagnosis]) -> None:
    case, found = dim
    assert found.values_tested == 2
    (row,) = found.subgroups.to_dict("records")
    dark = np.array(case.splits["diagnose"].metadata["light"]) == "dark"
    assert (row["column"], row["value"], row["n"]) == ("light", "dark", dark.sum())
    assert row["errors"] + row["rate_outside"] * (~dark).sum() == pytest.approx(found.n_errors)
    assert row["low"] < row["rate"] < row["high"]
    bare = [(inputs, target) for inputs, target in Lights(60, 1)]
    none = suture.diagnose(alone := lit(diagnose=bare), suture.localize(alone, ["grad_norm"]), causes=0)
    assert (len(none.subgroups), none.values_tested) == (0, 0)


@needs_cleanlab
def test_labels_that_are_probably_wrong(dim: tuple[Case, Diagnosis]) -> None:
    case, found = dim
    assert list(found.n_suspects) == ["diagnose", "repair", "select"]
    assert list(found.suspects.columns) == SUSPECT
    assert 0 < len(found.suspects) == sum(found.n_suspects.values()) <= MOST_SUSPECTS
    assert found.suspects["confidence"].is_monotonic_increasing
    assert (found.suspects["suggested_confidence"] > found.suspects["confidence"]).all()
    assert found.n_judged == {name: len(case.splits[name]) for name in found.n_suspects}
    for row in found.suspects.to_dict("records"):
        split = case.splits[row["split"]]
        assert row["name"] == split.label(row["position"])
        assert row["label"] == CLASSES[split.strata[row["position"]]] != row["suggested"]
    flipped = {f"1/{i}.png" for i in Lights(400, 1).flipped}
    assert flipped <= set(found.suspects["name"])
    assert found.pictures["suspects"].shape == (min(12, len(found.suspects)), SIDE, SIDE, 1)
    assert not found.why_no_suspects


def test_slices_and_suspects_are_read_as_they_were_written(dim: tuple[Case, Diagnosis], tmp_path: Path) -> None:
    dim[1].save(tmp_path)
    again = Diagnosis.load(tmp_path)
    assert again.to_dict() == dim[1].to_dict()
    assert set(again.pictures) == set(dim[1].pictures)
    assert again._repr_html_() == dim[1]._repr_html_()


@needs_cleanlab
def test_a_case_without_repair_has_slices_and_the_suspects_of_diagnose() -> None:
    case = lit(diagnose=Lights(400, 1), verify=Lights(60, 3))
    found = suture.diagnose(case, suture.localize(case, ["grad_norm"], rule="above_median"), causes=0)
    assert len(found.slices)
    assert found.slice_probes.empty
    assert list(found.n_suspects) == ["diagnose"]


@needs_cleanlab
def test_only_so_many_suspects_are_kept(dim: tuple[Case, Diagnosis], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST_SUSPECTS", 5)
    suspected, pictures = stage._suspected(dim[0])
    assert suspected["suspects"]["name"].tolist() == dim[1].suspects["name"].head(5).tolist()
    assert suspected["n_suspects"] == dim[1].n_suspects
    assert len(pictures["suspects"]) == 5


def test_suspects_of_two_sizes_have_no_pictures() -> None:
    grown = [(torch.nn.functional.pad(x, (0, 2)), y) for x, y in Lights(200, 2)]
    case = lit(diagnose=Lights(200, 1), repair=grown)
    rows = pd.DataFrame({"split": ["diagnose", "repair"], "position": [0, 0]})
    assert stage._drawn(case, rows) == {}
    assert list(stage._drawn(case, rows.head(1))) == ["suspects"]
    assert stage._drawn(case, rows.head(0)) == {}


def test_without_cleanlab_it_says_so(dim: tuple[Case, Diagnosis], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    suspected, pictures = stage._suspected(dim[0])
    assert "pip install 'suture[labels]'" in suspected["why_no_suspects"]
    assert suspected["suspects"].empty
    assert suspected["n_suspects"] == pictures == {}


@pytest.mark.filterwarnings("ignore:no rule for GRU")
def test_a_task_without_predictions_has_reasons_and_no_labels_to_judge() -> None:
    case = toys.sequence_case()
    found = suture.diagnose(case, suture.localize(case, ["grad_norm"], rule="above_median"))
    assert found.pairs.empty
    assert found.suspects.empty
    assert found.why_no_suspects
    assert found.why_no_slices or len(found.slices)
    assert found._repr_html_()


def test_features_that_are_not_finite_give_no_slices_and_a_reason() -> None:
    class Odd(Classification):
        def features(self, model: nn.Module, batch: Any) -> Tensor:
            return torch.full((len(batch[0]), 2), float("nan"))

    case = toys.case(task=Odd())
    found = suture.diagnose(case, suture.localize(case, ["grad_norm"], rule="above_median"))
    assert "NaN or infinite" in found.why_no_slices
    assert len(found.pairs)


def test_the_stage_loads_no_scikit_learn_before_slices_are_asked_for() -> None:
    code = "import sys, suture.stages.diagnose; assert not {'sklearn', 'cleanlab'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
