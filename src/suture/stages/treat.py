"""Treat: repair a copy by a plan, keep what does best on examples it was not trained on, as a patch (section 5.5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from suture.case import Case
from suture.causes.label_errors import suspects_of
from suture.errors import DataError, InvalidArgumentError, SutureError
from suture.patch import PATCH, UNDO, Patch, aliases_of, base_sha256, between, canonical_state, load_patch
from suture.splits import Splits, writable
from suture.stages.localize import Localization, localize
from suture.stages.result import Result, Table
from suture.training import Checkpoints
from suture.treatments import (
    Candidate,
    Cost,
    Course,
    Estimate,
    Job,
    Nothing,
    Plan,
    follow,
    known_groups,
    load_plan,
    repeat,
)
from suture.treatments.choice import COLUMNS, NONE
from suture.treatments.course import is_small
from suture.treatments.doubts import crops_of, doubts_of
from suture.wording import percent

TWIN = "twin.safetensors"
SUSPECTS = "suspects"
TREATED_ON = ("repair", "select")

Exclude = str | Sequence[int | str]
"""``"suspects"``, or examples: positions in `repair`, or names as `Split.label` gives them, of `repair` or `select`."""


@dataclass(frozen=True)
class LeftOut:
    """How many examples a treatment does without, and sentences on it."""

    n: int = 0
    account: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


NOBODY = LeftOut()


@dataclass(frozen=True, kw_only=True)
class Treatment(Result, stage="treat", schema=2):
    """A patch, its undo, and how they came about.

    Attributes:
        plan: what was asked for.
        kept: name of the candidate that was kept, which is ``none`` when no change paid.
        groups: the groups that were treated.
        history: a row per epoch: epoch, lr, momentum, loss, accuracy, seconds; and the plan where several were tried.
        cost: measured, against full fine-tuning.
        tried: a row per candidate, judged on `select`, and on parts of `repair` too where that is small: candidate,
            weight, fixed, broken, net, bound (one-sided exact 95 % upper bound on the regression rate), allowed,
            score.
        note: in plain words, what was kept and why.
        account: sentences on what was tried on the way.
        warnings: what may be wrong with the data.
        patch, undo: the changed tensors, and their old values.
        twin: the patch of the same treatment with the examples in another order, for the churn floor; or None.
        excluded: how many examples of `repair` and `select` were left out on request.
    """

    in_files = ("patch", "undo", "twin")

    plan: Plan
    kept: str
    groups: list[str]
    history: Table
    cost: Cost
    tried: Table
    note: str
    account: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    excluded: int = 0
    patch: Patch = field(repr=False)
    undo: Patch = field(repr=False)
    twin: Patch | None = field(default=None, repr=False)

    def save_files(self, directory: Path) -> None:
        """Write ``patch.safetensors`` and ``undo.safetensors``, and the twin where there is one."""
        self.patch.save(directory / PATCH)
        self.undo.save(directory / UNDO)
        if self.twin is not None:
            self.twin.save(directory / TWIN)

    @classmethod
    def load_files(cls, directory: Path) -> dict[str, Any]:
        """Read the patches."""
        twin = directory / TWIN
        return {
            "patch": load_patch(directory / PATCH),
            "undo": load_patch(directory / UNDO),
            "twin": load_patch(twin) if twin.exists() else None,
        }


def treat(
    case: Case,
    where: Localization | Sequence[str],
    plan: str | Plan = "default",
    *,
    exclude: Exclude | None = None,
    twin: bool = False,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], None] | None = None,
) -> Treatment:
    """Carry out a plan on a copy of the case's model; the model given is never modified.

    Training sees `repair`. Candidates are judged on `select`, the untouched network among them; where `select` is too
    small for the bound that the plan promises, on the parts of `repair` that they were not trained on. Under
    protocol ``"paper"`` the treated network is kept whatever it does.

    Args:
        where: a localization, whose flagged groups are treated, or names of groups.
        plan: ``"default"`` (``auto``; ``A`` under protocol "paper"), a preset, a TOML file or a Plan.
        exclude: examples that neither training nor choice uses: ``"suspects"``, those whose label is probably wrong
            (`suture.causes.label_errors`), or positions in `repair`, or names of examples of `repair` or `select`.
            `diagnose` and `verify` keep all of theirs.
        twin: carry the plan out once more, with the examples in another order, so that Verify can say how much
            of the churn is chance.
        checkpoints: where to save after each epoch and to resume from.
        say: told what it will take before a training starts, and what is tried when.

    Raises:
        GroupError: no such group.
        UnknownNameError: no such plan.
        DataError: an example to exclude is not known, or none would be left.
        InvalidArgumentError: suspects cannot be found: the task gives no probabilities, or cleanlab is not installed.
    """
    plan = load_plan(plan, case.protocol)
    named = [where] if isinstance(where, str) else where
    flagged = known_groups(case.groups, named.flagged if isinstance(named, Localization) else named)
    given, (case, left_out) = case, _without(case, exclude)
    job = Job(
        case, case.model, plan.where.places(case, flagged), flagged, plan.name, plan.guards, plan.augment, checkpoints,
        case.seed, say=say or (lambda _: None),
    )  # fmt: skip
    perfect = isinstance(named, Localization) and not named.n_errors
    # What keeps to a bound asks first whether anything is to be gained; a plan without one does as it is told.
    if (perfect and plan.choose.max_regression is not None) or (plan.how.reads_places and not job.places.parameters):
        return _untouched(case, plan, _nothing_flagged(named), left_out=left_out)
    # Of what was given: where labels mean something else altogether, suspects would hide it.
    doubts = [] if isinstance(plan.how, Nothing) else [*doubts_of(given), *crops_of(plan, given)]
    doubts += left_out.warnings
    always = case.protocol == "paper"
    if say is not None and (forecast := plan.how.estimate(job)).seconds:
        say(_announced(plan, forecast, small=is_small(plan, job, always=always), twin=twin))
    course = follow(plan, job, always=always, flag=partial(_flagged_in, case))
    if base_sha256(canonical_state(case.model)) != case.weights_sha256:
        raise SutureError("the case's model changed while a copy of it was treated; nothing was written")
    if course.made is None:
        return _untouched(case, plan, course.note, course, doubts, left_out)
    patch, undo = _patches(case, plan, course.kept, course.made, course)
    again = repeat(plan, job, course) if twin else None
    untwinned = ["no twin: what was kept could not be made once more in another order"] if twin and not again else []
    return Treatment(
        plan=plan, kept=course.kept, groups=_changed(case, patch), history=course.history, cost=course.cost,
        tried=course.judged, note=course.note, account=[*left_out.account, *course.account, *untwinned],
        warnings=doubts, excluded=left_out.n, patch=patch, undo=undo,
        twin=_patches(case, plan, course.kept, again, course)[0] if again is not None else None,
    )  # fmt: skip


def _announced(plan: Plan, forecast: Estimate, *, small: bool, twin: bool) -> str:
    """What a plan will take, in a sentence.

    Args:
        forecast: of one cycle.
        small: whether `select` is small, so that halves of `repair` are trained on too and a second cycle never comes.
    """
    cycles = 1 if small else plan.cycles
    most = f"at most {cycles} cycles, together " if cycles > 1 else ""
    more = " ('select' is small, so it is trained on halves of 'repair' too)" if small else ""
    return f"treating by {plan.name}: {most}{forecast.times(cycles + small + twin)}{more}"


def _without(case: Case, exclude: Exclude | None) -> tuple[Case, LeftOut]:
    """The case without some examples of `repair` and `select`, and what to say of it; the case given stays whole."""
    if exclude is None:
        return case, NOBODY
    suspected = isinstance(exclude, str) and exclude == SUSPECTS  # a column of a table compares entry by entry
    out = _suspects(case) if suspected else _named(case, exclude)
    kept = {name: [i for i in range(len(case.splits[name])) if i not in out[name]] for name in out}
    for name, positions in kept.items():
        if not positions:
            raise DataError(f"no example of '{name}' would be left to treat with; exclude fewer")
    fewer = {name: case.splits[name].only(part) for name, part in kept.items()}
    reduced = case.replace(splits=Splits(case.splits | fewer))
    n = sum(map(len, out.values()))
    counts = " and ".join(f"{len(out[name])} of {len(case.splits[name])} examples of '{name}'" for name in out)
    if not suspected:
        return reduced, LeftOut(n, [f"left out as asked: {counts}"])
    said = f"left out because their labels are suspected to be wrong: {counts}"
    return reduced, LeftOut(n, [said], [_errors_lost(case, out)] if n else [])


def _suspects(case: Case) -> dict[str, set[int]]:
    return {name: set(suspects_of(case, name)["position"]) for name in TREATED_ON}


def _named(case: Case, names: Exclude) -> dict[str, set[int]]:
    """Split → positions of the examples that are named; those of `diagnose` or `verify` are never treated on."""
    if isinstance(names, str):
        raise InvalidArgumentError(f"exclude takes '{SUSPECTS}' or a list of examples, not '{names}'")
    known: dict[str, list[tuple[str, int]]] = {}
    for split in TREATED_ON:
        for i in range(len(case.splits[split])):
            known.setdefault(case.splits[split].label(i), []).append((split, i))
    out: dict[str, set[int]] = {split: set() for split in TREATED_ON}
    n = len(case.splits["repair"])
    for name in names:
        places = known.get(writable(name), []) if isinstance(name, str) else [("repair", int(name))] * (0 <= name < n)
        if not places:
            called = f"is called '{name}'" if isinstance(name, str) else f"of 'repair' has position {name}"
            raise DataError(f"no example {called}; give positions in 'repair' or names such as '{next(iter(known))}'")
        for split, i in places:
            out[split].add(i)
    return out


def _errors_lost(case: Case, out: dict[str, set[int]]) -> str:
    """What leaving out suspects costs: most of them are errors, and a network that fails suspects right labels too."""
    wrong = lost = 0
    for name, positions in out.items():
        own = case.splits[name].without_extra()  # further examples are never suspected
        errors = {own.indices[i] for i in case.outcomes(own).errors}
        wrong, lost = wrong + len(errors), lost + len(errors & {case.splits[name].indices[i] for i in positions})
    n = sum(map(len, out.values()))
    return (
        f"the {n} examples left out are {percent(lost / max(wrong, 1), 0)} of the model's errors on 'repair' and "
        "'select'; where it fails for another reason than wrong labels, these are what a repair learns from, so look "
        "at them"
    )


def _flagged_in(case: Case, model: nn.Module) -> list[str]:
    """The groups that Localize flags in a network on the same examples."""
    return localize(case.replace(model=model)).flagged


def _patches(case: Case, plan: Plan, name: str, made: Candidate, course: Course) -> tuple[Patch, Patch]:
    """The patch and its undo, with what the patch did to the examples it was judged on."""
    maker = name if name.startswith(plan.name) else f"{plan.name}: {name}"
    patch, undo = between(canonical_state(case.model), canonical_state(made.model), maker, aliases_of(case.model))
    row = next(row for row in course.judged.to_dict("records") if row["candidate"] == name)
    metrics = {column: float(row[column]) for column in ("fixed", "broken", "net")} | {"judged_on": float(course.n)}
    return replace(patch, metrics=metrics, margin=made.margin), replace(undo, margin=made.margin)


def _changed(case: Case, patch: Patch) -> list[str]:
    """Groups that own a changed tensor, buffers included."""
    owner = {name.rpartition(".")[0]: group for group, names in case.groups.items() for name in names}
    owner |= {name: group for group, names in case.groups.items() for name in names}
    changed = {owner.get(name, owner.get(name.rpartition(".")[0])) for name in patch.tensors}
    return [group for group in case.groups if group in changed]


def _nothing_flagged(where: Localization | Sequence[str]) -> str:
    if isinstance(where, Localization) and not where.n_errors:
        return (
            f"the model makes no error on the {where.n} examples of 'diagnose', so there is nothing to treat; give "
            "more data, or data on which it fails"
        )
    return "no group was flagged, so there is nothing to treat"


def _untouched(
    case: Case,
    plan: Plan,
    why: str,
    course: Course | None = None,
    doubts: Sequence[str] = (),
    left_out: LeftOut = NOBODY,
) -> Treatment:
    state = canonical_state(case.model)
    patch, undo = between(state, state, NONE)
    nothing = pd.DataFrame([[NONE, 0.0, 0, 0, 0, 0.0, True, 0.0, 0.0]], columns=COLUMNS)
    return Treatment(
        plan=plan, kept=NONE, groups=[], history=course.history if course else pd.DataFrame(),
        cost=course.cost if course else Cost(), tried=course.judged if course else nothing, note=why,
        account=[*left_out.account, *(course.account if course else [])], warnings=list(doubts),
        excluded=left_out.n, patch=patch, undo=undo,
    )  # fmt: skip
