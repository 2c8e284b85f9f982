"""Cross-fitting: candidates judged on the repair examples that their training did not see.

For cases whose `select` is too small for the bound that was promised.
"""

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from suture.case import Case
from suture.splits import Split, Splits, stratified
from suture.stats import Flips, flips
from suture.treatments.choice import Judge
from suture.treatments.plan import Candidate, Job, Plan, perform

FOLDS = 2


def cross_fit(plan: Plan, job: Job) -> tuple[dict[str, Flips], dict[str, Candidate], NDArray[np.bool_]]:
    """Carry out a plan on parts of `repair` and judge it on the rest and on `select`, fold by fold.

    Args:
        job: with the plan's own places and guards; its checkpoints are not used.

    Returns:
        Candidate → flips over all examples judged, candidate → one network of that name, and the verdicts of the old
        network on the same examples.
    """
    before, after, made = list[NDArray[np.bool_]](), list[dict[str, NDArray[np.bool_]]](), dict[str, Candidate]()
    for case in _folds(job.case):
        judge = Judge(case, case.splits["select"], case.model, job.model)
        treated = perform(plan, replace(job, case=case, checkpoints=None))
        made |= treated.candidates
        before.append(judge.right)
        after.append({name: judge.verdicts(each) for name, each in treated.candidates.items()})
    common = [name for name in made if all(name in part for part in after)]
    right = np.concatenate(before)
    moves = {name: flips(right, np.concatenate([part[name] for part in after])) for name in common}
    return moves, {name: made[name] for name in common}, right


def _folds(case: Case) -> list[Case]:
    """The case with parts of `repair` in place of `select`; together they are all of `repair`."""
    repair: Split = case.splits["repair"]
    parts = stratified(repair.hashes, repair.strata, [1 / FOLDS] * FOLDS, case.seed)
    cases = []
    for part in parts:
        rest = sorted(set(range(len(repair))) - set(part))
        if part and rest:
            fold = copy.copy(case)
            fold.splits = Splits(case.splits | {"repair": repair.only(rest), "select": repair.only(part)})
            cases.append(fold)
    return cases
