"""Arachne: costs against autograd and the localizer, fitness against whole forwards, and a swarm that climbs."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers import gather
from suture.localizers.arachne import pareto_front
from suture.localizers.impact import impacts
from suture.localizers.network import twin
from suture.stages.treat import treat
from suture.tasks import evaluate
from suture.treatments import PRESETS, Everything, Groups, Plan
from suture.treatments.arachne import (
    Arachne,
    Problem,
    Score,
    Side,
    Vector,
    forward_impact,
    gradient_loss,
    problem_of,
    suspects,
    swarm,
)  # fmt: skip
from suture.treatments.lastlayer import features_of
from suture.treatments.where import Entries, Last
from tests import toys
from tests.treatments import jobs

SMALL = Arachne(particles=20, iterations=15)


def side_of(model: nn.Module, inputs: Tensor, labels: Tensor) -> Side:
    """What the toy's last layer is given, by its own forward."""
    seen: list[Tensor] = []
    handle = model.get_submodule("last").register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        outputs = model(inputs)
    handle.remove()
    return Side(seen[0].double(), outputs.double(), labels)


def tensors(case: Case, split: str) -> tuple[Tensor, Tensor]:
    examples = [case.splits[split][i] for i in range(len(case.splits[split]))]
    return torch.stack([x for x, _ in examples]), torch.tensor([y for _, y in examples])


def toy_problem(case: Case, right: int = 200) -> Problem:
    job = jobs.job(case, Last())
    features = features_of(job, case.model, "last")
    assert features is not None
    found = problem_of(case.model.get_submodule("last"), *features, right, job.seed)  # type: ignore[arg-type]
    assert found is not None
    return found


def split_by_verdict(case: Case, split: str = "repair") -> tuple[Side, Side]:
    inputs, labels = tensors(case, split)
    with torch.no_grad():
        right = case.model(inputs).argmax(1) == labels
    return side_of(case.model, inputs[~right], labels[~right]), side_of(case.model, inputs[right], labels[right])


# localisation


def test_the_gradient_loss_is_what_autograd_gives() -> None:
    case = toys.case()
    wrong, _ = split_by_verdict(case)
    weight = case.model.get_parameter("last.weight").detach().double().requires_grad_()
    bias = case.model.get_parameter("last.bias").detach().double()
    (expected,) = torch.autograd.grad(F.cross_entropy(F.linear(wrong.inputs, weight, bias), wrong.labels), weight)
    torch.testing.assert_close(gradient_loss(wrong), expected.abs(), rtol=1e-5, atol=1e-9)


def test_the_forward_impact_is_the_localizers() -> None:
    case = toys.case()
    found = evaluate(case.model, case.splits["diagnose"], case.task, device=case.device)
    evidence = gather(case, found.right)[0]
    expected = impacts(evidence, evidence.wrong_at, twin(evidence))["last.weight"].arachne.double()
    inputs, labels = tensors(case, "diagnose")
    side = side_of(case.model, inputs[evidence.wrong_at], labels[evidence.wrong_at])
    weight = case.model.get_parameter("last.weight").detach().double()
    torch.testing.assert_close(forward_impact(side, weight), expected, rtol=1e-4, atol=1e-7)


def test_suspects_are_the_front_of_costs_on_errors_over_those_on_right_examples() -> None:
    case = toys.case()
    wrong, right = split_by_verdict(case)
    weight = case.model.get_parameter("last.weight").detach().double()
    points = [
        [
            float(gradient_loss(wrong)[j, i] / (1 + gradient_loss(right)[j, i])),
            float(forward_impact(wrong, weight)[j, i] / (1 + forward_impact(right, weight)[j, i])),
        ]
        for j in range(3)
        for i in range(16)
    ]
    expected = np.flatnonzero(pareto_front(np.array(points)))
    rows, columns = suspects(weight, wrong, right)
    assert (rows * 16 + columns).tolist() == expected.tolist()
    assert 0 < len(rows) < 48


# fitness


def test_fitness_is_that_of_the_network_with_the_weights_set() -> None:
    case = toys.case()
    problem, generator = toy_problem(case), np.random.default_rng(3)
    wrong, right = split_by_verdict(case)
    assert (len(problem.wrong), len(problem.right)) == (len(wrong), min(len(right), 200))
    for _ in range(5):
        position = generator.normal(0, 1, len(problem.old))
        model = copy.deepcopy(case.model)
        with torch.no_grad():
            model.get_parameter("last.weight")[problem.rows, problem.columns] = torch.from_numpy(position).float()
        layer, parts = model.get_submodule("last"), list[tuple[int, float]]()
        for side in (problem.wrong, problem.right):
            with torch.no_grad():
                outputs = layer(side.inputs.float())
            fit = int((outputs.argmax(1) == side.labels).sum())
            parts.append((fit, float(F.cross_entropy(outputs, side.labels))))
        found = problem.fitness(position)
        assert (found.fixed, found.intact) == (parts[0][0], parts[1][0])
        assert found.fitness == pytest.approx(sum((n + 1) / (loss + 1) for n, loss in parts), rel=1e-5)


def test_where_it_starts_nothing_is_fixed_and_all_is_intact() -> None:
    problem = toy_problem(toys.case(), right=50)
    score = problem.fitness(problem.old)
    assert (score.fixed, score.intact, len(problem.right)) == (0, 50, 50)


# the swarm


def hill(top: Vector) -> "tuple[list[Vector], object]":
    seen: list[Vector] = []

    def fitness(position: Vector) -> Score:
        seen.append(position.copy())
        return Score(-float(np.square(position - top).sum()), 0, 0, 0.0)

    return seen, fitness


