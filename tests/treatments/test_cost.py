"""What a treatment costs: counted by hand on the toy, added up, and told before a long run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import suture
from suture.training import Augment, Checkpoints
from suture.treatments import Choice, Cost, Estimate, Everything, FineTune, Groups, Plan
from suture.treatments.cost import estimate, full_step, step_flops
from suture.treatments.guards import EWC, Distill, EarlyStop, Replay
from suture.treatments.where import Tensors
from suture.views import treat_tables
from tests import toys
from tests.treatments import jobs
from tests.treatments.networks import Residual

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
    n, wrong = len(case.splits["repair"]), len(Replay(share=0.0).examples(jobs.job(case), case.splits["repair"]))
    told = n * FORWARD  # which examples are wrong takes a pass over all of them
    assert (replayed.flops - told) / whole.flops == pytest.approx(wrong / n)
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


EACH = FORWARD + WEIGHTS + INPUTS  # of a step, per example, with everything trained


def test_an_epoch_that_was_broken_off_costs_what_was_done_of_it() -> None:
    treated = jobs.short(lr=1e30, clip=None, batch_size=16).treat(jobs.job(toys.case()))
    assert treated.stopped is not None
    assert "not finite in epoch 1" in treated.stopped
    cost, n = treated.cost, len(toys.case().splits["repair"])
    assert cost.epochs == len(treated.history) == 0
    steps = cost.flops / (16 * EACH)
    assert steps == pytest.approx(round(steps))
    assert 2 <= steps < n / 16  # the first step leaves weights that the second cannot use
    assert cost.full_flops == pytest.approx(cost.flops)
    assert cost.seconds > 0
    assert cost.full_seconds > 0


def test_an_epoch_that_was_taken_back_costs_as_any_other(tmp_path: Path) -> None:
    case, how = toys.case(), jobs.short(epochs=8, lr=0.5, clip=None)
    n, look = len(case.splits["repair"]), len(case.splits["select"]) * FORWARD
    job = jobs.job(case, guards=(EarlyStop(max_regression=1e-9),), checkpoints=Checkpoints(tmp_path, "key"))
    treated = how.treat(job)
    assert treated.stopped is not None
    assert "in 'select'" in treated.stopped
    done = len(treated.history) + 1  # the last one was taken back, after a look at it
    assert treated.cost.epochs == done - 1
    assert treated.cost.flops == pytest.approx(done * n * EACH + (1 + done) * look)
    assert treated.cost.seconds > float(treated.history["seconds"].sum() if done > 1 else 0)
    again = how.treat(job)  # goes on from the last checkpoint, and does the same once more
    assert (again.cost.flops, again.cost.epochs) == (treated.cost.flops, treated.cost.epochs)


def test_a_loss_that_runs_away_is_not_looked_at_by_guards() -> None:
    case, n = toys.case(), len(toys.case().splits["repair"])
    treated = jobs.short(lr=100.0, clip=None).treat(jobs.job(case, guards=(EarlyStop(),)))
    assert treated.stopped is not None
    assert "the loss rose from" in treated.stopped
    done = len(treated.history) + 1
    look = len(case.splits["select"]) * FORWARD
    assert treated.cost.flops == pytest.approx(done * n * EACH + done * look)


def test_the_time_of_full_fine_tuning_is_estimated_from_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    case = toys.case()
    flops, seconds = full_step(case, 32)
    assert (flops, seconds > 0) == (32 * EACH, True)
    monkeypatch.setattr("suture.treatments.finetune.full_step", lambda _, size: (size * EACH, size / 100))
    n = len(case.splits["repair"])
    for where in (Everything(), Groups(names=("last",))):
        cost = jobs.short(epochs=4).treat(jobs.job(case, where)).cost
        assert cost.full_seconds == pytest.approx(4 * n / 100)
        assert (cost + cost).full_seconds == pytest.approx(8 * n / 100)


def test_costs_add_up() -> None:
    a, b = Cost(1.0, 2, 10, 100, 1, 4, 50.0, 200.0), Cost(2.0, 3, 40, 100, 2, 4, 30.0, 200.0)
    assert a + b == Cost(3.0, 5, 40, 100, 2, 4, 80.0, 400.0)
    assert (a + b).share == 0.2
    assert (a + b).paper_share == 0.5
    assert (Cost().share, Cost().paper_share) == (0.0, 0.0)
    half, all_of_it = Cost(one_full_flops=40.0), Cost(one_full_flops=80.0)
    assert (half + half + all_of_it).one_full_flops == (all_of_it + half).one_full_flops == 80.0
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
    ("share", "least", "words"),
    [(0.5, 0.4, "50 % of the same"), (0.68, 0.66, "cannot be much cheaper"), (1.0, 0.0, "100 % of the same"),
     (0.9, 0.5, "90 % of the same"), (0.0, 0.0, "0 % of the same")],
)  # fmt: skip
def test_an_estimate_in_words(share: float, least: float, words: str) -> None:
    forecast = Estimate(12.4, share * 100, 100.0, least * 100)
    for each in (forecast, forecast.times(2) + forecast):
        assert words in str(each)
        assert ("cannot be much cheaper" in str(each)) == (least > 0.5)
        assert "bfloat16" not in str(each)
    assert str(forecast).startswith("about 12 s, ")
    assert "will be slower" in str(forecast + Estimate(emulated=True))


@pytest.mark.parametrize(
    ("groups", "back", "early"),
    [(("first",), INPUTS, True), (("norm",), INPUTS, True), (("first", "last"), INPUTS, True),
     (("second",), 2 * 16 * 3, False), (("last",), 0, False), (("second", "last"), 2 * 16 * 3, False)],
)  # fmt: skip
def test_an_estimate_knows_how_far_back_the_first_trained_layer_is(
    groups: tuple[str, ...], back: int, early: bool
) -> None:
    case = toys.case()
    before, gradients = jobs.state(case.model), [p.requires_grad for p in case.model.parameters()]
    how = jobs.short(epochs=4).model_copy(update={"cache": 0})
    forecast = how.estimate(jobs.job(case, Groups(names=groups)))
    assert forecast.least_flops == pytest.approx(4 * len(case.splits["repair"]) * (FORWARD + back))
    assert ("cannot be much cheaper" in str(forecast)) == early
    assert not jobs.differing(jobs.state(case.model), before)
    assert [p.requires_grad for p in case.model.parameters()] == gradients


def test_the_first_layer_of_a_network_whose_layers_work_in_place_is_early_and_its_last_stage_is_not() -> None:
    pictures = [(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(60)]
    torch.manual_seed(0)
    case = suture.Case(Residual(), pictures)
    said = {
        start: str(jobs.short(epochs=1).estimate(jobs.job(case, Tensors(globs=(f"{start}.*",)))))
        for start in ("stem", "layer1", "layer2", "head")
    }
    assert [name for name, words in said.items() if "cannot be much cheaper" in words] == ["stem", "layer1"]
    assert "cannot be much cheaper" not in str(jobs.short().estimate(jobs.job(case, Everything())))


def test_treat_says_what_it_will_take_before_it_begins() -> None:
    said: list[str] = []
    plan = Plan(name="first", where=Groups(names=("first", "second")), how=jobs.short())
    suture.treat(toys.case(), [], plan, say=said.append)
    (line,) = said
    assert line.startswith("treating by first: about ")
    assert "cannot be much cheaper" in line  # gradients of the first layer pass through all others
    suture.treat(toys.case(), [], "none", say=said.append)
    assert len(said) == 1


def seconds_of(line: str) -> float:
    return float(line.partition("about ")[2].partition(" s,")[0])


def test_cycles_are_in_what_is_said_before_and_are_the_most_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FineTune, "estimate", lambda *_: Estimate(100.0, 1.0, 2.0))
    said: dict[tuple[int, bool, bool], str] = {}
    for cycles in (1, 3):
        for twin in (False, True):
            for bound in (None, 0.05):
                plan = Plan(
                    name="mine", where=Groups(names=("last",)), how=jobs.short(), cycles=cycles,
                    choose=Choice(max_regression=bound),
                )  # fmt: skip
                lines: list[str] = []
                suture.treat(toys.case(), [], plan, twin=twin, say=lines.append)
                said[cycles, twin, bound is not None] = lines[0]
    assert {key: seconds_of(line) for key, line in said.items()} == {
        (1, False, False): 100, (1, True, False): 200, (1, False, True): 200, (1, True, True): 300,
        (3, False, False): 300, (3, True, False): 400,
        (3, False, True): 200, (3, True, True): 300,  # a small `select` can judge no second cycle
    }  # fmt: skip
    assert said[3, False, False] == (
        "treating by mine: at most 3 cycles, together about 300 s, 50 % of the same epochs of full fine-tuning"
    )
    assert [key for key, line in said.items() if "at most" in line] == [(3, False, False), (3, True, False)]


def test_a_frozen_part_that_will_be_looked_up_is_so_in_the_estimate() -> None:
    case = toys.case()
    before = jobs.state(case.model)
    for epochs, batch_size in ((5, 32), (2, 1000), (3, 2)):
        how, job = jobs.short(epochs=epochs, batch_size=batch_size), jobs.job(case, Groups(names=("last",)))
        forecast, cost = how.estimate(job), how.treat(job).cost
        assert forecast.flops == pytest.approx(cost.flops)
        assert forecast.full_flops == pytest.approx(cost.full_flops)
        plain = how.model_copy(update={"cache": 0}).estimate(job)
        assert forecast.flops < 0.7 * plain.flops
        guarded = replace(job, guards=(Distill(), EarlyStop(max_regression=0.99)))
        assert how.estimate(guarded).flops == pytest.approx(how.treat(guarded).cost.flops)
        too_little = how.model_copy(update={"cache": len(case.splits["repair"]) * 16 * 4 - 1})  # of what 'second' gives
        assert too_little.estimate(job).flops == plain.flops
    assert not jobs.differing(jobs.state(case.model), before)


def test_augmentation_leaves_nothing_to_look_up_in_an_estimate() -> None:
    job = jobs.job(toys.case(), Groups(names=("last",)), augment=Augment(pad=1, flip=False))
    how = jobs.short(epochs=5)
    assert how.estimate(job).flops == how.model_copy(update={"cache": 0}).estimate(job).flops


def test_the_answers_of_the_old_network_cost_a_forward_pass_a_step() -> None:
    case = toys.case()
    n, how = len(case.splits["repair"]), jobs.short(epochs=3)
    plain, taught = (how.treat(jobs.job(case, guards=guards)).cost for guards in ((), (Distill(),)))
    assert taught.flops - plain.flops == pytest.approx(3 * n * FORWARD)
    assert taught.full_flops == plain.full_flops
    assert how.estimate(jobs.job(case, guards=(Distill(),))).flops == pytest.approx(taught.flops)
    late = how.estimate(jobs.job(case, Groups(names=("last",)), guards=(Distill(), EarlyStop())))
    assert "cannot be much cheaper" not in str(late)  # it is the guards that cost


def test_the_fisher_matrix_costs_a_forward_and_a_backward_pass_over_its_examples() -> None:
    case = toys.case()
    n = len(case.splits["diagnose"])
    assert n < 256  # so that all of them may be taken
    plain, held = (jobs.short().treat(jobs.job(case, guards=guards)).cost for guards in ((), (EWC(),)))
    outcomes = n * FORWARD  # which are right
    assert held.flops - plain.flops == pytest.approx(outcomes + n * (FORWARD + WEIGHTS + INPUTS))
    assert jobs.short().estimate(jobs.job(case, guards=(EWC(),))).flops == pytest.approx(held.flops)


def test_a_look_at_select_costs_a_forward_pass_before_the_training_and_after_every_epoch(tmp_path: Path) -> None:
    case, guards = toys.case(), (EarlyStop(max_regression=0.99),)
    plain, watched = (jobs.short(epochs=4).treat(jobs.job(case, guards=g)).cost for g in ((), guards))
    look = len(case.splits["select"]) * FORWARD
    assert watched.flops - plain.flops == pytest.approx(5 * look)
    kept = jobs.job(case, guards=guards, checkpoints=Checkpoints(tmp_path, "key"))
    jobs.short(epochs=4).treat(replace(kept, share=0.5))
    assert jobs.short(epochs=4).treat(kept).cost.flops == pytest.approx(watched.flops)  # it goes on after two epochs


def test_a_full_fine_tuning_is_of_all_examples_also_where_halves_are_trained_on() -> None:
    case = jobs.small_case()
    n = len(case.splits["repair"])
    whole = jobs.short(epochs=8).treat(jobs.job(case)).cost
    assert whole.one_full_flops == pytest.approx(whole.flops) == pytest.approx(8 * n * (FORWARD + WEIGHTS + INPUTS))
    part = jobs.short(epochs=2).treat(jobs.job(case, Groups(names=("last",)))).cost
    assert part.one_full_flops == whole.one_full_flops
    plan = Plan(name="full", where=Everything(), how=jobs.short(epochs=8), choose=Choice(max_regression=0.2))
    found = suture.treat(case, [], plan)
    assert "each judged by a training that did not see it" in found.note
    assert found.cost.epochs == 3 * 8
    assert "as much computing as 2.0 full fine-tunings of 8 epochs" in treat_tables.took(found)
    assert "all trainings" in [name for name, _ in treat_tables.cost(found).columns]


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
