"""Rules: what each flags, and how often chance alone is taken for something."""

import numpy as np
import pandas as pd
import pytest

from suture.errors import UnknownNameError
from suture.localizers import LOCALIZERS, RULES, Ranking
from suture.localizers.intervals import blocks, excess, replicates
from tests.localizers.samples import GROUPS, evidence, gradients

NAN = float("nan")


def ranking(scores: list[float], **more: object) -> Ranking:
    return Ranking(pd.Series(scores, index=list("abcdefg")[: len(scores)], dtype=float), **more)  # type: ignore[arg-type]


def paying(gain: list[float], low: list[float], high: list[float]) -> Ranking:
    pays = pd.DataFrame({"gain": gain, "low": low, "high": high}, index=list("abcdefg")[: len(gain)], dtype=float)
    return ranking([1.0, 2, 3, 4, 5, 6, 7][: len(gain)], pays=pays)


@pytest.mark.parametrize(
    ("rule", "scores", "flagged"),
    [
        ("above_median", [3, 1, 2, 5, 4, 7, 6], "dfg"),
        ("above_median", [1, 1, 1], ""),
        ("above_median", [NAN, NAN], ""),
        ("first", [1, 3, 2], "b"),
        ("first", [NAN, 3, 4], "c"),
        ("first", [NAN, NAN], ""),
        ("top_k", [3, 1, 2, 5, 4, 7, 6], "dfg"),
        ("top_k", [3, 1], "ab"),
        ("top_1", [3, 1, 2], "a"),
        ("top_2", [3, 1, 2], "ac"),
        ("top_5", [3, 1, 2, 5, 4, 7, 6], "adefg"),
        ("top_100", [3, NAN, 2], "ac"),
    ],
)
def test_what_is_flagged(rule: str, scores: list[float], flagged: str) -> None:
    assert "".join(RULES[rule](ranking(scores))) == flagged


def test_the_paper_s_table_8() -> None:
    norms = {"conv1": 9.14, "bn1": 4.99, "layer1": 7.43, "layer2": 8.58, "layer3": 10.56, "layer4": 7.38, "fc": 0.86}
    assert RULES["above_median"](Ranking(pd.Series(norms))) == ["conv1", "layer2", "layer3"]


@pytest.mark.parametrize("name", ["top_0", "top_", "top_-1", "top_1.5", "topk", "above_medain"])
def test_rules_that_there_are_not(name: str) -> None:
    with pytest.raises(UnknownNameError, match="no flagging rule is called"):
        RULES[name]


@pytest.mark.parametrize(
    ("gain", "low", "high", "flagged"),
    [
        ([0.10, 0.085, 0.07], [0.05, 0.01, -0.01], [0.15, 0.09, 0.04], "ab"),  # c: less than 80 % of the best gain
        ([0.10, 0.05, -0.01], [0.01, -0.02, -0.05], [0.15, 0.2, 0.04], "a"),  # b: whatever its interval
        ([0.10, 0.09, 0.085], [-0.01, -0.01, -0.01], [0.2, 0.2, 0.2], "abc"),  # not sure, but alike
        ([0.0, 0.0], [-0.01, -0.01], [0.01, 0.01], ""),
        ([-0.10, -0.05], [-0.2, -0.1], [-0.01, 0.0], ""),
        ([NAN, 0.05], [NAN, 0.01], [NAN, 0.1], "b"),
        ([NAN, NAN, NAN], [NAN] * 3, [NAN] * 3, "c"),  # not measured: above the median score
    ],
)
def test_where_treating_pays(gain: list[float], low: list[float], high: list[float], flagged: str) -> None:
    assert "".join(RULES["pays"](paying(gain, low, high))) == flagged


def test_exceeds_null_flags_what_is_surely_above_and_nothing_else() -> None:
    found = pd.DataFrame(
        {"difference": [0.2, 0.1, -0.3], "low": [0.1, -0.01, -0.4], "first": [1, 0, 0]}, index=list("abc")
    )
    assert RULES["exceeds_null"](ranking([1, 2, 3], excess=found)) == ["a"]
    assert RULES["exceeds_null"](ranking([1, 2, 3])) == []
    assert RULES["exceeds_null"](ranking([1, 2, 3], excess=found * NAN)) == []


def compared(errors: list[np.ndarray], null: list[np.ndarray], score: str, seed: int) -> pd.DataFrame:
    """Excess of one sample over the other."""
    both = [evidence(parts) for parts in (errors, null)]
    scores = [LOCALIZERS[score](found) for found in both]
    draws = [replicates({score: LOCALIZERS[score]}, found, 2 * seed + i, n=100)[score] for i, found in enumerate(both)]
    return excess(scores[0], draws[0], scores[1], draws[1], (blocks(both[0]), blocks(both[1])), paired=False)


@pytest.mark.parametrize(("score", "n", "mean"), [("grad_norm", 60, 0.5), ("mean_grad_norm", 40, 0.0)])
def test_chance_alone_is_taken_for_a_fault_in_about_one_case_of_twenty(score: str, n: int, mean: float) -> None:
    # Errors and correct examples drawn alike: any flag is a false alarm. 5 % of 60 trials is 3; binomially, 9 or
    # more would come up in under 1 % of runs at that rate.
    alarms = 0
    for seed in range(60):
        generator = np.random.default_rng([seed, n])
        parts = [gradients(generator, n, mean) for _ in range(2)]
        alarms += bool((compared(*parts, score, seed)["low"] > 0).any())
    assert alarms <= 8


def test_a_group_in_which_errors_differ_is_found() -> None:
    hits = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        errors, null = (gradients(generator, 100, 0.5) for _ in range(2))
        errors[2] = errors[2] * 4
        found = compared(errors, null, "grad_norm", seed)
        hits += RULES["exceeds_null"](Ranking(pd.Series(1.0, index=GROUPS), excess=found)) == ["g2"]
    assert hits >= 18
