"""Which repair fixes more than it breaks: one plan on one case, proved on examples that nothing else sees."""

from pathlib import Path
from typing import Any

import numpy as np

from suture.bench.examples import Pairs
from suture.bench.localize import cache_of, drop_of
from suture.bench.natural import shifted
from suture.bench.networks import Source, Subject, lessons_of, load_subject
from suture.bench.severity import plant_to_drop
from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.rundir import fingerprint
from suture.stages.localize import Localization, localize
from suture.stages.treat import treat
from suture.stages.verify import verify
from suture.stats import flips
from suture.training import Augment, Checkpoints
from suture.treatments import (
    STANDARD,
    Everything,
    FineTune,
    Groups,
    Job,
    Judge,
    Plan,
    best_of,
    load_plan,
    perform,
)
from suture.treatments.choice import NONE, table
from suture.treatments.course import is_small
from suture.treatments.crossfit import cross_fit
from suture.treatments.where import Ranked

Row = dict[str, Any]
RESPLITS = 300
TARGETS = {"true", "localizer"}  # plans that treat one group: the damaged one, or the one Localize names


def _full(name: str, **changes: object) -> Plan:
    recipe = STANDARD.model_copy(update=changes)
    return Plan(name=name, where=Everything(), how=FineTune(recipe=recipe))


# The first treats, in the way of the preset `flagged`, the groups that the paper's rule flags. The others ask: does
# the schedule of the momentum matter, or only the effective learning rate that it leads to? Each is the plan
# `full` with another optimizer. At 0.01 critical momentum has an effective rate of 0.05, `full` at 0.003 one of 0.03.
PLANS = {
    plan.name: plan
    for plan in (
        Plan(name="paper groups", where=Ranked(localizer="grad_norm", rule="above_median")),
        _full("critical", lr=0.01, lr_min=1e-4, momentum="critical"),
        _full("matched", lr=0.01, lr_min=1e-4, momentum=0.9, match_effective_lr=True),
        _full("momentum 0.9", lr=0.01, lr_min=1e-4),
        _full("adamw", optimizer="adamw", lr=1e-4, lr_min=1e-6),
        _full("adamw fast", optimizer="adamw", lr=5e-4, lr_min=5e-6),
    )
}


def cell(
    network: str,
    plan: str,
    seed: int,
    shift: str = "none",
    fault: str = "",
    repair: int = 1500,
    extra: int = 0,
    protocol: str = "split",
    data: str = "",
    weights: str = "",
    resplit: bool = False,
    directory: Path | None = None,
) -> list[Row]:
    """Repair one network by one plan and count on `verify`. docs/studies.md lists the columns.

    Args:
        network: a name in ``suture.bench.networks.NETWORKS``.
        plan: a name in ``suture.treatments.PRESETS`` or `PLANS`; ``"true"`` fine-tunes the damaged group alone and
            ``"localizer"`` the one that Localize names, in the way of the preset ``flagged``.
        seed: draws the splits, and the fault.
        shift: a name in ``suture.bench.natural.SHIFTS``; all examples are shifted alike.
        fault: ``"kind group"``, planted in the network first; none when empty.
        repair: held-out examples to train and choose on; the rest is diagnosed (a fifth) and verified.
        extra: further examples to train on, of those that the network was trained on.
        resplit: also judge every candidate on `verify`, and choose anew on 300 other draws of `select`.

    Returns:
        One row.

    Raises:
        UnknownNameError: no such network, plan, shift or kind of fault.
    """
    subject = load_subject(network, data, weights, cache_of(directory))
    lessons = lessons_of(network, Source(data), extra) if extra else None
    case, planted = case_of(subject, seed, shift, fault, repair, lessons, protocol)
    found = _localized(case, directory, fingerprint(network, seed, shift, fault, repair, extra, protocol))
    chosen = _plan(plan, planted, found, subject)
    if chosen is None:
        return [{"skipped": "no group stands out"}]
    checkpoints = Checkpoints(directory, fingerprint("bench", plan)) if directory is not None else None
    treatment = treat(case, found, chosen, checkpoints=checkpoints)
    proof = verify(case, treatment)
    row: Row = {
        "flagged": " ".join(found.flagged),
        "treated": " ".join(treatment.groups),
        "kept": treatment.kept,
        "before": proof.accuracy_before,
        "after": proof.accuracy_after,
        "n": proof.n,
        "fixed": proof.fixed,
        "broken": proof.broken,
        "net": proof.net,
        "ratio": proof.fixed / proof.broken if proof.broken else None,
        "regression_rate": proof.regression_rate,
        "p_value": proof.p_value,
        "flops": treatment.cost.flops,
        "seconds": treatment.cost.seconds,
    }
    more = _resplits(case, found, chosen, checkpoints) if resplit else {}
    if checkpoints is not None:
        checkpoints.clear()
    return [row | more]


