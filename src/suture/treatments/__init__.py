"""Treatments: plans as data, and what they do to a copy of the model."""

from suture.treatments.finetune import fine_tune
from suture.treatments.plan import Everything, FineTune, Flagged, Groups, Nothing, Plan, known_groups
from suture.treatments.presets import PRESETS, load_plan

__all__ = [
    "PRESETS",
    "Everything",
    "FineTune",
    "Flagged",
    "Groups",
    "Nothing",
    "Plan",
    "fine_tune",
    "known_groups",
    "load_plan",
]
