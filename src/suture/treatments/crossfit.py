"""Cross-fitting: candidates judged on the repair examples that their training did not see.

For cases whose `select` is too small for the bound that was promised.
"""

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from suture.case import Case
from suture.splits import Split, Splits, stratified
from suture.treatments.choice import Judge
from suture.treatments.cost import Cost
from suture.treatments.plan import Candidate, Job, Plan, perform

FOLDS = 2


def cross_fit(
    plan: Plan, job: Job, account: list[str] | None = None
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, Candidate], NDArray[np.bool_], Cost]:
    """Carry out a plan on parts of `repair` and judge it on the rest, fold by fold.

    Args:
        job: with the plan's own places and guards.
        account: gets a sentence for every fold whose training ended early.

    Returns:
        Candidate → verdicts on all examples judged, candidate → one network of that name, the verdicts of the old
        network on the same examples, and the cost.
    """
    before, after, made = list[NDArray[np.bool_]](), list[dict[str, NDArray[np.bool_]]](), dict[str, Candidate]()
    cost = Cost()
    for number, case in enumerate(_folds(job.case), start=1):
        judge = Judge(case, case.splits["select"], case.model, job.model)
        below = job.checkpoints.below(f"fold {number}") if job.checkpoints else None
        job.say(f"trained without part {number} of 'repair', to be judged on it …")
        treated = perform(plan, replace(job, case=case, checkpoints=below))
        made |= treated.candidates
        if treated.stopped and account is not None:
            account.append(f"trained on part {number} of 'repair': {treated.stopped}")
        before.append(judge.right)
        after.append({name: judge.verdicts(each) for name, each in treated.candidates.items()})
        cost += treated.cost + judge.cost
    common = [name for name in made if all(name in part for part in after)]
    verdicts = {name: np.concatenate([part[name] for part in after]) for name in common}
    return verdicts, {name: made[name] for name in common}, np.concatenate(before), cost


def judged_by_folds(case: Case) -> Split:
    """The examples that cross-fitting judges on: `repair` without the further ones, which nothing is chosen on."""
    return case.splits["repair"].without_extra()


def _folds(case: Case) -> list[Case]:
    """The case with parts of `repair` in place of `select`; together they are all that may be judged on."""
    repair: Split = case.splits["repair"]
    own = judged_by_folds(case)
    parts = stratified(own.hashes, own.strata, [1 / FOLDS] * FOLDS, case.seed)
    places = {index: position for position, index in enumerate(repair.indices)}
    cases = []
    for positions in parts:
        part = [places[own.indices[i]] for i in positions]
        contents = {repair.hashes[i] for i in part}
        rest = [i for i, content in enumerate(repair.hashes) if content not in contents]
        if part and rest:
            fold = copy.copy(case)
            fold.splits = Splits(case.splits | {"repair": repair.only(rest), "select": repair.only(part)})
            cases.append(fold)
    return cases
