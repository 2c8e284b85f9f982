"""The course: cycles while they pay, the twin, the paper's protocol, and a model that nobody touches."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import suture
from suture.case import Case
from suture.errors import RunError, SutureError
from suture.tasks import evaluate
from suture.training import Checkpoints
from suture.treatments import Choice, Everything, FineTune, Flagged, Groups, Job, Plan, Treated, follow
from suture.treatments.plan import Method, Places
from suture.treatments.where import Entries
from tests import toys
from tests.treatments import jobs


def digest(model: nn.Module) -> str:
    """sha256 of everything a model holds, gradients and switches included."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    for name, p in model.named_parameters():
        found.update(f"{name}{p.requires_grad}{p.grad is None}".encode())
    found.update(str([m.training for m in model.modules()]).encode())
    return found.hexdigest()


PLAN = Plan(name="short", where=Flagged(), how=jobs.short(epochs=3))


def course(plan: Plan, flag: Sequence[Sequence[str]] = (), *, always: bool = False, case: Case | None = None) -> tuple:  # type: ignore[type-arg]
    case = case or toys.case()
    asked: list[nn.Module] = []

    def flagged(model: nn.Module) -> Sequence[str]:
        asked.append(model)
        return flag[len(asked) - 1]

    job = jobs.job(case, plan.where, ("second",), name=plan.name)
    return follow(plan, job, always=always, flag=flagged), asked, case


def test_one_cycle_asks_nobody_again() -> None:
    found, asked, _ = course(PLAN)
    assert found.kept == "short"
    assert not asked
    assert found.judged["candidate"].tolist() == ["none", "short"]


def test_a_cycle_goes_on_from_what_was_kept_while_the_score_rises() -> None:
    plan = PLAN.model_copy(update={"cycles": 2})
    one, _, case = course(PLAN)
    found, asked, _ = course(plan, [["last", "first"]], case=case)
    assert jobs.identical(asked[0], one.made.model)
    assert found.judged["candidate"].tolist() == ["none", "short", "short, cycle 2"]
    scores = found.judged["score"].tolist()
    assert found.kept == ("short, cycle 2" if scores[2] > scores[1] else "short")
    assert scores[2] > scores[1], "choose other groups, so that the second cycle is seen to pay"
    changed = jobs.differing(jobs.state(found.made.model), jobs.state(one.made.model))
    assert changed == {"first.weight", "first.bias", "last.weight", "last.bias"}
    net = [
        int(evaluate(m, case.splits["select"], case.task, device=case.device).right.sum())
        for m in (case.model, found.made.model)
    ]
    assert found.judged["net"].iloc[-1] == net[1] - net[0]  # against the original, not the cycle before
    assert found.history["epoch"].tolist() == [1, 2, 3] * 2
    assert found.cost.epochs == 6
    assert found.account == [f"cycle 1: {one.note}"]


def test_a_later_cycle_scores_entries_on_the_network_that_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[nn.Module] = []
    places = Entries.places

    def watched(self: Entries, case: Case, flagged: Sequence[str]) -> Places:
        seen.append(case.model)
        return places(self, case, flagged)

    plan = PLAN.model_copy(update={"where": Entries(score="gradient", share=0.2), "cycles": 2})
    monkeypatch.setattr(Entries, "places", watched)
    _, asked, case = course(plan, [["last"]])
    assert seen[0] is case.model
    assert seen[1] is asked[0] is not case.model


def test_a_twin_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture.stages.treat._flagged_in", lambda case, model: ["last", "first"])
    found = suture.treat(toys.case(), ["second"], PLAN.model_copy(update={"cycles": 2}), twin=True)
    assert found.kept == "short, cycle 2"
    assert found.twin is None
    assert found.account[-1] == "no twin: what was kept could not be made once more in another order"


