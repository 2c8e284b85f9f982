"""One training loop for networks, treatments and probes."""

from suture.training.augment import Augment
from suture.training.checkpoints import Checkpoints
from suture.training.fit import Fit, fit
from suture.training.loop import Stop, TrainingRun, train
from suture.training.presets import TRAININGS, Recipe

__all__ = ["TRAININGS", "Augment", "Checkpoints", "Fit", "Recipe", "Stop", "TrainingRun", "fit", "train"]
