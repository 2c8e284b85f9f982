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
from suture.tasks import Batch, Examples, Task, fetch, forward, to_device
from suture.training.augment import Augment
from suture.training.checkpoints import Checkpoints

Row = dict[str, float]


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
    after_epoch: Callable[[int, nn.Module], Row] | None = None,
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
        after_epoch: further columns for the history, from the model as it is after an epoch.
        after_checkpoint: sees the history so far, once it can no longer be lost.

    Raises:
        DataError: there are no examples.
    """
    if not len(examples):
        raise DataError("there is nothing to train on")
    done, rows = checkpoints.resume(model, optimizer, schedules) if checkpoints else (0, [])
    stopped = None
    for epoch in track(range(done + 1, epochs + 1), description):
        begun = perf_counter()
        good = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        mode(model)
        row = {"epoch": epoch, **_hyperparameters(optimizer)}
        loss, accuracy = _epoch(
            model, examples, task, optimizer, epoch=epoch, seed=seed, batch_size=batch_size, device=device,
            augment=augment, image=image, clip=clip,
        )  # fmt: skip
        if loss is None:
            model.load_state_dict(good)
            stopped = f"the loss was not finite in epoch {epoch}; the state after epoch {epoch - 1} was kept"
            break
        row |= {"loss": loss, "accuracy": accuracy, "seconds": perf_counter() - begun}
        rows.append(row | (after_epoch(epoch, model) if after_epoch else {}))
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


def _hyperparameters(optimizer: Optimizer) -> Row:
    group = optimizer.param_groups[0]
    momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
    return {"lr": float(group["lr"]), "momentum": float(momentum)}


def _epoch(
    model: nn.Module, examples: Examples, task: Task, optimizer: Optimizer, *, epoch: int, seed: int,
    batch_size: int, device: torch.device, augment: Augment | None, image: ImageFormat | None, clip: float | None,
) -> tuple[float | None, float]:  # fmt: skip
    """Mean loss and accuracy of one pass; the loss is None when it was not finite and the pass was broken off."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    order = torch.randperm(len(examples), generator=generator).tolist()
    total, right, seen = 0.0, 0, 0
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(epoch_seed(seed, epoch))  # dropout
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            if len(chosen) == 1 and seen:
                continue  # BatchNorm cannot train on one example; another is left out next epoch
            inputs, targets = fetch(examples, chosen, task)
            if augment is not None:
                inputs = augment.apply(inputs, generator, image)
            batch = to_device((inputs, targets), device)
            losses, verdicts = _step(model, batch, task, optimizer, clip)
            if losses is None:
                return None, 0.0
            total += float(losses.sum())
            right += int(verdicts.sum())
            seen += len(chosen)
    return total / seen, right / seen


def _step(
    model: nn.Module, batch: Batch, task: Task, optimizer: Optimizer, clip: float | None
) -> tuple[Tensor | None, Tensor]:
    outputs = forward(model, batch, task, "the training examples")
    losses = task.losses(outputs, batch)
    verdicts = task.verdicts(outputs, batch)
    loss = losses.mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    size = loss if clip is None else nn.utils.clip_grad_norm_(trained, clip)
    if not (loss.isfinite() and size.isfinite()):
        return None, verdicts
    optimizer.step()
    return losses.detach(), verdicts
