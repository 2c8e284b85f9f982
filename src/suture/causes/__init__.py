"""What the errors have in common: confusion pairs, and the causes behind them, found by intervention."""

from suture.causes import background, colour, other, shape, texture  # registers the built-in probes
from suture.causes.asking import asked_of_pairs
from suture.causes.attribution import attribute
from suture.causes.exemplars import exemplars
from suture.causes.intervention import Causes, find_causes
from suture.causes.pairs import confusion_pairs
from suture.causes.patching import share_of_groups
from suture.causes.probes import FAMILIES, PROBES, Probe, UnchangedError, probe

__all__ = [
    "FAMILIES", "PROBES", "Causes", "Probe", "UnchangedError", "asked_of_pairs", "attribute", "background", "colour",
    "confusion_pairs", "exemplars", "find_causes", "other", "probe", "shape", "share_of_groups", "texture",
]  # fmt: skip
