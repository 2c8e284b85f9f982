"""Interventions against hand computation; brief treatments of one group alone."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.errors import NonFiniteError
from suture.localizers import LOCALIZERS, Evidence
from suture.localizers.brief import BETAS, LR, drawn, treat_briefly
from suture.localizers.intervention import _first_half_gradients
from tests import toys, zoo
from tests.localizers.contract import Counted, Scalar, Squares, assert_scores, batch, evidence, on, parabola
from tests.oracles import localizers as oracle

NAMES = ("line_search", "newton_gain", "probe", "care")


@pytest.mark.parametrize("score", NAMES)
@pytest.mark.parametrize("network", zoo.ZOO)
def test_every_group_is_scored_and_nothing_is_left_behind(network: str, score: str) -> None:
    assert_scores(score, network)


def half(found: Evidence, which: int) -> tuple[Tensor, Tensor]:
    inputs, targets = batch(len(found.examples))
    return inputs[found.halves[which]], targets[found.halves[which]]


def test_line_search_goes_on_until_the_loss_rises() -> None:
    # θ(η) = 2 − 2η and L = (1 − 2η)²/2; the steps 1e-5 · 4^k overshoot at k = 9, and k = 8 is best.
    step = 1e-5 * 4**8
    for score in ("line_search", "newton_gain"):  # the same way in one dimension
        assert LOCALIZERS[score](parabola())["line"] == pytest.approx(0.5 - (1 - 2 * step) ** 2 / 2, rel=1e-5)


def walked(found: Evidence, names: list[str], direction: list[Tensor]) -> float:
    """The best drop on the second half against a direction, over all steps up to the first rise."""
    model = copy.deepcopy(found.model)
    parameters = [model.get_parameter(name) for name in names]
    start = [p.detach().clone() for p in parameters]
    size, length = (float(torch.cat([t.flatten() for t in tensors]).norm()) for tensors in (start, direction))
    inputs, targets = half(found, 1)
    losses = []
    for eta in [0.0, *(1e-5 * 4.0**k for k in range(10))]:
        for p, origin, along in zip(parameters, start, direction, strict=True):
            p.data = origin - eta * size / length * along
        with torch.no_grad():
            losses.append(float(F.cross_entropy(model(inputs), targets)))
    rise = next((k for k in range(1, len(losses)) if losses[k] > min(losses[:k]) * (1 + 1e-6)), len(losses))
    return losses[0] - min(losses[:rise])


@pytest.mark.parametrize("group", ["first", "second", "head"])
def test_line_search_by_plain_loops(group: str) -> None:
    found = on(zoo.build("norms"), n=40)
    names = list(found.groups[group])
    rows = oracle.example_gradients(found.model, *half(found, 0), names)
    direction = [torch.stack([row[n] for row in rows]).mean(0) for n in names]
    expected = walked(found, names, direction)
    assert LOCALIZERS["line_search"](found)[group] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_groups_gain_in_the_tests_beside() -> None:
    found = on(zoo.build("norms"), n=40)
    for score in ("line_search", "newton_gain"):
        assert (LOCALIZERS[score](found) > 1e-4).sum() >= 2


@pytest.mark.parametrize("group", ["first", "second", "head"])
def test_newton_by_plain_loops(group: str) -> None:
    found = on(zoo.build("norms"), n=40)  # batches of 8, 8 and 4
    names = list(found.groups[group])
    rows = oracle.example_gradients(found.model, *half(found, 0), names)
    assert len(rows) == 20
    fisher, mean = [], []
    for n in names:
        sums = [torch.stack([row[n] for row in rows[i : i + 8]]).sum(0) for i in (0, 8, 16)]
        fisher.append(torch.stack([s.square() for s in sums]).sum(0) / 20)
        mean.append(torch.stack(sums).sum(0) / 20)
    ridge = 0.1 * float(torch.cat([f.flatten() for f in fisher]).mean())
    expected = walked(found, names, [g / (f + ridge) for g, f in zip(mean, fisher, strict=True)])
    assert LOCALIZERS["newton_gain"](found)[group] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_fisher_of_batches_of_one_is_the_empirical_fisher_s_diagonal() -> None:
    found = on(zoo.build("nested"), n=10)
    names = [n for several in found.groups.values() for n in several]
    rows = oracle.example_gradients(found.model, *half(found, 0), names)
    _, fisher = _first_half_gradients(found, batch_size=1)
    for name in names:
        torch.testing.assert_close(fisher[name], torch.stack([row[name].square() for row in rows]).mean(0))


def test_a_group_of_zeros_has_no_unit_to_step_in() -> None:
    found = evidence("nested", "tensor")
    last = list(found.groups)[-1]
    torch.nn.init.zeros_(found.model.get_parameter(last))
    scores = LOCALIZERS["line_search"](found)
    assert np.isnan(scores[last])
    assert scores.drop(last).notna().all()


@pytest.mark.parametrize("score", NAMES)
def test_with_nothing_to_hold_out_nothing_is_known(score: str) -> None:
    found = on(zoo.build("nested"), n=2)
    assert len(found.halves[1]) == 0
    assert LOCALIZERS[score](found).isna().all()


def test_care_by_hand() -> None:
    found = evidence("frozen")  # head(relu(body(x)))
    body, head = found.model.body, found.model.head

    def loss(which: int, first: float, second: float) -> float:
        inputs, targets = half(found, which)
        with torch.no_grad():
            return float(F.cross_entropy(head(F.relu(body(inputs) * first)) * second, targets))

    scores = LOCALIZERS["care"](found)
    for group, factors in {"body": [(0.7, 1.0), (1.3, 1.0)], "head": [(1.0, 0.7), (1.0, 1.3)]}.items():
        best = min(factors, key=lambda both: loss(0, *both))
        assert scores[group] == pytest.approx(loss(1, 1, 1) - loss(1, *best), abs=1e-6)


def test_care_reaches_a_projection_that_is_not_called_through_its_attention() -> None:
    found = evidence("attention", {"out": ["blocks.0.self_attn.out_proj"], "in": ["blocks.0.self_attn.in_proj_*"]})
    scores = LOCALIZERS["care"](found)
    assert scores["out"] == scores["in"] != 0  # neither owns the whole of it: both are scaled where it ends


def test_probe_by_hand() -> None:
    # 6 examples to train on, all the same, ten steps: the mean gradient is w − 1 whichever are drawn.
    weight = oracle.adam(2.0, LR * 2.0, BETAS, clip=1.0, steps=10)
    done = treat_briefly(parabola(), "line")
    assert done.before.losses == pytest.approx([0.5] * 6)
    assert done.after.losses == pytest.approx([(weight - 1) ** 2 / 2] * 6, rel=1e-5)
    assert LOCALIZERS["probe"](parabola())["line"] == pytest.approx(1 - (weight - 1) ** 2, rel=1e-5)


def test_a_brief_treatment_is_the_same_every_time_and_looks_at_the_other_half() -> None:
    found = evidence("norms")
    one, two, other = (treat_briefly(found, "first", train_on=k) for k in (0, 0, 1))
    assert np.array_equal(one.after.losses, two.after.losses)
    assert np.array_equal(one.positions, found.halves[1])
    assert np.array_equal(other.positions, found.halves[0])
    assert not np.array_equal(one.before.losses, one.after.losses)


class NoWayBack(torch.autograd.Function):
    """Passes on what it is given, and no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        raise AssertionError("backward went past the treated group")


