"""The training loop: finite loss, clipped gradients, a checkpoint after each epoch, exact resume.

What is random in epoch e depends on the seed and e alone, so a training that was killed and resumed ends
where an undisturbed one does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from suture.errors import DataError
from suture.images import ImageFormat
from suture.progress import track
from suture.schedules import HybridMomentum
from suture.tasks import Batch, Examples, Task, fetch, forward, plain_recurrence, to_device
from suture.training.augment import Augment
from suture.training.checkpoints import Checkpoints

Row = dict[str, float]
Penalty = Callable[[nn.Module, Batch, Any], Tensor]
"""Model, batch and the task's outputs → a scalar that is added to the mean loss."""


class Stop(Exception):
    """Raised by ``after_epoch`` to end a training at the state before the epoch; its text says why."""


@dataclass(frozen=True)
class TrainingRun:
    """What a training did.

    Attributes:
        history: a row per epoch: epoch (from 1), lr, momentum, loss (mean over examples, nats), accuracy (of
            the training examples as they were seen), seconds; momentum is betas[0] for the Adam family.
        stopped: why it ended early, with the model at the last good epoch; None when it did not.
    """

    history: pd.DataFrame
    stopped: str | None = None


def train(
    model: nn.Module,
    examples: Examples,
    task: Task,
    optimizer: Optimizer,
    schedules: list[LRScheduler],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    mode: Callable[[nn.Module], Any] = nn.Module.train,
    augment: Augment | None = None,
    image: ImageFormat | None = None,
    clip: float | None = 1.0,
    checkpoints: Checkpoints | None = None,
    description: str = "training",
    until: int | None = None,
    per_epoch: int | None = None,
    penalty: Penalty | None = None,
    on_batch: Callable[[list[int]], None] | None = None,
    after_epoch: Callable[[int, nn.Module, Row], Row] | None = None,
    after_checkpoint: Callable[[list[Row]], None] | None = None,
) -> TrainingRun:
    """Train a model in place.

    Args:
        model: on `device`; parameters without ``requires_grad`` stay as they are.
        examples: n pairs (input, target).
        optimizer, schedules: schedules are stepped after each epoch, in order.
        mode: puts the modules in train or eval mode, before each epoch.
        clip: largest norm of a step's gradient over all parameters; None for no limit.
        checkpoints: where to save after each epoch and to resume from.
        per_epoch: examples seen in an epoch, where that is fewer than there are: each once before any again.
        until: the last epoch to do now, where a later call is to go on from the checkpoints.
        penalty: added to the mean loss of each step; the history's loss is without it.
        on_batch: told the positions of the examples in each step, before the model sees them.
        after_epoch: further columns for the history, from the model and the row as they are after an epoch; may
            raise `Stop`.
        after_checkpoint: sees the history so far, once it can no longer be lost.

    Raises:
        DataError: there are no examples.
    """
    if not len(examples):
        raise DataError("there is nothing to train on")
    done, rows = checkpoints.resume(model, optimizer, schedules) if checkpoints else (0, [])
    stopped = None
    for epoch in track(range(done + 1, (until or epochs) + 1), description):
        begun = perf_counter()
        good = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        mode(model)
        row = {"epoch": epoch, **_hyperparameters(optimizer)}
        try:
            with plain_recurrence(model):
                loss, accuracy = _epoch(
                    model, examples, task, optimizer, epoch=epoch, seed=seed, batch_size=batch_size, device=device,
                    augment=augment, image=image, clip=clip, penalty=penalty, on_batch=on_batch, per_epoch=per_epoch,
                )  # fmt: skip
            if loss is None:
                raise Stop(f"the loss was not finite in epoch {epoch}")
            row |= {"loss": loss, "accuracy": accuracy, "seconds": perf_counter() - begun}
            rows.append(row | (after_epoch(epoch, model, row) if after_epoch else {}))
        except Stop as reason:
            model.load_state_dict(good)
            kept = f"the state after epoch {epoch - 1}" if epoch > 1 else "the state it began with"
            stopped = f"{reason}; {kept} was kept"
            break
        for schedule in schedules:
            step_schedule(schedule, rows[-1])
        if checkpoints:
            checkpoints.save(epoch, model, optimizer, schedules, rows)
        if after_checkpoint:
            after_checkpoint(rows)
    model.eval()
    return TrainingRun(pd.DataFrame(rows), stopped)


def step_schedule(schedule: LRScheduler, row: Row) -> None:
    """Step a schedule after an epoch; one that watches a metric sees the held-out accuracy where there is one."""
    if isinstance(schedule, HybridMomentum) and schedule.switch_epoch is None:
        schedule.step(metric=row.get("test_accuracy", row["accuracy"]))
    else:
        schedule.step()


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for everything random in one epoch."""
    return (seed * 1_000_003 + epoch) % 2**63


def _portion(n: int, size: int, epoch: int, seed: int) -> list[int]:
    """The positions of one epoch of `size` out of n examples: rounds over all of them, cut into portions."""
    start, end = (epoch - 1) * size, epoch * size
    rounds = range(start // n, (end - 1) // n + 1)
    shuffled = [torch.randperm(n, generator=torch.Generator().manual_seed(epoch_seed(seed, -1 - r))) for r in rounds]
    whole = torch.cat(shuffled)
    return whole[start - rounds[0] * n : end - rounds[0] * n].tolist()


def _hyperparameters(optimizer: Optimizer) -> Row:
    group = optimizer.param_groups[0]
    momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
    return {"lr": float(group["lr"]), "momentum": float(momentum)}


def _epoch(
    model: nn.Module, examples: Examples, task: Task, optimizer: Optimizer, *, epoch: int, seed: int,
    batch_size: int, device: torch.device, augment: Augment | None, image: ImageFormat | None, clip: float | None,
    penalty: Penalty | None, on_batch: Callable[[list[int]], None] | None, per_epoch: int | None,
) -> tuple[float | None, float]:  # fmt: skip
    """Mean loss and accuracy of one pass; the loss is None when it was not finite and the pass was broken off."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    if per_epoch is None or per_epoch >= len(examples):
        order = torch.randperm(len(examples), generator=generator).tolist()
    else:
        order = _portion(len(examples), per_epoch, epoch, seed)
    total, right, seen = 0.0, 0, 0
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(epoch_seed(seed, epoch))  # dropout
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            if len(chosen) == 1 < batch_size and seen:
                continue  # BatchNorm cannot train on one example; another is left out next epoch
            if on_batch is not None:
                on_batch(chosen)
            inputs, targets = fetch(examples, chosen, task)
            if augment is not None:
                inputs = augment.apply(inputs, generator, image)
            batch = to_device((inputs, targets), device)
            losses, verdicts = _step(model, batch, task, optimizer, clip, penalty)
            if losses is None:
                return None, 0.0
            total += float(losses.sum())
            right += int(verdicts.sum())
            seen += len(chosen)
    return total / seen, right / seen


def _step(
    model: nn.Module, batch: Batch, task: Task, optimizer: Optimizer, clip: float | None, penalty: Penalty | None
) -> tuple[Tensor | None, Tensor]:
    outputs = forward(model, batch, task, "the training examples")
    losses = task.losses(outputs, batch)
    verdicts = task.verdicts(outputs, batch)
    loss = losses.mean() if penalty is None else losses.mean() + penalty(model, batch, outputs)
    if not loss.requires_grad:
        raise Stop("nothing that is trained reaches the loss")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    size = loss if clip is None else nn.utils.clip_grad_norm_(trained, clip)
    if not (loss.isfinite() and size.isfinite()):
        return None, verdicts
    optimizer.step()
    return losses.detach(), verdicts
