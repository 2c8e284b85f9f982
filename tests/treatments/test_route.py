"""Route as a method: each margin is a candidate of the same network, at the price of its plan."""

import pytest

import suture
from suture.patch.routed import Routed
from suture.treatments import Choice, Everything, Groups, Plan, carry_out
from suture.treatments.route import Route
from suture.treatments.search import Search
from tests import toys
from tests.treatments import jobs

INNER = Plan(name="full", where=Everything(), how=jobs.short())


def test_each_margin_is_a_candidate_of_the_same_network() -> None:
    case = jobs.small_case()
    treated = Route(plan=INNER, margins=(-0.5, 0.0, 0.25)).treat(jobs.job(case))
    assert {name: made.margin for name, made in treated.candidates.items()} == {
        "full by -0.5": -0.5, "full by +0": 0.0, "full by +0.25": 0.25,
    }  # fmt: skip
    alone = jobs.only(carry_out(INNER, jobs.job(case)))
    assert all(jobs.identical(made.model, alone) for made in treated.candidates.values())
    assert treated.cost.epochs == 2


def test_weights_and_margins_go_together() -> None:
    inner = INNER.model_copy(update={"weights": (0.5, 1.0)})
    treated = Route(plan=inner, margins=(0.0,)).treat(jobs.job(jobs.small_case()))
    assert {name: made.weight for name, made in treated.candidates.items()} == {
        "full by +0": 1.0, "full x 0.5 by +0": 0.5,
    }  # fmt: skip


def test_its_estimate_is_that_of_its_plan() -> None:
    case = jobs.small_case()
    last = INNER.model_copy(update={"where": Groups(names=("last",))})
    found = Route(plan=last).estimate(jobs.job(case))
    assert found.flops == jobs.short().estimate(jobs.job(case, Groups(names=("last",)))).flops
    assert found.flops < found.full_flops


def test_a_part_of_the_way_can_be_routed_and_is_patched_as_judged() -> None:
    case = toys.case()
    inner = INNER.model_copy(update={"how": jobs.short(epochs=4), "weights": (0.5,)})
    plan = Plan(name="route", how=Route(plan=inner, margins=(-0.1,)), choose=Choice(broken_costs=0.5))
    found = suture.treat(case, [], plan, twin=True)
    assert found.kept == "full x 0.5 by -0.1"
    network = suture.patched(case.model, found.patch)
    assert isinstance(network, Routed)
    assert network.margin == -0.1
    assert found.twin is not None
    assert found.twin.margin == -0.1
    assert isinstance(suture.patched(case.model, found.twin), Routed)


def test_a_route_within_a_search_keeps_its_margins_and_is_in_no_mean() -> None:
    route = Plan(name="route", how=Route(plan=INNER, margins=(0.0, 0.1)))
    treated = Search(plans=(route, INNER), weights=(1.0,)).treat(jobs.job(jobs.small_case()))
    assert {name: made.margin for name, made in treated.candidates.items()} == {
        "full by +0": 0.0, "full by +0.1": 0.1, "full": None,
    }  # fmt: skip


@pytest.mark.parametrize("margins", [(), ("wide",)])
def test_margins_are_numbers(margins: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="margins"):
        Route(plan=INNER, margins=margins)  # type: ignore[arg-type]
