"""The search: within its budget, the better half goes on, and a killed one ends like an undisturbed one."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from suture.case import Case
from suture.patch import load_patch
from suture.pipeline import run
from suture.training import Checkpoints
from suture.treatments import (
    Choice,
    Everything,
    FineTune,
    Flagged,
    Groups,
    Nothing,
    Plan,
    Treated,
    carry_out,
    load_plan,
    within,
)  # fmt: skip
from suture.treatments.cost import forward_flops, step_flops
from suture.treatments.interpolate import mean
from suture.treatments.plan import Job
from suture.treatments.search import Search
from tests import toys
from tests.test_pipeline import ROOT, digests
from tests.treatments import jobs

RECIPE = jobs.SHORT.model_copy(update={"epochs": 8, "batch_size": 64})


def plan(name: str, lr: float = 0.05, where: Any = None, **changes: Any) -> Plan:
    return Plan(
        name=name,
        where=where or Everything(),
        how=FineTune(recipe=RECIPE.model_copy(update={"lr": lr, "lr_min": min(lr, RECIPE.lr_min)} | changes)),
    )


def search(*plans: Plan, **options: Any) -> Search:
    usual = {"weights": (1.0,), "mean": False, "most": len(plans)}
    return Search(plans=plans, choose=Choice(broken_costs=2), **(usual | options))


def full_flops(case: Case) -> float:
    """Operations of one full fine-tuning by the standard recipe: 8 epochs."""
    n = len(case.splits["repair"])
    size = min(n, 64)
    return 8 * n * step_flops(case, {name for name, _ in case.model.named_parameters()}, size) / size


FOUR = (plan("a", 0.05), plan("b", 1e-7), plan("c", 0.02), plan("d", 2e-7))  # b and d hardly move
EIGHT = (*FOUR, plan("e", 3e-7), plan("f", 4e-7), plan("g", where=Groups(names=("last",))), plan("h", 5e-7))


@pytest.mark.parametrize("plans", [FOUR, EIGHT], ids=["4", "8"])
@pytest.mark.parametrize("budget", [0.5, 1.0, 1.7, 3.0, 9.0])
def test_the_budget_is_kept(plans: tuple[Plan, ...], budget: float) -> None:
    case = jobs.small_case()
    treated = search(*plans, budget=budget).treat(jobs.job(case))
    assert treated.cost.flops <= budget * full_flops(case) * (1 + 1e-9)
    whole = treated.history.groupby("plan").size() if len(treated.history) else {}
    if budget == 9.0:
        assert dict(whole) == {p.name: 8 for p in plans}
    elif budget == 0.5:
        assert set(dict(whole)) <= {"g"}  # the last layer costs less than half
    else:
        assert set(dict(whole).values()) == {2, 8} or dict(whole) == {"a": 8}


def test_every_plan_gets_a_quarter_and_the_better_half_goes_on() -> None:
    treated = search(*FOUR, budget=2.6).treat(jobs.job(toys.case()))
    assert treated.history.groupby("plan").size().to_dict() == {"a": 8, "b": 2, "c": 8, "d": 2}
    assert list(treated.candidates) == ["a", "c"]
    (said,) = treated.account
    assert said.startswith("after a quarter of the epochs the scores were ")
    assert said.endswith(("; c, a went on", "; a, c went on"))
    assert treated.cost.epochs == 20


def test_what_goes_on_ends_where_it_would_have_ended_alone() -> None:
    case = toys.case()
    treated = search(*FOUR, budget=2.6).treat(jobs.job(case))
    for each in (FOUR[0], FOUR[2]):
        alone = jobs.only(carry_out(each, jobs.job(case)))
        assert jobs.identical(treated.candidates[each.name].model, alone)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "ikfad"])
def test_a_quarter_and_then_the_rest_equals_all_at_once(tmp_path: Path, optimizer: str) -> None:
    case, how = toys.case(), plan("x", optimizer=optimizer, momentum="critical").how
    whole = how.treat(jobs.job(case))
    for share, epochs in [(0.25, 2), (0.5, 4), (1.0, 8)]:
        part = how.treat(jobs.job(case, share=share, checkpoints=Checkpoints(tmp_path, "key")))
        assert len(part.history) == epochs
    assert jobs.identical(jobs.only(part), jobs.only(whole))
    assert part.history["loss"].tolist() == whole.history["loss"].tolist()


def test_the_mean_and_the_weights_are_candidates() -> None:
    case = jobs.small_case()
    treated = search(*FOUR[:2], weights=(0.5, 1.0), mean=True, budget=9).treat(jobs.job(case))
    # In order of preference.
    assert list(treated.candidates) == ["mean of 2 x 0.5", "mean of 2", "a x 0.5", "a", "b x 0.5", "b"]
    assert treated.account[-1] == "mean of 2 is that of the weights of a and b"
    together = mean([treated.candidates[name].model for name in ("a", "b")])
    assert jobs.identical(treated.candidates["mean of 2"].model, together)
    three = search(*FOUR[:3], mean=True, budget=9).treat(jobs.job(case))
    assert list(three.candidates) == ["mean of 2", "mean of 3", "a", "b", "c"]
    assert three.account[-1] == "mean of 3 is that of the weights of a, b and c"
    assert jobs.identical(three.candidates["mean of 3"].model, mean([three.candidates[n].model for n in "abc"]))
    halved = Plan(name="a", where=Everything(), how=FOUR[0].how, weights=(0.5,))
    found = search(halved, weights=(0.5,)).treat(jobs.job(case)).candidates
    assert {name: made.weight for name, made in found.items()} == {"a x 0.5 x 0.5": 0.25}


def test_a_plan_that_stops_or_has_nothing_to_treat_is_not_fatal() -> None:
    case = jobs.small_case()
    bad = plan("bad", lr=1e30, clip=None, batch_size=16)
    empty, nothing = plan("empty", where=Flagged()), Plan(name="none", how=Nothing())
    treated = search(bad, empty, nothing, plan("good"), mean=True).treat(jobs.job(case))
    assert list(treated.candidates) == ["good"]
    assert any(line.startswith("bad: ") and "was kept" in line for line in treated.account)
    alone = search(bad).treat(jobs.job(case))
    assert alone.candidates == {}


def test_later_plans_stand_in_for_those_with_nothing_to_treat() -> None:
    case, empty = jobs.small_case(), plan("empty", where=Flagged())
    treated = search(empty, *FOUR, most=2, budget=9).treat(jobs.job(case))
    assert set(treated.history["plan"]) == {"a", "b"}
    assert set(search(*FOUR, most=2, budget=9).treat(jobs.job(case)).history["plan"]) == {"a", "b"}
    nothing = search(empty).treat(jobs.job(case))
    assert (nothing.candidates, nothing.stopped) == ({}, "no plan has anything to treat")


def test_judging_is_counted_and_not_as_training() -> None:
    case = jobs.small_case()
    treated = search(*FOUR, budget=2.6).treat(jobs.job(case))
    alone = search(*FOUR, budget=9).treat(jobs.job(case))
    once = forward_flops(case, case.splits["select"])
    assert once > 0
    assert treated.cost.judging_flops == pytest.approx(
        (1 + len(FOUR)) * once
    )  # the old network, and each plan's quarter
    assert alone.cost.judging_flops == 0  # nothing is halved
    assert treated.cost.flops <= 2.6 * full_flops(case)


def test_a_budget_for_nothing_is_said() -> None:
    treated = search(plan("a"), plan("g", where=Groups(names=("last",))), budget=0.1).treat(jobs.job(toys.case()))
    assert treated.candidates == {}
    assert treated.stopped is not None
    assert treated.stopped.startswith("no plan can be carried out within 0.1 full fine-tunings; the cheapest, g, takes")
    partly = search(plan("a"), plan("g", where=Groups(names=("last",))), budget=0.9).treat(jobs.job(toys.case()))
    assert "a did not fit into the budget of 0.9" in partly.account


def test_plans_within_a_search_need_different_names() -> None:
    for pair in ((FOUR[0], FOUR[0]), (FOUR[0], plan("mean of 2"))):
        with pytest.raises(ValidationError, match="plans need different names, and none may be called 'mean of …'"):
            search(*pair)
    with pytest.raises(ValidationError, match="a search holds no other search"):
        search(FOUR[0], Plan(name="inner", how=search(FOUR[1])))


def test_temporary_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[int] = []
    treat = FineTune.treat

    def watched(self: FineTune, job: Job) -> Treated:
        found = treat(self, job)
        seen.append(len(list(tmp_path.rglob("checkpoint-*.safetensors"))))
        return found

    monkeypatch.setattr(FineTune, "treat", watched)
    search(*FOUR[:2]).treat(jobs.job(jobs.small_case()))
    assert max(seen) == 2
    assert not list(tmp_path.iterdir())


def test_the_estimate_is_no_more_than_the_budget() -> None:
    case = toys.case()
    for budget in (0.5, 2.0, 50.0):
        found = search(*FOUR, budget=budget).estimate(jobs.job(case))
        assert found.flops == pytest.approx(min(budget, 4.0) * full_flops(case), rel=1e-6)


class Interrupted(BaseException):
    """Somebody presses Ctrl-C."""


@pytest.mark.parametrize("after", [1, 5, 9, 12, 17])
def test_an_interrupted_search_decides_once_and_ends_like_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    case = jobs.small_case()
    undisturbed = search(*FOUR, budget=2.6).treat(jobs.job(case))
    save, saved = Checkpoints.save, [0]

    def interrupting(self: Checkpoints, *args: Any) -> None:
        save(self, *args)
        saved[0] += 1
        if saved[0] == after:
            raise Interrupted

    monkeypatch.setattr(Checkpoints, "save", interrupting)
    with pytest.raises(Interrupted):
        search(*FOUR, budget=2.6).treat(jobs.job(case, checkpoints=Checkpoints(tmp_path, "key")))
    again = search(*FOUR, budget=2.6).treat(jobs.job(case, checkpoints=Checkpoints(tmp_path, "key")))
    assert saved[0] == 20  # no epoch twice
    assert again.account == undisturbed.account
    assert again.cost.judging_flops == undisturbed.cost.judging_flops > 0
    assert list(again.candidates) == list(undisturbed.candidates)
    for name, made in again.candidates.items():
        assert jobs.identical(made.model, undisturbed.candidates[name].model)
    columns = ["plan", "epoch", "lr", "loss"]
    assert again.history[columns].equals(undisturbed.history[columns])
    Checkpoints(tmp_path, "key").clear()
    assert not list(tmp_path.iterdir())


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import torch; torch.set_num_threads(1)
from tests.treatments.test_search import auto
from pathlib import Path
auto(Path({out!r}))
"""


def auto(out: Path) -> None:
    """A run of ``auto`` whose budget is too small to train every plan to the end."""
    case = Case(toys.network(), toys.points(1200, seed=2, shift=0.9))
    run(case, out, plan=within(load_plan("auto"), 2.0), localizers="grad_norm", rule="first")


def test_a_process_killed_inside_auto_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    program = PROGRAM.format(root=str(ROOT), out=str(cut))
    auto(whole)  # first: on a busy machine the other process might be done before anybody looks
    victim = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 100
    while not _further(cut) and time.monotonic() < deadline:
        time.sleep(0.001)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait(timeout=30) == -signal.SIGKILL
    assert not (cut / "treat/result.json").exists()
    assert _further(cut)
    auto(cut)
    assert digests(cut) == digests(whole)
    found = [load_patch(out / "treat/patch.safetensors") for out in (whole, cut)]
    assert found[0].result == found[1].result != found[0].base
    assert not list((cut / "treat").glob("checkpoint*"))


def _further(out: Path) -> bool:
    """Whether a plan has gone on beyond its quarter: 2 of 8 epochs."""
    epochs = [int(path.stem.split("-")[1]) for path in (out / "treat").rglob("checkpoint-*.safetensors")]
    return max(epochs, default=0) > 2
