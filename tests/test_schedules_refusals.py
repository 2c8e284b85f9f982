"""What the momentum schedules refuse, and the sentence they say."""

import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.schedules import ConstantMomentum, CriticalMomentum, HybridMomentum, InverseCoupledMomentum
from tests.test_schedules import momenta, parameters, sgd


@pytest.mark.parametrize("make", [torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.LBFGS, torch.optim.ASGD])
def test_optimizers_without_momentum_are_refused(make):
    p = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(InvalidArgumentError, match=f"{make.__name__} has neither momentum nor betas"):
        CriticalMomentum(make([p], lr=0.1))


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(InvalidArgumentError, match="ConstantMomentum schedules a torch optimizer, got a Linear"):
        ConstantMomentum(torch.nn.Linear(1, 1))


CYCLING = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=30),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2),
}


@pytest.mark.parametrize("name", CYCLING)
@pytest.mark.parametrize("make", [sgd, lambda: torch.optim.Adam(parameters(), lr=0.1)], ids=["sgd", "adam"])
def test_a_scheduler_that_cycles_momentum_is_refused_in_either_order(name, make):
    optimizer = make()
    CYCLING[name](optimizer)
    with pytest.raises(InvalidArgumentError, match="build it with cycle_momentum=False"):
        CriticalMomentum(optimizer)

    for act in (lambda optimizer, mine: optimizer.step(), lambda optimizer, mine: mine.step()):
        optimizer = make()
        mine = CriticalMomentum(optimizer)
        CYCLING[name](optimizer)
        with pytest.raises(InvalidArgumentError, match="build it with cycle_momentum=False"):
            act(optimizer, mine)


def test_any_other_hand_on_momentum_is_noticed_when_the_optimizer_steps():
    optimizer = sgd(2)
    mine = CriticalMomentum(optimizer)
    optimizer.step()
    optimizer.param_groups[1]["momentum"] = 0.8
    with pytest.raises(InvalidArgumentError, match=r"momentum of param group 1 to 0\.552786 and finds 0\.8;"):
        optimizer.step()
    assert mine.get_last_momentum()[0] == 0.5


def test_hybrid_refuses_a_percentage_for_a_fraction():
    hybrid = HybridMomentum(sgd())
    with pytest.raises(InvalidArgumentError, match=r"metric 47\.88 is above 1 while the threshold is 0\.9"):
        hybrid.step(47.88)
    percent = HybridMomentum(sgd(), threshold=90)
    percent.step(95.0)
    assert percent.switched_at == 2


def test_a_foreign_state_is_refused():
    mine = CriticalMomentum(sgd())
    with pytest.raises(InvalidArgumentError, match=r"a state of CriticalMomentum has the fields last_epoch, .*got"):
        mine.load_state_dict(ConstantMomentum(sgd()).state_dict())
    with pytest.raises(InvalidArgumentError, match="saved for 2 param groups and the optimizer has 1"):
        mine.load_state_dict(CriticalMomentum(sgd(2)).state_dict())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda o: ConstantMomentum(o, 1.0), r"momentum must lie in \[0, 1\), got 1\.0"),
        (lambda o: CriticalMomentum(o, clamp=(0.5, 1.0)), r"clamp must lie in \[0, 1\), got 1\.0"),
        (lambda o: CriticalMomentum(o, clamp=(0.9, 0.5)), r"clamp needs low <= high, got 0\.9 and 0\.5"),
        (lambda o: CriticalMomentum(o, curvature=0), "curvature must be positive and finite, got 0"),
        (lambda o: CriticalMomentum(o, curvature=[1.0, math.nan]), "curvature must be positive and finite"),
        (lambda o: CriticalMomentum(o, curvature=[1.0]), "one for each of the 2 param groups, got 1"),
        (lambda o: CriticalMomentum(o, every=0), "every must be at least 1 optimizer step, got 0"),
        (lambda o: HybridMomentum(o, momentum=-1), r"momentum must lie in \[0, 1\), got -1"),
        (lambda o: HybridMomentum(o, switch_epoch=-1), "switch_epoch must be at least 0, got -1"),
        (lambda o: HybridMomentum(o, threshold=math.nan), "threshold must be a number, got nan"),
        (lambda o: InverseCoupledMomentum(o, 0.95, 0.85), r"need low <= high, got 0\.95 and 0\.85"),
        (lambda o: InverseCoupledMomentum(o, lr_min=0.1), r"got lr_min 0\.1 and lr_max 0\.1"),
        (lambda o: InverseCoupledMomentum(o, lr_max=-1.0), r"lr_max must be positive and finite, got -1"),
    ],
)
def test_settings_that_make_no_sense(build, message):
    optimizer = sgd(2)
    with pytest.raises(InvalidArgumentError, match=message):
        build(optimizer)
    assert momenta(optimizer) == [0.9, 0.9]


def test_unknown_form():
    with pytest.raises(UnknownNameError, match="did you mean 'nesterov'"):
        CriticalMomentum(sgd(), form="nestrov")


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ([1.0], "one for each of the 2 param groups, got 1"),
        ([1.0, math.nan], r"must be finite, got \[1\.0, nan\]"),
    ],
)
def test_a_measure_that_fails(measured, message):
    optimizer = sgd(2)
    mine = CriticalMomentum(optimizer, curvature=lambda optimizer: measured)
    with pytest.raises(InvalidArgumentError, match=message):
        optimizer.step()
    assert mine.get_last_momentum() == [0.9, 0.9]


def test_an_lr_that_makes_no_sense_is_named():
    optimizer = sgd()
    mine = CriticalMomentum(optimizer)
    optimizer.param_groups[0]["lr"] = math.nan
    with pytest.raises(InvalidArgumentError, match="lr must be positive and finite, got nan"):
        mine.step()


def test_two_schedules_on_one_optimizer_notice_each_other():
    optimizer = sgd()
    first = CriticalMomentum(optimizer)
    second = ConstantMomentum(optimizer)
    with pytest.raises(InvalidArgumentError, match=r"CriticalMomentum had set the momentum .* to 0\.5 and finds 0\.9"):
        optimizer.step()
    del first
    optimizer.step()
    assert momenta(optimizer) == [0.9] == second.get_last_momentum()


def test_hybrid_warns_of_fractions_for_a_percentage():
    hybrid = HybridMomentum(sgd(), threshold=90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (0.1, 0.9, 1.1, 0.95, 0.95, 0.95, 0.95):  # percentages of a hard task begin so
            hybrid.step(metric)
    with pytest.warns(UserWarning, match=r"the last 5 metrics were at most 1 \(now 0\.95\) while the threshold is 90"):
        hybrid.step(0.95)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hybrid.step(0.95)
        fractions = HybridMomentum(sgd())
        for _ in range(9):
            fractions.step(0.5)


@pytest.mark.parametrize("place", [0, 1])
def test_a_sequence_of_lr_schedulers_is_told_to_leave_it_out(place):
    optimizer = sgd()
    both = [lr_scheduler.LinearLR(optimizer, total_iters=2)]
    both.insert(place, CriticalMomentum(optimizer))

    def sequence():
        scheduler = lr_scheduler.SequentialLR(optimizer, both, [1])
        optimizer.step()
        scheduler.step()

    with pytest.raises(InvalidArgumentError, match="keep it out of SequentialLR"):
        sequence()
