"""Cross-fitting: candidates judged on the repair examples that their training did not see.

For cases whose `select` is so small that next to nothing may break there under the bound that was promised.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from suture.case import Case
from suture.splits import Split, Splits, stratified
from suture.treatments.choice import Judge
from suture.treatments.cost import Cost
from suture.treatments.plan import Job, Plan, Treated, perform

FOLDS = 2


@dataclass(frozen=True, eq=False)
class Folds:
    """What candidates do to the parts of `repair` that their training did not see.

    Attributes:
        after: candidate → (n,) verdicts; of those that every fold's training made.
        right: (n,) verdicts of the old network.
        cost: of the trainings, and of judging them.
    """

    after: Mapping[str, NDArray[np.bool_]]
    right: NDArray[np.bool_]
    cost: Cost

    def with_others(
        self, after: Mapping[str, NDArray[np.bool_]], right: NDArray[np.bool_]
    ) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.bool_]]:
        """`after` and `right` of other examples behind these, for the candidates that are known on both."""
        both = {
            name: np.concatenate([self.after[name], verdicts]) for name, verdicts in after.items() if name in self.after
        }
        return both, np.concatenate([self.right, right])


def cross_fit(plan: Plan, job: Job, treated: Treated, account: list[str] | None = None) -> Folds:
    """Carry out a plan on parts of `repair` and judge it on the rest, fold by fold.

    Args:
        job: with the plan's own places and guards.
        treated: what the plan made on all of `repair`; what it gave up there is not tried here.
        account: gets a sentence for every fold whose training ended early.
    """
    if treated.again is not None:
        plan = plan.model_copy(update={"how": treated.again})
    before, after, cost = list[NDArray[np.bool_]](), list[dict[str, NDArray[np.bool_]]](), Cost()
    for number, case in enumerate(_folds(job.case), start=1):
        judge = Judge(case, case.splits["select"], case.model, job.model)
        below = job.checkpoints.below(f"fold {number}") if job.checkpoints else None
        job.say(f"trained without part {number} of 'repair', to be judged on it …")
        made = perform(plan, replace(job, case=case, checkpoints=below))
        if made.stopped and account is not None:
            account.append(f"trained without part {number} of 'repair': {made.stopped}")
        before.append(judge.right)
        after.append({name: judge.verdicts(each) for name, each in made.candidates.items()})
        cost += made.cost + judge.cost
    if not after:  # equal inputs stay in one part, and there may be no other
        return Folds({}, np.zeros(0, bool), cost)
    common = [name for name in after[0] if all(name in part for part in after)]
    verdicts = {name: np.concatenate([part[name] for part in after]) for name in common}
    return Folds(verdicts, np.concatenate(before), cost)


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
            splits = Splits(case.splits | {"repair": repair.only(rest), "select": repair.only(part)})
            cases.append(case.replace(splits=splits))
    return cases
