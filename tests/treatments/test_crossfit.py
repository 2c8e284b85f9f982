"""Cross-fitting: nobody is judged on what they were trained on, and too few are said to be."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import suture
from suture.case import Case
from suture.splits import Splits, content_hash
from suture.stats import flips, least_for_bound
from suture.tasks import evaluate
from suture.treatments import Choice, Everything, FineTune, Job, Plan, Treated, follow, load_plan
from suture.treatments.choice import Judge
from suture.treatments.crossfit import _folds, cross_fit
from suture.treatments.search import Search
from tests import toys
from tests.treatments import jobs

BOUNDED = Choice(max_regression=0.05, broken_costs=1)  # needs 59 right examples
NOTHING = Treated({}, pd.DataFrame(), jobs.only_cost())
PLAN = Plan(name="full", where=Everything(), how=jobs.short(epochs=4), choose=BOUNDED)


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], set[str]]]:
    """Contents that each training trained on, and that its candidates would be judged on."""
    seen: list[tuple[set[str], set[str]]] = []
    treat = FineTune.treat

    def watched(self: FineTune, job: Job) -> Treated:
        splits = job.case.splits
        seen.append((set(splits["repair"].hashes), set(splits["select"].hashes)))
        return treat(self, job)

    monkeypatch.setattr(FineTune, "treat", watched)
    return seen


@pytest.mark.parametrize("more", [False, True], ids=["plain", "extra"])
def test_nothing_is_judged_on_what_its_own_fold_trained_on(
    trained_on: list[tuple[set[str], set[str]]], more: bool
) -> None:
    case = toys.case(repair_extra=toys.points(90, seed=11, shift=0.9) if more else None)
    folds = cross_fit(PLAN, jobs.job(case, name="full"), NOTHING)
    assert len(trained_on) == 2
    assert all(not trained & judged for trained, judged in trained_on)
    judged = [content for _, contents in trained_on for content in contents]
    first = set(toys.case().splits["repair"].hashes)
    assert sorted(judged) == sorted(first)  # each once, and none of the further examples
    extra = {content_hash(x) for x, _ in toys.points(90, seed=11, shift=0.9)}
    assert all(len(trained - extra) >= 80 for trained, _ in trained_on)
    assert [len(trained & extra) for trained, _ in trained_on] == [45 * more] * 2  # another half for each
    assert len(set.union(*(trained & extra for trained, _ in trained_on))) == 90 * more
    assert len(folds.after["full"]) == len(folds.right) == len(first)
    assert list(folds.after) == ["full"]
    assert folds.cost.epochs == 8


def test_copies_of_a_held_out_example_are_not_trained_on() -> None:
    case = toys.case()
    repair = case.splits["repair"]
    copies = [(repair[i][0].clone(), repair[i][1]) for i in range(0, len(repair), 3)]
    for fold in _folds(toys.case(repair_extra=copies)):
        trained, judged = (set(fold.splits[name].hashes) for name in ("repair", "select"))
        assert not trained & judged
        assert len(trained) + len(judged) == len(repair)


def test_the_flips_are_those_of_each_fold_s_own_training() -> None:
    case = toys.case()
    folds = cross_fit(PLAN, jobs.job(case, name="full"), NOTHING)
    moves = flips(folds.right, folds.after["full"])
    fixed = broken = n = before = 0
    for fold in _folds(case):
        model = jobs.only(PLAN.how.treat(jobs.job(fold, name="full")))
        outcomes = [
            evaluate(m, fold.splits["select"], case.task, device=case.device).right for m in (case.model, model)
        ]
        fixed += int((~outcomes[0] & outcomes[1]).sum())
        broken += int((outcomes[0] & ~outcomes[1]).sum())
        before, n = before + int(outcomes[0].sum()), n + len(outcomes[0])
    assert (moves.fixed, moves.broken, len(folds.right), int(folds.right.sum())) == (fixed, broken, n, before)
    assert fixed > 0


def course(case: Case, plan: Plan = PLAN, **options: Any) -> Any:
    return follow(plan, jobs.job(case, name=plan.name, **options), always=False, flag=lambda _: ["last"])


def test_it_is_used_when_select_has_too_few_right_examples(trained_on: list[tuple[set[str], set[str]]]) -> None:
    case = toys.case()
    right = Judge(case, case.splits["select"], case.model).right
    assert right.sum() < 59 == least_for_bound(0.05)
    found = course(case)
    assert len(trained_on) == 3  # all of `repair`, and then two folds
    assert trained_on[0][0] == set(case.splits["repair"].hashes)
    n = len(case.splits["repair"]) + len(case.splits["select"])
    assert f"of the {n} examples of 'select' and 'repair', each judged by a training that did not see it" in found.note
    assert found.cost.epochs == 12  # the folds are paid for
    assert found.judged["candidate"].tolist() == ["none", "full"]


def test_it_is_not_used_where_select_will_do(trained_on: list[tuple[set[str], set[str]]]) -> None:
    case = Case(toys.network(), toys.points(3000, seed=2, shift=0.6))
    assert Judge(case, case.splits["select"], case.model).right.sum() >= 3 * 59
    assert "examples of 'select'" in course(case).note
    unbounded = PLAN.model_copy(update={"choose": Choice()})
    assert "examples of 'select'" in course(toys.case(), unbounded).note
    assert len(trained_on) == 2


def test_select_is_judged_by_the_network_that_is_kept_and_both_are_counted() -> None:
    case = Case(toys.network(), toys.points(1000, seed=2, shift=0.6))
    judge = Judge(case, case.splits["select"], case.model)
    assert 59 <= judge.right.sum() < 3 * 59  # would do for the bound, but next to nothing might break
    folds = cross_fit(PLAN, jobs.job(case, name="full"), NOTHING)
    made = jobs.only(PLAN.how.treat(jobs.job(case, name="full")))
    parts = [flips(folds.right, folds.after["full"]), flips(judge.right, judge.verdicts(jobs.at(made)))]
    row = course(case).judged.set_index("candidate").loc["full"]
    assert (row["fixed"], row["broken"]) == (sum(p.fixed for p in parts), sum(p.broken for p in parts))
    assert all(p.fixed for p in parts)


def test_too_few_altogether_is_said_with_the_number_needed(trained_on: list[tuple[set[str], set[str]]]) -> None:
    case = Case(toys.network(), toys.points(150, seed=2, shift=0.9))  # 60 in both, and not all of them right
    found = course(case)
    assert found.kept == "none"
    assert found.made is None
    assert "too few examples that are right to promise that at most 5 % of such break (59 in both" in found.note
    assert found.judged["candidate"].tolist() == ["none"]
    assert not trained_on  # nothing is trained for nothing
    treatment = suture.treat(case, ["last"], PLAN)
    assert (treatment.kept, len(treatment.patch)) == ("none", 0)
    assert "59 in both" in treatment.note


def test_a_second_cycle_has_nobody_left_to_judge_it() -> None:
    choose = Choice(max_regression=0.2, broken_costs=0.1)  # needs 14 right examples
    plan = PLAN.model_copy(update={"cycles": 3, "choose": choose, "how": jobs.short(epochs=6)})
    case = Case(toys.network(), toys.points(150, seed=2, shift=0.9))
    assert Judge(case, case.splits["select"], case.model).right.sum() < 14 == least_for_bound(0.2)
    found = course(case, plan)
    assert found.kept == "full", found.note
    assert found.account[-1].startswith("'select' is too small to judge a second cycle")


def test_folds_whose_training_stops_leave_the_original() -> None:
    plan = PLAN.model_copy(update={"how": jobs.short(lr=1e30, clip=None, batch_size=16)})
    found = course(toys.case(), plan)
    assert found.kept == "none"
    assert found.made is None
    assert "not finite in epoch 1" in found.note


def test_a_candidate_that_only_some_trainings_have_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def treat(self: FineTune, job: Job) -> Treated:
        calls.append(1)
        name = f"turn {len(calls)}"
        return Treated({name: jobs.at(toys.untrained().eval())}, pd.DataFrame(), jobs.only_cost())

    monkeypatch.setattr(FineTune, "treat", treat)
    found = course(toys.case())
    assert found.kept == "none"
    assert found.judged["candidate"].tolist() == ["none"]
    assert found.note.startswith("no candidate of every training could be judged on the")
    assert torch.is_grad_enabled()


def test_what_a_search_gave_up_is_not_tried_by_the_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[list[str]] = []
    halved = Search._halved

    def in_turn(self: Search, job: Job, done: Any, left: Any, spent: float) -> Any:
        if self.budget == float("inf"):
            return halved(self, job, done, left, spent)
        decided.append([list(done)[len(decided) % 2]])  # another one each time it is asked
        return decided[-1], [], jobs.only_cost()

    monkeypatch.setattr(Search, "_halved", in_turn)
    plans = tuple(Plan(name=name, where=Everything(), how=jobs.short(epochs=4)) for name in ("one", "other"))
    search = Search(plans=plans, weights=(1.0, 0.5), budget=3)
    found = course(toys.case(), Plan(name="search", how=search, choose=BOUNDED))
    assert decided == [["one"]]
    assert found.judged["candidate"].tolist() == ["none", "one", "one x 0.5"]
    assert found.cost.epochs == 4 + 1 + 2 * 4  # all of one, a quarter of the other, and one again by halves


@pytest.mark.parametrize("n", [100, 3000])
@pytest.mark.parametrize("seen", [None, 400])
def test_the_folds_together_cost_what_the_plan_does(seen: int | None, n: int) -> None:
    case = toys.case(repair_extra=toys.points(n, seed=11, shift=0.9))
    how = jobs.short(epochs=4).model_copy(update={"seen": seen})
    plan = Plan(name="full", where=Everything(), how=how, choose=BOUNDED)
    job = jobs.job(case, name="full")
    whole = how.treat(job).cost.flops
    folds = cross_fit(plan, job, NOTHING).cost.flops
    assert folds == pytest.approx(whole, rel=0.02)
    inner = Plan(name="search", how=Search(plans=(plan,), most=1, weights=(1.0,), budget=100), choose=BOUNDED)
    assert cross_fit(inner, job, NOTHING).cost.flops == pytest.approx(whole, rel=0.02)


def test_a_search_with_further_examples_takes_twice_its_budget_at_most() -> None:
    case = toys.case(repair_extra=toys.points(900, seed=11, shift=0.9))
    plan = load_plan("auto")
    said: list[str] = []
    found = suture.treat(case, ["second"], plan, say=said.append)
    assert "each judged by a training that did not see it" in found.note
    assert found.cost.flops <= 2.02 * plan.how.budget * found.cost.one_full_flops  # type: ignore[attr-defined]
    job = jobs.job(case, name="auto", flagged=("second",))
    assert 2 * plan.how.estimate(job).flops == pytest.approx(found.cost.flops, rel=0.02)
    assert "trained on halves of 'repair' too" in said[0]


def test_what_cannot_be_cut_in_two_makes_no_folds() -> None:
    case = toys.case()
    case = case.replace(splits=Splits(case.splits | {"repair": case.splits["repair"].only([0])}))
    folds = cross_fit(PLAN, jobs.job(case, name="full"), NOTHING)
    assert (dict(folds.after), len(folds.right), folds.cost.epochs) == ({}, 0, 0)
    assert folds.with_others({"full": np.ones(3, bool)}, np.zeros(3, bool))[0] == {}
