"""Repairs on cases with a known answer: what the rows say, and how the rule does on other draws of `select`."""

from typing import Any

import numpy as np
import pytest

from suture.bench.networks import load_subject
from suture.bench.treat import case_of, cell
from suture.errors import InvalidArgumentError
from suture.stats import flips, mcnemar
from suture.training import Augment
from suture.treatments import Judge, load_plan, perform
from tests.treatments import jobs

DIGIT = Augment(pad=1, flip=False)  # a mirrored digit is no digit
CAMERA: dict[str, Any] = {"shift": "camera", "repair": 520}


def row(plan: str, seed: int = 0, **options: Any) -> dict[str, Any]:
    (found,) = cell("digits", plan, seed, **(CAMERA | options))
    return {"network": "digits", "plan": plan, "seed": seed, **found}


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return {plan: row(plan, resplit=True) for plan in ("none", "full", "auto")}


def test_nothing_moves_nothing_on_any_draw(rows: dict[str, dict[str, Any]]) -> None:
    found = rows["none"]
    assert (found["kept"], found["fixed"], found["broken"], found["flops"]) == ("none", 0, 0, 0)
    assert (found["resplit_net"], found["resplit_ratio"], found["resplit_none"]) == (0, None, 1)
    assert found["promise_broken"] is None


def test_a_row_is_the_proof_of_the_treatment(rows: dict[str, dict[str, Any]]) -> None:
    found = rows["full"]
    assert found["kept"] == "full"
    assert found["fixed"] > 5 * found["broken"] > 0  # what the camera did is repaired for the most part
    assert found["net"] == found["fixed"] - found["broken"] == round((found["after"] - found["before"]) * found["n"])
    assert found["ratio"] == found["fixed"] / found["broken"]
    assert found["regression_rate"] == pytest.approx(found["broken"] / round(found["before"] * found["n"]))
    assert found["p_value"] == pytest.approx(mcnemar(found["fixed"], found["broken"]))
    assert found["flops"] > 0


def test_draws_of_one_candidate_give_what_it_does_to_all_examples(rows: dict[str, dict[str, Any]]) -> None:
    case, _ = case_of(load_subject("digits"), 0, "camera", "", 520, None)
    plan = load_plan("full")
    made = perform(plan, jobs.job(case, name="full", augment=DIGIT)).candidates["full"]
    judges = [Judge(case, case.splits[name], case.model) for name in ("select", "verify")]
    right, after = (np.concatenate(each) for each in zip(*[(j.right, j.verdicts(made)) for j in judges], strict=True))
    moves, found = flips(right, after), rows["full"]
    assert found["resplit_none"] == 0
    # Draws without replacement are unbiased: the mean of 300 is near what is true of all.
    assert found["resplit_net"] == pytest.approx(1000 * moves.net / moves.n, rel=0.03)
    assert found["resplit_ratio"] == pytest.approx(moves.fixed / moves.broken, rel=0.1)
    assert (found["highest_net"], found["highest_ratio"]) == (found["resplit_net"], found["resplit_ratio"])


def test_auto_keeps_its_promise_and_its_price(rows: dict[str, dict[str, Any]]) -> None:
    found, full = rows["auto"], rows["full"]
    assert found["regression_rate"] <= 0.05
    assert found["promise_broken"] <= 0.05
    assert found["flops"] <= 2 * 3 * full["flops"] * (1 + 1e-9)  # `select` is small, so halves of `repair` come on top
    assert 0 <= found["resplit_none"] < 1
    assert found["resplit_net"] > 0 < found["highest_net"]


def test_a_planted_fault_is_treated_where_it_is() -> None:
    found = row("true", fault="noise layer2", shift="none")
    assert found["treated"] == "layer2"
    assert found["net"] > 0
    with pytest.raises(InvalidArgumentError, match="leave none to verify on"):
        cell("digits", "full", 0, repair=100_000)
