"""Recipes: optimizer, schedules and budget of a training as data; the paper's trainings by name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.optimizers import CADAM, IKFAD, CubicDamping
from suture.physics import cosine_lr, critical_momentum, effective_lr
from suture.registry import suggest
from suture.rundir import read_toml, validated
from suture.schedules import CriticalMomentum, HybridMomentum, InverseCoupledMomentum
from suture.training.augment import Augment

OptimizerName = Literal["sgd", "adam", "adamw", "cubic_damping", "ikfad", "cadam"]
MomentumName = Literal["critical", "inverse", "hybrid"]

CLAMP = (0.5, 0.99)  # of critical momentum (section 4.1)
RANGE = (0.85, 0.95)  # of inverse coupling: at the highest and lowest learning rate (Table 2)


class Recipe(BaseModel):
    """How long and how hard to train; the defaults are those of the paper's surgical correction (Table 16)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(30, ge=1, description="passes over the examples")
    batch_size: int = Field(128, ge=1, description="examples per step")
    optimizer: OptimizerName = Field("sgd", description="sgd, adam, adamw, cubic_damping, ikfad, cadam")
    lr: float = Field(0.01, gt=0, description="learning rate of the first epoch")
    lr_min: float = Field(1e-4, ge=0, description="learning rate that the cosine falls to after the last epoch")
    momentum: float | MomentumName = Field(
        "critical",
        description="a number, or critical: clamp(1 - 2 sqrt(lr), 0.5, 0.99), inverse: 0.95 to 0.85 against lr, "
        "hybrid: critical, then 0.9; betas[0] for the Adam family",
    )
    threshold: float = Field(0.90, description="held-out accuracy at which hybrid switches")
    switch_epoch: int | None = Field(None, ge=0, description="last critical epoch of hybrid, in place of threshold")
    match_effective_lr: bool = Field(
        False, description="scale lr so that lr / (1 - momentum) is what it would be with critical momentum"
    )
    weight_decay: float = Field(5e-4, ge=0, description="weight decay: coupled (L2), but for adamw")
    clip: float | None = Field(1.0, gt=0, description="largest norm of a step's gradient; none for no limit")
    augment: Augment = Field(Augment(), description="what happens to pictures before each step")

    def build(self, parameters: Iterable[Parameter]) -> tuple[Optimizer, list[LRScheduler]]:
        """An optimizer and its schedules, to be stepped after each epoch in the order given.

        Raises:
            InvalidArgumentError: effective learning rates are to be matched without a constant momentum.
        """
        optimizer = self._optimizer(parameters)
        schedules: list[LRScheduler] = [self._lr_schedule(optimizer)]
        if self.momentum == "critical":
            schedules.append(CriticalMomentum(optimizer, clamp=CLAMP))
        elif self.momentum == "inverse":
            schedules.append(InverseCoupledMomentum(optimizer))
        elif self.momentum == "hybrid":
            schedules.append(HybridMomentum(optimizer, self.threshold, self.switch_epoch, clamp=CLAMP))
        return optimizer, schedules

    def _optimizer(self, parameters: Iterable[Parameter]) -> Optimizer:
        momentum = self.momentum if isinstance(self.momentum, float) else 0.9  # schedules replace it
        decay = self.weight_decay
        match self.optimizer:
            case "sgd":
                return torch.optim.SGD(parameters, lr=self.lr, momentum=momentum, weight_decay=decay)
            case "adam":
                return torch.optim.Adam(parameters, lr=self.lr, betas=(momentum, 0.999), weight_decay=decay)
            case "adamw":
                return torch.optim.AdamW(parameters, lr=self.lr, betas=(momentum, 0.999), weight_decay=decay)
            case "cubic_damping":
                return CubicDamping(parameters, lr=self.lr, momentum=momentum, c=0.1, weight_decay=decay)
            case "ikfad":
                return IKFAD(parameters, lr=self.lr, momentum=momentum, weight_decay=decay)
            case "cadam":
                return CADAM(parameters, lr=self.lr, momentum=momentum, weight_decay=decay)

    def _lr_schedule(self, optimizer: Optimizer) -> LRScheduler:
        if not self.match_effective_lr:
            return CosineAnnealingLR(optimizer, self.epochs, eta_min=self.lr_min)
        if not isinstance(self.momentum, float):
            raise InvalidArgumentError("match_effective_lr needs a constant momentum, such as momentum = 0.9")
        momentum = self.momentum

        def scale(epochs_done: int) -> float:
            lr = cosine_lr(min(epochs_done, self.epochs - 1) + 1, self.epochs, self.lr, self.lr_min)
            critical = min(max(critical_momentum(lr), CLAMP[0]), CLAMP[1])
            return effective_lr(lr, critical) * (1 - momentum) / self.lr

        return LambdaLR(optimizer, scale)


_PAPER = Recipe(epochs=200, lr=0.1, lr_min=1e-4, momentum=0.9, clip=None)  # section 4.1


def _paper(**changes: object) -> Recipe:
    return Recipe.model_validate(_PAPER.model_dump() | changes)


TRAININGS: dict[str, Recipe] = {
    # Section 7.1: five momentum schedules.
    "baseline": _PAPER,
    "physics": _paper(momentum="critical"),
    "1cycle": _paper(momentum="inverse"),
    "hybrid-90": _paper(momentum="hybrid", threshold=0.90),
    "hybrid-ep52": _paper(momentum="hybrid", switch_epoch=52),
    # Section 6.1: five training methods, of which baseline and physics are above.
    "ikfad": _paper(optimizer="ikfad"),
    "cubic-damping": _paper(optimizer="cubic_damping"),
    "adam": _paper(optimizer="adam", lr=1e-3, lr_min=1e-5),
    # The control the paper lacks: critical momentum also lowers lr / (1 - momentum).
    "matched": _paper(match_effective_lr=True),
}


def load_recipe(name: str, **changes: object) -> Recipe:
    """A recipe by name or from a TOML file, with some fields changed.

    Raises:
        UnknownNameError: no recipe of that name.
        MissingFileError: no such file.
        InvalidArgumentError: the file is no recipe, or a value is out of range; the first wrong field is named.
    """
    if name.endswith(".toml"):
        return read_toml(Path(name), Recipe, changes)
    if name not in TRAININGS:
        raise UnknownNameError(f"no recipe and no TOML file is called '{name}'; {suggest(name, list(TRAININGS))}")
    return validated(Recipe, TRAININGS[name].model_dump() | changes, f"recipe '{name}'")
