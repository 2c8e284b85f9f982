"""Momentum schedules with every kind of optimizer, LR scheduler, order of construction, and resume."""

import copy
import gc
import json
import math
import pickle
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from suture import physics
from suture.optimizers import IKFAD, CubicDamping
from suture.schedules import (
    ConstantMomentum,
    CriticalMomentum,
    HybridMomentum,
    InverseCoupledMomentum,
    MomentumScheduler,
)

fixed = settings(deadline=None, derandomize=True, max_examples=40)
ALL = [ConstantMomentum, CriticalMomentum, HybridMomentum, InverseCoupledMomentum]


def parameters(groups=1):
    """Param groups of one scalar each, with a gradient, all with their own lr from 0.1 down."""
    made = []
    for i in range(groups):
        p = torch.nn.Parameter(torch.tensor([1.0]))
        p.grad = torch.tensor([0.1])
        made.append({"params": [p], "lr": 0.1 / (i + 1)})
    return made


def sgd(groups=1, **settings):
    return torch.optim.SGD(parameters(groups), lr=0.1, **{"momentum": 0.9, **settings})


def momenta(optimizer):
    return [g["betas"][0] if "betas" in g else g["momentum"] for g in optimizer.param_groups]


def critical(lr):
    return min(max(1 - 2 * math.sqrt(lr), 0.5), 0.99)


def run(optimizer, schedulers, epochs):
    """(lr, momentum) that each epoch's step was taken with, for the first param group."""
    used = []
    for _ in range(epochs):
        optimizer.step()
        used.append((optimizer.param_groups[0]["lr"], momenta(optimizer)[0]))
        for scheduler in schedulers:
            scheduler.step()
    return used


LR_SCHEDULERS = {
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, total_iters=5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "from zero": lambda o: lr_scheduler.LambdaLR(o, lambda t: min(t, 5) / 5),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=30, cycle_momentum=False),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=4, cycle_momentum=False),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, total_iters=3), lr_scheduler.StepLR(o, 2)], [3]
    ),
}


@pytest.mark.parametrize("name", LR_SCHEDULERS)
@pytest.mark.parametrize("momentum_first", [True, False])
@pytest.mark.parametrize("momentum_steps_first", [True, False])
def test_critical_momentum_with_every_lr_scheduler_in_every_order(name, momentum_first, momentum_steps_first):
    alone = sgd()
    expected = [lr for lr, _ in run(alone, [LR_SCHEDULERS[name](alone)], 12)]
    optimizer = sgd()
    if momentum_first:
        mine, other = CriticalMomentum(optimizer), LR_SCHEDULERS[name](optimizer)
    else:
        other, mine = LR_SCHEDULERS[name](optimizer), CriticalMomentum(optimizer)
    used = run(optimizer, [mine, other] if momentum_steps_first else [other, mine], 12)
    assert [lr for lr, _ in used] == expected
    assert [momentum for _, momentum in used] == [critical(lr) for lr in expected]


lr_paths = st.lists(st.floats(0, 2), min_size=2, max_size=12)


@given(lr_paths, st.sampled_from(ALL), st.booleans(), st.sampled_from(["sgd", "nesterov", "adamw", "ikfad"]))
@fixed
def test_momentum_of_every_step_follows_the_lr_of_that_step(path, schedule, momentum_first, kind):
    factors = [lr / 0.1 for lr in path]

    def lr(optimizer):
        return lr_scheduler.LambdaLR(optimizer, lambda t: factors[min(t, len(factors) - 1)])

    optimizer = {
        "sgd": lambda p: torch.optim.SGD(p, momentum=0.9),
        "nesterov": lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
        "ikfad": lambda p: IKFAD(p, lr=0.1),
    }[kind](parameters())
    extra = {"lr_max": 2.0} if schedule is InverseCoupledMomentum else {}
    if momentum_first:
        mine, other = schedule(optimizer, **extra), lr(optimizer)
    else:
        other, mine = lr(optimizer), schedule(optimizer, **extra)
    for rate, momentum in run(optimizer, [other, mine], len(path)):
        if schedule is ConstantMomentum:
            assert momentum == 0.9
        elif schedule is InverseCoupledMomentum:
            assert momentum == pytest.approx(0.95 - 0.1 * rate / 2)
        else:
            assert momentum == pytest.approx(critical(rate))
    rates = [group["lr"] for group in optimizer.param_groups]
    mine.step()
    assert [group["lr"] for group in optimizer.param_groups] == rates


