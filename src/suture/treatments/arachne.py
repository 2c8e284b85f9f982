"""Arachne: search for other values of a few weights of the last layer, by a swarm, without gradients of a loss.

Which weights is told by the localisation of Sohn, Kang and Yoo, ACM TOSEM 32(4), 2023 (gradient loss and forward
impact on errors against right examples, Pareto front; see `suture.localizers.arachne`). The search is the particle
swarm of the method's first version, arXiv:1912.12463v1 (2019), with its fitness and settings; the later one has
differential evolution in its place.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from suture.localizers.arachne import pareto_front
from suture.treatments.cost import Cost
from suture.treatments.finetune import beside_full
from suture.treatments.lastlayer import features_of, shared
from suture.treatments.plan import METHODS, Candidate, Job, Method, Treated, refuse_partial
from suture.treatments.where import last_linear

Vector = NDArray[np.float64]
Fitness = Callable[[Vector], "Score"]

PHI = 4.1  # both confidences; each step is shrunk by Clerc and Kennedy's factor for it, 0.73
SLOWEST, FASTEST = 1 / 5, 5.0  # bounds of a velocity, times the range of the layer's weights


@METHODS.register("arachne")
class Arachne(Method):
    """Particle swarm optimisation of the last layer's weights on the Pareto front of gradient loss and forward impact.

    Fitness of a particle: (fixed + 1) / (loss of errors + 1) + (intact + 1) / (loss of right examples + 1), on the
    errors of `repair` and as many right examples of it as `right` says; losses are mean cross-entropies in nats. Only
    for a network whose output is that of its last linear layer, which shares no weights, and integer labels: features
    are then computed once, and a particle costs one matrix product.
    """

    kind: Literal["arachne"] = "arachne"
    guarded: ClassVar[bool] = False
    particles: int = Field(100, ge=2, description="particles of the swarm")
    iterations: int = Field(100, ge=1, description="moves of the swarm at most")
    patience: int = Field(10, ge=1, description="moves without a fitter particle after which it stops")
    right: int = Field(200, ge=1, description="right examples that are to stay right, drawn with the job's seed")

    def treat(self, job: Job) -> Treated:
        refuse_partial(job, "Arachne")
        begun, model = perf_counter(), copy.deepcopy(job.model).eval()
        path = last_linear(model)
        with FlopCounterMode(display=False) as counter:
            features = None if path is None or shared(model, path) else features_of(job, model, path)
        if path is None or features is None:
            why = "the network does not end in a linear layer of its own with labels"
            return Treated({}, pd.DataFrame(), Cost(), why)
        if f"{path}.weight" not in job.places.parameters:
            why = f"Arachne treats the last layer, '{path}', which is not among the places of '{job.name}'"
            return Treated({}, pd.DataFrame(), Cost(), why)
        layer: nn.Linear = model.get_submodule(path)  # type: ignore[assignment]
        problem = problem_of(layer, *features, self.right, job.seed)
        if problem is None:
            return Treated({}, pd.DataFrame(), Cost(), "the network makes no error in 'repair'")
        best, history = swarm(problem.fitness, problem.old, self, problem.siblings, job.seed)
        flops = counter.get_total_flops() + problem.flops * self.particles * (len(history) + 1)
        cost = _cost(job, len(problem.old), flops, perf_counter() - begun)
        account = [
            f"Arachne searched {len(problem.old)} weights of '{path}' on {len(problem.wrong)} errors and "
            f"{len(problem.right)} right examples: {len(history)} moves of {self.particles} particles"
        ]
        if best is None:
            return Treated({}, history, cost, "no particle was fitter than the original", account)
        with torch.no_grad():
            layer.weight[problem.rows, problem.columns] = torch.from_numpy(best).to(layer.weight)
        return Treated({job.name: Candidate(model)}, history, cost, account=account)


@dataclass(frozen=True)
class Score:
    """What a particle does: its fitness, errors fixed, right examples intact, and the mean loss of both (nats)."""

    fitness: float
    fixed: int
    intact: int
    loss: float


@dataclass(frozen=True, eq=False)
class Side:
    """Examples as the last layer sees them: inputs (n, d), outputs (n, c) of the old weights, labels (n,)."""

    inputs: Tensor
    outputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, positions: Tensor) -> "Side":
        """Some of them."""
        return Side(self.inputs[positions], self.outputs[positions], self.labels[positions])


@dataclass(frozen=True, eq=False)
class Problem:
    """k weights of a layer, at rows and columns, and the examples that tell which values of them are fit."""

    rows: Tensor
    columns: Tensor
    old: Vector
    siblings: tuple[float, float, float]  # mean, deviation and range of the layer's weights
    wrong: Side
    right: Side

    @property
    def flops(self) -> float:
        """Of one particle."""
        return 2.0 * (len(self.wrong) + len(self.right)) * len(self.old) * self.wrong.outputs.shape[1]

    def fitness(self, position: Vector) -> Score:
        """How fit a particle is, from one matrix product on either side."""
        change = torch.zeros(len(self.old), self.wrong.outputs.shape[1], dtype=torch.float64)
        change[torch.arange(len(self.old)), self.rows] = torch.from_numpy(position - self.old)
        counts, losses = list[int](), list[float]()
        for side in (self.wrong, self.right):
            outputs = side.outputs + side.inputs[:, self.columns] @ change
            counts.append(int((outputs.argmax(1) == side.labels).sum()))
            losses.append(float(F.cross_entropy(outputs, side.labels)) if len(side) else 0.0)
        fitness = sum((count + 1) / (loss + 1) for count, loss in zip(counts, losses, strict=True))
        n = len(self.wrong), len(self.right)
        return Score(fitness, counts[0], counts[1], (losses[0] * n[0] + losses[1] * n[1]) / sum(n))


def problem_of(layer: nn.Linear, inputs: Tensor, labels: Tensor, right: int, seed: int) -> Problem | None:
    """The weights to search and the examples to search on; None without errors."""
    inputs, labels = inputs.detach().double().cpu(), labels.cpu()
    weight = layer.weight.detach().double().cpu()
    bias = None if layer.bias is None else layer.bias.detach().double().cpu()
    every = Side(inputs, F.linear(inputs, weight, bias), labels)
    correct = every.outputs.argmax(1) == labels
    kept = np.random.default_rng(seed).permutation(int(correct.sum()))[:right]
    sides = every.of((~correct).nonzero()[:, 0]), every.of(correct.nonzero()[np.sort(kept), 0])
    if not len(sides[0]):
        return None
    rows, columns = suspects(weight, *sides)
    siblings = float(weight.mean()), float(weight.std(correction=0)), float(weight.max() - weight.min())
    return Problem(rows, columns, weight[rows, columns].numpy(), siblings, *sides)


def suspects(weight: Tensor, wrong: Side, right: Side) -> tuple[Tensor, Tensor]:
    """Rows and columns of the weights on the Pareto front of both costs, each on errors / (1 + on right examples).

    Gradient loss |∂L/∂w|; forward impact mean(|a_i w_ij| / Σ_i |a_i w_ij|), since the outputs are the layer's own.
    """
    costs = [
        torch.stack([gradient_loss(side), forward_impact(side, weight)], -1) for side in (wrong, right) if len(side)
    ]
    points = costs[0] / (1 + sum(costs[1:]))
    front = torch.from_numpy(pareto_front(points.reshape(-1, 2).numpy())).reshape(weight.shape)
    rows, columns = front.nonzero(as_tuple=True)
    return rows, columns


def gradient_loss(side: Side) -> Tensor:
    """(c, d), of the mean cross-entropy."""
    surplus = side.outputs.softmax(1) - F.one_hot(side.labels, side.outputs.shape[1])
    return (surplus.T @ side.inputs / len(side)).abs()


def forward_impact(side: Side, weight: Tensor) -> Tensor:
    """(c, d), each weight's mean share of what its neuron hears."""
    a, w = side.inputs.abs(), weight.abs()
    heard = a @ w.T
    inverse = torch.where(heard > 0, 1 / heard, 0.0)
    return w * (inverse.T @ a) / len(side)


