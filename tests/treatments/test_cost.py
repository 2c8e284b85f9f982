"""What a treatment costs: counted by hand on the toy, added up, and told before a long run."""

import pytest
import torch
from torch import nn

import suture
from suture.treatments import Cost, Estimate, Everything, FineTune, Groups, Plan
from suture.treatments.cost import estimate, step_flops
from suture.treatments.guards import Replay
from tests import toys
from tests.treatments import jobs

ALL = {name for name, _ in toys.Net().named_parameters()}
FORWARD = 2 * (2 * 16 + 16 * 16 + 16 * 3)  # per example: multiplications and additions of three layers
WEIGHTS, INPUTS = FORWARD, 2 * (16 * 16 + 16 * 3)  # gradients of the weights, and of what lies before them


@pytest.mark.parametrize(
    ("trained", "each"),
    [
        (ALL, FORWARD + WEIGHTS + INPUTS),
        ({"last.weight"}, FORWARD + 2 * 16 * 3),
        ({"second.weight"}, FORWARD + 2 * 16 * 16 + 2 * 16 * 3),
        ({"norm.weight"}, FORWARD + INPUTS),
        (set(), FORWARD),
    ],
    ids=["all", "last", "second", "norm", "nothing"],
)
def test_a_step_is_counted_from_the_first_trained_layer_on(trained: set[str], each: int) -> None:
    case = toys.case()
    before = jobs.state(case.model)
    assert step_flops(case, trained, 10) == 10 * each
    assert not jobs.differing(jobs.state(case.model), before)
    assert all(p.grad is None for p in case.model.parameters())


def test_a_training_costs_its_steps_whatever_the_last_batch_is() -> None:
    case = toys.case()
    n = len(case.splits["repair"])
    for size in (32, 50, 10_000):
        treated = jobs.short(batch_size=size, epochs=3).treat(jobs.job(case))
        assert treated.cost.flops == pytest.approx(3 * n * (FORWARD + WEIGHTS + INPUTS))
        assert treated.cost.full_flops == pytest.approx(treated.cost.flops)
        assert (treated.cost.share, treated.cost.paper_share) == (pytest.approx(1.0), 1.0)
        assert treated.cost.seconds > 0


def test_fewer_examples_cost_less() -> None:
    case = toys.case()
    whole, replayed = (jobs.short().treat(jobs.job(case, guards=g)).cost for g in ((), (Replay(share=0.0),)))
    wrong = len(Replay(share=0.0).examples(jobs.job(case), case.splits["repair"]))
    assert replayed.flops / whole.flops == pytest.approx(wrong / len(case.splits["repair"]))
    capped = FineTune(recipe=jobs.SHORT, seen=100).treat(jobs.job(case)).cost
    assert capped.flops / whole.flops == pytest.approx(50 / len(case.splits["repair"]))


def test_what_is_looked_up_is_counted_once() -> None:
    case = toys.case()
    n, last = len(case.splits["repair"]), Groups(names=("last",))
    cached = FineTune(recipe=jobs.SHORT.model_copy(update={"epochs": 5})).treat(jobs.job(case, last)).cost
    plain = FineTune(recipe=jobs.SHORT.model_copy(update={"epochs": 5}), cache=0).treat(jobs.job(case, last)).cost
    assert plain.flops == pytest.approx(5 * n * (FORWARD + 2 * 16 * 3))
    trained = 5 * n * 2 * (2 * 16 * 3)  # forward and backward of the last layer
    assert cached.flops == pytest.approx(trained + n * (FORWARD - 2 * 16 * 3))
    assert plain.full_flops == cached.full_flops


def test_costs_add_up() -> None:
    a, b = Cost(1.0, 2, 10, 100, 1, 4, 50.0, 200.0), Cost(2.0, 3, 40, 100, 2, 4, 30.0, 200.0)
    assert a + b == Cost(3.0, 5, 40, 100, 2, 4, 80.0, 400.0)
    assert (a + b).share == 0.2
    assert (a + b).paper_share == 0.5
    assert (Cost().share, Cost().paper_share) == (0.0, 0.0)
    assert Cost() + a == a


def test_an_estimate_is_in_the_measure_of_the_cost() -> None:
    case = toys.case()
    how, job = jobs.short(epochs=4), jobs.job(case, Groups(names=("first",)))
    forecast, cost = how.estimate(job), how.treat(job).cost
    assert forecast.flops == pytest.approx(cost.flops)
    assert forecast.full_flops == pytest.approx(cost.full_flops)
    assert forecast.seconds > 0
    more = estimate(case, ALL, 20, 16)
    assert more.flops == 20 * 16 * (FORWARD + WEIGHTS + INPUTS)


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.5, "50 % of the same"), (0.9, "cannot be much cheaper"), (1.0, "100 % of the same"), (0.0, "0 % of the same")],
)
def test_an_estimate_in_words(share: float, words: str) -> None:
    said = str(Estimate(12.4, share * 100, 100.0))
    assert said.startswith("about 12 s, ")
    assert words in said
    assert ("cannot be much cheaper" in said) == (share == 0.9)


def test_treat_says_what_it_will_take_before_it_begins() -> None:
    said: list[str] = []
    plan = Plan(name="first", where=Groups(names=("first", "second")), how=jobs.short())
    suture.treat(toys.case(), [], plan, say=said.append)
    (line,) = said
    assert line.startswith("treating by first: about ")
    assert "cannot be much cheaper" in line  # gradients of the first layer pass through all others
    suture.treat(toys.case(), [], "none", say=said.append)
    assert len(said) == 1


def test_random_numbers_and_modes_survive_an_estimate() -> None:
    case = toys.case()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    modes = [m.training for m in case.model.modules()]
    jobs.short().estimate(jobs.job(case, Everything()))
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in case.model.modules()] == modes
    assert isinstance(case.model, nn.Module)