@given(
    lr_paths,
    st.sampled_from(ALL),
    st.integers(0, 10),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3]),
)
@fixed
def test_resuming_anywhere_is_as_if_nothing_had_happened(path, schedule, pause, adam, optimizer_first, every):
    factors = [lr / 0.1 for lr in path]
    extra = {
        HybridMomentum: {"switch_epoch": 6, "curvature": measured_from_step, "every": every},
        CriticalMomentum: {"curvature": measured_from_step, "every": every},
        InverseCoupledMomentum: {"lr_max": 2.0},
    }.get(schedule, {})

    def build():
        optimizer = torch.optim.Adam(parameters(2), lr=0.1) if adam else sgd(2)
        mine = schedule(optimizer, **extra)
        other = lr_scheduler.LambdaLR(optimizer, lambda t: factors[t % len(factors)])
        return optimizer, other, mine

    def advance(parts, steps):
        optimizer, other, mine = parts
        seen = []
        for _ in range(steps):
            optimizer.step()
            seen.append((momenta(optimizer), [g["params"][0].item() for g in optimizer.param_groups]))
            other.step()
            mine.step()
        return seen

    undisturbed = advance(build(), pause + 10)
    first = build()
    before = advance(first, pause)
    saved = copy.deepcopy([part.state_dict() for part in first])
    saved[2] = json.loads(json.dumps(saved[2]))  # plain numbers and lists, nothing else
    resumed = build()
    for mine, old in zip(resumed[0].param_groups, first[0].param_groups, strict=True):
        mine["params"][0].data.copy_(old["params"][0].data)
    for i in (0, 1, 2) if optimizer_first else (2, 1, 0):
        resumed[i].load_state_dict(saved[i])
    assert resumed[2].state_dict() == first[2].state_dict()
    assert momenta(resumed[0]) == momenta(first[0])
    assert before + advance(resumed, 10) == undisturbed
    assert resumed[2].last_epoch == pause + 10


def measured_from_step(optimizer):
    """A curvature that changes with the state of each group's first parameter."""
    return [1.0 + abs(group["params"][0].item()) for group in optimizer.param_groups]


def counts(used):
    return Counter(physics.regime(momentum, lr) for lr, momentum in used)


@pytest.mark.parametrize(
    ("schedule", "extra", "expected"),
    [
        (ConstantMomentum, {}, (170, 21, 9)),
        (CriticalMomentum, {}, (66, 134, 0)),
        (InverseCoupledMomentum, {"lr_min": 1e-4, "lr_max": 0.1}, (180, 20, 0)),
    ],
)
def test_table_6_from_the_schedules_alone(schedule, extra, expected):
    optimizer = sgd()
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 200, 1e-4)
    found = counts(run(optimizer, [cosine, schedule(optimizer, **extra)], 200))
    assert (found["underdamped"], found["critical"], found["overdamped"]) == expected


def test_table_16_from_the_schedules_alone():
    optimizer = torch.optim.SGD(parameters(), momentum=0.9)
    optimizer.param_groups[0]["lr"] = 0.01
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 30, 1e-4)
    used = run(optimizer, [cosine, CriticalMomentum(optimizer)], 30)
    rows = {epoch: used[epoch - 1] for epoch in (1, 10, 20, 30)}
    assert {e: (round(lr, 5), round(mu, 4)) for e, (lr, mu) in rows.items()} == {
        1: (0.01, 0.8),
        10: (0.00796, 0.8216),
        20: (0.00304, 0.8898),
        30: (0.00013, 0.9775),
    }