def test_a_cycle_that_is_no_better_is_given_up() -> None:
    still = FineTune(recipe=jobs.SHORT.model_copy(update={"lr": 1e-12, "lr_min": 0.0}))

    class Once(Method):
        kind: str = "test_once"

        def treat(self, job: Job) -> Treated:
            first = jobs.identical(job.model, job.case.model)
            return (PLAN.how if first else still).treat(job)

    plan = Plan.model_construct(**(dict(PLAN) | {"how": Once(), "cycles": 5}))
    found, asked, case = course(plan, [["last"], ["first"]])
    assert found.kept == "short"
    assert len(asked) == 1
    assert found.account[-1] == "cycle 2 (last) did no better, so the network after cycle 1 was kept"
    assert found.cost.epochs == 5
    one, _, _ = course(PLAN, case=case)
    assert jobs.identical(found.made.model, one.made.model)


def test_cycles_end_when_no_group_is_flagged() -> None:
    found, _, _ = course(PLAN.model_copy(update={"cycles": 3}), [[]])
    assert found.kept == "short"
    assert found.account == ["cycle 2: no group was flagged any more"]


def test_cycles_resume_from_their_own_checkpoints(tmp_path: Path) -> None:
    case, plan = toys.case(), PLAN.model_copy(update={"cycles": 2})
    whole, _, _ = course(plan, [["last", "first"]], case=case)
    for _ in range(2):
        job = jobs.job(case, plan.where, ("second",), name=plan.name, checkpoints=Checkpoints(tmp_path, "key"))
        again = follow(plan, job, always=False, flag=lambda _: ["last", "first"])
        assert jobs.identical(again.made.model, whole.made.model)  # type: ignore[union-attr]
    assert len(list(tmp_path.rglob("checkpoint-*.safetensors"))) == 2


def test_protocol_paper_keeps_the_treated_network_whatever_it_does() -> None:
    harmful = Plan(
        name="harm", where=Everything(), how=jobs.short(lr=1.0, clip=None, epochs=1), choose=Choice(max_regression=0.01)
    )
    case = toys.case(protocol="paper")
    kept = suture.treat(case, [], harmful)
    row = kept.tried.set_index("candidate").loc["harm"]
    assert row["net"] < 0
    assert kept.kept == "harm"
    assert len(kept.patch)
    assert suture.treat(toys.case(), [], harmful).kept == "none"


def test_the_twin_differs_in_nothing_but_the_order_of_the_examples() -> None:
    case = toys.case()
    found = suture.treat(case, ["second"], PLAN, twin=True)
    assert found.twin is not None
    assert found.twin.base == found.patch.base
    assert found.twin.tensors.keys() == found.patch.tensors.keys()
    assert found.twin.result != found.patch.result
    job = Job(case, case.model, Groups(names=("second",)).places(case, []), ["second"], "short", seed=case.seed + 1)
    other = jobs.only(PLAN.how.treat(job)).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in found.twin.tensors.items())
    assert suture.verify(case, found).churn_floor is not None
    assert suture.treat(case, ["second"], PLAN).twin is None
    assert suture.treat(case, ["second"], "none", twin=True).twin is None


def test_nothing_kept_has_no_twin() -> None:
    still = Plan(name="still", how=jobs.short(lr=1e-12, lr_min=0.0))
    found = suture.treat(toys.case(), ["second"], still, twin=True)
    assert (found.kept, found.twin) == ("none", None)


@pytest.mark.parametrize("name", ["full", "bn_recalibrate", "last_layer", "route", "ewc", "per_block"])
def test_the_model_given_and_the_case_s_copy_stay_as_they_were(name: str) -> None:
    model = toys.network().train()
    model.first.weight.requires_grad_(False)
    case = Case(model, toys.points(200, seed=2, shift=0.9))
    before = digest(model), digest(case.model)
    suture.treat(case, ["second", "last"], name)
    assert (digest(model), digest(case.model)) == before


def test_a_method_that_changes_the_case_s_model_is_found_out() -> None:
    class Careless(Method):
        kind: str = "test_careless"

        def treat(self, job: Job) -> Treated:
            with torch.no_grad():
                next(iter(job.model.parameters())).add_(1)
            return PLAN.how.treat(job)

    plan = Plan.model_construct(**(dict(PLAN) | {"how": Careless()}))
    with pytest.raises(SutureError, match="the case's model changed while a copy of it was treated") as caught:
        suture.treat(toys.case(), ["last"], plan)
    assert not isinstance(caught.value, RunError)
