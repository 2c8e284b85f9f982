"""Treat: repair a copy by a plan, keep what does best on examples it was not trained on, as a patch (section 5.5)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from suture.case import Case
from suture.errors import RunError, SutureError
from suture.patch import PATCH, UNDO, Patch, aliases_of, base_sha256, between, canonical_state, load_patch
from suture.rundir import RESULT, read_json
from suture.stages.exclusion import NOBODY, Exclude, LeftOut, without
from suture.stages.localize import Localization, localize
from suture.stages.result import Result, Table
from suture.training import Checkpoints
from suture.treatments import (
    PRESETS,
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
from suture.treatments.doubts import common_augment, crops_of, doubts_of

TWIN = "twin.safetensors"
BASELINES = ("bn_recalibrate", "last_layer", "bn_affine", "random_groups", "full")
COLUMNS_BESIDE = ["plan", "kept", "groups", "times_full", "seconds", "note", "result"]
BASELINE = "baseline-{}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Treatment(Result, stage="treat", schema=2):
    """A patch, its undo, and how they came about.

    Attributes:
        plan: what was asked for.
        kept: name of the candidate that was kept, which is ``none`` when no change paid.
        groups: the groups that were treated.
        history: a row per epoch: epoch, lr, momentum, loss, accuracy, seconds; or per step of a solver or a
            search: step, loss; and the plan where several were tried.
        cost: measured, against full fine-tuning.
        tried: a row per candidate, judged on `select`, and on parts of `repair` too where that is small: candidate,
            weight, fixed, broken, net, bound (one-sided exact 95 % upper bound on the regression rate), allowed,
            score.
        note: in plain words, what was kept and why.
        account: sentences on what was tried on the way.
        warnings: what may be wrong with the data.
        patch, undo: the changed tensors, and their old values.
        twin: the patch of the same treatment with the examples in another order, for the churn floor; or None.
        baselines: a row per baseline that was carried out beside it: plan, kept, groups (that its patch changes, with
            commas), times_full (floating-point operations in units of one full fine-tuning by the standard recipe),
            seconds, note, result (sha256 of the weights that its patch leads to).
        baseline_patches: by name their patches, or files that hold them: most are as large as the network.
        excluded: how many examples of `repair` and `select` were left out on request.
    """

    in_files = ("patch", "undo", "twin", "baseline_patches")
    further_files = tuple(map(BASELINE.format, BASELINES))

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
    baselines: Table = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS_BESIDE))
    patch: Patch = field(repr=False)
    undo: Patch = field(repr=False)
    twin: Patch | None = field(default=None, repr=False)
    baseline_patches: Mapping[str, Patch | Path] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What ``result.json`` says, with the sha256 of the weights that the patch leads to."""
        return super().to_dict() | {"result": self.patch.result}

    def save_files(self, directory: Path) -> None:
        """Write ``patch.safetensors`` and ``undo.safetensors``, and those of twin and baselines where there are any."""
        self.patch.save(directory / PATCH)
        self.undo.save(directory / UNDO)
        if self.twin is not None:
            self.twin.save(directory / TWIN)
        for name in self.baseline_patches:
            path = directory / BASELINE.format(name)
            if self.baseline_patches[name] != path:
                self.baseline_patch(name).save(path)

    @classmethod
    def load_files(cls, directory: Path) -> dict[str, Any]:
        """Read the patches.

        Raises:
            RunError: the patch is another one than was made here, so that nothing said of it would hold.
        """
        twin = directory / TWIN
        baselines = {name: directory / BASELINE.format(name) for name in BASELINES}
        patch = load_patch(directory / PATCH)
        if read_json(directory / RESULT).get("result", patch.result) != patch.result:  # older results do not say
            raise RunError(
                f"{directory / PATCH} is not the patch that was made here; put that one back, or run with --redo treat"
            )
        return {
            "patch": patch,
            "undo": load_patch(directory / UNDO),
            "twin": load_patch(twin) if twin.exists() else None,
            "baseline_patches": {name: path for name, path in baselines.items() if path.exists()},
        }

    def baseline_patch(self, name: str) -> Patch:
        """What a baseline came to.

        Raises:
            RunError: its file is gone.
        """
        found = self.baseline_patches.get(name)
        if found is None:
            file = BASELINE.format(name)
            raise RunError(f"the patch of the baseline '{name}' is missing ({file}); run with --redo treat --baselines")
        return load_patch(found) if isinstance(found, Path) else found