def test_the_swarm_climbs() -> None:
    top, old = np.array([0.4, -0.3, 0.1]), np.array([2.0, 2.0, 2.0])
    seen, fitness = hill(top)
    best, history = swarm(fitness, old, Arachne(particles=30, patience=60), (0.0, 1.0, 0.1), seed=1)  # type: ignore[arg-type]
    assert best is not None
    assert np.square(best - top).sum() < 0.05 < np.square(old - top).sum()
    assert history["fitness"].is_monotonic_increasing
    assert len(seen) == 30 * (len(history) + 1) + 1  # the swarm at rest, its moves, and the old values


def test_particles_start_as_siblings_and_move_within_bounds() -> None:
    seen, fitness = hill(np.zeros(4))
    swarm(fitness, np.ones(4), Arachne(particles=500, iterations=1), (0.5, 0.2, 0.3), seed=0)  # type: ignore[arg-type]
    start, moved = np.array(seen[:500]), np.array(seen[500:1000])
    assert start.mean() == pytest.approx(0.5, abs=0.02)
    assert start.std() == pytest.approx(0.2, abs=0.02)
    steps = np.abs(moved - start)
    assert (steps > 0.3 / 5 - 1e-9).all()
    assert (steps < 0.3 * 5 + 1e-9).all()


def test_it_stops_when_nothing_fitter_is_found_and_keeps_the_old_values() -> None:
    best, history = swarm(lambda _: Score(1.0, 0, 0, 0.0), np.zeros(2), Arachne(patience=4), (0.0, 1.0, 1.0), seed=0)
    assert best is None
    assert len(history) == 4


# the treatment


def test_only_suspect_weights_of_the_last_layer_change() -> None:
    case = toys.case()
    before, problem = jobs.state(case.model), toy_problem(case)
    treated = SMALL.treat(jobs.job(case, Last()))
    after = jobs.state(jobs.only(treated))
    assert jobs.differing(before, after) == {"last.weight"}
    assert not jobs.differing(before, jobs.state(case.model))
    kept = torch.ones(3, 16, dtype=torch.bool)
    kept[problem.rows, problem.columns] = False
    assert torch.equal(before["last.weight"][kept], after["last.weight"][kept])
    assert not torch.equal(before["last.weight"][~kept], after["last.weight"][~kept])


def test_fitness_rises_above_that_of_the_original_and_is_what_the_network_does() -> None:
    case = toys.case()
    treated = SMALL.treat(jobs.job(case, Last()))
    problem, last = toy_problem(case), treated.history.iloc[-1]
    assert treated.history["fitness"].is_monotonic_increasing
    assert last["fitness"] > problem.fitness(problem.old).fitness
    inputs, labels = tensors(case, "repair")
    with torch.no_grad():
        was, now = (m(inputs).argmax(1) == labels for m in (case.model, jobs.only(treated)))
    assert int((now & ~was).sum()) == last["fixed"] > 0


def test_the_same_seed_finds_the_same_and_another_seed_something_else() -> None:
    case = jobs.small_case()
    a, b, c = (jobs.only(SMALL.treat(replace(jobs.job(case, Last()), seed=seed))) for seed in (1, 1, 2))
    assert jobs.identical(a, b)
    assert not jobs.identical(a, c)


def test_cost_counts_features_once_and_each_particle() -> None:
    case = toys.case()
    treated, problem = SMALL.treat(jobs.job(case, Last())), toy_problem(case)
    n, k = len(case.splits["repair"]), len(problem.old)
    forward = 2 * n * (2 * 16 + 16 * 16 + 16 * 3)
    searched = 2 * (len(problem.wrong) + len(problem.right)) * k * 3 * 20 * (len(treated.history) + 1)
    assert treated.cost.flops == forward + searched
    assert (treated.cost.parameters, treated.cost.groups, treated.cost.all_groups) == (k, 1, 4)
    assert treated.cost.full_flops > 0
    assert f"searched {k} weights of 'last'" in treated.account[0]


def test_the_preset_searches_the_last_layer_with_the_papers_settings() -> None:
    how = PRESETS["arachne"].how
    assert isinstance(how, Arachne)
    assert (PRESETS["arachne"].where.kind, how.particles, how.iterations, how.patience, how.right) == (
        "last", 100, 100, 10, 200,
    )  # fmt: skip
    fix = treat(toys.case(), ["last"], Plan(name="arachne", where=Last(), how=SMALL))
    assert set(fix.patch.tensors) <= {"last.weight"}
    assert len(fix.tried) == 2


# where it cannot be


def test_a_network_that_makes_no_error_is_left_alone() -> None:
    case = Case(toys.network(), [(torch.tensor([0.01 * i, 0.0]), 0) for i in range(60)])
    treated = SMALL.treat(jobs.job(case, Last()))
    assert (treated.candidates, treated.stopped) == ({}, "the network makes no error in 'repair'")


def test_other_places_are_not_for_it() -> None:
    treated = SMALL.treat(jobs.job(toys.case(), Groups(names=("second",))))
    assert treated.stopped == "Arachne treats the last layer, 'last', which is not among the places of 'mine'"
    with pytest.raises(InvalidArgumentError, match="Arachne treats parameters whole"):
        SMALL.treat(jobs.job(toys.case(), Entries(score="gradient")))


@pytest.mark.parametrize("name", ["tied", "unused"])
def test_a_network_without_a_last_layer_of_its_own_is_left_alone(name: str) -> None:
    treated = SMALL.treat(jobs.job(jobs.zoo_case(name), Everything()))
    assert not treated.candidates
    assert treated.stopped == "the network does not end in a linear layer of its own with labels"
    assert isinstance(treated.history, pd.DataFrame)


def test_sequences_are_no_labels() -> None:
    treated = SMALL.treat(jobs.job(toys.sequence_case(), Everything()))
    assert treated.stopped == "the network does not end in a linear layer of its own with labels"
