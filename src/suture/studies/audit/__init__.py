"""The paper's audit: every printed number that arithmetic alone can decide, computed again.

``printed`` holds what the paper prints; each check is a function under ``@check`` with its place in the paper;
``findings_at`` is the cell of the study ``paper/audit``, whose result is docs/audit.md.
"""

from suture.studies.audit import claims, diagnosis, network, oscillator, regimes, repair, training
from suture.studies.audit.findings import CHECKS, Finding, Verdict, check, findings_at

__all__ = [
    "CHECKS",
    "Finding",
    "Verdict",
    "check",
    "claims",
    "diagnosis",
    "findings_at",
    "network",
    "oscillator",
    "regimes",
    "repair",
    "training",
]
