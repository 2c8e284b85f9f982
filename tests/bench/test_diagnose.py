"""Causes that are known: what is planted, what is counted, and what the study says of it."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from suture.bench import diagnose
from suture.bench.diagnose import CONTROLS, Setting, Shown, cell, draw_setting, summary
from suture.bench.scenes import FAMILIES, FORMAT, render
from suture.case import Case
from suture.causes.margins import Pair
from suture.errors import InvalidArgumentError
from suture.studies.cells import load_function
from suture.studies.definitions import load_study
from suture.studies.grid import expand
from suture.tasks import Outcomes

PLANTED = (*FAMILIES, *CONTROLS)


def shown(setting: Setting, *, conflict: bool, per_class: int = 12) -> Shown:
    return diagnose._examples(setting, per_class, conflict=conflict)


# --- what is planted -------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 10_000))
def test_conflict_is_in_one_feature_of_half_a_class(family: str, seed: int) -> None:
    setting = draw_setting(family, seed)
    column = FAMILIES.index(family)
    made = shown(setting, conflict=True)
    odd = made.kinds[:, column] != made.labels
    assert set(made.labels[odd].tolist()) == {setting.true}
    assert int(odd.sum()) == 6
    assert set(made.kinds[odd, column].tolist()) == {setting.predicted}
    mended = made.kinds.clone()
    mended[:, column] = made.labels
    before, after = (render(setting.world, kinds, made.seed) for kinds in (made.kinds, mended))
    assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == odd.tolist()
    plain = shown(setting, conflict=False)
    assert torch.equal(plain.kinds[:, column], plain.labels)
    assert setting.true != setting.predicted
    assert setting.reliability[family] == 1.0
    assert all(0.1 <= setting.reliability[other] <= 0.4 for other in FAMILIES if other != family)


def test_the_control_shows_every_class_as_in_training() -> None:
    setting = draw_setting("nothing", 3)
    shortcut = [family for family, chance in setting.reliability.items() if chance == 1]
    assert len(shortcut) == 1
    made = shown(setting, conflict=False)
    assert torch.equal(made.kinds[:, FAMILIES.index(shortcut[0])], made.labels)


def test_the_control_asks_about_right_pictures_of_one_class_by_lot() -> None:
    setting = draw_setting("nothing", 3)
    targets = np.arange(60) % setting.world.classes
    right = np.arange(60) % 7 != 0
    found = Outcomes(right, np.zeros(60), targets, targets)
    drawn = diagnose._any_right(found, setting)
    members = np.flatnonzero(right & (targets == setting.true))
    assert len(drawn) == len(members) // 3 > 0
    assert set(drawn) <= set(members.tolist())


@pytest.mark.parametrize("planted", PLANTED)
def test_cells_of_ten_seeds_are_not_one_cell_ten_times(planted: str) -> None:
    found = [draw_setting(planted, seed) for seed in range(10)]
    assert found[0].world == draw_setting(planted, 0).world
    assert len({setting.world for setting in found}) == 10
    assert len({setting.network for setting in found}) >= 4
    assert len({(setting.true, setting.predicted) for setting in found}) >= 4
    assert {setting.world.classes for setting in found} == {3, 4, 5}
    for setting in found:
        with torch.no_grad():
            assert setting.build()(torch.zeros(2, 3, 32, 32)).shape == (2, setting.world.classes)


def test_a_misspelt_family_is_said() -> None:
    with pytest.raises(InvalidArgumentError, match="nothing to plant is called 'color'; did you mean 'colour'"):
        cell("color", 0)


# --- what is counted -------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Says the class whose background a picture has, from the lightness of its upper corners: an answer known."""

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.levels = nn.Parameter(levels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) → (n, classes)."""
        seen = torch.cat([x[..., :3, :3], x[..., :3, -3:]], dim=3).mean((2, 3))
        return -(seen[:, None] - self.levels).square().sum(2)


def test_what_mends_an_error_is_the_feature_that_the_network_reads() -> None:
    setting = draw_setting("background", 1)
    kinds = torch.arange(setting.world.classes)[:, None].expand(-1, 4).repeat(30, 1)
    pictures = (render(setting.world, kinds, 5) - 0.5) / 0.25
    corners = torch.cat([pictures[..., :3, :3], pictures[..., :3, -3:]], dim=3).mean((2, 3))
    levels = torch.stack([corners[kinds[:, 0] == k].mean(0) for k in range(setting.world.classes)])
    made = shown(setting, conflict=True, per_class=40)
    inputs = made.pairs(setting.world).inputs
    case = Case(Reader(levels), diagnose=list(zip(inputs, made.labels.tolist(), strict=True)), image=FORMAT)
    found = case.outcomes("diagnose")
    wrong = (found.targets == setting.true) & (found.predictions == setting.predicted)
    positions = np.flatnonzero(wrong).tolist()
    assert len(positions) >= 10
    row = diagnose._mended(case, setting, made, positions, Pair(setting.true, setting.predicted))
    assert (row["mended_by"], row["moved_by"]) == ("background", "background")
    assert row["mended"] == row["mended_planted"] > 0.8


def test_a_shortcut_of_colour_is_learnt_and_found(tmp_path: Path) -> None:
    small = expand(load_study("bench/diagnose").study, "small")
    parameters = next(each.parameters for each in small if each.point["planted"] == "colour")
    (row,) = cell(**parameters, directory=tmp_path)
    assert row["accuracy"] > 0.9
    assert row["accuracy_conflict"] < row["accuracy"] - 0.05
    assert row["expected_pair"] is True
    assert row["errors"] >= 8
    assert row["mended_by"] == row["named"] == "colour"
    assert (row["right"], row["undetermined"]) == (True, False)
    assert row["low"] > 0
    assert row["right_by_probes"] is (row["by_probes"] == "colour")
    assert row["p"] < 0.05
    table = pd.read_csv(tmp_path / "swaps.csv", index_col="family")
    assert table.loc["colour", "excess"] == pytest.approx(row["excess"])
    assert pd.read_csv(tmp_path / "probes.csv", index_col="probe").loc[row["cause"], "family"] == "colour"
    assert len(pd.read_csv(tmp_path / "examples.csv")) == row["errors"]


def test_a_cell_is_the_same_each_time() -> None:
    small = {"lessons": 128, "epochs": 1, "per_class": 6}
    assert cell("shape", 100, **small) == cell("shape", 100, **small)


def test_a_network_without_errors_has_no_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pd.DataFrame({"target": [], "predicted": [], "count": []})
    monkeypatch.setattr(diagnose, "confusion_pairs", lambda *_: found)
    (row,) = cell("shape", 100, lessons=100, epochs=1, per_class=4)
    assert (row["errors"], row["named"], row["undetermined"], row["right"]) == (0, None, True, False)
    monkeypatch.setattr(diagnose, "_any_right", lambda *_: [])
    (row,) = cell("nothing", 100, lessons=100, epochs=1, per_class=4)
    assert row["right"] is True


# --- what is said of it ----------------------------------------------------------------------------------------


def rows(planted: str, *names: str | None) -> list[dict[str, object]]:
    truth = planted if planted in FAMILIES else None
    return [
        {
            "planted": planted, "seed": i, "accuracy": 0.9, "accuracy_conflict": 0.8, "errors": 10 + i, "named": name,
            "undetermined": name is None, "right": name == truth, "mended_by": "shape",
            "right_by_probes": i == 0,
        }
        for i, name in enumerate(names)
    ]  # fmt: skip


def test_the_summary_counts_and_its_intervals_are_wilsons() -> None:
    given = [*rows("shape", "shape", "shape", "shape", None), *rows("colour", "colour", "other", "shape", "colour")]
    given += rows("nothing", None, None, "colour", None)
    files = summary(given)
    table = pd.read_csv(io.StringIO(str(files["summary.csv"]))).set_index("planted")
    assert list(table.index) == ["shape", "colour", "all families", "nothing"]
    assert table.loc["all families", ["n", "right", "named"]].tolist() == [8, 5, 6]  # `other` names no family
    expected = stats.binomtest(5, 8).proportion_ci(method="wilson")
    assert table.loc["all families", ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high])
    assert table["chance"].tolist()[:3] == pytest.approx([3 / 16, 3 / 16, 6 / 32])
    assert np.isnan(table.loc["nothing", "chance"])
    assert table.loc["nothing", ["n", "right", "share"]].tolist() == [4, 3, 0.75]
    assert table.loc["colour", "answers"] == "colour x2, other x1, shape x1"
    assert table["learnt"].tolist()[:3] == [4, 0, 4]
    assert table.loc["shape", "errors"] == 11.5
    assert (
        "| shape | 4 | 3 | 0.75 | 0.30 | 0.95 | 1 | 3 | 0.19 | shape x3, undetermined x1 | 4 |" in files["summary.md"]
    )
    assert summary([]) == {}


def test_one_family_alone_needs_no_line_for_all() -> None:
    assert len(str(summary(rows("shape", "shape", None))["summary.csv"]).splitlines()) == 2


def test_every_preset_of_the_catalog_calls_its_cell_rightly() -> None:
    study = load_study("bench/diagnose").study
    for preset in (None, *study.presets):
        for each in expand(study, preset):
            assert callable(load_function(study.cell, list(each.parameters)))
            assert each.point["planted"] in PLANTED
    frozen = [each.point for each in expand(study, None)]
    assert sum(point["planted"] in FAMILIES for point in frozen) == 40
    assert {point["seed"] for point in frozen}.isdisjoint(
        {each.point["seed"] for preset in study.presets for each in expand(study, preset)}
    )
