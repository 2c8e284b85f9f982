"""Recipes: optimizer, schedules and budget of a training as data; the paper's trainings by name."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.physics import cosine_lr, critical_momentum, effective_lr
from suture.registry import suggest
from suture.rundir import read_toml, validated
from suture.schedules import CriticalMomentum, HybridMomentum, InverseCoupledMomentum
from suture.training.augment import Augment
from suture.training.by_name import (
    FALL,
    LEAST_FALL,
    LR_MIN,
    NO_OPTIMIZERS,
    NO_SCHEDULES,
    OPTIMIZERS,
    SCHEDULES,
    family,
    known_name,
    lacks,
    make_optimizer,
    make_schedule,
    refuse_unknown,
    usual,
)

MomentumName = Literal["critical", "inverse", "hybrid"]

CLAMP = (0.5, 0.99)  # of critical momentum (section 4.1)
RANGE = (0.85, 0.95)  # of inverse coupling: at the highest and lowest learning rate (Table 2)
TRIED = 1000  # epochs of a schedule that are gone through when a recipe is read
# Fields that came later, and their defaults. They are left out of what is saved where they have these, so that
# trainings and treatments of earlier versions, which go by a hash of their recipes, are found again.
LATER: dict[str, object] = {"options": None, "schedule": "cosine", "schedule_options": None}


class Recipe(BaseModel):
    """How long and how hard to train; the defaults are those of the paper's surgical correction (Table 16).

    With another optimizer than SGD and its kin, what is not given is what suits that one.

    >>> recipe = Recipe(optimizer="adamw")
    >>> recipe.lr, recipe.lr_min, recipe.momentum
    (0.0005, 5e-06, 0.9)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(30, ge=1, description="passes over the examples")
    batch_size: int = Field(128, ge=1, description="examples per step")
    optimizer: str = Field(
        "sgd", description="sgd, adam, adamw, cubic_damping, ikfad, cadam, or a class of torch.optim in lower case"
    )
    options: dict[str, Any] | None = Field(None, description="further arguments of the optimizer, by name")
    schedule: str = Field(
        "cosine",
        description="of the learning rate, epoch by epoch: cosine, constant, linear, step, or a class of "
        "torch.optim.lr_scheduler in lower case",
    )
    schedule_options: dict[str, Any] | None = Field(None, description="arguments of the schedule, by name")
    lr: float = Field(0.01, gt=0, description="learning rate of the first epoch; 5e-4 for the Adam family and RMSprop")
    lr_min: float = Field(
        LR_MIN,
        ge=0,
        description="learning rate that cosine and linear fall to after the last epoch; lr / 100 for others than SGD, "
        "and for an lr below 0.001",
    )
    momentum: float | MomentumName = Field(
        "critical",
        description="a number, or critical: clamp(1 - 2 sqrt(lr), 0.5, 0.99), inverse: 0.95 to 0.85 against lr, "
        "hybrid: critical, then 0.9; betas[0] for the Adam family",
    )
    threshold: float = Field(0.90, gt=0, le=1, description="held-out accuracy at which hybrid switches")
    switch_epoch: int | None = Field(None, ge=0, description="last critical epoch of hybrid, in place of threshold")
    match_effective_lr: bool = Field(
        False, description="scale lr so that lr / (1 - momentum) is what it would be with critical momentum"
    )
    weight_decay: float = Field(5e-4, ge=0, description="weight decay: coupled (L2), but for adamw")
    clip: float | None = Field(1.0, gt=0, description="largest norm of a step's gradient; none for no limit")
    augment: Augment = Field(Augment(), description="what happens to pictures before each step")

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        return known_name(name, OPTIMIZERS, NO_OPTIMIZERS, "optimizer")

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, name: str) -> str:
        return known_name(name, SCHEDULES, NO_SCHEDULES, "schedule")

    @field_validator("momentum", mode="before")
    @classmethod
    def _a_momentum(cls, momentum: Any) -> Any:
        """Refused here, as an optimizer would refuse it only when a training begins."""
        names = list(get_args(MomentumName))
        if isinstance(momentum, str) and momentum not in names:
            raise ValueError(f"it must be a number, or {', '.join(names[:-1])} or {names[-1]}, not {momentum!r}")
        if isinstance(momentum, int | float) and not 0 <= momentum < 1:
            raise ValueError(f"it must be at least 0 and less than 1, not {momentum:g}")
        return momentum

    @field_validator("options", "schedule_options")
    @classmethod
    def _plain(cls, options: dict[str, Any] | None) -> dict[str, Any] | None:
        """Numbers, words and lists of them, which survive a file."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in (options or {}).items()}
        for name, value in plain.items():
            for each in value if isinstance(value, list) else [value]:
                if not isinstance(each, bool | int | float | str) or (
                    isinstance(each, float) and not math.isfinite(each)
                ):
                    raise InvalidArgumentError(
                        f"{name} must be a finite number, a word or a list of such, not {each!r}"
                    )
        return plain or None

    @model_validator(mode="before")
    @classmethod
    def _suited(cls, data: Any) -> Any:
        """Fill in what the optimizer decides."""
        name = str(data.get("optimizer", "sgd")).lower() if isinstance(data, Mapping) else ""
        return {**data, **usual(name, data)} if name in OPTIMIZERS else data

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        """Whatever an optimizer or a schedule would refuse is refused before a training begins."""
        options, betas = self.options or {}, (self.options or {}).get("betas")
        refuse_unknown(self.optimizer, OPTIMIZERS[self.optimizer], options)
        refuse_unknown(self.schedule, SCHEDULES[self.schedule], self.schedule_options or {})
        for field in sorted(lacks(self.optimizer)):
            if getattr(self, field) != 0:
                raise InvalidArgumentError(f"{self.optimizer} has no {field}; leave it out, or say 0")
        if betas is not None and not (isinstance(betas, list) and len(betas) == 2):
            raise InvalidArgumentError(f"betas must be two numbers, such as [0.9, 0.99], not {betas}")
        if betas and isinstance(self.momentum, float) and betas[0] != self.momentum:
            raise InvalidArgumentError(
                f"momentum {self.momentum:g} is betas[0], which options say is {betas[0]}; leave momentum out"
            )
        if self.schedule in ("cosine", "linear") and self.lr_min > self.lr:
            raise InvalidArgumentError(
                f"lr_min {self.lr_min:g} is above lr {self.lr:g}, and {self.schedule} falls; give a smaller lr_min"
            )
        if self.match_effective_lr and self.schedule != "cosine":
            raise InvalidArgumentError(f"match_effective_lr goes with the schedule cosine, not with {self.schedule}")
        if options or self.schedule != "cosine" or self.schedule_options:
            self._try()
        return self

    def _try(self) -> None:
        """Go through the epochs with nothing to train."""
        where = self.optimizer
        try:
            optimizer = self._optimizer([Parameter(torch.zeros(1))])
            where = f"the schedule {self.schedule}"
            schedules = self._schedules(optimizer)
            for epoch in range(1, min(self.epochs, TRIED) + 1):
                lr = float(optimizer.param_groups[0]["lr"])
                if not (lr >= 0 and math.isfinite(lr)):
                    raise InvalidArgumentError(f"the learning rate would be {lr:g} in epoch {epoch}")
                optimizer.step()  # before the schedules, or torch warns
                for schedule in schedules:
                    schedule.step()
        except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            raise InvalidArgumentError(f"{where} refuses its options: {error}") from error

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in LATER or value != LATER[name]}

    def fields_with(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a recipe like this one but for some changes, for validation.

        With an optimizer of another family, what suited this recipe's own (lr, lr_min, momentum, options) is not
        taken over: where the changes do not say it, it is what suits the new one.
        """
        kept, new = self.model_dump(), str(changes.get("optimizer", self.optimizer)).lower()
        if new in OPTIMIZERS:
            left = lacks(new)
            if new != self.optimizer:
                left.add("options")
            if family(new) != family(self.optimizer):
                left |= {"lr", "lr_min", "momentum"}
            options = changes.get("options")
            if isinstance(options, Mapping) and "betas" in options:
                left.add("momentum")
            kept = {name: value for name, value in kept.items() if name not in left}
        lr, least = changes.get("lr"), kept.get("lr_min")
        if isinstance(lr, int | float) and least is not None and lr < LEAST_FALL * least:
            kept["lr_min"] = lr / FALL
        if str(changes.get("schedule", self.schedule)).lower() != self.schedule:
            kept.pop("schedule_options", None)
        return kept | dict(changes)

    def build(self, parameters: Iterable[Parameter]) -> tuple[Optimizer, list[LRScheduler]]:
        """An optimizer and its schedules, to be stepped after each epoch in the order given.

        Raises:
            InvalidArgumentError: effective learning rates are to be matched without a constant momentum.
        """
        optimizer = self._optimizer(parameters)
        return optimizer, self._schedules(optimizer)

    def _schedules(self, optimizer: Optimizer) -> list[LRScheduler]:
        schedules: list[LRScheduler] = [self._lr_schedule(optimizer)]
        if self.momentum == "critical":
            schedules.append(CriticalMomentum(optimizer, clamp=CLAMP))
        elif self.momentum == "inverse":
            schedules.append(InverseCoupledMomentum(optimizer))
        elif self.momentum == "hybrid":
            schedules.append(HybridMomentum(optimizer, self.threshold, self.switch_epoch, clamp=CLAMP))
        return schedules

    def _optimizer(self, parameters: Iterable[Parameter]) -> Optimizer:
        momentum = self.momentum if isinstance(self.momentum, float) else 0.9  # schedules replace it
        return make_optimizer(
            self.optimizer, parameters, self.options or {}, lr=self.lr, momentum=momentum,
            weight_decay=self.weight_decay,
        )  # fmt: skip

    def _lr_schedule(self, optimizer: Optimizer) -> LRScheduler:
        if not self.match_effective_lr:
            return make_schedule(
                self.schedule, optimizer, self.schedule_options or {}, epochs=self.epochs, lr=self.lr,
                lr_min=self.lr_min,
            )  # fmt: skip
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
    return validated(Recipe, TRAININGS[name].fields_with(changes), f"recipe '{name}'")
