"""Which terms a page uses, so that "How to read this" explains those and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from suture.stages.diagnose import Diagnosis
    from suture.views.run import Finished


def terms(run: Finished) -> frozenset[str]:
    """Of the page of one run; the names are those in ``reading.html.j2``."""
    verification, treatment = run.verify, run.treat
    holds = {
        "scan": run.scan is not None,
        "localize": run.localize is not None and run.localize.n_errors > 0,
        "moves": verification is not None or (treatment is not None and len(treatment.tried) > 1),
        "verdict": verification is not None,
        "verify": verification is not None,
        "floor": verification is not None and verification.churn_floor is not None,
        "baselines": verification is not None and len(verification.baselines) > 0,
        "drift": verification is not None and verification.drift is not None,
        "splits": bool(run.case.get("splits")),
    }
    return frozenset(name for name, here in holds.items() if here) | _diagnosed(run.diagnose)


def terms_of_several(runs: Iterable[Finished]) -> frozenset[str]:
    """Of the page that shows several runs side by side."""
    found = set[str]()
    for run in runs:
        found |= {"moves", "verdict"} if run.verify else set()
        found |= _diagnosed(run.diagnose) & {"chance", "causes"}
    return frozenset(found)


def _diagnosed(result: Diagnosis | None) -> frozenset[str]:
    if result is None:
        return frozenset()
    holds = {
        "chance": len(result.confusion),
        "group": len(result.pairs),
        "causes": len(result.causes),
        "through": len(result.through),
        "subgroups": len(result.subgroups),
        "slices": len(result.slices),
        "labels": any(result.n_suspects.values()),
    }
    return frozenset(name for name, here in holds.items() if here)
