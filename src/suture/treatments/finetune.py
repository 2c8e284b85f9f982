"""Surgical fine-tuning: some parameters are trained, all others stay bit by bit as they were."""

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Subset

from suture.case import Case
from suture.tasks import Batch, Examples, evaluate
from suture.training import Recipe, Stop, TrainingRun, train
from suture.training.loop import Penalty
from suture.treatments.cost import Cost, Estimate, estimate, freeze_all_but, full_step, step_flops
from suture.treatments.guards import Costly, Distill
from suture.treatments.plan import METHODS, Candidate, Job, Method, Treated, Watch
from suture.treatments.precision import is_emulated, precise
from suture.treatments.prefix import Tell, find_prefix

# The standard recipe of every plan and baseline but the paper's (notes on repair, "Standard run").
STANDARD = Recipe(epochs=8, batch_size=64, lr=0.003, lr_min=3e-5, momentum=0.9, weight_decay=0.0)


def on(base: Recipe) -> Callable[[Any], Any]:
    """For fields that hold a recipe: what a file leaves out is taken from a base."""
    return lambda value: base.fields_with(value) if isinstance(value, Mapping) else value


DIVERGED = 2.0  # times the mean loss of the first epoch, or one nat if that is more
AT_ONCE = 10.0  # the same in the first epoch, times the loss before it
LOOKED_AT = 256  # repair examples whose loss is measured before a training

Look = Callable[[int, nn.Module, Mapping[str, float]], dict[str, float]]
"""Sees the epoch, the network after it and its row; raises `Stop` to take it back."""


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
        2**30, ge=0, description="bytes in which what frozen layers give is kept, where nothing is random; 0 for none"
    )
    cache_on_disk: bool = Field(
        False, description="keep that in a temporary folder, which is removed afterwards, in place of memory"
    )

    def treat(self, job: Job) -> Treated:
        model = copy.deepcopy(job.model)
        run, cost = fit_places(job, self, model)
        made = copy.deepcopy(job.model)  # what was trained may hold tensors that no copy can be made of
        made.load_state_dict(model.state_dict())
        return Treated({job.name: Candidate(made)} if len(run.history) else {}, run.history, cost, run.stopped)

    def estimate(self, job: Job) -> Estimate:
        case, trained, n = job.case, job.places.parameters, len(job.examples)
        size, seen = min(self.recipe.batch_size, n), self.recipe.epochs * self.per_epoch(n)
        # Of the penalties the only one whose steps take more; others may take long to set up.
        penalty = penalty_of(replace(job, guards=[guard for guard in job.guards if isinstance(guard, Distill)]))
        task = precise(case.task, self.precision, case.device.type)
        whole = found = estimate(case, trained, seen / size, size, penalty=penalty, task=task)
        if (job.augment or self.recipe.augment).nothing:
            with self._sampled(job, size) as (model, tell):
                rest = estimate(case, trained, seen / size, size, (model, tell), penalty) if tell else whole
            once = min(n, seen) / seen  # what is looked up is computed for each example once
            found = rest.times(1 - once) + whole.times(once)
        beside, rate = beside_steps(job, self.recipe.epochs), whole.seconds / whole.flops if whole.flops else 0.0
        return replace(
            found, flops=found.flops + beside, seconds=found.seconds + beside * rate,
            emulated=is_emulated(self.precision, case.device),
        )  # fmt: skip

    @contextmanager
    def _sampled(self, job: Job, size: int) -> Iterator[tuple[nn.Module, Tell | None]]:
        """A copy whose frozen part is looked up for the examples of one step: to fill it with all takes too long."""
        n, trained, model = len(job.examples), job.places.parameters, copy.deepcopy(job.model)
        few: Subset[Any] = Subset(job.examples, range(min(max(size, 3), n)))  # type: ignore[arg-type]
        how = self.model_copy(update={"cache": self.cache * len(few) // n})
        mode = training_mode(trained if self.batchnorm == "train" else frozenset())
        with _cached(job, how, trained, model, few, mode) as tell:
            yield model, tell

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
    penalty = penalty_of(job, stand.known if stand else None)
    mode = stand.mode if stand else training_mode(trained if how.batchnorm == "train" else frozenset())
    augment = job.augment or recipe.augment
    optimizer, schedules = recipe.build(p for p in model.parameters() if p.requires_grad)
    with ExitStack() as stack:
        stack.enter_context(only_entries(model, optimizer, places.masks))
        tell = stack.enter_context(_cached(job, how, trained, model, examples, mode)) if augment.nothing else None
        size = min(recipe.batch_size, len(examples))
        flops = step_flops(case, trained, size, (model, None) if stand else None, penalty)
        looked_up = flops - step_flops(case, trained, size, (model, tell), penalty) if tell is not None else 0
        running = _Running(tell)
        run = train(
            model, examples, precise(case.task, how.precision, case.device.type), optimizer, schedules,
            epochs=recipe.epochs, batch_size=recipe.batch_size, seed=job.seed, device=case.device, mode=mode,
            augment=augment, image=case.image, clip=recipe.clip, checkpoints=job.checkpoints,
            until=math.ceil(job.share * recipe.epochs), per_epoch=how.per_epoch(len(examples)),
            on_batch=running.on_batch, penalty=penalty, after_epoch=running.after(watch_of(job, running.at_end)),
            description=f"treating by {job.name}",
        )  # fmt: skip
        lost = running.seconds
    model.to(memory_format=torch.contiguous_format)
    seen = len(run.history) * how.per_epoch(len(examples)) + running.seen
    once = min(len(examples), seen)  # what is looked up was computed for each example once
    steps = (flops * seen - looked_up * (seen - once)) / size
    beside = beside_steps(job, len(run.history) + running.ended)
    return run, cost_of(case, job, run, seen, steps + beside, lost)


class _Running:
    """The epoch that runs: it costs also where it is broken off or taken back, of which the history says nothing.

    Attributes:
        seen: examples of it that were trained on.
        ended: whether it came so far that guards looked at it.
    """

    def __init__(self, tell: Tell | None) -> None:
        self._tell, self._begun = tell, 0.0
        self.seen, self.ended = 0, False

    @property
    def seconds(self) -> float:
        """Since it began; 0 between epochs."""
        return perf_counter() - self._begun if self.seen else 0.0

    def on_batch(self, chosen: list[int]) -> None:
        self._begun = self._begun if self.seen else perf_counter()
        self.seen += len(chosen)
        if self._tell is not None:
            self._tell(chosen)

    def at_end(self, epoch: int, model: nn.Module) -> None:
        self.ended = True

    def after(self, look: Look) -> Look:
        """The same look, after which the epoch is one of the history unless it was refused."""

        def looked(epoch: int, model: nn.Module, row: Mapping[str, float]) -> dict[str, float]:
            found = look(epoch, model, row)
            self.seen, self.ended = 0, False
            return found

        return looked


@contextmanager
def _cached(
    job: Job,
    how: FineTune,
    trained: frozenset[str],
    model: nn.Module,
    examples: Examples,
    mode: Callable[[nn.Module], None],
) -> Iterator[Tell | None]:
    """Look up what need not run again, as long as this lasts; None where nothing can, or for a single epoch."""
    if not how.cache or how.recipe.epochs < 2 or how.precision != "float32":
        yield None
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="suture-"))) if how.cache_on_disk else None
        prefix = find_prefix(
            model, set(trained), examples, job.case.task, device=job.case.device,
            batch_size=job.case.batch_size, mode=mode, max_bytes=0 if folder else how.cache,
            directory=folder, max_disk_bytes=how.cache,
        )  # fmt: skip
        # What a few examples did not show, or a full disk, is found while filling: then everything runs each time.
        yield stack.enter_context(prefix.stubbed(model)) if prefix.usable and prefix.fill() else None


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


