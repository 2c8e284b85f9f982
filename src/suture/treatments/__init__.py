"""Treatments: plans as data, and what they do to a copy of the model. The registries are open to users."""

from suture.treatments.choice import Judge, best_of, judge_all
from suture.treatments.cost import Cost, Estimate, estimate
from suture.treatments.course import Course, follow, repeat
from suture.treatments.finetune import STANDARD, FineTune
from suture.treatments.interpolate import Average, mixed
from suture.treatments.plan import (
    GUARDS,
    METHODS,
    WHERES,
    Candidate,
    Choice,
    Guard,
    Job,
    Method,
    Nothing,
    Places,
    Plan,
    Treated,
    Where,
    carry_out,
    known_groups,
    perform,
)
from suture.treatments.presets import PRESETS, load_plan, within
from suture.treatments.where import Everything, Flagged, Groups

__all__ = [
    "GUARDS", "METHODS", "PRESETS", "STANDARD", "WHERES", "Average", "Candidate", "Choice", "Cost", "Course",
    "Estimate", "Everything", "FineTune", "Flagged", "Groups", "Guard", "Job", "Judge", "Method", "Nothing", "Places",
    "Plan", "Treated", "Where", "best_of", "carry_out", "estimate", "follow", "judge_all", "known_groups",
    "load_plan", "mixed", "perform", "repeat", "within",
]  # fmt: skip