def test_curvature_and_form_per_param_group():
    optimizer = sgd(3)
    schedule = CriticalMomentum(optimizer, clamp=(0, 0.999), curvature=[0.1, 1.0, 2.0], form="exact")
    lrs = [0.1, 0.05, 0.1 / 3]
    expected = [(1 - math.sqrt(lr * k)) ** 2 for lr, k in zip(lrs, [0.1, 1.0, 2.0], strict=True)]
    assert momenta(optimizer) == pytest.approx(expected)
    assert schedule.get_last_momentum() == momenta(optimizer)
    assert schedule.get_last_lr() == pytest.approx(lrs)


def test_nesterov_form():
    optimizer = sgd(nesterov=True)
    CriticalMomentum(optimizer, form="nesterov")
    assert momenta(optimizer) == pytest.approx([(1 - math.sqrt(0.1)) / (1 + math.sqrt(0.1))])


def test_measured_curvature_is_asked_for_at_every_so_many_optimizer_steps():
    optimizer = sgd(2)
    asked = []

    def measure(given):
        assert given is optimizer
        asked.append(len(asked))
        return [0.1 * len(asked), -1.0]

    schedule = CriticalMomentum(optimizer, clamp=(0.5, 0.99), curvature=measure, every=3)
    assert momenta(optimizer) == [0.9, 0.9]
    assert not asked
    seen = []
    for _ in range(7):
        optimizer.step()
        seen.append(momenta(optimizer))
        schedule.step()
    assert len(asked) == 3
    # A flat or concave direction has no critical momentum below 1.
    assert seen[0] == pytest.approx([1 - 2 * math.sqrt(0.01), 0.99])
    assert seen[3] == pytest.approx([1 - 2 * math.sqrt(0.02), 0.99])
    assert seen[2] == seen[0]
    assert schedule.clamp_shares == [0, 1]
    assert schedule.clamp_share == 0.5


def test_clamp_share_counts_optimizer_steps():
    optimizer = sgd()
    schedule = CriticalMomentum(optimizer)
    assert schedule.clamp_share == 0
    for lr in (0.1, 0.05, 1e-6, 0.2):  # below 0.5, inside, above 0.99, below
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    assert schedule.clamp_share == 0.75


def test_per_batch_use_without_stepping_the_schedule():
    optimizer = sgd()
    schedule = CriticalMomentum(optimizer)
    for lr in (0.04, 0.01, 0.0025):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        assert momenta(optimizer) == pytest.approx([1 - 2 * math.sqrt(lr)])
    assert schedule.last_epoch == 0


def test_constructor_steps_once_like_torchs():
    optimizer = sgd(momentum=0.7)
    schedule = CriticalMomentum(optimizer)
    assert momenta(optimizer) == [0.5]
    assert schedule.last_epoch == 0
    schedule.step()
    assert schedule.last_epoch == 1
    assert CriticalMomentum(sgd(), last_epoch=4).last_epoch == 5


def test_adam_keeps_its_second_beta():
    optimizer = torch.optim.AdamW(parameters(), lr=0.01, betas=(0.9, 0.98))
    optimizer.param_groups[0]["lr"] = 0.01
    CriticalMomentum(optimizer)
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.8), 0.98)
    assert "momentum" not in optimizer.param_groups[0]


def test_tensor_lr_and_tensor_betas():
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    beta = torch.tensor(0.9)
    optimizer = torch.optim.AdamW(
        [p], lr=torch.tensor(0.01), betas=(beta, torch.tensor(0.98)), capturable=False, foreach=False
    )
    schedule = CriticalMomentum(optimizer)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["betas"][0] is beta
    assert float(beta) == pytest.approx(0.8)


def test_sgd_built_without_momentum_gets_it():
    optimizer, reference = torch.optim.SGD(parameters(), lr=0.1), sgd(momentum=0.5)
    schedule = CriticalMomentum(optimizer)
    for _ in range(3):
        optimizer.step()
        reference.step()
        schedule.step()
    assert torch.equal(*(o.param_groups[0]["params"][0] for o in (optimizer, reference)))
    assert "momentum_buffer" in optimizer.state[optimizer.param_groups[0]["params"][0]]


