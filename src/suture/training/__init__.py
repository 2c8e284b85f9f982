"""One training loop for networks, treatments and probes."""

from suture.training.augment import Augment
from suture.training.checkpoints import Checkpoints
from suture.training.loop import TrainingRun, train
from suture.training.presets import Recipe

__all__ = ["Augment", "Checkpoints", "Recipe", "TrainingRun", "train"]
