"""Causes of the most frequent confusions: named with pictures and a group, or a reason why not."""

import numpy as np
import pandas as pd
import pytest

from suture.case import Case
from suture.causes import asked_of_pairs
from suture.causes.asking import MOST_ERRORS, carrier
from suture.causes.margins import Pair
from suture.tasks import evaluate
from tests import toys
from tests.causes import scenes

PAIR = Pair(0, 1)


def verdicts(case: Case) -> np.ndarray:
    return evaluate(case.model, case.splits["diagnose"], case.task, device=case.device).right


def test_the_cause_its_pictures_and_the_group_it_acts_through() -> None:
    case, errors = scenes.case(*scenes.SCENES["colour"], seed=5, errors=10)
    found = asked_of_pairs(case, {PAIR: errors}, {PAIR: errors[:4]}, verdicts(case), most=4)
    row = found.causes[PAIR].iloc[0]
    assert (row["family"], row["n"]) == ("colour", 10)
    assert row["low"] > 0
    assert row["p"] < 0.05
    assert found.probes[PAIR].loc[row["probe"], "stands_out"]
    assert list(found.through[PAIR].index) == list(case.groups)
    assert found.changed[PAIR].shape == (4, 32, 32, 3)
    before = case.pictures("diagnose", errors[:4])
    assert before is not None
    assert (found.changed[PAIR] != before).any()
    assert found.why_not == ""


def test_only_as_many_pairs_as_asked_for_and_only_those_with_errors_enough() -> None:
    case, errors = scenes.case(*scenes.SCENES["colour"], seed=5, errors=10)
    none = asked_of_pairs(case, {PAIR: errors}, {PAIR: errors}, verdicts(case), most=0)
    assert none.why_not == "they were not asked for"
    few = asked_of_pairs(case, {PAIR: errors[:4]}, {PAIR: errors}, verdicts(case), most=4)
    assert few.why_not == "no confusion has 5 errors, the fewest that a cause is named from"
    assert not none.causes
    assert not few.causes


def test_inputs_that_are_no_pictures_are_a_reason_and_no_error() -> None:
    case = toys.case()
    zeros = [i for i, label in enumerate(case.splits["diagnose"].strata) if label == 0]
    found = asked_of_pairs(case, {PAIR: zeros[:5]}, {PAIR: zeros[:5]}, verdicts(case), most=2)
    assert "the inputs of this case are none" in found.why_not


def test_a_carrier_is_beyond_random_and_speaks_for_the_truth() -> None:
    table = pd.DataFrame(
        {
            "effect": [2.0, 2.0, -3.0],
            "excess": [0.5, 1.5, 9.0],
            "excess_low": [0.1, 1.0, 8.0],
            "excess_high": [0.9, 2.0, 10.0],
        },
        index=["a", "b", "c"],
    )
    assert carrier(table) == "b"
    assert carrier(table.assign(excess_low=-1.0)) is None
    assert carrier(table.assign(excess_high=[1.1, 2.0, 10.0])) is None, "a's interval reaches into that of b"
    assert carrier(table.loc[["b"]]) == "b"


def test_of_very_many_errors_a_part_is_asked() -> None:
    case, errors = scenes.case(*scenes.SCENES["colour"], seed=5, errors=MOST_ERRORS + 5)
    found = asked_of_pairs(case, {PAIR: errors}, {PAIR: errors[:1]}, verdicts(case), most=1)
    assert found.causes[PAIR]["n"].tolist() == [MOST_ERRORS]
    with pytest.raises(KeyError):
        found.causes[Pair(1, 0)]
