"""Critical momentum at measured curvature: what is measured, when, how it is tracked, and resume."""

import copy
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from suture import curvature
from suture.curvature import LossMeter, ModelMeter, squared_gradient
from suture.errors import ConvergenceError, InvalidArgumentError, NonFiniteError, UnknownNameError
from suture.physics import critical_momentum
from suture.schedules import ConstantMomentum, CriticalMomentum, HybridMomentum
from tests import zoo
from tests.test_schedules import momenta, sgd

fixed = settings(deadline=None, derandomize=True, max_examples=40)
CURVATURES = ([0.2, 0.5, 1.0], [4.0, 2.0])  # of two param groups


class Bowls:
    """½Σλθ² over two param groups at lr 0.05, with its closure."""

    def __init__(self, **options):
        self.parameters = [nn.Parameter(torch.ones(len(k), dtype=torch.float64)) for k in CURVATURES]
        self.optimizer = torch.optim.SGD([{"params": [p]} for p in self.parameters], lr=0.05, momentum=0.9)
        self.asked = 0
        self.options = options

    def loss(self):
        self.asked += 1
        pairs = zip(self.parameters, CURVATURES, strict=True)
        return sum((torch.tensor(k, dtype=torch.float64) * p.square()).sum() / 2 for p, k in pairs)

    def step(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def measured(self, **options):
        return CriticalMomentum(
            self.optimizer, **{"curvature": "measure", "measure": self.loss, "clamp": (0, 0.99), **options}
        )


@pytest.mark.parametrize("form", ["paper", "exact", "nesterov"])
def test_each_group_gets_the_critical_momentum_of_its_own_top_eigenvalue(form):
    bowls = Bowls()
    schedule = bowls.measured(form=form)
    assert momenta(bowls.optimizer) == [0.9, 0.9]
    assert schedule.tracked == [None, None]
    bowls.step()
    assert momenta(bowls.optimizer) == pytest.approx([critical_momentum(0.05, k, form) for k in (1.0, 4.0)])
    assert schedule.tracked == [pytest.approx((1, 1)), pytest.approx((4, 4))]


def test_measuring_is_as_good_as_knowing():
    paths = []
    for known in (False, True):
        bowls = Bowls()
        how = {"curvature": [1.0, 4.0], "measure": None} if known else {}
        schedule = bowls.measured(clamp=(0.5, 0.99), **how)
        lr = CosineAnnealingLR(bowls.optimizer, 30)
        losses = []
        for _ in range(30):
            losses.append(bowls.step())
            lr.step()
            schedule.step()
        paths.append(losses)
    assert paths[0] == pytest.approx(paths[1], rel=1e-9)


def test_measured_momentum_settles_sooner_than_one_for_all():
    def steps(make):
        bowls = Bowls()
        schedule = make(bowls)
        for step in range(2000):
            if bowls.step() < 1e-12:
                return step
        raise AssertionError(schedule)

    # The slowest direction of each group decides; the quadratic's own eigenvalues are known to the test.
    slow = [CURVATURES[0][0], CURVATURES[1][1]]
    best = steps(lambda b: CriticalMomentum(b.optimizer, clamp=(0, 0.99), curvature=slow, form="exact"))
    for other in (
        lambda b: CriticalMomentum(b.optimizer),
        lambda b: ConstantMomentum(b.optimizer, 0.9),
        lambda b: ConstantMomentum(b.optimizer, 0.5),
    ):
        assert best < steps(other)


def test_the_loss_is_asked_for_once_per_measurement_and_nothing_else_is_touched():
    bowls = Bowls()
    schedule = bowls.measured(every=3)
    gradients = []
    for _ in range(7):
        before = bowls.asked
        bowls.step()
        gradients.append(bowls.asked - before - 1)
    assert gradients == [1, 0, 0, 1, 0, 0, 1]
    bowls.optimizer.zero_grad()
    random = torch.get_rng_state()
    LossMeter(lambda: bowls.loss() * torch.rand(()))(bowls.optimizer)
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in bowls.parameters)
    assert schedule.last_epoch == 0


def scripted(values):
    """A function of the optimizer that gives these values, one after the other, for each group."""
    left = iter(values)
    return lambda optimizer: [next(left)] * len(optimizer.param_groups)