def test_a_dropped_schedule_leaves_neither_itself_nor_hooks_behind():
    optimizer = sgd()
    gc.disable()  # a cycle would only be freed by the collector
    try:
        schedule = CriticalMomentum(optimizer)
        gone = weakref.ref(schedule)
        assert len(optimizer._optimizer_step_pre_hooks) == 1
        del schedule
        assert gone() is None
    finally:
        gc.enable()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_load_state_dict_post_hooks
    optimizer.param_groups[0]["momentum"] = 0.3
    optimizer.step()
    assert momenta(optimizer) == [0.3]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_follows_its_own_optimizer(clone):
    original = HybridMomentum(sgd(), switch_epoch=3)
    other = clone(original)
    other.optimizer.param_groups[0]["lr"] = 0.01
    p = other.optimizer.param_groups[0]["params"][0]
    p.grad = torch.ones(1)
    other.optimizer.step()
    assert momenta(other.optimizer) == pytest.approx([0.8])
    assert momenta(original.optimizer) == [0.5]


def test_loading_only_the_optimizer_is_no_second_hand():
    saved = sgd(momentum=0.77).state_dict()
    optimizer = sgd()
    mine = CriticalMomentum(optimizer)
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert momenta(optimizer) == [0.5] == mine.get_last_momentum()


def test_loading_only_the_schedule_restores_momentum_at_once():
    saved = ConstantMomentum(sgd(), 0.8).state_dict()
    optimizer = sgd()
    ConstantMomentum(optimizer, 0.6).load_state_dict(saved)
    assert momenta(optimizer) == [0.8]


def test_groups_added_later_are_scheduled_too():
    optimizer = sgd()
    mine = CriticalMomentum(optimizer)
    optimizer.add_param_group(parameters(2)[1])
    optimizer.step()
    assert momenta(optimizer) == pytest.approx([0.5, critical(0.05)])
    assert mine.clamp_shares == [1, 0]


def test_chained_with_an_lr_scheduler():
    optimizer = sgd()
    chain = lr_scheduler.ChainedScheduler(
        [lr_scheduler.StepLR(optimizer, 1, 0.1), CriticalMomentum(optimizer)], optimizer
    )
    used = run(optimizer, [chain], 3)
    assert [momentum for _, momentum in used] == pytest.approx([critical(lr) for lr in (0.1, 0.01, 0.001)])


def test_hybrid_latches_the_metric():
    optimizer = sgd()
    hybrid = HybridMomentum(optimizer)
    seen = []
    for metric in (0.5, None, 0.8999, 0.9, 0.2, None):
        optimizer.step()
        seen.append(momenta(optimizer)[0])
        hybrid.step(metric)
    # The epoch after the one that reached the threshold is the first constant one.
    assert seen == [0.5, 0.5, 0.5, 0.5, 0.9, 0.9]
    assert hybrid.switched_at == 5
    assert hybrid.clamp_share == 1


@pytest.mark.parametrize("switch_epoch", [0, 1, 3])
def test_hybrid_switches_at_an_epoch(switch_epoch):
    optimizer = sgd()
    used = run(optimizer, [HybridMomentum(optimizer, switch_epoch=switch_epoch, momentum=0.85)], 5)
    assert [momentum for _, momentum in used] == [0.5] * switch_epoch + [0.85] * (5 - switch_epoch)


def test_hybrid_takes_tensors_and_ignores_nan():
    hybrid = HybridMomentum(sgd())
    hybrid.step(math.nan)
    assert hybrid.switched_at is None
    hybrid.step(torch.tensor(0.95))
    assert hybrid.switched_at == 3


