"""Between networks: exact at the ends, linear between them, tied weights moved once."""

from pathlib import Path

import pytest
import torch

from suture.training import Checkpoints
from suture.treatments import Average, Candidate, Everything, Plan, mixed, perform
from suture.treatments.interpolate import mean
from tests import toys, zoo
from tests.treatments import jobs


@pytest.mark.parametrize("name", zoo.ZOO)
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_a_part_of_the_way_is_exact_at_the_ends_and_linear_between(name: str, weight: float) -> None:
    old, new = zoo.build(name), zoo.build(name)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in {id(t): t for t in new.state_dict(keep_vars=True).values()}.values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.fill_(9)
    before, there = jobs.state(old), jobs.state(new)
    found = mixed(old, new, weight).state_dict()
    assert not jobs.differing(old.state_dict(), before)
    assert not jobs.differing(new.state_dict(), there)
    for key, tensor in found.items():
        if weight in (0.0, 1.0) and tensor.is_floating_point():
            assert torch.equal(tensor, there[key] if weight else before[key])
        elif tensor.is_floating_point():
            expected = (1 - weight) * before[key].double() + weight * there[key].double()
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
        else:
            assert int(tensor) == 9  # a counter goes with the new network


def test_the_mean_of_several() -> None:
    models = [zoo.build("norms") for _ in range(3)]
    with torch.no_grad():
        for i, model in enumerate(models):
            for p in model.parameters():
                p.add_(float(i))
    before = [jobs.state(model) for model in models]
    found = jobs.state(mean(models))
    for key, tensor in found.items():
        if tensor.is_floating_point():
            expected = sum(state[key].double() for state in before) / 3
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)  # type: ignore[arg-type]
    assert not jobs.differing(jobs.state(mean(models[1:2])), before[1])
    assert all(not jobs.differing(jobs.state(model), state) for model, state in zip(models, before, strict=True))


def test_plans_at_a_weight_are_candidates_of_the_same_network() -> None:
    case = jobs.small_case()
    plan = Plan(name="full", where=Everything(), how=jobs.short(), weights=(0.5, 1.0, 0.25))
    treated = perform(plan, jobs.job(case, name="full"))
    assert {name: made.weight for name, made in treated.candidates.items()} == {
        "full": 1.0, "full x 0.5": 0.5, "full x 0.25": 0.25,
    }  # fmt: skip
    assert len({id(made.model) for made in treated.candidates.values()}) == 1


def test_the_average_of_two_plans_is_the_mean_of_their_networks(tmp_path: Path) -> None:
    case = jobs.small_case()
    fast, slow = (Plan(name=n, where=Everything(), how=jobs.short(lr=lr)) for n, lr in [("a", 0.1), ("b", 0.01)])
    job = jobs.job(case, checkpoints=Checkpoints(tmp_path, "key"))
    treated = Average(plans=(fast, slow)).treat(job)
    alone = [jobs.only(perform(plan, jobs.job(case, name="x"))) for plan in (fast,)]
    second = jobs.job(case, name="x")
    alone.append(jobs.only(perform(slow, type(second)(**(vars(second) | {"seed": case.seed + 1})))))
    assert jobs.identical(jobs.only(treated), mean(alone))
    assert treated.history["plan"].tolist() == ["a", "a", "b", "b"]
    assert treated.cost.epochs == 4


def test_one_plan_twice_is_two_orders_of_the_same_examples(tmp_path: Path) -> None:
    case, plan = jobs.small_case(), Plan(name="full", where=Everything(), how=jobs.short())
    for checkpoints in (None, Checkpoints(tmp_path, "key")):
        treated = Average(plans=(plan, plan)).treat(jobs.job(case, checkpoints=checkpoints))
        assert treated.history["plan"].unique().tolist() == ["full, turn 1", "full, turn 2"]
        first, second = (treated.history[treated.history["plan"] == f"full, turn {i}"]["loss"].tolist() for i in (1, 2))
        assert first != second
        assert treated.cost.epochs == 4


def test_an_average_of_plans_that_do_nothing_has_no_candidate() -> None:
    nothing = Plan(name="none", how={"kind": "nothing"})  # type: ignore[arg-type]
    treated = Average(plans=(nothing, nothing)).treat(jobs.job(toys.case()))
    assert treated.candidates == {}
    assert treated.stopped == "the plan is to change nothing"
    assert isinstance(Candidate(toys.network()).weight, float)
