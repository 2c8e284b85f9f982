"""Recipes: optimizer, schedules and budget of a training as data."""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from suture.schedules import CriticalMomentum
from suture.training.augment import Augment


class Recipe(BaseModel):
    """How long and how hard to train; the defaults are those of the paper's surgical correction (Table 16)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(30, ge=1, description="passes over the examples")
    batch_size: int = Field(128, ge=1, description="examples per step")
    lr: float = Field(0.01, gt=0, description="learning rate of the first epoch")
    lr_min: float = Field(1e-4, ge=0, description="learning rate that the cosine falls to after the last epoch")
    momentum: float | Literal["critical"] = Field(
        "critical", description="constant momentum of SGD, or critical: clamp(1 - 2 sqrt(lr), 0.5, 0.99)"
    )
    weight_decay: float = Field(5e-4, ge=0, description="coupled (L2) weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    augment: Augment = Field(Augment(), description="what happens to pictures before each step")

    def optimizer(self, parameters: Iterable[Parameter]) -> tuple[Optimizer, list[LRScheduler]]:
        """SGD and its schedules, to be stepped after each epoch in the order given."""
        start = self.momentum if isinstance(self.momentum, float) else 0.9
        optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=start, weight_decay=self.weight_decay)
        schedules: list[LRScheduler] = [CosineAnnealingLR(optimizer, self.epochs, eta_min=self.lr_min)]
        if self.momentum == "critical":
            schedules.append(CriticalMomentum(optimizer, clamp=(0.5, 0.99)))
        return optimizer, schedules
