"""Arachne's bidirectional localisation: weights that both the loss and the output hang on."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from suture.groups import group_of
from suture.localizers.evidence import Evidence
from suture.localizers.impact import impacts
from suture.localizers.network import trainable, twin, unknown
from suture.localizers.registry import localizer

Points = NDArray[np.float64]


@localizer("arachne", reads="network", nulls=("correct", "random"))
def arachne(evidence: Evidence) -> pd.Series:
    """The group's share of the Pareto front over all weights of two costs, in [0, 1]; shares sum to 1.

    Gradient loss GL = |∂L/∂w| and forward impact FI = mean(|a_i w_ij| / Σ_i |a_i w_ij|) · mean|∂out/∂z_j|, each as
    cost on errors / (1 + cost on as many correct examples). L is the mean loss in nats, a a layer's input, z its
    output, out the sum of the network's outputs; means are over examples and positions. Weights of Linear and
    convolution layers are compared, as in Arachne; a group without any is NaN.

    Cost: gradients of errors and correct examples as for ``grad_norm``, and about 4/3 of that again.

    Source: Sohn, Kang and Yoo, Arachne, ACM TOSEM 32(4), 2023.
    """
    if not len(evidence.wrong_at):
        return unknown(evidence)
    model = twin(evidence)
    trainable(model)
    sides = [(evidence.errors, evidence.wrong_at)]
    if len(evidence.correct_at):
        sides.append((evidence.correct, evidence.correct_at))
    costs: dict[str, list[Points]] = {}
    for sample, positions in sides:
        for name, impact in impacts(evidence, positions, model).items():
            both = torch.stack([sample.mean_gradient[name].abs().flatten(), impact.arachne.flatten()], 1)
            costs.setdefault(name, []).append(both.double().cpu().numpy())
    points = {name: cost[0] / (1 + sum(cost[1:])) for name, cost in costs.items()}
    return _shares(evidence, points)


def pareto_front(points: Points) -> NDArray[np.bool_]:
    """(n,), which of n points (n, 2) no other point beats: at least as large in both, and larger in one."""
    if not len(points):
        return np.zeros(0, bool)
    order = np.lexsort((-points[:, 1], -points[:, 0]))
    x, y = points[order].T
    highest = np.concatenate([[-np.inf], np.maximum.accumulate(y)[:-1]])
    new = np.concatenate([[True], (np.diff(x) != 0) | (np.diff(y) != 0)])
    kept = (y > highest)[new][np.cumsum(new) - 1]  # equal points share their first one's lot
    front = np.zeros(len(points), bool)
    front[order] = kept
    return front


def _shares(evidence: Evidence, points: dict[str, Points]) -> pd.Series:
    """Each group's share of the front; the front of all is among the fronts of the tensors, which are small."""
    fronts = {name: own[pareto_front(own)] for name, own in points.items()}
    if not fronts:
        return unknown(evidence)
    kept = pareto_front(np.concatenate(list(fronts.values())))
    owner = np.repeat([group_of(evidence.groups)[name] for name in fronts], [len(own) for own in fronts.values()])
    counts = pd.Series(owner[kept]).value_counts()
    compared = set(owner)
    return pd.Series(
        {g: counts.get(g, 0) / kept.sum() if g in compared else float("nan") for g in evidence.groups}, dtype=float
    )