def beside_steps(job: Job, epochs: int) -> float:
    """Operations of what guards compute beside the steps of a training of some epochs."""
    return sum(guard.flops(job, epochs) for guard in job.guards if isinstance(guard, Costly))


def watch_of(job: Job, *also: Watch) -> Look:
    """What is looked at after each epoch: whether the loss runs away, and what the guards watch.

    Args:
        also: look before the guards do, where the loss does not run away.
    """
    watches = [*also, *(watch for guard in job.guards if (watch := guard.watch(job)) is not None)]
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


def cost_of(case: Case, job: Job, run: TrainingRun, seen: int, flops: float, lost: float) -> Cost:
    """What a run took, beside what as many examples take with every parameter trained.

    Args:
        lost: seconds of an epoch that the history does not have.
    """
    sizes = {name: p.numel() for name, p in case.model.named_parameters()}
    masks = job.places.masks
    return replace(
        beside_full(case, seen),
        seconds=lost + (float(run.history["seconds"].sum()) if len(run.history) else 0.0),
        epochs=len(run.history),
        parameters=sum(int(masks[n].sum()) if n in masks else sizes[n] for n in job.places.parameters),
        groups=len(job.places.groups),
        all_groups=len(case.groups),
        flops=flops,
    )


def beside_full(case: Case, seen: int) -> Cost:
    """What a treatment that sees so many examples is compared with: every parameter trained, on as many."""
    sizes, n = {name: p.numel() for name, p in case.model.named_parameters()}, len(case.splits["repair"])
    size = min(STANDARD.batch_size, n)
    flops, seconds = full_step(case, size)
    return Cost(
        all_parameters=sum(sizes.values()), full_flops=flops / size * seen, full_seconds=seconds / size * seen,
        one_full_flops=flops / size * STANDARD.epochs * FineTune().per_epoch(n),
    )  # fmt: skip