@pytest.mark.parametrize(
    ("track", "expected"),
    [("largest", [3, 3, 3, 5, 5, 5]), ("smallest", [3, 1, 1, 1, 2, 0.5]), ("range", [3, 1, 1, 1, 2, 0.5])],
)
def test_a_window_of_curvatures(track, expected):
    optimizer = sgd()
    schedule = CriticalMomentum(
        optimizer, clamp=(0, 0.99), curvature=scripted([3, 1, 2, 5, 4, 0.5]), form="exact", window=3, track=track
    )
    for k in expected:
        optimizer.step()
        assert momenta(optimizer) == pytest.approx([critical_momentum(0.1, k, "exact")])
    assert schedule.tracked == [(0.5, 5)]


def test_the_range_is_critical_or_underdamped_at_both_ends():
    # At λα = 2.5 the exact form is higher than at 0.1: the smallest curvature alone would be too low.
    optimizer = sgd()
    schedule = CriticalMomentum(optimizer, (0, 0.99), scripted([25.0, 1.0]), form="exact", window=2, track="range")
    optimizer.step()
    optimizer.step()
    assert schedule.tracked == [(1, 25)]
    high, low = (critical_momentum(0.1, k, "exact") for k in (25.0, 1.0))
    assert high < low
    assert momenta(optimizer) == pytest.approx([low])
    optimizer = sgd()
    schedule = CriticalMomentum(optimizer, (0, 0.99), scripted([36.0, 10.0]), form="exact", window=2, track="range")
    optimizer.step()
    optimizer.step()
    assert schedule.tracked == [(10, 36)]
    assert momenta(optimizer) == pytest.approx([critical_momentum(0.1, 36.0, "exact")])


@given(st.lists(st.floats(-1, 100), min_size=1, max_size=20), st.integers(1, 5), st.integers(1, 4))
@fixed
def test_momentum_follows_the_last_measurements_whatever_they_are(values, window, every):
    for track, pick in (("largest", max), ("smallest", min)):
        optimizer = sgd()
        schedule = CriticalMomentum(
            optimizer, curvature=scripted(values), every=every, window=window, track=track
        )  # fmt: skip
        clamped = 0
        for step in range(len(values) * every):
            optimizer.step()
            done = step // every + 1
            k = pick(max(v, 0.0) for v in values[max(0, done - window) : done])
            mu = critical_momentum(0.1, k) if k * 0.1 else 1.0
            clamped += not 0.5 <= mu <= 0.99
            assert momenta(optimizer) == [min(max(mu, 0.5), 0.99)]
            assert schedule.clamp_share == pytest.approx(clamped / (step + 1))


def network(seed=0):
    """A network with BatchNorm and dropout in two param groups, and its batches."""
    torch.manual_seed(seed)
    model = zoo.build("norms").train()
    rest = [*model.second.parameters(), *model.head.parameters()]
    groups = [{"params": [*model.first.parameters()]}, {"params": rest}]
    return model, torch.optim.SGD(groups, lr=0.05, momentum=0.9)


def training(make):
    """Model, optimizer, LR schedule, momentum schedule, and a function that takes the t-th step."""
    model, optimizer = network()
    now = {}
    schedule = make(optimizer, model, lambda: F.cross_entropy(model(now["x"]), now["y"]))
    lr = CosineAnnealingLR(optimizer, 20)

    def step(t):
        torch.manual_seed(t)  # batch and dropout
        now["x"], now["y"] = torch.randn(16, 4), torch.arange(16) % 3
        optimizer.zero_grad()
        F.cross_entropy(model(now["x"]), now["y"]).backward()
        optimizer.step()
        lr.step()
        schedule.step()
        return momenta(optimizer), [p.detach().clone() for p in model.parameters()]

    return model, optimizer, lr, schedule, step


