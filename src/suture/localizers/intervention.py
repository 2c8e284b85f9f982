"""Localizers that change a copy of the network and look at the loss on examples that did not choose the change.

Costs are in passes: 1 = forward and backward over all n examples of `diagnose`, so a forward alone is 1/3; G is the
number of groups.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from suture.errors import NonFiniteError
from suture.gradients import differentiable, group_norms
from suture.localizers.brief import treat_briefly
from suture.localizers.evidence import Evidence
from suture.localizers.network import (
    Hook,
    Positions,
    batches_at,
    carriers,
    hooked,
    judged_at,
    losses_at,
    twin,
    unknown,
)
from suture.localizers.registry import localizer
from suture.optimizers.base import state_dtype
from suture.tasks import plain_recurrence

FIRST_STEP, GROWTH, LONGEST_STEP = 1e-5, 4.0, 4.0  # in units of the group's norm
RISE = 1e-6  # relative: a smaller rise of the loss is rounding
FISHER_BATCH = 8
RIDGE = 0.1  # of the group's mean curvature
RATES = (-0.3, 0.3)  # of the group's output, as measured in notes/peers.md


@localizer("line_search", reads="network", nulls=("random",))
def line_search(evidence: Evidence) -> pd.Series:
    """max_η L(θ) − L(θ_g − η ‖θ_g‖ ∇_g/‖∇_g‖) in nats, ≥ 0: what the best step against the gradient gains.

    ∇ is the gradient of the mean loss on one half of `diagnose`, L the mean loss on the other half; η goes from
    1e-5 up by factors of 4 until the loss rises. 0 for a group without gradient, NaN for one of zero weights or
    when there is nothing to hold out.

    Cost: 1/2 pass for ∇, and at most 10 steps of 1/6 pass per group; G passes are usual.
    """
    gradient, _ = _first_half_gradients(evidence, evidence.case.batch_size)
    return _best_drops(evidence, gradient)


@localizer("newton_gain", reads="network", nulls=("random",))
def newton_gain(evidence: Evidence) -> pd.Series:
    """As ``line_search``, along ∇_g / (F_g + λ) in place of ∇_g, with F the diagonal of the Fisher matrix.

    The empirical Fisher is taken over batches of 8, F = Σ_b (Σ_{i∈b} ∇ℓ_i)² / n, elementwise (batches of one would
    give its diagonal exactly); λ is a tenth of the group's mean F. In nats.

    Cost: that of ``line_search``.
    """
    gradient, fisher = _first_half_gradients(evidence, FISHER_BATCH)
    direction: dict[str, Tensor] = {}
    for names in evidence.groups.values():
        known = [name for name in names if name in gradient]
        total = sum(float(fisher[name].double().sum()) for name in known)
        ridge = RIDGE * total / max(sum(fisher[name].numel() for name in known), 1)
        # Without curvature there is no gradient either: anything but 0/0 will do.
        direction |= {name: gradient[name] / (fisher[name] + (ridge or 1.0)) for name in known}
    return _best_drops(evidence, direction)


@localizer("probe", reads="network", nulls=("random",))
def probe(evidence: Evidence) -> pd.Series:
    """1 − L(after)/L(before): relative fall of the held-out loss when the group alone is trained for ten steps.

    See `suture.localizers.brief.treat_briefly`; at most 1, below 0 where training the group does harm on examples
    it was not trained on. 0 for a group that the loss does not depend on, NaN when there is nothing to hold out.

    Cost: 1/6 pass, and per group 500 examples forward and partly backward and 1/6 pass.
    """
    before = judged_at(evidence, evidence.halves[1], twin(evidence))
    gains = {group: treat_briefly(evidence, group, before=before).gain for group in evidence.groups}
    return pd.Series(gains, dtype=float)


@localizer("care", reads="network", nulls=("random",))
def care(evidence: Evidence) -> pd.Series:
    """L − E[ℓ; do(z_g ← (1 + r) z_g)] in nats: what the loss falls by when the group's outputs are made larger or
    smaller by 30 %.

    r is chosen on one half of `diagnose`, and the fall is taken on the other half, so it may be below 0. The outputs
    of a group are those of the outermost modules that own nothing but its parameters, else of the layers that own
    some of them. NaN for a group whose modules are never called.

    Cost: (1 + 3 G) / 6 passes, forward only.

    Source: Sun, Sun, Pham and Shi, Causality-based neural network repair (CARE), ICSE 2022, for whole groups.
    """
    model = twin(evidence)
    choosing, held_out = evidence.halves
    if not len(held_out):
        return unknown(evidence)
    before = losses_at(evidence, held_out, model).mean()
    drops = {}
    for group, names in evidence.groups.items():
        paths = carriers(model, names)
        losses = {rate: _loss_when_scaled(evidence, choosing, model, paths, 1 + rate) for rate in RATES}
        known = {rate: loss for rate, loss in losses.items() if loss is not None}
        best = min(known, key=known.__getitem__, default=0.0)
        after = _loss_when_scaled(evidence, held_out, model, paths, 1 + best) if known else None
        drops[group] = before - after if after is not None else float("nan")
    return pd.Series(drops, dtype=float)


def _loss_when_scaled(
    evidence: Evidence, positions: Positions, model: nn.Module, paths: list[str], factor: float
) -> float | None:
    """Mean loss with everything that some modules give multiplied by a factor; None when none of them was called."""
    called = False

    def scale(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        nonlocal called
        called = True
        return tree_map(lambda x: x * factor if isinstance(x, Tensor) and x.is_floating_point() else x, output)

    hook: Hook = scale
    with hooked(model, dict.fromkeys(paths, hook)):
        loss = float(losses_at(evidence, positions, model).mean())
    return loss if called else None


def _first_half_gradients(evidence: Evidence, batch_size: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradient g of the mean loss over the first half, and Σ_b (Σ_{i∈b} ∇ℓ_i)² / n over its batches, by parameter."""
    task, model, positions = evidence.case.task, twin(evidence), evidence.halves[0]
    with differentiable(model) as parameters, plain_recurrence(model):
        total = {name: torch.zeros_like(p, dtype=state_dtype(p)) for name, p in parameters.items()}
        square = {name: torch.zeros_like(t) for name, t in total.items()}
        for batch in batches_at(evidence, positions, batch_size):
            loss = task.losses(task.outputs(model, batch), batch).sum()
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, grad in zip(parameters, found, strict=True):
                if grad is not None:
                    if not bool(grad.isfinite().all()):
                        raise NonFiniteError(
                            f"the gradient of '{name}' is not finite; check the weights and the inputs"
                        )
                    total[name] += grad
                    square[name] += grad.to(square[name].dtype).square()
    n = len(positions)
    return {k: t.detach() / n for k, t in total.items()}, {k: t.detach() / n for k, t in square.items()}


