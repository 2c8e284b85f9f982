"""Train a network from a recipe into a directory: weights, log, and a checkpoint to resume from."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from suture.errors import RunError, SutureError
from suture.friction import friction_beside, friction_of, save_friction
from suture.images import ImageFolder, ImageFormat
from suture.moments import beside, measure_moments, save_moments
from suture.rundir import RunDir, fingerprint, read_json, replacing, write_atomic, write_json
from suture.tasks import Examples, Task, evaluate
from suture.training.checkpoints import Checkpoints
from suture.training.loop import Row, TrainingRun, train
from suture.training.presets import Recipe

WEIGHTS, HISTORY, DESCRIPTION = "weights.safetensors", "history.csv", "training.json"
NO_ROWS = ["epoch", "lr", "momentum", "loss", "accuracy", "seconds"]  # of the history of no epoch


class Logger(Protocol):
    """Where rows of the history go besides the CSV file, such as TensorBoard."""

    def log(self, row: Row) -> None:
        """Record one epoch."""


@dataclass(frozen=True)
class Fit:
    """A finished training.

    Attributes:
        weights: path of the weights; beside them, ``weights.moments.safetensors`` says what each layer gave on the
            training examples, which `suture.localize` compares with when the network is ill one day, and, after a
            training with iKFAD, ``weights.friction.safetensors`` where that had to brake.
        log: path of the history, as `suture.scan` reads it.
        history: the same as a table: epoch, lr, momentum, loss, accuracy, seconds, and test_accuracy, test_loss
            when there were test examples.
        stopped: why it ended early, or None.
    """

    weights: Path
    log: Path
    history: pd.DataFrame
    stopped: str | None


def fit(
    build: Callable[[], nn.Module],
    examples: Examples,
    task: Task,
    recipe: Recipe,
    out: Path,
    *,
    test: Examples | None = None,
    seed: int = 42,
    device: torch.device | str = "cpu",
    image: ImageFormat | None = None,
    identity: str = "",
    named: Mapping[str, object] | None = None,
    loggers: Callable[[], list[Logger]] = list,
) -> Fit:
    """Train a network that `build` makes, evaluating it on `test` after each epoch.

    Killed at any time, the same call continues after the last finished epoch, and ends with the same weights
    bit by bit on a CPU. A finished training is not done again.

    Args:
        build: makes the network; random numbers it draws come from `seed`.
        out: directory of the weights, the log and the checkpoint.
        identity: a fingerprint of the model's code and of what was asked; `out` is refused for another one, and for
            other pictures in class folders. Other examples may be drawn at random, so their content is not compared.
        named: what `identity` was made from, by name, so that a difference can be named.
        loggers: makes loggers when there is something to train.

    Raises:
        RunError: `out` holds another training; what differs is said.
    """
    device = torch.device(device)
    directory, fresh = RunDir(out), not out.exists()
    pictures = [content for each in (examples, test) if (content := _content(each))]
    key = fingerprint(recipe.model_dump(mode="json"), seed, identity, len(examples), *pictures)
    asked = {"recipe": recipe.model_dump(mode="json"), "seed": seed, "examples": len(examples), **(named or {})}
    description = out / DESCRIPTION
    with directory.lock():
        if description.exists() and (stored := read_json(description))["key"] != key:
            raise RunError(f"{out} holds another training ({_difference(stored, asked)}); choose another --out")
        write_json(description, {"key": key} | asked)
        if not (out / WEIGHTS).exists():
            try:
                model, run, friction = _train(
                    build, examples, task, recipe, out, test, seed, device, image, key, loggers()
                )
            except SutureError:
                if fresh and not (out / HISTORY).exists():
                    shutil.rmtree(out, ignore_errors=True)  # nothing was trained: the mended command may begin anew
                raise
            history = run.history if len(run.history) else pd.DataFrame(columns=NO_ROWS)
            write_atomic(out / HISTORY, history.to_csv(index=False))  # which lacks an epoch if it was killed in between
            record = measure_moments(model, examples, task, device=device, seed=seed)
            if friction:
                save_friction(friction, friction_beside(out / WEIGHTS))
            save_moments(record, beside(out / WEIGHTS))  # before the weights: these mean that all is there
            with replacing(out / WEIGHTS) as temporary:
                state = {name: tensor.cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
                save_file(state, temporary, metadata={"stopped": run.stopped or ""})
            Checkpoints(out, key).clear()
    with safetensors.safe_open(out / WEIGHTS, framework="pt") as file:
        stopped = (file.metadata() or {}).get("stopped") or None
    return Fit(out / WEIGHTS, out / HISTORY, pd.read_csv(out / HISTORY), stopped)


def _content(examples: Examples | None) -> str:
    """Changes with any picture of class folders, its class, or the classes."""
    if not isinstance(examples, ImageFolder):
        return ""
    digest = hashlib.sha256(repr((examples.classes, examples.targets, repr(examples.image))).encode())
    for i in range(len(examples)):
        digest.update(examples.pixels(i).tobytes())
    return digest.hexdigest()


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The settings in which two trainings differ, as far as both are known."""
    kept, own = _settings(there), _settings(here)
    said = [
        f"{name} {_word(kept[name])} there, {_word(value)} here"
        for name, value in own.items()
        if name in kept and kept[name] != value
    ]
    return "; ".join(said) or "other code or data"


def _settings(thing: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """Name → value; what stands in the recipe goes by its own name, what is deeper by a dotted one."""
    found: dict[str, Any] = {}
    for name, value in thing.items():
        if isinstance(value, Mapping):
            found |= _settings(value, "" if name == "recipe" else f"{inside}{name}.")
        else:
            found[inside + name] = list(value) if isinstance(value, tuple) else value
    return found


def _word(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ",".join(map(_word, value))
        case float():
            return f"{value:.10g}"
    return str(value)


def _train(
    build: Callable[[], nn.Module], examples: Examples, task: Task, recipe: Recipe, out: Path, test: Examples | None,
    seed: int, device: torch.device, image: ImageFormat | None, key: str, loggers: list[Logger],
) -> tuple[nn.Module, TrainingRun, dict[str, torch.Tensor]]:  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build().to(device)
    optimizer, schedules = recipe.build(model.parameters())

    def after_epoch(epoch: int, model: nn.Module, _: Row) -> Row:
        if test is None:
            return {}
        found = evaluate(model, test, task, device=device, name="the test examples")
        return {"test_accuracy": found.accuracy, "test_loss": float(found.losses.mean())}

    def keep(rows: list[Row]) -> None:
        write_atomic(out / HISTORY, pd.DataFrame(rows).to_csv(index=False))
        for logger in loggers:
            logger.log(rows[-1])

    run = train(
        model, examples, task, optimizer, schedules, epochs=recipe.epochs, batch_size=recipe.batch_size, seed=seed,
        device=device, augment=recipe.augment, image=image, clip=recipe.clip, checkpoints=Checkpoints(out, key),
        after_epoch=after_epoch, after_checkpoint=keep,
    )  # fmt: skip
    return model, run, friction_of(optimizer, model)