def test_what_comes_before_the_group_is_not_run_backward() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(NoWayBack.apply(self.body(x)))

    found = on(Net())
    assert treat_briefly(found, "head").gain != 0
    with pytest.raises(AssertionError, match="past the treated group"):
        treat_briefly(found, "body")


def test_a_treatment_that_breaks_is_one_that_was_not_made() -> None:
    class Cliff(Squares):
        def losses(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().losses(outputs, batch) + torch.where(outputs[:, 0] < 1.99, torch.inf, 0.0)

    done = treat_briefly(parabola(task=Cliff()), "line")
    assert done.stopped is not None
    assert np.array_equal(done.after.losses, done.before.losses)
    assert done.gain == 0


def test_costs() -> None:
    task, groups = Counted(), 3
    found = on(zoo.build("norms"), n=40, task=task)
    LOCALIZERS["care"](found)
    assert (task.forward, task.both) == (20 + 60 * groups, 0)
    task.forward = 0
    LOCALIZERS["probe"](found)
    assert task.forward == 20 * (1 + groups)
    assert task.both == groups * (10 * 20 + 2)  # ten steps of what there is, and a look at two examples
    task.forward = task.both = 0
    LOCALIZERS["line_search"](found)
    assert task.both == 20
    assert 20 * groups < task.forward <= 20 * (1 + 10 * groups)


def test_any_task_will_do() -> None:
    case = toys.sequence_case()
    right = np.arange(len(case.splits["diagnose"])) % 3 > 0
    found = Evidence(case, case.model, right, np.flatnonzero(~right), np.flatnonzero(right))
    for score in ("line_search", "newton_gain", "probe", "care"):
        scores = LOCALIZERS[score](found)
        assert np.isfinite(scores).all()
    assert (LOCALIZERS["probe"](found) > 0).any()


class Half(nn.Module):
    """Half precision, and a parameter of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.body.steps = nn.Parameter(torch.arange(2), requires_grad=False)
        self.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x.bfloat16()))).float()


@pytest.mark.parametrize("score", [*NAMES, "friction", "arachne", "ochiai", "rgn", "taylor", "spectrum_snr"])
def test_half_precision_and_integers(score: str) -> None:
    scores = LOCALIZERS[score](on(Half(), n=30))
    assert list(scores.index) == ["body", "head"]
    assert np.isfinite(scores).all()
    assert (scores != 0).any()


def test_everything_is_drawn_once_before_anything_twice() -> None:
    positions = np.array([3, 5, 8])
    order = drawn(positions, 7, seed=1)
    assert len(order) == 7
    assert set(order[:3]) == set(order[3:6]) == set(positions)
    assert np.array_equal(order, drawn(positions, 7, seed=1))
    assert any(not np.array_equal(order, drawn(positions, 7, seed=s)) for s in range(2, 6))


def test_probe_names_the_damage_where_only_one_group_can_mend_it() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sick, self.idle = Scalar(), Scalar()

        def forward(self, x: Tensor) -> Tensor:
            return self.sick(x) + 0 * self.idle(x)

    found = parabola()
    twin = Evidence(_with_model(found, Two()), Two(), found.right, found.wrong_at, found.correct_at)
    assert LOCALIZERS["probe"](twin).idxmax() == "sick"
    assert LOCALIZERS["probe"](twin)["idle"] == 0


def _with_model(found: Evidence, model: nn.Module) -> Any:
    from suture.case import Case

    examples = [found.examples[i] for i in range(len(found.examples))]
    return Case(model, diagnose=examples, task=Squares(), device="cpu")


@pytest.mark.parametrize("name", ["line_search", "newton_gain"])
def test_a_gradient_that_is_not_finite_is_named(name: str) -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x + torch.where(x > 1e9, (self.a(x) * 0).sqrt(), 0.0))  # 0 forward, NaN backward

    with pytest.raises(NonFiniteError, match=r"the gradient of 'a\.weight' is not finite"):
        LOCALIZERS[name](on(Steep()))
