"""A course of treatment: a plan carried out, its candidates judged, the best kept, all of it again while it pays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from torch import nn

from suture.stats import least_for_bound
from suture.treatments.choice import NONE, Judge, best_of, table
from suture.treatments.cost import Cost
from suture.treatments.crossfit import cross_fit, judged_by_folds
from suture.treatments.interpolate import mixed
from suture.treatments.plan import Candidate, Job, Plan, Treated, perform
from suture.wording import percent

CYCLE = ", cycle "  # in the name of what a later cycle made
ROOM = 3  # times the least that a bound takes: below it next to nothing may break on `select`, whatever is promised


@dataclass(frozen=True, eq=False)
class Course:
    """What came of a plan.

    Attributes:
        kept: name of the candidate, or ``none``.
        made: the network that was kept, all the way; None for ``none``.
        judged: a row per candidate; see `suture.treatments.choice.judge_all`.
        n: how many examples they were judged on.
        history: a row per epoch.
        cost: of everything.
        note: what was kept and why.
        account: sentences on what was tried on the way.
    """

    kept: str
    made: Candidate | None
    judged: pd.DataFrame
    n: int
    history: pd.DataFrame
    cost: Cost
    note: str
    account: list[str] = field(default_factory=list)


def follow(plan: Plan, job: Job, *, always: bool, flag: Callable[[nn.Module], Sequence[str]]) -> Course:
    """Treat, choose, and go on from what was kept, for as many cycles as the plan has and as long as the score rises.

    Args:
        job: with the plan's own places, guards and checkpoints.
        always: keep a treated network whatever it does (protocol "paper").
        flag: the groups that Localize flags in a network that was treated.
    """
    course = _cycle(plan, job, always=always)
    for cycle in range(2, plan.cycles + 1):
        if course.made is None:
            break
        if is_small(plan, job, always=always):
            said = "'select' is too small to judge a second cycle, whose network has seen all of 'repair'"
            return replace(course, account=[*course.account, said])
        flagged = list(flag(course.made.model))
        here = job.case.replace(model=course.made.model)  # scores are those of what was kept
        places = plan.where.places(here, flagged)
        if not flagged or not places.parameters:
            return replace(course, account=[*course.account, f"cycle {cycle}: no group was flagged any more"])
        job.say(f"cycle {cycle}: {', '.join(flagged)} …")
        below = job.checkpoints.below(f"cycle {cycle}") if job.checkpoints else None
        again = replace(job, model=course.made.model, flagged=flagged, places=places, checkpoints=below)
        then = _cycle(plan, again, always=always)
        rows = then.judged.assign(candidate=[f"{name}, cycle {cycle}" for name in then.judged["candidate"]])
        both = {
            "judged": pd.concat([course.judged, rows.iloc[1:]], ignore_index=True),
            "history": pd.concat([course.history, then.history], ignore_index=True),
            "cost": course.cost + then.cost,
        }
        if then.made is None or _score(then) <= _score(course):
            said = (
                f"cycle {cycle} ({', '.join(flagged)}) did no better, so the network after cycle {cycle - 1} was kept"
            )
            return replace(course, **both, account=[*course.account, said])  # type: ignore[arg-type]
        account = [*course.account, f"cycle {cycle - 1}: {course.note}"]
        note = then.note.replace(then.kept, f"{then.kept}, cycle {cycle}", 1)
        course = replace(then, **both, kept=f"{then.kept}{CYCLE}{cycle}", note=note, account=[*account, *then.account])  # type: ignore[arg-type]
    return course


def repeat(plan: Plan, job: Job, kept: str) -> Candidate | None:
    """The candidate that was kept, made once more with the examples in another order.

    None where a later cycle made it, and where nothing of that name comes of the other order.
    """
    if CYCLE in kept:
        return None
    job.say("once more, with the examples in another order …")
    other = replace(job, seed=job.seed + 1, checkpoints=job.checkpoints.below("twin") if job.checkpoints else None)
    made = perform(plan, other).candidates.get(kept)
    return None if made is None else _whole(job.model, made)


def _score(course: Course) -> float:
    name = course.kept.rpartition(CYCLE)[0] or course.kept
    found = course.judged[course.judged["candidate"].isin([course.kept, name])]
    return float(found["score"].iloc[-1])


def _cycle(plan: Plan, job: Job, *, always: bool) -> Course:
    """Carry out a plan once and choose."""
    case, bound = job.case, plan.choose.max_regression
    judge = Judge(case, case.splits["select"], case.model, job.model)
    where, folds = f"the {len(judge.right)} examples of 'select'", None
    needed = _needed(plan, always=always)
    account, small = list[str](), bool(judge.right.sum() < ROOM * needed)
    if small:
        own = judged_by_folds(case)
        if judge.right.sum() + Judge(case, own, case.model).right.sum() < needed:
            why = (
                "'select' and 'repair' have too few examples that are right to promise that at most "
                f"{percent(bound or 0, 0)} of such break ({needed} in both would do), so the original was kept"
            )
            judged, n = table({}, {}, plan.choose, judge.right), len(judge.right)
            return Course(NONE, None, judged, n, pd.DataFrame(), judge.cost, why)
    treated = perform(plan, job)
    if small and treated.candidates:
        folds = cross_fit(plan, job, treated, account)
        where = (
            f"the {len(judge.right) + len(folds.right)} examples of 'select' and 'repair', each judged by a training "
            "that did not see it"
        )
    after, right = {name: judge.verdicts(each) for name, each in treated.candidates.items()}, judge.right
    if folds is not None:
        after, right = folds.with_others(after, right)
    judged = table(after, treated.candidates, plan.choose, right)
    treated = replace(treated, cost=(folds.cost if folds else Cost()) + treated.cost + judge.cost)
    account += treated.account
    if not treated.candidates:
        note = treated.stopped or "no epoch was completed"
        return Course(NONE, None, judged, len(right), treated.history, treated.cost, note, account)
    name = _most(judged) if always else best_of(judged, plan.choose.switch_se)
    kept = _whole(job.model, treated.candidates[name]) if name in treated.candidates else None
    note = _note(plan, treated, judged, name, where)
    return Course(name if kept else NONE, kept, judged, len(right), treated.history, treated.cost, note, account)


def _most(judged: pd.DataFrame) -> str:
    """The treated network with the highest score, whatever it does."""
    treated = judged[judged["candidate"] != NONE]
    return str(treated["candidate"].iloc[int(np.argmax(treated["score"].to_numpy(float)))])


def _needed(plan: Plan, *, always: bool) -> int:
    """How many right examples the bound that was promised takes."""
    bound = plan.choose.max_regression
    return 0 if bound is None or always else least_for_bound(bound) or 0


def is_small(plan: Plan, job: Job, *, always: bool) -> bool:
    """Whether `select` leaves too little room under the bound, so that candidates are judged by cross-fitting too."""
    needed = _needed(plan, always=always)
    return needed > 0 and bool(Judge(job.case, job.case.splits["select"], job.case.model).right.sum() < ROOM * needed)


def _whole(old: nn.Module, made: Candidate) -> Candidate:
    """The same with the network as it would be used, whatever its weight."""
    return Candidate(mixed(old, made.model, made.weight), margin=made.margin)


def _note(plan: Plan, treated: Treated, judged: pd.DataFrame, name: str, where: str) -> str:
    """What was kept and why, in a sentence."""
    end = f"; {treated.stopped}" if treated.stopped else ""
    rows = {str(row["candidate"]): row for row in judged.to_dict("records")}
    promised = plan.choose.max_regression
    if name != NONE:
        row = rows[name]
        bound = (
            f", at most {percent(row['bound'])} of what was right (bound {percent(promised)})"
            if promised is not None
            else ""
        )
        kept = f"{name} fixed {row['fixed']} and broke {row['broken']} of {where}{bound} and was kept"
        higher = [each for each in rows.values() if each["allowed"] and each["score"] > row["score"]]
        if higher and plan.choose.switch_se is not None:
            kept += (
                f"; {max(higher, key=lambda each: each['score'])['candidate']} scored higher, but not clearly "
                f"(by more than {plan.choose.switch_se:g} standard error{'s' * (plan.choose.switch_se != 1)})"
            )
        return f"{kept}{end}"
    others = [row for row in rows.values() if row["candidate"] != NONE]
    if not others:
        return f"no candidate of every training could be judged on {where}, so the original was kept{end}"
    best = max(others, key=lambda row: row["score"])
    moved = f"{best['candidate']} fixed {best['fixed']} and broke {best['broken']} of {where}"
    if not best["allowed"]:
        moved += f", which may be {percent(best['bound'])} of what was right where {percent(promised or 0)} is allowed"
    return f"{moved}, so the original was kept{end}"
