"""A repair beside plain ones on the same unseen examples: is it worth its name?"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.errors import NonFiniteError
from suture.patch import Patch, patched
from suture.stages.subsets import TESTED, with_tests
from suture.stages.treat import Treatment
from suture.stats import flips
from suture.tasks import Outcomes

COLUMNS = [
    "plan", "kept", "accuracy", "fixed", "broken", "net", "regression_rate", "times_full", "won", "lost", *TESTED,
]  # fmt: skip


def baseline_table(case: Case, treatment: Treatment, before: Outcomes, after: Outcomes) -> pd.DataFrame:
    """The treatment and its baselines on `verify`, with columns `COLUMNS`; empty where it has none.

    The first row is the treatment. In the others won and lost count the examples that the treatment has right and
    the baseline wrong, and the other way round; p is the exact McNemar p of the two, adjusted the same after Holm's
    correction for the number of baselines, and word says whether the *treatment* is better or worse.
    """
    if not len(treatment.baselines):
        return no_baselines()
    own: dict[str, Any] = {"plan": treatment.plan.name, "kept": treatment.kept, "times_full": treatment.cost.times_full}
    rows = [own | _moves(before.right, after.right)]
    for row in treatment.baselines.to_dict("records"):
        theirs = _right(case, treatment.baseline_patch(str(row["plan"])))
        apart = flips(theirs, after.right)
        known = {name: row[name] for name in ("plan", "kept", "times_full")}
        rows.append(known | _moves(before.right, theirs) | {"won": apart.fixed, "lost": apart.broken})
    first, others = pd.DataFrame(rows[:1], columns=COLUMNS[:10]), pd.DataFrame(rows[1:], columns=COLUMNS[:10])
    return pd.concat([first, with_tests(others, "won", "lost")], ignore_index=True)[COLUMNS]


def no_baselines() -> pd.DataFrame:
    """The table without a row."""
    return pd.DataFrame(columns=COLUMNS)


def _right(case: Case, patch: Patch) -> NDArray[np.bool_]:
    """What a baseline has right, (n,) bool; one whose losses are not finite has nothing right."""
    try:
        return case.outcomes("verify", patched(case.model, patch)).right
    except NonFiniteError:
        return np.zeros(len(case.splits["verify"]), bool)


def _moves(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, Any]:
    moves = flips(before, after)
    return {
        "accuracy": float(np.mean(after)), "fixed": moves.fixed, "broken": moves.broken, "net": moves.net,
        "regression_rate": moves.regression_rate,
    }  # fmt: skip
