"""A repair beside plain ones on the same unseen examples: is it worth its name?"""

from typing import Any

import numpy as np
import pandas as pd

from suture.case import Case
from suture.patch import patched
from suture.stages.subsets import TESTED, with_tests
from suture.stages.treat import Treatment
from suture.stats import flips
from suture.tasks import Outcomes

BESIDE = [
    "plan", "kept", "accuracy", "fixed", "broken", "net", "regression_rate", "times_full", "ahead", "behind", *TESTED,
]  # fmt: skip


def beside_table(case: Case, treatment: Treatment, before: Outcomes, after: Outcomes) -> pd.DataFrame:
    """The treatment and its baselines on `verify`, with columns `BESIDE`; empty where it has none.

    The first row is the treatment. In the others ahead and behind count the examples that the treatment has right and
    the baseline wrong, and the other way round; p is the exact McNemar p of the two, adjusted the same after Holm's
    correction for the number of baselines, and word says whether the *treatment* is better or worse.
    """
    if not len(treatment.baselines):
        return no_baselines()
    own: dict[str, Any] = {"plan": treatment.plan.name, "kept": treatment.kept, "times_full": treatment.cost.times_full}
    rows = [own | _moves(before, after)]
    for row in treatment.baselines.to_dict("records"):
        theirs = case.outcomes("verify", patched(case.model, treatment.baseline_patches[str(row["plan"])]))
        apart = flips(theirs.right, after.right)
        known = {name: row[name] for name in ("plan", "kept", "times_full")}
        rows.append(known | _moves(before, theirs) | {"ahead": apart.fixed, "behind": apart.broken})
    first, others = pd.DataFrame(rows[:1], columns=BESIDE[:10]), pd.DataFrame(rows[1:], columns=BESIDE[:10])
    return pd.concat([first, with_tests(others, "ahead", "behind")], ignore_index=True)[BESIDE]


def no_baselines() -> pd.DataFrame:
    """The table without a row."""
    return pd.DataFrame(columns=BESIDE)


def _moves(before: Outcomes, after: Outcomes) -> dict[str, Any]:
    moves = flips(before.right, after.right)
    return {
        "accuracy": float(np.mean(after.right)), "fixed": moves.fixed, "broken": moves.broken, "net": moves.net,
        "regression_rate": moves.regression_rate,
    }  # fmt: skip
