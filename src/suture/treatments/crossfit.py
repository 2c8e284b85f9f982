"""Cross-fitting: candidates judged on the repair examples that their training did not see.

For cases whose `select` is so small that next to nothing may break there under the bound that was promised.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from suture.case import Case
from suture.splits import Split, Splits, stratified
from suture.treatments.choice import Judge
from suture.treatments.cost import Cost
from suture.treatments.finetune import FineTune
from suture.treatments.lora import LoRA
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

    Each training has a part of the further examples too, and sees as large a part of what `seen` allows, so that all
    of them together cost what the plan does on all of `repair`.

    Args:
        job: with the plan's own places and guards.
        treated: what the plan made on all of `repair`; what it gave up there is not tried here.
        account: gets a sentence for every fold whose training ended early.
    """
    if treated.again is not None:
        plan = plan.model_copy(update={"how": treated.again})
    plan = _shortened(plan)
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
    """The case with parts of `repair` in place of `select`; together they are all that may be judged on.

    Of the further examples every training has another part.
    """
    repair: Split = case.splits["repair"]
    own = set(judged_by_folds(case).indices)
    mine = [i for i, index in enumerate(repair.indices) if index in own]
    further = [i for i, index in enumerate(repair.indices) if index not in own]
    cases = []
    for part, more in zip(_cut(repair, mine, case.seed), _cut(repair, further, case.seed), strict=True):
        contents, trained = {repair.hashes[i] for i in part}, {*mine, *more}
        rest = [i for i, content in enumerate(repair.hashes) if i in trained and content not in contents]
        if part and rest:
            splits = Splits(case.splits | {"repair": repair.only(rest), "select": repair.only(part)})
            cases.append(case.replace(splits=splits))
    return cases


def _cut(split: Split, positions: list[int], seed: int) -> list[list[int]]:
    """Some examples in as many parts as there are folds, class by class."""
    some = split.only(positions)
    parts = stratified(some.hashes, some.strata, [1 / FOLDS] * FOLDS, seed)
    return [[positions[i] for i in part] for part in parts]


P = TypeVar("P", bound=BaseModel)


def _shortened(part: P) -> P:
    """A plan, or a part of one, whose trainings see at most their share of the examples that `seen` allows."""
    changes: dict[str, Any] = {}
    for name, value in part:
        if isinstance(value, tuple):
            changes[name] = tuple(_shortened(each) if isinstance(each, BaseModel) else each for each in value)
        elif isinstance(value, BaseModel):
            changes[name] = _shortened(value)
    if isinstance(part, FineTune | LoRA) and part.seen is not None:
        changes["seen"] = math.ceil(part.seen / FOLDS)
    return part.model_copy(update=changes)