def _best_drops(evidence: Evidence, direction: Mapping[str, Tensor]) -> pd.Series:
    """Per group, how far the loss on the second half falls on the way against a direction."""
    if not len(evidence.halves[1]):
        return unknown(evidence)
    model = twin(evidence)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    sizes, lengths = group_norms(parameters, evidence.groups), group_norms(direction, evidence.groups)
    before = float(losses_at(evidence, evidence.halves[1], model).mean())
    drops = {}
    for group, names in evidence.groups.items():
        if sizes[group] == 0 or lengths[group] == 0:
            drops[group] = float("nan") if sizes[group] == 0 else 0.0
            continue
        unit = {name: direction[name] * (sizes[group] / lengths[group]) for name in names if name in direction}
        drops[group] = before - _lowest(evidence, model, parameters, unit, before)
    return pd.Series(drops, dtype=float)


def _lowest(
    evidence: Evidence, model: nn.Module, parameters: Mapping[str, Tensor], unit: Mapping[str, Tensor], before: float
) -> float:
    """The lowest mean loss on the second half at θ − η · unit; the parameters are put back."""
    start = {name: parameters[name].clone() for name in unit}
    lowest, step = before, FIRST_STEP
    try:
        while step <= LONGEST_STEP:
            for name, along in unit.items():
                parameters[name].copy_(start[name] - step * along)
            loss = float(losses_at(evidence, evidence.halves[1], model).mean())
            if not loss <= lowest + RISE * abs(lowest):  # higher, or no number any more
                break
            lowest, step = min(lowest, loss), step * GROWTH
    finally:
        for name, value in start.items():
            parameters[name].copy_(value)
    return lowest