@pytest.mark.parametrize("momentum_first", [True, False])
@pytest.mark.parametrize(("name", "top"), [("linear", 0.1), ("cosine", 0.1), ("one cycle", 0.2)])
def test_inverse_coupling_finds_the_highest_lr(momentum_first, name, top):
    optimizer = sgd()
    if momentum_first:
        mine, other = InverseCoupledMomentum(optimizer), LR_SCHEDULERS[name](optimizer)
    else:
        other, mine = LR_SCHEDULERS[name](optimizer), InverseCoupledMomentum(optimizer)
    for lr, momentum in run(optimizer, [other, mine], 15):
        assert momentum == pytest.approx(0.95 - 0.1 * lr / top)


def test_inverse_coupling_resumes_with_the_highest_lr_it_began_with():
    first = sgd()
    saved = InverseCoupledMomentum(first).state_dict()
    late = sgd()
    late.param_groups[0]["lr"] = 0.05
    resumed = InverseCoupledMomentum(late)
    assert momenta(late) == pytest.approx([0.85])
    resumed.load_state_dict(saved)
    late.step()
    assert momenta(late) == pytest.approx([0.9])


def test_inverse_coupling_stays_between_its_ends():
    optimizer = sgd(2)
    InverseCoupledMomentum(optimizer, lr_min=0.06, lr_max=[0.08, 0.07])
    assert momenta(optimizer) == [0.85, 0.95]


def test_schedules_drive_the_splitting_optimizers():
    optimizer = CubicDamping(parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.01
    CriticalMomentum(optimizer)
    assert momenta(optimizer) == pytest.approx([0.8])


def test_the_state_is_plain_and_complete():
    assert ConstantMomentum(sgd()).state_dict() == {"last_epoch": 0, "last_momentum": [0.9]}
    assert HybridMomentum(sgd()).state_dict() == {
        "last_epoch": 0,
        "last_momentum": [0.5],
        "steps": 0,
        "clamped": [0],
        "measured": None,
        "switched_at": None,
    }


def test_the_state_given_out_is_a_copy():
    optimizer = sgd()
    mine = CriticalMomentum(optimizer)
    saved = mine.state_dict()
    optimizer.step()
    assert saved["clamped"] == [0]
    mine.load_state_dict(saved)
    optimizer.step()
    assert saved["clamped"] == [0]


def test_a_schedule_of_ones_own():
    class Ramp(MomentumScheduler):
        def get_momentum(self):
            return [min(0.5 + 0.1 * self.last_epoch, 0.9)] * len(self.optimizer.param_groups)

    optimizer = sgd()
    used = run(optimizer, [Ramp(optimizer)], 6)
    assert [momentum for _, momentum in used] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 0.9])


class Wrapper:
    """As DeepSpeed's: no torch optimizer, and has it."""

    def __init__(self, inner):
        self.optimizer = inner

    @property
    def param_groups(self):
        return self.optimizer.param_groups


class Prepared(Wrapper, torch.optim.Optimizer):
    """As Accelerate's: a torch optimizer whose constructor did not run, so it has no hooks."""

    def step(self, closure=None):
        return self.optimizer.step(closure)


@pytest.mark.parametrize("wrapper", [Wrapper, Prepared])
def test_wrapped_optimizers_are_scheduled(wrapper):
    optimizer = sgd()
    for wrapped in (wrapper(optimizer), wrapper(Wrapper(optimizer))):
        mine = CriticalMomentum(wrapped)
        assert mine.optimizer is optimizer
        wrapped.param_groups[0]["lr"] = 0.04
        optimizer.step()
        assert momenta(optimizer) == [pytest.approx(0.6)]
        wrapped.param_groups[0]["lr"] = 0.01
        mine.step()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "two", [torch.tensor(2.0), torch.tensor(2), torch.tensor(2.0, requires_grad=True),
            np.float32(2), np.array(2.0), np.array([2.0]), torch.tensor([2.0]), [np.float64(2)]],
)  # fmt: skip
def test_curvature_may_be_a_number_of_torch_or_numpy(two):
    optimizer = sgd()
    CriticalMomentum(optimizer, curvature=two)
    expected = sgd()
    CriticalMomentum(expected, curvature=2.0)
    assert momenta(optimizer) == momenta(expected)