def case_of(
    subject: Subject, seed: int, shift: str, fault: str, repair: int, lessons: Pairs | None, protocol: str = "split"
) -> tuple[Case, str | None]:
    """A case cut from a network's held-out examples by seed, and the group that was damaged, or None."""
    everything = shifted(subject, subject.held_out, shift, seed)
    order = np.random.default_rng(seed).permutation(len(everything))
    rest = len(order) - repair
    if rest < 2:
        raise InvalidArgumentError(f"{repair} examples to repair with leave none to verify on")
    parts = np.split(order, [repair, repair + rest // 3])
    pools = [Pairs(*everything.read_batch(part.tolist())) for part in parts]
    more = None if lessons is None else shifted(subject, lessons, shift, seed, "lessons")
    model, planted = subject.model, None
    if fault:
        kind, planted = fault.split()
        model = plant_to_drop(
            subject.model, planted, kind, drop_of(seed, planted, kind), pools[1].inputs, pools[1].targets, seed,
        )  # fmt: skip
    case = Case(
        model, repair=pools[0], diagnose=pools[1], verify=pools[2] if protocol == "split" else None,
        repair_extra=more, protocol=protocol, image=subject.image, seed=seed, device="cpu",
    )  # fmt: skip
    return case, planted


def _localized(case: Case, directory: Path | None, key: str) -> Localization:
    """Localize's answer, kept beside the cells: many plans ask for it."""
    if directory is None:
        return localize(case)
    kept = directory.parent.parent / "localized" / key
    if not (kept / "result.json").exists():
        localize(case).save(kept)
    return Localization.load(kept)


def _plan(name: str, planted: str | None, found: Localization, subject: Subject) -> Plan | None:
    """The plan by its name in the study; None where there is no group to treat."""
    digits = subject.image.size is None and len(subject.image.mean) == 1
    augment = {"augment": Augment(pad=1, flip=False)} if digits else {}  # a mirrored digit is no digit
    if name in TARGETS:
        group = planted if name == "true" else found.top
        if group is None:
            return None
        return load_plan("flagged").model_copy(update={"name": name, "where": Groups(names=(group,)), **augment})
    plan = PLANS[name] if name in PLANS else load_plan(name)
    return plan.model_copy(update=augment)


def _resplits(case: Case, found: Localization, plan: Plan, checkpoints: Checkpoints | None) -> Row:
    """What the plan's rule keeps when `select` and `verify` are drawn anew from both together, 300 times.

    Where `select` is too small, the parts of `repair` are judged beside each draw of it, as Treat does.

    Columns: the mean net on the new `verify` per 1,000 examples, fixed : broken over all draws, the share of draws that
    keep nothing, and the share in which more breaks than was promised; ``highest_net`` and ``highest_ratio`` are the
    same where the highest score is kept, however narrowly.
    """
    job = Job(
        case, case.model, plan.where.places(case, found.flagged), found.flagged, plan.name, plan.guards, plan.augment,
        checkpoints, case.seed,
    )  # fmt: skip
    treated = perform(plan, job)
    made = treated.candidates
    folds = cross_fit(plan, job, treated) if is_small(plan, job, always=False) else None
    judges = [Judge(case, case.splits[name], case.model) for name in ("select", "verify")]
    right = np.concatenate([judge.right for judge in judges])
    after = {name: np.concatenate([judge.verdicts(each) for judge in judges]) for name, each in made.items()}
    select, generator = len(judges[0].right), np.random.default_rng(case.seed)
    draws: dict[float | None, list[Any]] = {plan.choose.switch_se: [], None: []}
    for _ in range(RESPLITS):
        order = generator.permutation(len(right))
        seen, unseen = order[:select], order[select:]
        known, before = {name: verdicts[seen] for name, verdicts in after.items()}, right[seen]
        if folds is not None:
            known, before = folds.with_others(known, before)
        judged = table(known, made, plan.choose, before)
        for switch_se, rows in draws.items():
            name = best_of(judged, switch_se)
            kept = flips(right[unseen], after.get(name, right)[unseen])
            rows.append((kept.fixed / kept.n, kept.broken / kept.n, kept.regression_rate, name == NONE))
    fixed, broken, rate, nothing = np.array(draws[plan.choose.switch_se], float).T
    won, lost, *_ = np.array(draws[None], float).T
    bound = plan.choose.max_regression
    return {
        "resplit_net": 1000 * float((fixed - broken).mean()),
        "resplit_ratio": float(fixed.sum() / broken.sum()) if broken.any() else None,
        "resplit_none": float(nothing.mean()),
        "promise_broken": None if bound is None else float((rate > bound).mean()),
        "highest_net": 1000 * float((won - lost).mean()),
        "highest_ratio": float(won.sum() / lost.sum()) if lost.any() else None,
    }
