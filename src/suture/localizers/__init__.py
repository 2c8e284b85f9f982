"""Localizers: evidence → a score per group, larger = more suspect. The registry is open to users."""

from suture.localizers import gradient  # registers the built-in localizers
from suture.localizers.evidence import Evidence, gather
from suture.localizers.flagging import RULES
from suture.localizers.registry import DEFAULT, LOCALIZERS, localizer

__all__ = ["DEFAULT", "LOCALIZERS", "RULES", "Evidence", "gather", "gradient", "localizer"]
