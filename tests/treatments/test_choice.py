"""The choice: bounded, none in doubt, and judged as the network would answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ttest_rel
from torch import nn

import suture
from suture.errors import InvalidArgumentError
from suture.patch.routed import Routed
from suture.stats import flips, upper_bound
from suture.tasks import evaluate
from suture.treatments import Candidate, Choice, Everything, Job, Judge, Plan, best_of, judge_all, mixed
from suture.treatments.choice import COLUMNS, table
from suture.treatments.route import Route
from tests import toys
from tests.treatments import jobs

RIGHT, WRONG = 400, 100


def judged(moves: dict[str, tuple[int, int]], choice: Choice) -> pd.DataFrame:
    """The table for candidates that fixed and broke so many of 500."""
    after = {name: verdicts(fixed, broken) for name, (fixed, broken) in moves.items()}
    return table(after, {name: Candidate(toys.network()) for name in moves}, choice, verdicts(0, 0))


def verdicts(fixed: int, broken: int, skipped: int = 0) -> NDArray[np.bool_]:
    """(500,) of a network that breaks some of the right ones, which come first, and fixes some of the others.

    Args:
        skipped: wrong ones that stay wrong before the first that is fixed.
    """
    right = np.arange(RIGHT + WRONG) < RIGHT
    right[:broken] = False
    right[RIGHT + skipped : RIGHT + skipped + fixed] = True
    return right


def test_a_row_says_what_a_candidate_does_and_none_comes_first() -> None:
    found = judged({"a": (30, 10), "b": (5, 0)}, Choice(max_regression=0.05, broken_costs=2))
    assert list(found.columns) == COLUMNS
    assert found["candidate"].tolist() == ["none", "a", "b"]
    none, a, b = found.to_dict("records")
    assert (none["fixed"], none["broken"], none["weight"], none["score"], none["allowed"]) == (0, 0, 0.0, 0, True)
    assert (a["net"], a["score"], b["score"]) == (20, 10, 5)
    assert a["bound"] == pytest.approx(upper_bound(10, 400)) == pytest.approx(0.0421, abs=5e-4)
    assert a["allowed"]


@pytest.mark.parametrize(
    ("moves", "choice", "best"),
    [
        ({"a": (30, 10), "b": (29, 0)}, Choice(), "b"),
        ({"a": (30, 10), "b": (19, 0)}, Choice(), "a"),
        ({"a": (30, 10), "b": (19, 0)}, Choice(broken_costs=2), "b"),
        ({"a": (90, 13), "b": (3, 1)}, Choice(max_regression=0.05), "b"),  # 13 of 400 may be 5.1 %
        ({"a": (90, 12), "b": (3, 1)}, Choice(max_regression=0.05), "a"),  # 12 of 400 may be 4.8 %
        ({"a": (90, 40)}, Choice(max_regression=0.05), "none"),
        ({"a": (10, 10)}, Choice(), "none"),  # a draw changes nothing
        ({"a": (0, 0)}, Choice(), "none"),
        ({"a": (20, 10), "b": (20, 10)}, Choice(), "a"),  # the first of equals
        ({}, Choice(), "none"),
    ],
)
def test_the_best_is_allowed_and_gains_something(moves: dict[str, tuple[int, int]], choice: Choice, best: str) -> None:
    assert upper_bound(12, 400) < 0.05 < upper_bound(13, 400)
    assert best_of(judged(moves, choice)) == best


@pytest.mark.parametrize(
    ("preferred", "other", "kept"),
    [
        (verdicts(10, 2), verdicts(14, 2), "first"),  # 4 more in 4: ahead by 2.01, not more than 2.5
        (verdicts(10, 2), verdicts(20, 2), "second"),  # 10 more in 10: ahead by 3.2
        (verdicts(10, 2), verdicts(20, 2, skipped=40), "first"),  # 10 lost and 20 won: ahead by 1.8
        (verdicts(3, 2), verdicts(9, 2), "second"),  # the first does not gain, so it is not preferred
        (verdicts(90, 40), verdicts(9, 2), "second"),  # nor where it may break too much
        (verdicts(10, 2), verdicts(90, 40), "first"),
    ],
)
def test_the_preferred_candidate_stays_unless_another_is_clearly_ahead(
    preferred: NDArray[np.bool_], other: NDArray[np.bool_], kept: str
) -> None:
    choice = Choice(max_regression=0.05, broken_costs=2, switch_se=2.5)
    made = {name: Candidate(toys.network()) for name in ("first", "second")}
    found = table({"first": preferred, "second": other}, made, choice, verdicts(0, 0))
    assert best_of(found, choice.switch_se) == kept
    first, second = found["ahead"].iloc[1:]
    points = [np.where(verdicts(0, 0), -2.0 * ~each, each) for each in (preferred, other)]
    if found["allowed"].iloc[1] and found["score"].iloc[1] > 0:
        expected = ttest_rel(points[1], points[0]).statistic * np.sqrt(500 / 499)  # that divides by n - 1
        assert (first, second) == (0, pytest.approx(expected))


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, WRONG), st.integers(0, RIGHT)), max_size=6),
    st.sampled_from([None, 0.01, 0.05, 0.3]),
    st.floats(0, 3),
)
def test_whatever_is_chosen_keeps_the_bound_and_nothing_allowed_is_better(
    moves: list[tuple[int, int]], bound: float | None, costs: float
) -> None:
    found = judged({f"c{i}": pair for i, pair in enumerate(moves)}, Choice(max_regression=bound, broken_costs=costs))
    row = found[found["candidate"] == best_of(found)].iloc[0]
    scores = [fixed - costs * broken for fixed, broken in moves if bound is None or upper_bound(broken, RIGHT) <= bound]
    assert row["score"] == max([0.0, *scores])
    if row["candidate"] != "none":
        assert row["score"] > 0
        assert bound is None or upper_bound(int(row["broken"]), RIGHT) <= bound


def test_the_judge_counts_what_a_network_of_known_answers_does() -> None:
    case = toys.case()
    split = case.splits["select"]
    before = evaluate(case.model, split, case.task, device=case.device)
    assert before.predictions is not None
    answers = before.predictions.tolist()
    for i in before.errors[:4]:
        answers[i] = split.strata[i]
    for i in before.correct[:3]:
        answers[i] = (split.strata[i] + 1) % 3  # type: ignore[operator]
    judge = Judge(case, split, case.model)
    moves = flips(judge.right, judge.verdicts(jobs.at(jobs.constant(case, answers))))
    assert (moves.fixed, moves.broken, moves.n) == (4, 3, len(split))
    found = judge_all({"known": jobs.at(jobs.constant(case, answers))}, Choice(), judge)
    assert found[["fixed", "broken", "net"]].to_numpy().tolist() == [[0, 0, 0], [4, 3, 1]]


def test_weights_count_from_where_the_treatment_began() -> None:
    case, other = toys.case(), toys.untrained().eval()
    new = jobs.only(jobs.short().treat(jobs.job(case)))
    split = case.splits["select"]
    judge = Judge(case, split, case.model, other)
    expected = evaluate(mixed(other, new, 0.5), split, case.task, device=case.device).right
    assert (judge.verdicts(Candidate(new, 0.5)) == expected).all()
    assert (judge.right == evaluate(case.model, split, case.task, device=case.device).right).all()


def test_a_network_without_finite_losses_is_wrong_everywhere() -> None:
    case, broken = toys.case(), toys.network()
    with torch.no_grad():
        broken.last.bias.fill_(float("inf"))
    judge = Judge(case, case.splits["select"], case.model)
    moves = flips(judge.right, judge.verdicts(Candidate(broken)))
    assert (moves.fixed, moves.broken) == (0, int(judge.right.sum()))
    assert best_of(judge_all({"broken": Candidate(broken)}, Choice(), judge)) == "none"


@pytest.fixture(scope="module")
def treated() -> tuple[suture.Case, nn.Module]:
    case = toys.case()
    return case, jobs.only(jobs.short(epochs=4, lr=0.2, clip=None).treat(jobs.job(case)))


@pytest.mark.parametrize("weight", [0.5, 1.0])
@pytest.mark.parametrize("margin", [-1.0, -0.3, -0.05, 0.0, 0.1, 1.0])
def test_the_judge_s_verdicts_on_a_route_are_those_of_the_routed_network(
    treated: tuple[suture.Case, nn.Module], margin: float, weight: float
) -> None:
    case, new = treated
    split = case.splits["verify"]
    judge = Judge(case, split, case.model)
    made = Candidate(new, weight, margin)
    routed = Routed(case.model, mixed(case.model, new, weight), margin).eval()
    expected = evaluate(routed, split, case.task, device=case.device).right
    assert (judge.verdicts(made) == expected).all()
    alone = judge.verdicts(replace(made, margin=None))
    assert (alone != judge.right).any()
    assert (judge.verdicts(made) == {-1.0: alone, 1.0: judge.right}.get(margin, expected)).all()


def test_a_treatment_by_route_is_verified_as_it_will_answer(tmp_path: Path) -> None:
    case = toys.case()
    how = Route(plan=Plan(name="full", where=Everything(), how=jobs.short(epochs=4)))
    found = suture.treat(case, [], Plan(name="route", how=how, choose=Choice(broken_costs=2)))
    assert found.kept.startswith("full by ")
    assert found.patch.margin == found.undo.margin == float(found.kept.removeprefix("full by "))
    assert found.tried["candidate"].tolist() == ["none", *(f"full by {m:+g}" for m in how.margins)]
    found.patch.save(tmp_path / "route.safetensors")
    verified = [suture.verify(case, each) for each in (found, tmp_path / "route.safetensors")]
    network = suture.patched(case.model, found.patch)
    assert isinstance(network, Routed)
    after = evaluate(network, case.splits["verify"], case.task, device=case.device)
    assert [v.accuracy_after for v in verified] == [after.accuracy] * 2
    row = found.tried[found.tried["candidate"] == found.kept].iloc[0]
    on_select = evaluate(network, case.splits["select"], case.task, device=case.device)
    before = evaluate(case.model, case.splits["select"], case.task, device=case.device)
    assert row["net"] == on_select.right.sum() - before.right.sum()


def test_a_route_needs_probabilities_and_says_so_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def trains(plan: Plan, job: Job) -> None:
        raise AssertionError("it began to train")

    monkeypatch.setattr("suture.treatments.route.carry_out", trains)
    with pytest.raises(InvalidArgumentError, match="route needs probabilities, which CopyTask"):
        Route(plan=Plan(name="x", where=Everything())).treat(jobs.job(toys.sequence_case()))
