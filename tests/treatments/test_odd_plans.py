"""Plans that mean something else than they seem to: refused as they are read, or carried out as they say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import suture
from suture.errors import InvalidArgumentError
from suture.tasks import Classification
from suture.training import Recipe, Stop, train
from suture.treatments import PRESETS, Plan, load_plan
from suture.treatments.each import EachBlock
from suture.treatments.guards import L2SP, EarlyStop
from suture.treatments.interpolate import Average
from suture.treatments.plan import Candidate, Treated
from suture.treatments.route import Route
from suture.treatments.search import Search
from tests import toys
from tests.treatments import jobs

FLAGGED = toys.PLAN


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "none"', "'none' stands for the network as it was"),
        ("[choose]\nbroken_costs = inf", "finite number"),
        ('[how]\nkind = "search"\nbudget = inf\nplans = [{ name = "a" }]', "finite number"),
        ('[how]\nkind = "search"\nweights = [3, -1]\nplans = [{ name = "a" }]', "above 0 and at most 1"),
        ('[how]\nkind = "search"\nweights = []\nplans = [{ name = "a" }]', "at least 1"),
        ('[how]\nkind = "search"\nplans = [{ name = "a", cycles = 2 }]', "which only the plan around it may have"),
        ('[how]\nkind = "route"\nplan = { base = "iterative" }', "which only the plan around it may have"),
        ('[how]\nkind = "route"\nmargins = [-1.5]\nplan = {}', "greater than or equal to -1"),
        ('[how]\nkind = "average"\nplans = [{ base = "route" }, {}]', "is a route of two networks, which have no mean"),
        ('[how]\nkind = "last_layer"\n[[guards]]\nkind = "l2sp"', "guards hold back a training"),
        ('[how]\nkind = "route"\nplan = {}\n[[guards]]\nkind = "l2sp"', "give them to the plans inside"),
    ],
)
def test_refused_as_they_are_read(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InvalidArgumentError, match=says):
        load_plan(str(tmp_path / "mine.toml"))


def test_a_file_called_none_is_told_what_its_name_means(tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text("weights = [0.5]")
    with pytest.raises(InvalidArgumentError, match="give the plan another name"):
        load_plan(str(tmp_path / "none.toml"))
    assert PRESETS["none"].name == "none"


def test_one_example_at_a_time_trains_on_every_one() -> None:
    seen: list[int] = []
    model = toys.network()
    optimizer, schedules = Recipe(lr=0.01).build(model.parameters())
    train(
        model, toys.points(50, seed=3), Classification(), optimizer, schedules, epochs=1, batch_size=1, seed=0,
        device=torch.device("cpu"), mode=torch.nn.Module.eval, on_batch=seen.extend,
    )  # fmt: skip
    assert sorted(seen) == list(range(50))


def test_blocks_are_treated_under_the_guards_of_their_plan() -> None:
    plan = EachBlock(how=jobs.short())
    free, held = (
        plan.treat(replace(jobs.job(jobs.zoo_case("convolutions"), flagged=("head",)), guards=guards))
        for guards in ((), (L2SP(strength=1000.0),))
    )
    assert not jobs.identical(free.candidates["head"].model, held.candidates["head"].model)


def test_early_stop_counts_from_the_original_in_every_cycle() -> None:
    case, later = toys.case(), toys.untrained()
    watch = EarlyStop(max_regression=0.05).watch(replace(jobs.job(case), model=later))
    watch(1, case.model)  # the original breaks nothing of what it had right itself
    with pytest.raises(Stop, match="in 'select', more than"):
        watch(1, later)


def test_an_average_takes_one_network_of_each_plan() -> None:
    case = toys.case()
    half = FLAGGED.model_copy(update={"weights": (0.3, 0.5)})
    job = jobs.job(case, flagged=("last",))
    mean = Average(plans=(half, FLAGGED)).treat(job).candidates[job.name].model
    alone = Average(plans=(FLAGGED, FLAGGED)).treat(job).candidates[job.name].model
    old, new, both = (dict(m.named_parameters())["last.weight"] for m in (case.model, alone, mean))
    assert 0 < (both - old).norm() < (new - old).norm()


def test_a_mean_in_cross_fitting_is_that_of_the_same_plans() -> None:
    a, b, c = (FLAGGED.model_copy(update={"name": name}) for name in "abc")
    search = Search(plans=(a, b, c), budget=9).model_copy(update={"budget": float("inf")})
    made = Treated({"x": Candidate(toys.network())}, None, None)  # type: ignore[arg-type]
    whole = {"a": made, "c": made}
    assert list(search._in_order(whole, [a, b, c])) == ["a"]
    assert list(search._in_order({"a": made, "b": made}, [a, b, c])) == ["a", "b"]
    assert list(Search(plans=(a, b, c))._in_order(whole, [a, b, c])) == ["a", "c"]


def test_a_route_over_a_search_is_cross_fitted_as_a_route() -> None:
    a, b = (FLAGGED.model_copy(update={"name": name}) for name in "ab")
    plan = Plan(
        name="both", how=Route(plan=Plan(name="inner", how=Search(plans=(a, b), budget=9))),
        choose=PRESETS["route"].choose,
    )  # fmt: skip
    found = suture.treat(toys.case(), ["last"], plan)
    assert found.kept != "none", found.note
    assert found.patch.margin is not None


class Sigmoid(Classification):
    """Probabilities that are no softmax."""

    def probabilities(self, outputs: Any, batch: Any) -> torch.Tensor:
        return torch.as_tensor(outputs).sigmoid()


def test_a_route_needs_the_probabilities_that_a_saved_one_will_have() -> None:
    with pytest.raises(InvalidArgumentError, match="route compares the softmax of logits"):
        suture.treat(toys.case(task=Sigmoid()), ["last"], "route")
