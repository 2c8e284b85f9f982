"""Does a localizer name the group that was damaged? One planted fault, every localizer asked: a cell of a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from suture.bench.answers import Answer, ask, asked_for, rank_of
from suture.bench.examples import Pairs
from suture.bench.faults import applies
from suture.bench.networks import Subject, load_subject
from suture.bench.oracle import consult, gains, judged
from suture.bench.severity import Planted, calibrate
from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.moments import measure_moments
from suture.registry import suggest
from suture.rundir import fingerprint
from suture.stages.localize import localize
from suture.tasks import Classification

HEALTHY = "healthy"  # a kind of fault that is none
RECORDS = ("none", "moments", "reference")
DROPS = (0.05, 0.25)  # accuracy that a fault costs, drawn evenly in between
FLAGGED = "flagged"  # stands in the place of a localizer: the groups that Localize would treat

Row = dict[str, Any]


def cell(
    network: str,
    group: str,
    kind: str,
    seed: int,
    record: str = "none",
    data: str = "",
    weights: str = "",
    localizers: Sequence[str] = (),
    oracle: bool = False,
    draws: int = 5,
    directory: Path | None = None,
) -> list[Row]:
    """Plant one fault and ask every localizer; a row for each. docs/studies.md lists the columns.

    Args:
        network: a name in ``suture.bench.networks.NETWORKS``.
        group: what is damaged; ``"-"`` for the kind ``"healthy"``.
        kind: a name in ``suture.bench.FAULTS``, or ``"healthy"``: nothing is damaged, and every alarm is false.
        seed: of the fault, of its severity and of the examples.
        record: what is known of the healthy network beside its weights: ``"none"``, ``"moments"`` of its
            activations on examples like those it learnt from, or ``"reference"``: the healthy network itself.
        data, weights: where the network's files are; see `suture.bench.networks.Source`.
        localizers: names; ``"cheap"`` leaves the dearest out; none means all.
        oracle: whether to treat every group and see where that pays.
        draws: diagnosis sets that a healthy network is looked at with.
        directory: of the cell; what takes long to train is kept beside the cells.

    Returns:
        A row per localizer; or one row that says in `skipped` why the fault cannot be planted.

    Raises:
        UnknownNameError, GroupError: there is no such network, kind or localizer; there is no such group.
    """
    if record not in RECORDS:
        raise InvalidArgumentError(f"no record is called '{record}'; {suggest(record, list(RECORDS))}")
    subject = load_subject(network, data, weights, cache_of(directory))
    names = asked_for(localizers, reference=record == "reference")
    if kind == HEALTHY:
        return _undamaged(subject, record, seed, draws, names)
    pools = subject.pools(seed)
    planted = _planted(subject, pools, group, kind, seed)
    if isinstance(planted, str):
        return [{"planted": group, "skipped": planted}]
    fault = planted.fault
    case = case_of(planted.model, subject, pools["diagnose"], record, seed)
    rows = [_row(answer, case, group) for answer in ask(case, names)]
    if oracle:
        rows = _with_oracle(rows, case, planted.model, pools, group, seed)
    known = {"drop": fault.drop, "strength": fault.strength, "accuracy": fault.accuracy_after}
    return [row | known for row in rows]


def cache_of(directory: Path | None) -> Path | None:
    """Where the cells of a study keep networks: ``<out>/networks``, beside ``<out>/cells``."""
    return directory.parent.parent / "networks" if directory is not None else None


def case_of(model: nn.Module, subject: Subject, diagnose: Pairs, record: str, seed: int) -> Case:
    """A case with nothing but examples to diagnose on, and the record that is asked for."""
    task = Classification()
    moments = (
        measure_moments(subject.model, subject.trained_on, task, device=torch.device("cpu"))
        if record == "moments"
        else None
    )
    reference = subject.model if record == "reference" else None
    return Case(model, diagnose=diagnose, moments=moments, reference=reference, seed=seed, device="cpu")


def drop_of(seed: int, group: str, kind: str) -> float:
    """Accuracy that a fault is to cost: drawn evenly from 5 to 25 points."""
    generator = np.random.default_rng(int(fingerprint("drop", seed, group, kind)[:15], 16))
    return float(generator.uniform(*DROPS))


def _planted(subject: Subject, pools: dict[str, Pairs], group: str, kind: str, seed: int) -> Planted | str:
    """The damaged network, or why there is none."""
    if not applies(subject.model, group, kind):
        return f"'{kind}' does not apply to '{group}'"
    where, lessons = pools["calibrate"], pools["finetune"]
    try:
        return calibrate(
            subject.model, group, kind, drop_of(seed, group, kind), where.inputs, where.targets, seed,
            examples=(lessons.inputs, lessons.targets),
        )  # fmt: skip
    except InvalidArgumentError as error:
        return str(error)


def _row(answer: Answer, case: Case, planted: str) -> Row:
    """What a localizer said, beside the truth; `planted` is empty when nothing was."""
    row: Row = {
        "localizer": answer.localizer,
        "planted": planted,
        "groups": len(case.groups),
        "named": answer.named,
        "alarm": answer.alarm,
        "confidence": answer.confidence,
        "passes": answer.passes,
        "error": answer.error or None,
    }
    if planted and not answer.error:
        rank = rank_of(planted, answer.scores, answer.named)
        row |= {"hit": answer.named == planted, "top2": rank <= 2, "rank": rank}
    return row


def _undamaged(subject: Subject, record: str, seed: int, draws: int, names: Sequence[str]) -> list[Row]:
    """Rows on a healthy network, with a diagnosis set of its own for each draw.

    Who has no way to raise an alarm shows that on the first draw and is not asked again.
    """
    rows: list[Row] = []
    for draw in range(draws):
        drawn = int(fingerprint(HEALTHY, seed, draw)[:8], 16)
        case = case_of(subject.model, subject, subject.pools(drawn)["diagnose"], record, drawn)
        answers = ask(case, names)
        rows += [_row(answer, case, "") | {"draw": draw} for answer in answers]
        names = [answer.localizer for answer in answers if answer.alarm is not None or answer.error]
    return rows


def _with_oracle(
    rows: list[Row], case: Case, model: nn.Module, pools: dict[str, Pairs], planted: str, seed: int
) -> list[Row]:
    """The rows with what the oracle says, and one more for the groups that Localize would treat."""
    learn, score = pools["oracle_train"], pools["oracle_score"]
    alone = consult(model, learn, score, case.task, seed)

    def beside(row: Row, chosen: list[str], gained: float | None) -> Row:
        found = judged(chosen, gained, alone)
        named = row["named"]
        hits = named == found["best"] if not row["error"] else None
        return row | found | {"hit_best": hits, "planted_gain": float(alone[planted])}

    told = [beside(row, *_choice(row["named"], alone)) for row in rows]
    flagged = flagged_row(case, planted)
    chosen = flagged.pop("chosen")
    gained = gains(model, [chosen], learn, score, case.task, seed)[0] if chosen else None
    return [*told, beside(flagged, chosen, gained)]


def _choice(named: str | None, alone: pd.Series) -> tuple[list[str], float | None]:
    return ([named], float(alone[named])) if named is not None else ([], None)


def flagged_row(case: Case, planted: str) -> Row:
    """What ``suture.localize`` would treat, as a row like a localizer's; `chosen` lists the groups.

    Its `named` is the group with the highest estimate of what treating it gains.
    """
    row: Row = {"localizer": FLAGGED, "planted": planted, "groups": len(case.groups), "named": None, "error": None}
    try:
        found = localize(case)
    except Exception as error:  # as for a localizer: the others' rows are kept
        return row | {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300], "chosen": []}
    pays = found.pays["gain"].astype(float).dropna()
    return row | {
        "named": str(pays.idxmax()) if len(pays) else None,
        "passes": found.cost.get("pays"),
        "flagged": " ".join(found.flagged),
        "rule": found.rule,
        "chosen": list(found.flagged),
    }