MEASURED = {
    "loss": lambda o, m, loss: CriticalMomentum(
        o, curvature="measure", measure=loss, every=2, window=3, track="smallest", form="exact"
    ),
    "gradient": lambda o, m, loss: CriticalMomentum(
        o, curvature="measure", measure=LossMeter(loss, along="gradient"), window=2, track="range"
    ),
    "ggn": lambda o, m, loss: CriticalMomentum(
        o, curvature="measure", measure=ModelMeter(m, [zoo.batch(9)], kind="ggn"), every=3
    ),
    "squared gradient": lambda o, m, loss: CriticalMomentum(
        o, curvature=squared_gradient, window=20, track="smallest", form="exact"
    ),
    "hybrid": lambda o, m, loss: HybridMomentum(
        o, switch_epoch=4, curvature="measure", measure=loss, every=2, window=2, track="smallest"
    ),
}


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize(("pause", "optimizer_first"), [(1, True), (3, False)])
def test_resuming_equals_an_undisturbed_training_bit_by_bit(name, pause, optimizer_first):
    *_, step = training(MEASURED[name])
    undisturbed = [step(t) for t in range(7)]
    *parts, step = training(MEASURED[name])
    for t in range(pause):
        step(t)
    saved = copy.deepcopy([part.state_dict() for part in parts])
    saved[3] = json.loads(json.dumps(saved[3]))  # numbers and lists, nothing else
    *resumed, step = training(MEASURED[name])
    order = (0, 1, 2, 3) if optimizer_first else (3, 2, 1, 0)
    for i in order:
        resumed[i].load_state_dict(saved[i])
    assert resumed[3].state_dict() == parts[3].state_dict()
    assert resumed[3].clamp_shares == parts[3].clamp_shares
    for t in range(pause, 7):
        found, parameters = step(t)
        assert found == undisturbed[t][0]
        assert all(map(torch.equal, parameters, undisturbed[t][1]))


def test_measuring_does_not_disturb_a_training_without_batchnorm():
    def run(measure):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
        x, y = zoo.batch()
        schedule = CriticalMomentum(
            optimizer, (0.5, 0.5), "measure", measure=lambda: F.cross_entropy(model(x), y)
        ) if measure else None  # fmt: skip
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return schedule, nn.utils.parameters_to_vector(model.parameters())

    (kept, with_measuring), (_, without) = run(True), run(False)
    assert torch.equal(with_measuring, without)
    assert kept.tracked[0][0] > 0


def test_model_meter_measures_in_eval_mode_what_by_group_does_and_leaves_the_model_training():
    model, optimizer = network()
    model.head.bias.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    x, y = zoo.batch(9)
    meter = ModelMeter(model, iter([(x[:5], y[:5]), (x[5:], y[5:])]), kind="ggn", tol=1e-6)
    found = meter(optimizer)
    trained = {"first": ["first"], "rest": ["second", "head.weight"], "frozen": ["head.bias"]}
    expected = curvature.by_group(model, [(x, y)], groups=trained, kind="ggn", tol=1e-6)
    assert found == pytest.approx([expected["first"], expected["rest"]], rel=1e-5)
    assert meter(optimizer) == found
    assert model.training
    assert model.first[1].training
    assert not model.head.bias.requires_grad
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_along_the_gradient_is_a_rayleigh_quotient():
    bowls = Bowls()
    bowls.loss().backward()
    found = LossMeter(bowls.loss, along="gradient")(bowls.optimizer)
    for value, ks in zip(found, CURVATURES, strict=True):
        g = torch.tensor(ks)  # at θ = 1
        assert value == pytest.approx(float((g * g * g).sum() / (g * g).sum()))
        assert value < max(ks)
    bowls.optimizer.zero_grad()
    assert LossMeter(bowls.loss, along="gradient")(bowls.optimizer) == [0, 0]
    bowls.parameters[0].grad = torch.ones(3, dtype=torch.float64)
    found = LossMeter(bowls.loss, along="gradient")(bowls.optimizer)
    assert found == pytest.approx([sum(CURVATURES[0]) / 3, 0])


def test_squared_gradient_is_yellowfins_measurement():
    bowls = Bowls()
    bowls.loss().backward()
    assert squared_gradient(bowls.optimizer) == pytest.approx([0.2**2 + 0.5**2 + 1, 16 + 4])
    bowls.parameters[1].grad = None
    assert squared_gradient(bowls.optimizer)[1] == 0


def test_groups_without_trainable_parameters_are_flat():
    bowls = Bowls()
    bowls.parameters[1].requires_grad_(False)
    schedule = bowls.measured()
    bowls.step()
    assert momenta(bowls.optimizer) == pytest.approx([critical_momentum(0.05, 1.0), 0.99])
    assert schedule.clamp_shares == [0, 1]
    bowls.parameters[0].requires_grad_(False)
    assert LossMeter(bowls.loss)(bowls.optimizer) == [0, 0]


def test_a_group_added_between_measurements_is_measured_at_once():
    bowls = Bowls()
    schedule = bowls.measured(every=100, window=3, track="smallest")
    bowls.step()
    late = nn.Parameter(torch.ones(2, dtype=torch.float64))
    bowls.optimizer.add_param_group({"params": [late], "lr": 0.05, "momentum": 0.7})
    schedule.step()
    assert momenta(bowls.optimizer)[2] == 0.7
    assert schedule.tracked[2] is None
    bowls.step()
    assert bowls.asked == 4
    assert momenta(bowls.optimizer)[2] == 0.99
    assert schedule.tracked[2] == (0, 0)


