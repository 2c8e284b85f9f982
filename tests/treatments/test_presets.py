"""Every preset on ordinary and awkward networks: a result, or one clear sentence."""

from typing import Any

import pytest
import torch

import suture
from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.patch import base_sha256, canonical_state
from suture.stages.localize import Localization
from suture.treatments import PRESETS, Plan, load_plan, within
from suture.treatments.search import Search
from tests import toys, zoo
from tests.treatments import jobs

FLAGGED = ["second", "last"]


def shortened(how: Any) -> Any:
    """The same method with two epochs wherever it trains."""
    changes: dict[str, Any] = {}
    if hasattr(how, "recipe"):
        changes["recipe"] = how.recipe.model_copy(update={"epochs": 2})
    if isinstance(inner := getattr(how, "plan", None), Plan):
        changes["plan"] = inner.model_copy(update={"how": shortened(inner.how)})
    if hasattr(how, "how"):
        changes["how"] = shortened(how.how)
    if hasattr(how, "plans"):
        changes["plans"] = tuple(p.model_copy(update={"how": shortened(p.how)}) for p in how.plans)
    return how.model_copy(update=changes)


def preset(name: str) -> Plan:
    plan = load_plan(name)
    return plan.model_copy(update={"how": shortened(plan.how)})


def check(case: Case, found: suture.Treatment) -> None:
    """What is true of every treatment."""
    assert found.note
    assert "\n" not in found.note
    assert found.tried["candidate"].iloc[0] == "none"
    assert base_sha256(canonical_state(case.model)) == case.weights_sha256
    assert (found.kept == "none") == (len(found.patch) == 0)
    if found.kept != "none":
        row = found.tried.set_index("candidate").loc[found.kept]
        bound = found.plan.choose.max_regression
        assert bound is None or row["bound"] <= bound
        assert row["score"] > 0
    verified = suture.verify(case, found)
    assert verified.n == len(case.splits["verify"])


@pytest.mark.parametrize("more", [False, True], ids=["plain", "extra"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs(name: str, more: bool) -> None:
    further = toys.points(50, seed=9, shift=0.9) if more else None
    case = jobs.small_case(repair_extra=further)
    assert len(case.splits["repair"]) == len(jobs.small_case().splits["repair"]) + (50 if more else 0)
    check(case, suture.treat(case, FLAGGED, preset(name)))


@pytest.mark.parametrize("name", ["full", "auto", "route", "last_layer", "bn_affine", "distill"])
def test_presets_mend_the_toy_case(name: str) -> None:
    case = Case(toys.network(), toys.points(1000, seed=2, shift=0.9))
    found = suture.treat(case, FLAGGED, name)
    assert found.kept != "none", found.note
    assert suture.verify(case, found).net > 0
    check(case, found)


@pytest.mark.filterwarnings("ignore:no rule for")
@pytest.mark.parametrize("plan", ["full", "flagged", "bn_recalibrate", "auto"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_network_of_the_zoo_survives(name: str, plan: str) -> None:
    case = jobs.zoo_case(name)
    flagged = [group for group in case.groups if group != "idle"][:2]
    chosen = preset(plan).model_copy(update={"choose": PRESETS["full"].choose})  # so that trainings are really judged
    found = suture.treat(case, flagged, chosen)
    check(case, found)
    if plan == "bn_recalibrate" and name not in ("norms", "affineless", "convolutions"):
        assert found.note == "the network has no BatchNorm with running statistics"
    elif plan != "bn_recalibrate":
        assert len(found.history)
        assert found.history["loss"].notna().all()


def test_nothing_flagged_is_said_and_auto_goes_on_without() -> None:
    case = jobs.small_case()
    for name in ("flagged", "A", "ewc", "random_groups", "iterative"):
        found = suture.treat(case, [], preset(name))
        assert (found.kept, found.note) == ("none", "no group was flagged, so there is nothing to treat")
    auto = preset("auto").model_copy(update={"choose": PRESETS["full"].choose})
    found = suture.treat(case, [], auto)
    assert {"early_fast", "bn_affine", "full"} == set(found.history["plan"])  # full stands in for flagged


def test_without_errors_it_is_said_that_there_is_nothing_to_treat() -> None:
    easy = [(x, int(toys.network()(x[None]).argmax())) for x, _ in toys.points(200, seed=2)]
    case = Case(toys.network(), easy)
    localization = suture.localize(case, localizers="grad_norm")
    assert isinstance(localization, Localization)
    found = suture.treat(case, localization, preset("flagged"))
    assert "the model makes no error on the 40 examples of 'diagnose'" in found.note
    check(case, suture.treat(case, localization, preset("auto")))


def test_a_budget_goes_with_plans_that_search() -> None:
    how = within(load_plan("auto"), 1.5).how
    assert isinstance(how, Search)
    assert how.budget == 1.5
    assert within(load_plan("full"), None) == load_plan("full")
    with pytest.raises(InvalidArgumentError, match="not with 'full'"):
        within(load_plan("full"), 1.5)
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidArgumentError, match="--budget must be above 0"):
            within(load_plan("auto"), budget)


def test_adam_s_defaults_move_weights_as_far_as_sgd_s() -> None:
    case = toys.case()
    steps = {}
    for name in ("flagged", "adam"):
        model = jobs.only(load_plan(name).how.treat(jobs.job(case)))
        pairs = zip(model.parameters(), case.model.parameters(), strict=True)
        steps[name] = float(torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm())
    assert 0.1 < steps["adam"] / steps["flagged"] < 10
