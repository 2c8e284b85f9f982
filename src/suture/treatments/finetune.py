"""Surgical fine-tuning: some parameters are trained, everything else stays bit by bit as it was."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Subset

from suture.case import Case
from suture.tasks import Batch, Examples, Task, evaluate
from suture.training import Recipe, Stop, TrainingRun, train
from suture.training.loop import Penalty
from suture.treatments.cost import Cost, Estimate, estimate, freeze_all_but, step_flops
from suture.treatments.plan import METHODS, Candidate, Job, Method, Treated
from suture.treatments.prefix import Prefix, Tell, find_prefix

# The standard recipe of every plan and baseline but the paper's (notes on repair, "Standard run").
STANDARD = Recipe(epochs=8, batch_size=64, lr=0.003, lr_min=3e-5, momentum=0.9, weight_decay=0.0)


def on(base: Recipe) -> Callable[[Any], Any]:
    """For fields that hold a recipe: what a file leaves out is taken from a base."""
    return lambda value: base.model_dump() | dict(value) if isinstance(value, Mapping) else value


DIVERGED = 2.0  # times the mean loss of the first epoch, or one nat if that is more
AT_ONCE = 10.0  # the same in the first epoch, times the loss before it
LOOKED_AT = 256  # repair examples whose loss is measured before a training


@METHODS.register("finetune")
class FineTune(Method):
    """Train the chosen places with all else frozen (surgical fine-tuning; Lee et al. 2023)."""

    kind: Literal["finetune"] = "finetune"
    recipe: Annotated[Recipe, BeforeValidator(on(STANDARD))] = Field(
        STANDARD, description="optimizer, schedules and budget; what is not given is as in the standard recipe"
    )
    seen: int | None = Field(
        20_000, ge=1, description="examples seen in all epochs at most: with many, an epoch is a part of them"
    )
    batchnorm: Literal["train", "eval"] = Field(
        "eval", description="whether BatchNorm in treated groups uses and updates batch statistics"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the forward pass; bfloat16 is slow on processors without it"
    )
    channels_last: bool = Field(False, description="memory format of convolutions")
    cache: int = Field(
        2**30, ge=0, description="bytes of memory in which what frozen layers give is kept, where nothing is random"
    )

    def treat(self, job: Job) -> Treated:
        model = copy.deepcopy(job.model)
        run, cost = fit_places(job, self, model)
        return Treated({job.name: Candidate(model)} if len(run.history) else {}, run.history, cost, run.stopped)

    def estimate(self, job: Job) -> Estimate:
        size = min(self.recipe.batch_size, len(job.examples))
        steps = self.recipe.epochs * self.per_epoch(len(job.examples)) / size
        return estimate(job.case, job.places.parameters, steps, size)

    def per_epoch(self, n: int) -> int:
        """Examples in an epoch, out of n."""
        return n if self.seen is None else min(n, math.ceil(self.seen / self.recipe.epochs))


@dataclass(frozen=True, eq=False)
class Stand:
    """What is trained in place of the job's own parameters: such as adapters beside them.

    Attributes:
        parameters: names of what is trained.
        mode: puts the modules in train or eval mode.
        known: the network whose parameters go by the job's names, as guards ask for them.
    """

    parameters: frozenset[str]
    mode: Callable[[nn.Module], None]
    known: nn.Module


def fit_places(job: Job, how: FineTune, model: nn.Module, stand: Stand | None = None) -> tuple[TrainingRun, Cost]:
    """Train the job's places of a copy in place, or what stands there for them."""
    case, places, recipe = job.case, job.places, how.recipe
    trained = places.parameters if stand is None else stand.parameters
    freeze_all_but(model, trained)
    if how.channels_last:
        model.to(memory_format=torch.channels_last)
    examples = job.examples
    for guard in job.guards:
        examples = guard.examples(job, examples)
    mode = stand.mode if stand else training_mode(trained if how.batchnorm == "train" else frozenset())
    augment = job.augment or recipe.augment
    optimizer, schedules = recipe.build(p for p in model.parameters() if p.requires_grad)
    prefix = _prefix(job, how, trained, model, examples, mode) if augment.nothing else None
    with only_entries(model, optimizer, places.masks), _cached(prefix, model) as tell:
        size = min(recipe.batch_size, len(examples))
        flops = step_flops(case, trained, size, (model, None) if stand else None)
        looked_up = flops - step_flops(case, trained, size, (model, tell)) if prefix is not None else 0
        run = train(
            model, examples, precise(case.task, how.precision, case.device.type), optimizer, schedules,
            epochs=recipe.epochs, batch_size=recipe.batch_size, seed=job.seed, device=case.device, mode=mode,
            augment=augment, image=case.image, clip=recipe.clip, checkpoints=job.checkpoints,
            until=math.ceil(job.share * recipe.epochs), per_epoch=how.per_epoch(len(examples)), on_batch=tell,
            penalty=penalty_of(job, stand.known if stand else None), after_epoch=watch_of(job),
            description=f"treating by {job.name}",
        )  # fmt: skip
    model.to(memory_format=torch.contiguous_format)
    seen = len(run.history) * how.per_epoch(len(examples))
    once = min(len(examples), seen)  # what is looked up was computed for each example once
    return run, cost_of(case, job, run, seen, (flops * seen - looked_up * (seen - once)) / size)


