"""Localizers: evidence → a score per group, larger = more suspect. The registry is open to users."""

from suture.localizers import gradient  # registers the built-in localizers
from suture.localizers.evidence import Evidence, gather
from suture.localizers.flagging import RULES
from suture.localizers.registry import DEFAULT, LOCALIZERS, Finding, Localizer, localizer
from suture.localizers.sample import Sample, measure

__all__ = [
    "DEFAULT", "LOCALIZERS", "RULES", "Evidence", "Finding", "Localizer", "Sample", "gather", "gradient", "localizer",
    "measure",
]  # fmt: skip
