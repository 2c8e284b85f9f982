"""The five stages on a toy, a task that has no labels, and the cases where there is nothing to do."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import suture
from suture.errors import GroupError, InvalidArgumentError, RunError, UnknownNameError
from suture.patch import base_sha256, canonical_state
from suture.stages.result import Result
from suture.stats import Verdict
from suture.training import Augment, Recipe
from suture.treatments import Everything, FineTune, Groups, Plan
from tests import toys

STAGES = {
    "scan": suture.Scan, "localize": suture.Localization, "diagnose": suture.Diagnosis,
    "treat": suture.Treatment, "verify": suture.Verification,
}  # fmt: skip


def all_stages(case: suture.Case, where: Any = None, plan: Any = toys.PLAN) -> dict[str, Result]:
    localization = suture.localize(case)
    treatment = suture.treat(case, where or localization, plan)
    return {
        "scan": suture.scan(pd.DataFrame({"lr": [0.1, 0.01, 1e-4], "accuracy": [0.5, 0.7, 0.8]})),
        "localize": localization,
        "diagnose": suture.diagnose(case, localization),
        "treat": treatment,
        "verify": suture.verify(case, treatment),
    }


@pytest.fixture(scope="module")
def toy_results() -> dict[str, Result]:
    return all_stages(toys.case())


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_dtype=False)
        return True
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, torch.Tensor | np.ndarray):
        return bool((torch.as_tensor(a) == torch.as_tensor(b)).all())
    if isinstance(a, suture.Patch):
        return a.base == b.base and a.result == b.result and equal(a.tensors, b.tensors)
    return bool(a == b)


@pytest.mark.parametrize("stage", STAGES)
def test_results_survive_the_disk(toy_results: dict[str, Result], tmp_path: Path, stage: str) -> None:
    result = toy_results[stage]
    result.save(tmp_path, "key")
    read = STAGES[stage].load(tmp_path)
    for name in result.__dataclass_fields__:  # type: ignore[attr-defined]
        assert equal(getattr(result, name), getattr(read, name)), name


@pytest.mark.parametrize("stage", STAGES)
def test_results_are_frozen_and_can_be_shown(toy_results: dict[str, Result], stage: str) -> None:
    result = toy_results[stage]
    with pytest.raises(AttributeError):
        result.stage = "other"  # type: ignore[misc]
    assert result.plot().get_figure() is not None
    assert result.table().row_count >= 0
    assert "<" in result._repr_html_()


def test_damaged_and_newer_files_are_said_to_be_so(toy_results: dict[str, Result], tmp_path: Path) -> None:
    toy_results["verify"].save(tmp_path)
    path = tmp_path / "result.json"
    text = path.read_text()
    path.write_text(text.replace('"schema": 1', '"schema": 99'))
    with pytest.raises(RunError, match="newer suture"):
        suture.Verification.load(tmp_path)
    path.write_text(text.replace('"fixed"', '"mended"'))
    with pytest.raises(RunError, match="run with --redo verify"):
        suture.Verification.load(tmp_path)


def test_files_keep_the_form_others_rely_on(toy_results: dict[str, Result]) -> None:
    localize, verify = toy_results["localize"].to_dict(), toy_results["verify"].to_dict()
    assert list(localize["scores"]) == ["norm_statistics", "grad_norm"]
    assert set(localize["scores"]["grad_norm"]) == {"first", "norm", "second", "last"}
    assert set(localize["pays"]) == {"first", "norm", "second", "last"}
    assert set(localize["pays"]["first"]) == {"gain", "low", "high"}
    assert isinstance(localize["flagged"], list)
    assert {"accuracy_before", "accuracy_after", "fixed", "broken", "net", "p_value", "verdict", "n"} <= set(verify)
    assert verify["verdict"] == "better"


def test_localize_scores_errors_beside_its_nulls() -> None:
    case = toys.case()
    found = suture.localize(case, localizers=("relative", "grad_norm"))
    assert list(found.scores.columns) == ["relative", "grad_norm"]
    assert list(found.scores.index) == list(case.groups)
    assert found.n_errors == int((~found.examples["right"]).sum()) == round((1 - found.accuracy) * found.n)
    assert found.n_null == found.n_errors
    assert (found.null_correct["grad_norm"] < found.scores["grad_norm"]).all()
    assert found.top is None or found.top in case.groups


def test_unknown_localizers_and_rules() -> None:
    case = toys.case()
    with pytest.raises(UnknownNameError, match="did you mean 'grad_norm'"):
        suture.localize(case, localizers="grad_nrom")
    with pytest.raises(UnknownNameError, match="did you mean 'above_median'"):
        suture.localize(case, rule="above_medain")
    with pytest.raises(InvalidArgumentError, match="different names"):
        suture.localize(case, localizers=("rms", "rms"))


def test_diagnose_attributes_each_pair_relative_to_the_others(toy_results: dict[str, Result]) -> None:
    found = toy_results["diagnose"]
    assert isinstance(found, suture.Diagnosis)
    assert found.confusion["count"].sum() == found.n_errors
    assert (found.pairs["count"] >= 3).all()
    assert found.pairs["ratio"].to_numpy() == pytest.approx((found.pairs["score"] / found.pairs["null"]).to_numpy())
    assert (found.pairs["ratio"] >= 1).all()
    assert list(found.exemplars.groupby(["true", "predicted"], sort=False).groups) == [
        (p.true, p.predicted) for p in found.pairs.itertuples()
    ]


def test_the_repair_is_better_and_the_model_untouched() -> None:
    model = toys.network()
    before = base_sha256(canonical_state(model))
    case = suture.Case(model, toys.data())
    results = all_stages(case)
    verify, treat = results["verify"], results["treat"]
    assert isinstance(verify, suture.Verification)
    assert isinstance(treat, suture.Treatment)
    assert verify.verdict is Verdict.BETTER
    assert verify.net == verify.fixed - verify.broken > 0
    assert verify.accuracy_after - verify.accuracy_before == pytest.approx(verify.net / verify.n)
    assert verify.per_class[["fixed", "broken"]].sum().tolist() == [verify.fixed, verify.broken]
    assert (verify.gallery["kind"] == "fixed").sum() == min(verify.fixed, 24)
    assert base_sha256(canonical_state(model)) == base_sha256(canonical_state(case.model)) == before
    assert treat.patch.base == before
    touched = {name.split(".")[0] for name in treat.patch.tensors}
    assert touched == set(treat.groups) == set(results["localize"].flagged)  # type: ignore[attr-defined]
    after = suture.patched(model, treat.patch)
    x = torch.stack([case.splits["verify"][i][0] for i in range(len(case.splits["verify"]))])
    labels = torch.tensor(case.splits["verify"].strata)
    assert float((after.eval()(x).argmax(1) == labels).float().mean()) == pytest.approx(verify.accuracy_after)


def test_verify_takes_a_treatment_a_patch_or_a_path(tmp_path: Path) -> None:
    case = toys.case()
    treatment = suture.treat(case, ["last"], toys.PLAN)
    treatment.patch.save(tmp_path / "p.safetensors")
    found = [suture.verify(case, t).to_dict() for t in (treatment, treatment.patch, tmp_path / "p.safetensors")]
    assert "240 unseen examples" in found[0].pop("sentence")
    assert [each.pop("sentence").count("on 240 examples") for each in found[1:]] == [1, 1]  # who made them is not known
    assert found[0] == found[1] == found[2]


def test_a_treatment_that_does_not_pay_on_select_is_not_kept() -> None:
    case = toys.case()
    harmful = Plan(name="harm", how=FineTune(recipe=Recipe(epochs=1, lr=1e-12, lr_min=0, augment=Augment(pad=0))))
    found = suture.treat(case, ["last"], harmful)
    assert found.kept == "none"
    assert len(found.patch) == len(found.undo) == 0
    assert "so the original was kept" in found.note
    assert found.tried["candidate"].tolist() == ["none", "harm"]
    verify = suture.verify(case, found)
    assert (verify.fixed, verify.broken, verify.p_value) == (0, 0, 1.0)
    assert verify.verdict is Verdict.NO_CHANGE
    paper = suture.treat(toys.case(protocol="paper"), ["last"], harmful)
    assert paper.kept == "harm"  # the paper's protocol has no such choice


def test_where_a_plan_treats() -> None:
    case, recipe = toys.case(), toys.PLAN.how
    everything = suture.treat(case, [], Plan(where=Everything(), how=recipe))
    assert everything.groups == list(case.groups)
    named = suture.treat(case, [], Plan(where=Groups(names=("last",)), how=recipe))
    assert named.groups == ["last"]
    with pytest.raises(GroupError, match="'lats'"):
        suture.treat(case, ["lats"], toys.PLAN)


def test_the_paper_protocol_says_that_its_gain_is_optimistic() -> None:
    results = all_stages(toys.case(protocol="paper"))
    assert results["verify"].optimistic  # type: ignore[attr-defined]
    assert "unseen" not in results["verify"].sentence  # type: ignore[attr-defined]


def test_without_errors_nothing_is_done_and_that_is_said() -> None:
    easy = [(x, int(toys.network()(x[None]).argmax())) for x, _ in toys.points(600, seed=2)]
    results = all_stages(suture.Case(toys.network(), easy))
    localize, treat, verify = (results[s] for s in ("localize", "treat", "verify"))
    assert localize.n_errors == 0  # type: ignore[attr-defined]
    assert localize.flagged == []  # type: ignore[attr-defined]
    assert localize.top is None  # type: ignore[attr-defined]
    assert len(treat.patch) == 0  # type: ignore[attr-defined]
    assert "nothing to treat" in treat.note  # type: ignore[attr-defined]
    assert verify.sentence.startswith("No measurable change")  # type: ignore[attr-defined]


def test_with_nothing_but_errors_the_null_is_empty() -> None:
    wrong = [(x, (int(toys.network()(x[None]).argmax()) + 1) % 3) for x, _ in toys.data()]
    found = suture.localize(suture.Case(toys.network(), wrong))
    assert found.n_null == 0
    assert found.null_correct.isna().all(axis=None)
    assert found.scores["grad_norm"].notna().all()
    assert found.scores["norm_statistics"].notna().any()


@pytest.mark.filterwarnings("ignore:no rule for GRU")
def test_a_task_without_labels_or_pictures_goes_through_all_five(tmp_path: Path) -> None:
    case = toys.sequence_case()
    plan = Plan(name="speak", how=FineTune(recipe=Recipe(epochs=12, batch_size=32, lr=0.5, momentum=0.9)))
    results = all_stages(case, where=["embed", "recur", "speak"], plan=plan)
    verify = results["verify"]
    assert isinstance(verify, suture.Verification)
    assert verify.verdict is Verdict.BETTER
    assert verify.churn is None
    assert verify.pairs.empty
    assert results["diagnose"].pairs.empty  # type: ignore[attr-defined]
    for name, result in results.items():
        result.save(tmp_path / name)
        assert STAGES[name].load(tmp_path / name).to_dict() == result.to_dict()


def test_scan_of_the_paper_s_baseline_and_of_a_log_without_momentum() -> None:
    epochs = np.arange(200)
    lr = 1e-4 + 0.5 * (0.1 - 1e-4) * (1 + np.cos(np.pi * epochs / 200))
    found = suture.scan(pd.DataFrame({"epoch": epochs + 1, "lr": lr}))
    assert found.counts == {"underdamped": 170, "critical": 21, "overdamped": 9}  # Table 6
    assert found.assumed is not None
    assert "0.9 is assumed" in found.assumed
    named = suture.scan(pd.DataFrame({"lr": lr, "momentum": 0.9}))
    assert named.assumed is None


def test_an_untrained_network_without_any_right_answer_can_still_be_treated() -> None:
    model = nn.Linear(2, 3)
    nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    data = [(x, y % 2) for x, y in toys.data()]  # class 2 is never right
    case = suture.Case(model, data, groups="tensor")
    results = all_stages(case, where=["weight", "bias"])
    assert results["verify"].accuracy_before == 0  # type: ignore[attr-defined]
    assert results["verify"].regression_rate == 0  # type: ignore[attr-defined]


def test_an_empty_patch_can_be_verified_and_nonsense_cannot() -> None:
    case = toys.case()
    nothing = suture.treat(case, "last", "none")
    assert suture.verify(case, nothing.patch).fixed == 0
    with pytest.raises(InvalidArgumentError, match="not int"):
        suture.verify(case, 3)  # type: ignore[arg-type]


def test_protocol_paper_has_its_own_rule() -> None:
    with pytest.raises(InvalidArgumentError, match="above_median"):
        suture.localize(toys.case(protocol="paper"), rule="first")
