"""A last layer fitted anew on cached features: cheap, and needed where no record speaks of it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suture.localizers.brief import adam
from suture.localizers.evidence import Evidence
from suture.localizers.network import Judged, Positions, batches_at, carriers, hooked, trainable, twin
from suture.stats import ALPHA, Flips, flips, mcnemar
from suture.tasks import Batch

EXAMPLES = 1000  # half of them to fit, half to judge, and the other way round
STEPS = 60
LR = 0.02  # of a tensor's rms per step
GAIN = 0.1  # by which a last layer stands out; those of healthy networks gain below 0.02
SCALES = np.logspace(-1.5, 0.5, 41)
LITTLE = 0.25  # nats: a mean loss below it leaves little to gain, and gains are measured against this

Cached = list[tuple[Tensor, Batch]]
"""A layer's input and the batch it comes from."""


@dataclass(frozen=True)
class Refit:
    """What fitting a group anew did on examples that it was not fitted to.

    Attributes:
        gain: fall of the mean loss, relative to the loss before or a quarter of a nat, whichever is more.
        moves: examples that became right and wrong.
    """

    gain: float
    moves: Flips

    @property
    def heals(self) -> bool:
        """Whether the group stands out: the gain counts, and verdicts became better by more than chance (5 %)."""
        better = mcnemar(self.moves.fixed, self.moves.broken) < ALPHA and self.moves.net > 0
        return self.gain > GAIN and better


def refit(evidence: Evidence, group: str) -> Refit | None:
    """Fit a group to the labels of one half of `diagnose`, judge it on the other, and the other way round.

    Its inputs are computed once. The gain is over the old layer times the best factor: that a network is surer
    than it should be is no fault of its last layer.

    Cost: a third of a pass over at most 1,000 examples.

    Returns:
        None unless the group is one module, called once, with one input, whose output is the model's.
    """
    model = twin(evidence)
    paths = carriers(model, evidence.groups[group])
    if len(paths) != 1 or not paths[0]:
        return None
    parts = [_inputs(evidence, model, paths[0], half[: EXAMPLES // 2]) for half in evidence.halves]
    first, second = parts
    if not first or not second:
        return None
    layer = model.get_submodule(paths[0])
    found = [_judged(evidence, layer, fit, judge) for fit, judge in ((first, second), (second, first))]
    before, after = (
        Judged(np.concatenate([p[i].losses for p in found]), np.concatenate([p[i].right for p in found]))
        for i in (0, 1)
    )
    fall = float(before.losses.mean() - after.losses.mean())
    gain = fall / max(float(before.losses.mean()), LITTLE) if np.isfinite(fall) else 0.0
    return Refit(gain, flips(before.right, after.right))


def _judged(evidence: Evidence, old: nn.Module, fit: Cached, judge: Cached) -> tuple[Judged, Judged]:
    """One half, judged with the old layer and with one fitted on the other half, each times its best factor there."""
    layer = copy.deepcopy(old)
    optimizer = adam(trainable(layer), LR)
    with torch.enable_grad():
        for _ in range(STEPS):
            loss = _losses(evidence, layer, fit).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return _best_scaled(evidence, old, judge), _best_scaled(evidence, layer, judge)


def _best_scaled(evidence: Evidence, layer: nn.Module, cached: Cached) -> Judged:
    """A layer whose output is multiplied by the factor that makes the mean loss least."""
    task = evidence.case.task
    with torch.no_grad():
        losses = [_losses(evidence, layer, cached, float(k)).double().cpu().numpy() for k in SCALES]
        right = torch.cat([task.verdicts(layer(inputs), batch) for inputs, batch in cached])
    return Judged(min(losses, key=lambda each: float(each.mean())), right.cpu().numpy())


def _losses(evidence: Evidence, layer: nn.Module, cached: Cached, factor: float = 1.0) -> Tensor:
    task = evidence.case.task
    return torch.cat([task.losses(factor * layer(inputs), batch) for inputs, batch in cached])


def _inputs(evidence: Evidence, model: nn.Module, path: str, positions: Positions) -> Cached | None:
    """Inputs of a layer; None unless it is called once, with one input, and its output is the model's."""
    task, found, calls = evidence.case.task, Cached(), list[tuple[Sequence[Any], Any]]()

    def note(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append((args, output))

    with torch.no_grad(), hooked(model, {path: note}):
        for batch in batches_at(evidence, positions):
            calls.clear()
            outputs = task.outputs(model, batch)
            if len(calls) != 1 or len(calls[0][0]) != 1 or calls[0][1] is not outputs:
                return None
            found.append((calls[0][0][0], batch))
    return found
