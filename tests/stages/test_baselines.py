"""Baselines beside a repair: the same examples, the same rules, one look at `verify`."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import suture
from suture.errors import RunError
from suture.patch import patched
from suture.pipeline import run
from suture.stages.treat import BASELINES
from suture.stats import holm, mcnemar
from suture.training import Augment, Checkpoints
from suture.treatments import PRESETS
from suture.treatments.lastlayer import LastLayer
from suture.treatments.where import Norms
from tests import toys

PLAIN = Augment(pad=0, flip=False)
PLAN = toys.PLAN  # whose recipe leaves inputs as they are


@cache  # made inside the first test that asks, with its one thread
def made() -> tuple[suture.Case, suture.Treatment]:
    case = toys.case()
    return case, suture.treat(case, ["last"], PLAN, baselines=True)


@pytest.fixture
def case() -> suture.Case:
    return made()[0]


@pytest.fixture
def treatment() -> suture.Treatment:
    return made()[1]


def right(case: suture.Case, patch: suture.Patch) -> Any:
    pairs = [case.splits["verify"][i] for i in range(len(case.splits["verify"]))]
    with torch.no_grad():
        predicted = patched(case.model, patch)(torch.stack([x for x, _ in pairs])).argmax(1)
    return np.array([int(p) == y for p, (_, y) in zip(predicted, pairs, strict=True)])


def test_each_baseline_is_the_preset_of_its_name(case: suture.Case, treatment: suture.Treatment) -> None:
    assert list(treatment.baselines["plan"]) == list(BASELINES) == list(treatment.baseline_patches)
    for name in BASELINES:
        alone = suture.treat(case, ["last"], PRESETS[name].model_copy(update={"augment": PLAIN}))
        row = treatment.baselines.set_index("plan").loc[name]
        assert treatment.baseline_patch(name).result == alone.patch.result == row["result"], name
        assert row["groups"] == ", ".join(alone.groups)
        assert row["kept"] == alone.kept
        assert row["times_full"] == pytest.approx(alone.cost.times_full, nan_ok=True)
    assert treatment.baselines.set_index("plan").loc["full", "times_full"] == pytest.approx(1)


def test_the_treatment_is_what_it_is_without_them(case: suture.Case, treatment: suture.Treatment) -> None:
    alone = suture.treat(case, ["last"], PLAN)
    assert treatment.patch.result == alone.patch.result
    assert not len(alone.baselines)
    assert not alone.baseline_patches


def test_the_table_counts_what_a_slow_comparison_counts(case: suture.Case, treatment: suture.Treatment) -> None:
    found = suture.verify(case, treatment).baselines
    before = np.array(case.outcomes("verify").right)
    after = right(case, treatment.patch)
    assert list(found["plan"]) == ["short", *BASELINES]
    assert pd.isna(found["won"][0])
    for row in found.to_dict("records")[1:]:
        theirs = right(case, treatment.baseline_patch(row["plan"]))
        assert row["accuracy"] == theirs.mean()
        assert (row["fixed"], row["broken"]) == ((~before & theirs).sum(), (before & ~theirs).sum())
        assert (row["won"], row["lost"]) == ((after & ~theirs).sum(), (~after & theirs).sum())
        assert row["p"] == pytest.approx(mcnemar(int(row["won"]), int(row["lost"])))
    could = found[1:][found[1:]["won"] + found[1:]["lost"] >= 6]
    assert np.allclose(could["adjusted"].astype(float), holm(could["p"].to_numpy(float)))
    said = {row["word"] for row in found.to_dict("records")[1:] if row["adjusted"] >= 0.05}
    assert said <= {""}


def test_the_word_is_about_the_repair(case: suture.Case, treatment: suture.Treatment) -> None:
    nothing = suture.treat(case, ["last"], "none")
    beside = replace(nothing, baselines=treatment.baselines, baseline_patches=treatment.baseline_patches)
    found = suture.verify(case, beside).baselines.set_index("plan")
    assert found.loc["full", "net"] > 0
    assert found.loc["full", "word"] == "worse"
    assert found.loc["full", "won"] == found.loc["full", "broken"]


def test_a_patch_alone_has_no_baselines(case: suture.Case, treatment: suture.Treatment) -> None:
    assert not len(suture.verify(case, treatment.patch).baselines)


def test_a_plan_is_not_its_own_baseline(case: suture.Case) -> None:
    full = PRESETS["full"].model_copy(update={"augment": PLAIN, "name": "mine"})
    assert "full" not in set(suture.treat(case, ["last"], full, baselines=True).baselines["plan"])


class Bare(nn.Module):
    """No normalisation, and no linear layer at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 16)
        self.scale = nn.Parameter(torch.ones(16, 3) / 4)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2) → (n, 3)."""
        return torch.relu(self.first(x)) @ self.scale


def test_what_does_not_suit_the_network_says_so_and_changes_nothing() -> None:
    torch.manual_seed(0)
    found = suture.treat(suture.Case(Bare(), toys.data()), ["first"], PLAN, baselines=True)
    notes = found.baselines.set_index("plan")["note"]
    assert notes["bn_affine"] == "there is nothing in this network that 'bn_affine' treats"
    assert "no BatchNorm" in notes["bn_recalibrate"]
    assert "does not end in a linear layer" in notes["last_layer"]
    assert set(found.baselines.set_index("plan").loc[["bn_affine", "bn_recalibrate", "last_layer"], "kept"]) == {"none"}


def test_one_that_fails_says_so_and_the_repair_stays(
    case: suture.Case, treatment: suture.Treatment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any, job: Any) -> None:
        raise torch.OutOfMemoryError("no room\nfor it")

    monkeypatch.setattr(LastLayer, "treat", fails)
    found = suture.treat(case, ["last"], PLAN, baselines=True)
    assert found.patch.result == treatment.patch.result
    row = found.baselines.set_index("plan").loc["last_layer"]
    assert (row["kept"], row["note"]) == ("none", "it failed: no room")
    assert suture.verify(case, found).baselines.set_index("plan").loc["last_layer", "net"] == 0


def test_one_with_losses_that_are_not_finite_has_nothing_right(case: suture.Case, treatment: suture.Treatment) -> None:
    full = treatment.baseline_patch("full")
    broken = replace(full, tensors={n: torch.full_like(t, torch.nan) for n, t in full.tensors.items()}, result="")
    found = suture.verify(case, replace(treatment, baseline_patches={**treatment.baseline_patches, "full": broken}))
    row = found.baselines.set_index("plan").loc["full"]
    assert (row["accuracy"], row["fixed"], row["word"]) == (0, 0, "better")
    assert row["broken"] == found.right_before


def test_a_file_that_is_gone_is_named(treatment: suture.Treatment, case: suture.Case, tmp_path: Path) -> None:
    treatment.save(tmp_path)
    (tmp_path / "baseline-full.safetensors").unlink()
    with pytest.raises(RunError, match=r"baseline-full.safetensors\); run with --redo treat --baselines"):
        suture.verify(case, suture.Treatment.load(tmp_path))


def test_groups_that_hold_no_such_place(case: suture.Case) -> None:
    plan = suture.Plan(name="mine", where=Norms(flagged=True))
    assert suture.treat(case, ["last"], plan).note == "the flagged groups hold nothing that 'mine' treats"


def test_nothing_flagged_is_still_what_is_said_where_the_network_has_such_places(case: suture.Case) -> None:
    assert suture.treat(case, [], "flagged").note == "no group was flagged, so there is nothing to treat"


def test_saved_and_loaded(treatment: suture.Treatment, case: suture.Case, tmp_path: Path) -> None:
    treatment.save(tmp_path)
    again = suture.Treatment.load(tmp_path)
    assert all(isinstance(path, Path) for path in again.baseline_patches.values()), "read when they are needed"
    for name in BASELINES:
        assert again.baseline_patch(name).result == treatment.baseline_patch(name).result
    again.save(tmp_path)
    again.save(tmp_path / "elsewhere")
    assert suture.Treatment.load(tmp_path / "elsewhere").baseline_patch("full").result == again.baselines["result"][4]
    pd.testing.assert_frame_equal(again.baselines, treatment.baselines)
    proof = suture.verify(case, again)
    proof.save(tmp_path / "verify")
    loaded = suture.Verification.load(tmp_path / "verify").baselines
    assert (
        loaded.drop(columns=["word"])
        .astype({"p": float})
        .equals(proof.baselines.drop(columns=["word"]).astype({"p": float}))
    )
    assert "baselines" in (tmp_path / "verify" / "result.json").read_text()


# In a run


def test_baselines_are_added_to_a_treatment_that_is_there(tmp_path: Path) -> None:
    first = run(toys.case(), tmp_path / "run", plan=PLAN)
    said: list[str] = []
    second = run(toys.case(), tmp_path / "run", plan=PLAN, baselines=True, say=said.append)
    assert (said[0], said[-1]) == ("baselines …", "verify …")
    assert not any(line.startswith("treating by short") for line in said)
    assert second["treat"].patch.result == first["treat"].patch.result  # type: ignore[attr-defined]
    assert len(second["verify"].baselines) == 1 + len(BASELINES)  # type: ignore[attr-defined]
    assert not list((tmp_path / "run/treat").glob("checkpoint*"))
    said.clear()
    run(toys.case(), tmp_path / "run", plan=PLAN, say=said.append)
    assert said == [], "what is there already has more than was asked for"


def test_a_twin_is_added_to_a_treatment_that_is_there_and_its_baselines_stay(tmp_path: Path) -> None:
    both = run(toys.case(), tmp_path / "a", plan=PLAN, twin=True, baselines=True)
    run(toys.case(), tmp_path / "b", plan=PLAN, baselines=True)
    said: list[str] = []
    later = run(toys.case(), tmp_path / "b", plan=PLAN, twin=True, say=said.append)
    assert (said[0], said[-1]) == ("twin …", "verify …")
    assert said[1].startswith("the twin: about ")
    assert not any("treating" in line or "baselines" in line for line in said)
    for what in ("patch", "twin"):
        assert getattr(later["treat"], what).result == getattr(both["treat"], what).result
    assert list(later["treat"].baselines["result"]) == list(both["treat"].baselines["result"])  # type: ignore[attr-defined]
    assert later["verify"].churn_floor == both["verify"].churn_floor is not None  # type: ignore[attr-defined]
    said.clear()
    run(toys.case(), tmp_path / "b", plan=PLAN, say=said.append)
    run(toys.case(), tmp_path / "a", plan=PLAN, twin=True, say=said.append)
    assert said == []


def looks(of: dict[str, Any]) -> int:
    return int(of["verify"].looks)


def test_baselines_are_no_looks_until_one_of_them_is_chosen(tmp_path: Path) -> None:
    full = PRESETS["full"].model_copy(update={"augment": PLAIN})
    beside = run(toys.case(), tmp_path / "run", plan=PLAN, baselines=True)
    assert looks(beside) == 1
    assert looks(run(toys.case(), tmp_path / "run", plan=PLAN, twin=True)) == 1, "the same patch as before"
    assert len(list((tmp_path / "run/treat").glob("baseline-*"))) == len(BASELINES)
    assert looks(run(toys.case(), tmp_path / "run", plan="ewc")) == 2, "the table has shown nothing of it"
    assert looks(run(toys.case(), tmp_path / "run", plan=full)) == 2 + len(BASELINES), (
        "it did well there, and was taken"
    )


def test_what_was_judged_before_stays_a_look_when_it_stands_beside_another(tmp_path: Path) -> None:
    full = PRESETS["full"].model_copy(update={"augment": PLAIN})
    assert looks(run(toys.case(), tmp_path / "run", plan=full)) == 1
    assert looks(run(toys.case(), tmp_path / "run", plan=PLAN, baselines=True)) == 2


def test_looks_of_an_older_suture_count(tmp_path: Path) -> None:
    run(toys.case(), tmp_path / "run", plan=PLAN)
    path = tmp_path / "run/verify/looks.json"
    older = json.loads(path.read_text())["judged"]
    path.write_text(json.dumps(["another", *older]))
    assert looks(run(toys.case(), tmp_path / "run", plan=PLAN, redo="verify")) == 2


def test_stopped_among_the_baselines_no_epoch_is_trained_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    save = Checkpoints.save

    def counted(self: Checkpoints, epoch: int, *rest: Any) -> None:
        save(self, epoch, *rest)
        trained.append(epoch)
        if len(trained) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", counted)
    stop_after = 10**6
    undisturbed = run(toys.case(), tmp_path / "a", plan=PLAN, baselines=True)["treat"]
    whole = list(trained)
    trained.clear()
    stop_after = len(whole) - 5  # in the last one, `full`
    with pytest.raises(KeyboardInterrupt):
        run(toys.case(), tmp_path / "b", plan=PLAN, baselines=True)
    kept = suture.Treatment.load(tmp_path / "b/treat")
    assert kept.patch.result == undisturbed.patch.result, "the repair was there before its baselines"  # type: ignore[attr-defined]
    resumed = run(toys.case(), tmp_path / "b", plan=PLAN, baselines=True)["treat"]
    assert trained == whole
    assert list(resumed.baselines["result"]) == list(undisturbed.baselines["result"])  # type: ignore[attr-defined]
    assert not list((tmp_path / "b/treat").glob("checkpoint*"))
