"""Localizers: evidence → a score per group, larger = more suspect. The registry is open to users."""

from suture.localizers import (  # registers the built-in localizers
    activation,
    arachne,
    coverage,
    friction,
    gradient,
    intervention,
    reference,
    weights,
)
from suture.localizers.evidence import Evidence, gather
from suture.localizers.flagging import RULES, Ranking
from suture.localizers.registry import DEFAULT, LOCALIZERS, Finding, Localizer, localizer
from suture.localizers.sample import Sample, measure

__all__ = [
    "DEFAULT", "LOCALIZERS", "RULES", "Evidence", "Finding", "Localizer", "Ranking", "Sample", "activation", "arachne",
    "coverage", "friction", "gather", "gradient", "intervention", "localizer", "measure", "reference", "weights",
]  # fmt: skip
