"""Treat: repair the flagged groups of a copy, and keep the result as a patch (section 5.5)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from suture.case import Case
from suture.errors import SutureError
from suture.patch import Patch, aliases_of, base_sha256, between, canonical_state, load_patch
from suture.stages.localize import Localization
from suture.stages.result import Result, Table
from suture.stats import flips
from suture.tasks import evaluate
from suture.training import Checkpoints
from suture.treatments import Everything, Groups, Nothing, Plan, fine_tune, known_groups, load_plan
from suture.treatments.finetune import Cost

PATCH, UNDO = "patch.safetensors", "undo.safetensors"


@dataclass(frozen=True, kw_only=True)
class Treatment(Result, stage="treat", schema=1):
    """A patch, its undo, and how they came about.

    Attributes:
        plan: what was asked for.
        kept: name of the candidate that was kept, which is ``none`` when no change paid.
        groups: the groups that were treated.
        history: a row per epoch: epoch, lr, momentum, loss, accuracy, seconds.
        cost: measured, against full fine-tuning.
        tried: a row per candidate: candidate, fixed, broken, net on `select`.
        note: in plain words, what was kept and why.
        patch, undo: the changed tensors, and their old values.
    """

    in_files = ("patch", "undo")

    plan: Plan
    kept: str
    groups: list[str]
    history: Table
    cost: Cost
    tried: Table
    note: str
    patch: Patch = field(repr=False)
    undo: Patch = field(repr=False)

    def save_files(self, directory: Path) -> None:
        """Write ``patch.safetensors`` and ``undo.safetensors``."""
        self.patch.save(directory / PATCH)
        self.undo.save(directory / UNDO)

    @classmethod
    def load_files(cls, directory: Path) -> dict[str, Any]:
        """Read the patch and the undo."""
        return {"patch": load_patch(directory / PATCH), "undo": load_patch(directory / UNDO)}


def treat(
    case: Case,
    where: Localization | Sequence[str],
    plan: str | Plan = "default",
    *,
    checkpoints: Checkpoints | None = None,
) -> Treatment:
    """Carry out a plan on a copy of the case's model; the model given is never modified.

    Training sees `repair`; the choice between the treated model and the untouched one is made on `select`,
    except under protocol ``"paper"``, which always keeps the treated one.

    Args:
        where: a localization, whose flagged groups are treated, or names of groups.
        plan: ``"default"``, a preset, a TOML file or a Plan.
        checkpoints: where to save after each epoch and to resume from.

    Raises:
        GroupError: no such group.
        UnknownNameError: no such plan.
    """
    plan = load_plan(plan)
    groups = _groups(case, where, plan)
    if isinstance(plan.how, Nothing) or not groups:
        return _untouched(case, plan, "the plan is to change nothing" if groups else _nothing_flagged(where))
    model, run, cost = fine_tune(case, groups, plan.how, checkpoints)
    if base_sha256(canonical_state(case.model)) != case.weights_sha256:
        raise SutureError("the case's model changed while a copy of it was treated; nothing was written")
    tried = _tried(case, model, plan.name)
    net = int(tried["net"].iloc[-1])
    moved = f"{plan.name} fixed {tried['fixed'].iloc[-1]} and broke {tried['broken'].iloc[-1]} of 'select'"
    if not len(run.history):
        return _untouched(case, plan, run.stopped or "no epoch was completed", tried)
    if net <= 0 and case.protocol != "paper":
        return _untouched(case, plan, f"{moved}, so the original was kept", tried, run.history, cost)
    patch, undo = between(canonical_state(case.model), canonical_state(model), plan.name, aliases_of(model))
    note = f"{moved} and was kept" + (f"; {run.stopped}" if run.stopped else "")
    return Treatment(
        plan=plan, kept=plan.name, groups=groups, history=run.history, cost=cost, tried=tried, note=note,
        patch=patch, undo=undo,
    )  # fmt: skip


def _groups(case: Case, where: Localization | Sequence[str], plan: Plan) -> list[str]:
    if isinstance(plan.where, Everything):
        return list(case.groups)
    if isinstance(plan.where, Groups):
        wanted = list(plan.where.names)
    else:
        named = [where] if isinstance(where, str) else where
        wanted = list(named.flagged if isinstance(named, Localization) else named)
    return known_groups(case.groups, wanted)


def _nothing_flagged(where: Localization | Sequence[str]) -> str:
    if isinstance(where, Localization) and not where.n_errors:
        return (
            f"the model makes no error on the {where.n} examples of 'diagnose', so there is nothing to treat; give "
            "more data, or data on which it fails"
        )
    return "no group was flagged, so there is nothing to treat"


def _tried(case: Case, model: nn.Module, name: str) -> pd.DataFrame:
    before, after = (
        evaluate(m, case.splits["select"], case.task, device=case.device, batch_size=case.batch_size,
                 name="the examples of 'select'")
        for m in (case.model, model)
    )  # fmt: skip
    moves = flips(before.right, after.right)
    return pd.DataFrame(
        {
            "candidate": ["none", name],
            "fixed": [0, moves.fixed],
            "broken": [0, moves.broken],
            "net": [0, moves.net],
        }
    )


def _untouched(
    case: Case, plan: Plan, why: str, tried: pd.DataFrame | None = None, history: pd.DataFrame | None = None,
    cost: Cost | None = None,
) -> Treatment:  # fmt: skip
    state = canonical_state(case.model)
    patch, undo = between(state, state, "none")
    nothing = pd.DataFrame({"candidate": ["none"], "fixed": [0], "broken": [0], "net": [0]})
    return Treatment(
        plan=plan, kept="none", groups=[], history=pd.DataFrame() if history is None else history,
        cost=cost or Cost(), tried=nothing if tried is None else tried, note=why, patch=patch, undo=undo,
    )  # fmt: skip
