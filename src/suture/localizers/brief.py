"""A brief treatment: one group alone, a few steps on one half of `diagnose`, judged on the other half."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from suture.localizers.evidence import Evidence
from suture.localizers.network import Judged, Positions, batches_at, judged_at, trainable, twin
from suture.tasks import plain_recurrence
from suture.training import train

STEPS = 10
BATCH_SIZE = 50
LR = 0.007  # of a tensor's rms per step (notes/localizers.md: CE-probe)
BETAS = (0.8, 0.95)  # Adam's memory, short enough for ten steps
CLIP = 1.0


@dataclass(frozen=True)
class BriefTreatment:
    """What a brief treatment did on k examples that it was not trained on.

    Attributes:
        group: what was treated.
        positions: (k,), of these examples in `diagnose`.
        before, after: losses and verdicts at these.
        stopped: why it ended early, at the weights it began with; None when it did not.
    """

    group: str
    positions: Positions
    before: Judged
    after: Judged
    stopped: str | None = None

    @property
    def gain(self) -> float:
        """Relative fall of the mean loss, at most 1; NaN when there are no examples or nothing was lost before."""
        before = self.before.losses.mean() if len(self.before.losses) else 0.0
        return float(1 - self.after.losses.mean() / before) if before > 0 else float("nan")


def treat_briefly(
    evidence: Evidence,
    group: str,
    *,
    train_on: int = 0,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    before: Judged | None = None,
) -> BriefTreatment:
    """Train one group of a copy on one of ``evidence.halves``, everything in eval mode, and look at the other half.

    Adam, each tensor with a learning rate of `lr` times its rms, so that a step means the same everywhere;
    gradients clipped to norm 1. Gradients are computed for this group alone, so backward stops at its first layer.
    Everything random follows from the case's seed. Any task will do: only its losses are looked at.

    Cost: `steps` · `batch_size` examples forward and (partly) backward, one forward over the other half, and another
    unless `before` is given.

    Args:
        train_on: which half is trained on, 0 or 1.
        before: the other half before any treatment, as an earlier call has found it.
    """
    trained, held_out = evidence.halves[train_on], evidence.halves[1 - train_on]
    model = twin(evidence)
    if before is None:
        before = judged_at(evidence, held_out, model)
    chosen = trainable(model, evidence.groups[group])
    if not len(trained) or not depends(evidence, model, trained):
        return BriefTreatment(group, held_out, before, before)
    stopped = train_briefly(
        evidence, model, chosen, trained, lr=lr, steps=steps, batch_size=batch_size, description=f"probing {group}"
    )
    after = before if stopped else judged_at(evidence, held_out, model)
    return BriefTreatment(group, held_out, before, after, stopped)


def train_briefly(
    evidence: Evidence,
    model: nn.Module,
    chosen: Sequence[nn.Parameter],
    positions: Positions,
    *,
    lr: float,
    description: str,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
) -> str | None:
    """A few steps of `adam` on some examples of `diagnose`, in eval mode; why it stopped early, or None.

    Args:
        model: a copy of the evidence's, changed in place; left as it was when training stops.
        chosen: its parameters that are trained.
        positions: at least one.
    """
    size, case = min(batch_size, len(positions)), evidence.case
    examples = evidence.examples.only(drawn(positions, steps * size, case.seed).tolist())
    with plain_recurrence(model):
        run = train(
            model, examples, case.task, adam(chosen, lr), [], epochs=1, batch_size=size, seed=case.seed,
            device=case.device, mode=nn.Module.eval, clip=CLIP, description=description,
        )  # fmt: skip
    return run.stopped


def depends(evidence: Evidence, model: nn.Module, positions: Positions) -> bool:
    """Whether the loss depends on a parameter that requires gradients, seen on two examples."""
    task = evidence.case.task
    with torch.enable_grad(), plain_recurrence(model):
        batch = next(batches_at(evidence, positions[:2]))
        return bool(task.losses(task.outputs(model, batch), batch).requires_grad)


def drawn(positions: Positions, count: int, seed: int) -> Positions:
    """`count` of some positions by seed: each of them once before any of them again."""
    generator = np.random.default_rng(seed)
    rounds = [generator.permutation(positions) for _ in range(-(-count // len(positions)))]
    return np.concatenate(rounds)[:count]


def adam(chosen: Sequence[Tensor], lr: float) -> torch.optim.Adam:
    """Adam on a group's tensors; one of zeros moves as far as the mean tensor does."""
    sizes = [float(p.detach().double().square().mean().sqrt()) if p.numel() else 0.0 for p in chosen]
    usual = sum(sizes) / len(sizes)
    return torch.optim.Adam(
        [{"params": [p], "lr": lr * (size or usual)} for p, size in zip(chosen, sizes, strict=True)], betas=BETAS
    )