def swarm(
    fitness: Fitness, old: Vector, how: Arachne, siblings: tuple[float, float, float], seed: int
) -> tuple[Vector | None, pd.DataFrame]:
    """The fittest position that any particle had, None where the old one is as fit; and a row per move.

    Particles start at values drawn from a normal distribution with the mean and deviation of all weights of the layer,
    at rest. v ← χ (v + ρ₁ (own best − x) + ρ₂ (best − x)), ρ from U(0, φ), χ = 2 / (φ − 2 + √(φ² − 4φ)), |v| within
    its bounds in every dimension; then x ← x + v.

    Args:
        siblings: mean, deviation and range of the layer's weights.
    """
    rng, (mean, deviation, span) = np.random.default_rng(seed), siblings
    chi = 2 / (PHI - 2 + np.sqrt(PHI**2 - 4 * PHI))
    x = rng.normal(mean, deviation, (how.particles, len(old)))
    v, own, scores = np.zeros_like(x), x.copy(), [fitness(each) for each in x]
    top = max(range(how.particles), key=lambda i: scores[i].fitness)
    rows, idle = list[dict[str, float]](), 0
    while len(rows) < how.iterations and idle < how.patience:
        begun, goal, was = perf_counter(), own[top].copy(), scores[top].fitness
        for i in range(how.particles):
            pull = rng.uniform(0, PHI) * (own[i] - x[i]) + rng.uniform(0, PHI) * (goal - x[i])
            v[i] = chi * (v[i] + pull)
            v[i] = np.where(v[i] < 0, -1, 1) * np.clip(np.abs(v[i]), SLOWEST * span, FASTEST * span)
            x[i] += v[i]
            score = fitness(x[i])
            if score.fitness > scores[i].fitness:
                own[i], scores[i] = x[i], score
        top = max(range(how.particles), key=lambda i: scores[i].fitness)
        best = scores[top]
        idle = 0 if best.fitness > was else idle + 1
        rows.append(
            {"step": len(rows) + 1, "loss": best.loss, "fitness": best.fitness, "fixed": best.fixed,
             "intact": best.intact, "seconds": perf_counter() - begun}
        )  # fmt: skip
    better = scores[top].fitness > fitness(old).fitness
    return own[top] if better else None, pd.DataFrame(rows)


def _cost(job: Job, weights: int, flops: float, seconds: float) -> Cost:
    """Beside one epoch of full fine-tuning."""
    return replace(
        beside_full(job.case, len(job.examples)), seconds=seconds, epochs=1, parameters=weights, groups=1,
        all_groups=len(job.case.groups), flops=flops,
    )  # fmt: skip