def treat(
    case: Case,
    where: Localization | Sequence[str],
    plan: str | Plan = "default",
    *,
    exclude: Exclude | None = None,
    twin: bool = False,
    baselines: bool = False,
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
        baselines: carry out `BASELINES` too, so that Verify can hold the treatment against them; see
            `with_baselines`.
        checkpoints: where to save after each epoch and to resume from.
        say: told what it will take before a training starts, and what is tried when.

    Raises:
        GroupError: no such group.
        UnknownNameError: no such plan.
        DataError: an example to exclude is not known, or none would be left.
        InvalidArgumentError: suspects cannot be found: the task gives no probabilities, or cleanlab is not installed.
    """
    made = _treat(case, where, load_plan(plan, case.protocol), checkpoints, say, without(case, exclude), twin=twin)
    if twin:
        made = with_twin(made, case, where, exclude=exclude, checkpoints=checkpoints, say=say)
    return with_baselines(made, case, where, exclude=exclude, checkpoints=checkpoints, say=say) if baselines else made


def with_twin(
    treatment: Treatment,
    case: Case,
    where: Localization | Sequence[str],
    *,
    exclude: Exclude | None = None,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], None] | None = None,
) -> Treatment:
    """The treatment with what its plan makes of the same examples in another order; as it is where nothing was kept.

    Args:
        treatment: of this case.
        where, exclude, checkpoints, say: as for `treat`; the first two as they were for the treatment.
    """
    if treatment.kept == NONE:
        return treatment
    plan, (reduced, _) = treatment.plan, without(case, exclude)
    job = _job(reduced, plan, _flagged(reduced, where), checkpoints, say)
    if say is not None and (forecast := plan.how.estimate(job)).seconds:
        say(f"the twin: {forecast.times(1)}")
    again = repeat(plan, job, treatment.kept)
    if again is None:
        why = "no twin: what was kept could not be made once more in another order"
        return replace(treatment, account=[*treatment.account, why])
    judged_on = int(treatment.patch.metrics["judged_on"])
    return replace(treatment, twin=_patches(case, plan, treatment.kept, again, treatment.tried, judged_on)[0])


def with_baselines(
    treatment: Treatment,
    case: Case,
    where: Localization | Sequence[str],
    *,
    exclude: Exclude | None = None,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], None] | None = None,
) -> Treatment:
    """The treatment and, beside it, what plain repairs make of the same examples, for Verify to compare.

    Each of `BASELINES` is carried out as the preset that it is, but with the augmentation of the plan's own trainings,
    which belongs to the data. The one that is what the treatment did is left out, and one that fails changes nothing
    and says why in its note.

    Args:
        treatment: of this case.
        where, exclude, checkpoints, say: as for `treat`; the first two as they were for the treatment.
    """
    reduced, _ = without(case, exclude)
    augment = treatment.plan.augment or common_augment(treatment.plan)
    own = treatment.plan.model_copy(update={"augment": augment})
    made = dict[str, Treatment]()
    for name in BASELINES:
        plan = PRESETS[name].model_copy(update={"augment": augment})
        if plan.model_copy(update={"name": own.name}) == own:
            continue
        below = checkpoints.below(BASELINE.format(name)) if checkpoints else None
        try:
            made[name] = _treat(reduced, where, plan, below, say)
        except Exception as error:  # whatever it was, the repair itself is done
            made[name] = _untouched(case, plan, f"it failed: {str(error).splitlines()[0]}")
    rows = [
        [name, each.kept, ", ".join(each.groups), each.cost.times_full, each.cost.seconds, each.note, each.patch.result]
        for name, each in made.items()
    ]
    patches = {name: each.patch for name, each in made.items()}
    return replace(treatment, baselines=pd.DataFrame(rows, columns=COLUMNS_BESIDE), baseline_patches=patches)


def _treat(
    given: Case,
    where: Localization | Sequence[str],
    plan: Plan,
    checkpoints: Checkpoints | None,
    say: Callable[[str], None] | None,
    reduced: tuple[Case, LeftOut] | None = None,
    *,
    twin: bool = False,
) -> Treatment:
    """Carry out a plan.

    Args:
        reduced: the case without what is left out, and what to say of that; without it nothing is said of the data.
        twin: whether a twin follows, which belongs to what it will take.
    """
    case, left_out = reduced or (given, NOBODY)
    flagged = _flagged(case, where)
    job = _job(case, plan, flagged, checkpoints, say)
    perfect = isinstance(where, Localization) and not where.n_errors
    # What keeps to a bound asks first whether anything is to be gained; a plan without one does as it is told.
    if (perfect and plan.choose.max_regression is not None) or (plan.how.reads_places and not job.places.parameters):
        return _untouched(case, plan, _nothing_to_treat(where, case, plan, flagged), left_out=left_out)
    # Of what was given: where labels mean something else altogether, suspects would hide it.
    silent = reduced is None or isinstance(plan.how, Nothing)
    doubts = [] if silent else [*doubts_of(given), *crops_of(plan, given)]
    doubts += left_out.warnings
    always = case.protocol == "paper"
    if say is not None and (forecast := plan.how.estimate(job)).seconds:
        say(_announced(plan, forecast, small=is_small(plan, job, always=always), twin=twin))
    course = follow(plan, job, always=always, flag=partial(_flagged_in, case))
    if base_sha256(canonical_state(case.model)) != case.weights_sha256:
        raise SutureError("the case's model changed while a copy of it was treated; nothing was written")
    if course.made is None:
        return _untouched(case, plan, course.note, course, doubts, left_out)
    patch, undo = _patches(case, plan, course.kept, course.made, course.judged, course.n)
    return Treatment(
        plan=plan, kept=course.kept, groups=_changed(case, patch), history=course.history, cost=course.cost,
        tried=course.judged, note=course.note, account=[*left_out.account, *course.account],
        warnings=doubts, excluded=left_out.n, patch=patch, undo=undo,
    )  # fmt: skip


def _flagged(case: Case, where: Localization | Sequence[str]) -> list[str]:
    """The groups that are flagged or named."""
    named = [where] if isinstance(where, str) else where
    return known_groups(case.groups, named.flagged if isinstance(named, Localization) else named)


def _job(
    case: Case, plan: Plan, flagged: list[str], checkpoints: Checkpoints | None, say: Callable[[str], None] | None
) -> Job:
    return Job(
        case, case.model, plan.where.places(case, flagged), flagged, plan.name, plan.guards, plan.augment, checkpoints,
        case.seed, say=say or (lambda _: None),
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


def _flagged_in(case: Case, model: nn.Module) -> list[str]:
    """The groups that Localize flags in a network on the same examples."""
    return localize(case.replace(model=model)).flagged


def _patches(case: Case, plan: Plan, name: str, made: Candidate, judged: pd.DataFrame, n: int) -> tuple[Patch, Patch]:
    """The patch and its undo, with what the candidate of the name did to the n examples it was judged on."""
    maker = name if name.startswith(plan.name) else f"{plan.name}: {name}"
    patch, undo = between(canonical_state(case.model), canonical_state(made.model), maker, aliases_of(case.model))
    row = next(row for row in judged.to_dict("records") if row["candidate"] == name)
    metrics = {column: float(row[column]) for column in ("fixed", "broken", "net")} | {"judged_on": float(n)}
    return replace(patch, metrics=metrics, margin=made.margin), replace(undo, margin=made.margin)


def _changed(case: Case, patch: Patch) -> list[str]:
    """Groups that own a changed tensor, buffers included."""
    owner = {name.rpartition(".")[0]: group for group, names in case.groups.items() for name in names}
    owner |= {name: group for group, names in case.groups.items() for name in names}
    changed = {owner.get(name, owner.get(name.rpartition(".")[0])) for name in patch.tensors}
    return [group for group in case.groups if group in changed]


def _nothing_to_treat(where: Localization | Sequence[str], case: Case, plan: Plan, flagged: Sequence[str]) -> str:
    if isinstance(where, Localization) and not where.n_errors:
        return (
            f"the model makes no error on the {where.n} examples of 'diagnose', so there is nothing to treat; give "
            "more data, or data on which it fails"
        )
    if not plan.where.places(case, list(case.groups)).parameters:
        return f"there is nothing in this network that '{plan.name}' treats"
    if flagged:
        return f"the flagged groups hold nothing that '{plan.name}' treats"
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