def test_hybrid_stops_measuring_when_it_has_switched():
    bowls = Bowls()
    hybrid = HybridMomentum(bowls.optimizer, switch_epoch=2, curvature="measure", measure=bowls.loss)
    for _ in range(5):
        bowls.step()
        hybrid.step()
    assert bowls.asked == 5 + 2


def test_the_clamp_rules_as_soon_as_lr_times_curvature_is_above_a_sixteenth():
    for k, rules in ((0.624, False), (0.626, True)):
        p = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
        schedule = CriticalMomentum(optimizer, curvature="measure", measure=lambda p=p, k=k: (k * p.square()).sum() / 2)
        p.grad = torch.ones_like(p)
        optimizer.step()
        assert schedule.clamp_share == rules
        assert k * 0.1 > 1 / 16 if rules else k * 0.1 < 1 / 16


def test_a_schedule_with_a_meter_can_be_copied():
    model, optimizer = network()
    original = CriticalMomentum(optimizer, curvature="measure", measure=ModelMeter(model, [zoo.batch()]))
    other = copy.deepcopy(original)
    for group in other.optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    other.optimizer.step()
    assert other.tracked[0] is not None
    assert original.tracked[0] is None


PARAMETER = nn.Parameter(torch.ones(30))


def measured_by(measure):
    """A step of an optimizer of that parameter, with momentum measured so."""
    PARAMETER.grad = torch.ones(30)
    optimizer = torch.optim.SGD([PARAMETER], lr=0.0, momentum=0.9)
    schedule = CriticalMomentum(optimizer, curvature="measure", measure=measure)
    optimizer.step()
    return schedule


def gone_backward():
    loss = PARAMETER.exp().sum()
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (lambda: CriticalMomentum(sgd(), curvature="measure"), InvalidArgumentError, "and measure= go together; give"),
        (lambda: CriticalMomentum(sgd(), measure=lambda: 0), InvalidArgumentError, "and measure= go together; give"),
        (lambda: CriticalMomentum(sgd(), curvature="mesure"), InvalidArgumentError, "or 'measure', got 'mesure'"),
        (
            lambda: CriticalMomentum(sgd(), window=0),
            InvalidArgumentError,
            "window must be at least 1 .*, got 0",
        ),
        (lambda: CriticalMomentum(sgd(), track="larges"), UnknownNameError, "'larges'; did you mean 'largest'"),
        (lambda: LossMeter(lambda: 0, along="up"), InvalidArgumentError, "along must be 'top' or 'gradient', got 'up'"),
        (lambda: measured_by(lambda: 1.0), InvalidArgumentError, "must be a scalar tensor .*, got a float; return"),
        (
            lambda: measured_by(lambda: torch.ones(())),
            InvalidArgumentError,
            r"one of shape \(\) without a graph",
        ),
        (lambda: measured_by(lambda: PARAMETER * 2), InvalidArgumentError, r"got one of shape \(30,\); return"),
        (
            lambda: measured_by(gone_backward),
            InvalidArgumentError,
            "been through backward.* already; return it",
        ),
        (lambda: measured_by(lambda: nn.Parameter(torch.ones(2)).exp().sum()), InvalidArgumentError, "another model"),
        (lambda: measured_by(ModelMeter(nn.Linear(4, 3), [zoo.batch()])), InvalidArgumentError, "is it another model"),
        (lambda: measured_by(lambda: PARAMETER.sum() * math.nan), NonFiniteError, "is nan, so it has no curvature"),
    ],
)
def test_what_cannot_be_measured(act, error, sentence):
    with pytest.raises(error, match=sentence):
        act()


def test_other_errors_of_the_loss_are_not_hidden():
    def loss():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measured_by(loss)


def test_what_does_not_converge_stops_the_training_with_a_sentence():
    p = nn.Parameter(torch.ones(400))
    k = 1 - torch.linspace(0, 1, 400) ** 4
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    meter = LossMeter(lambda: (k * p.square()).sum() / 2, tol=1e-6, max_iterations=1)
    schedule = CriticalMomentum(optimizer, curvature="measure", measure=meter)
    p.grad = torch.ones(400)
    with pytest.raises(ConvergenceError, match="allow a larger tol or more max_iterations"):
        optimizer.step()
    assert schedule.tracked == [None]
