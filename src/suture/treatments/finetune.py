"""Surgical fine-tuning: some groups are trained, everything else stays bit by bit as it was."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from suture.case import Case
from suture.tasks import batches
from suture.training import Checkpoints, Recipe, TrainingRun, train
from suture.treatments.plan import FineTune, known_groups


@dataclass(frozen=True)
class Cost:
    """What a treatment cost, against the same epochs of full fine-tuning.

    Attributes:
        seconds: measured, on the machine it ran on.
        epochs: passes over the repair examples.
        parameters, all_parameters: trained, and of the model.
        groups, all_groups: treated, and of the model.
        flops, full_flops: measured floating-point operations of matrix products and convolutions, forward
            and backward, of all steps; and of the same steps with every parameter trained.
    """

    seconds: float = 0.0
    epochs: int = 0
    parameters: int = 0
    all_parameters: int = 0
    groups: int = 0
    all_groups: int = 0
    flops: float = 0.0
    full_flops: float = 0.0

    @property
    def share(self) -> float:
        """Measured FLOPs as a share of full fine-tuning for as many epochs."""
        return self.flops / self.full_flops if self.full_flops else 0.0

    @property
    def paper_share(self) -> float:
        """The paper's formula, epochs × layers over epochs × all layers (Table 10)."""
        return self.groups / self.all_groups if self.all_groups else 0.0


def fine_tune(
    case: Case, groups: Iterable[str], how: FineTune, checkpoints: Checkpoints | None = None
) -> tuple[nn.Module, TrainingRun, Cost]:
    """Train the given groups of a copy of the case's model on `repair`.

    Raises:
        GroupError: no such group.
    """
    chosen = known_groups(case.groups, groups)
    model = copy.deepcopy(case.model)
    trained = {name for group in chosen for name in case.groups[group]}
    freeze_all_but(model, trained)
    mode = training_mode(trained if how.batchnorm == "train" else set())
    recipe = how.recipe
    optimizer, schedules = recipe.build(p for p in model.parameters() if p.requires_grad)
    run = train(
        model, case.splits["repair"], case.task, optimizer, schedules,
        epochs=recipe.epochs, batch_size=recipe.batch_size, seed=case.seed, device=case.device, mode=mode,
        augment=recipe.augment, image=case.image, clip=recipe.clip, checkpoints=checkpoints,
        description=f"treating {', '.join(chosen)}",
    )  # fmt: skip
    cost = _cost(case, chosen, trained, recipe, float(run.history["seconds"].sum()) if len(run.history) else 0.0)
    return model, run, cost


def freeze_all_but(model: nn.Module, trained: set[str]) -> None:
    """Let gradients reach the named parameters and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def training_mode(trained: set[str]) -> Callable[[nn.Module], None]:
    """Eval mode, except for modules that own one of the trained parameters."""
    owners = {name.rpartition(".")[0] for name in trained}

    def set_mode(model: nn.Module) -> None:
        model.eval()
        for name, module in model.named_modules():
            module.training = name in owners

    return set_mode


def _cost(case: Case, groups: list[str], trained: set[str], recipe: Recipe, seconds: float) -> Cost:
    sizes = {name: p.numel() for name, p in case.model.named_parameters()}
    size = min(recipe.batch_size, len(case.splits["repair"]))
    steps = recipe.epochs * len(case.splits["repair"]) / size
    return Cost(
        seconds=seconds,
        epochs=recipe.epochs,
        parameters=sum(sizes[name] for name in trained),
        all_parameters=sum(sizes.values()),
        groups=len(groups),
        all_groups=len(case.groups),
        flops=step_flops(case, trained, size) * steps,
        full_flops=step_flops(case, set(sizes), size) * steps,
    )


def step_flops(case: Case, trained: set[str], batch_size: int) -> int:
    """Floating-point operations of one forward and backward pass, counted as they are dispatched."""
    model = copy.deepcopy(case.model)
    freeze_all_but(model, trained)
    split = case.splits["repair"]
    examples = [split[i] for i in range(min(batch_size, len(split)))]
    batch = next(batches(examples, case.task, case.device, len(examples)))
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        case.task.losses(case.task.outputs(model, batch), batch).mean().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())