def _prefix(
    job: Job,
    how: FineTune,
    trained: frozenset[str],
    model: nn.Module,
    examples: Examples,
    mode: Callable[[nn.Module], None],
) -> Prefix | None:
    """What need not run again, or None; not worth it for a single epoch."""
    if not how.cache or how.recipe.epochs < 2 or how.precision != "float32":
        return None
    found = find_prefix(
        model, set(trained), examples, job.case.task, device=job.case.device,
        batch_size=job.case.batch_size, mode=mode, max_bytes=how.cache,
    )  # fmt: skip
    return found if found.usable else None


@contextmanager
def _cached(prefix: Prefix | None, model: nn.Module) -> Iterator[Tell | None]:
    if prefix is None:
        yield None
        return
    with prefix.stubbed(model) as tell:
        yield tell


def penalty_of(job: Job, known: nn.Module | None = None) -> Penalty | None:
    """The sum of the guards' penalties.

    Args:
        known: what guards are shown in place of the network that is trained.
    """
    parts = [penalty for guard in job.guards if (penalty := guard.penalty(job)) is not None]
    if not parts:
        return None

    def total(model: nn.Module, batch: Batch, outputs: Any) -> Tensor:
        shown = model if known is None else known
        return torch.stack([part(shown, batch, outputs) for part in parts]).sum()

    return total


def watch_of(job: Job) -> Callable[[int, nn.Module, Mapping[str, float]], dict[str, float]]:
    """What is looked at after each epoch: whether the loss runs away, and what the guards watch."""
    watches = [watch for guard in job.guards if (watch := guard.watch(job)) is not None]
    # Of the first epoch, also where a training goes on from a later one: it has to stop where it would have stopped.
    first = [float(row["loss"]) for row in job.checkpoints.rows()[:1]] if job.checkpoints else []
    before = _loss_before(job)

    def look(epoch: int, model: nn.Module, row: Mapping[str, float]) -> dict[str, float]:
        if not first and row["loss"] > AT_ONCE * max(before, 1.0):
            raise Stop(f"the loss rose from {before:.2f} to {row['loss']:.2f} in epoch {epoch}")
        first.append(row["loss"])
        if row["loss"] > DIVERGED * max(first[0], 1.0):
            raise Stop(f"the loss rose from {first[0]:.2f} to {row['loss']:.2f} by epoch {epoch}")
        if not all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad):
            raise Stop(f"weights were not finite after epoch {epoch}")
        for watch in watches:
            watch(epoch, model)
        return {}

    return look


def _loss_before(job: Job) -> float:
    """Mean loss of the job's model on some of the repair examples."""
    case, n = job.case, len(job.examples)
    some: Subset[Any] = Subset(job.examples, range(0, n, -(-n // LOOKED_AT)))  # type: ignore[arg-type]
    found = evaluate(
        job.model, some, case.task, device=case.device, batch_size=case.batch_size, name="the examples of 'repair'"
    )
    return float(found.losses.mean())


def training_mode(trained: frozenset[str]) -> Callable[[nn.Module], None]:
    """Eval mode, except for modules that own one of the trained parameters."""
    owners = {name.rpartition(".")[0] for name in trained}

    def set_mode(model: nn.Module) -> None:
        model.eval()
        for name, module in model.named_modules():
            module.training = name in owners

    return set_mode


@contextmanager
def only_entries(model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Let steps change no entry outside the masks, by a bit: weight decay and momentum reach everything."""
    if not masks:
        yield
        return
    parameters = {name: p for name, p in model.named_parameters() if name in masks}
    on_device = {name: masks[name].to(p.device) for name, p in parameters.items()}
    old = {name: p.detach().clone() for name, p in parameters.items()}

    def put_back(*_: Any) -> None:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(torch.where(on_device[name], p, old[name]))

    # Gradients are masked too, so that clipping sees only what is trained.
    handles: list[Any] = [p.register_hook(on_device[n].mul) for n, p in parameters.items()]  # type: ignore[no-untyped-call]
    handles.append(optimizer.register_step_post_hook(put_back))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Autocast:
    """A task whose forward passes run in bfloat16 where that is safe."""

    def __init__(self, task: Task, device: str) -> None:
        self._task, self._device = task, device

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        with torch.autocast(self._device, torch.bfloat16):
            outputs = self._task.outputs(model, batch)
        return outputs.float() if isinstance(outputs, Tensor) else outputs

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._task, name)


def precise(task: Task, precision: str, device: str = "cpu") -> Task:
    """The task in the precision asked for."""
    return task if precision == "float32" else _Autocast(task, device)


def cost_of(case: Case, job: Job, run: TrainingRun, seen: int, flops: float) -> Cost:
    """What a run took, beside the operations of as many examples with every parameter trained."""
    sizes = {name: p.numel() for name, p in case.model.named_parameters()}
    masks, size = job.places.masks, min(STANDARD.batch_size, len(case.splits["repair"]))
    return Cost(
        seconds=float(run.history["seconds"].sum()) if len(run.history) else 0.0,
        epochs=len(run.history),
        parameters=sum(int(masks[n].sum()) if n in masks else sizes[n] for n in job.places.parameters),
        all_parameters=sum(sizes.values()),
        groups=len(job.places.groups),
        all_groups=len(case.groups),
        flops=flops,
        full_flops=step_flops(case, set(sizes), size) * seen / size,
    )
