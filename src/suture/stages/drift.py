"""Drift: how far a repair moved the outputs on data that it was not about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from suture.case import Case
from suture.errors import DataError, InvalidArgumentError
from suture.splits import Index, Split, classes_of, writable
from suture.stats import Interval, flips, mcnemar, mean_interval, wilson
from suture.tasks import batches, forward

NAME = "untouched"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Original against repaired on untouched examples; None where the task or the data do not give it.

    Attributes:
        n: examples.
        kl: mean Kullback-Leibler divergence, in nats, of the repaired model's probabilities from the original's, with
            a 95 % bootstrap interval over examples.
        changed: share of predictions that differ, with a 95 % Wilson interval.
        accuracy_before, accuracy_after: where the data are labelled, with 95 % Wilson intervals.
        fixed, broken, p_value: as on `verify`, where the data are labelled.
    """

    n: int
    kl: float | None
    kl_interval: Interval | None
    changed: float | None
    changed_interval: Interval | None
    accuracy_before: float | None
    accuracy_after: float | None
    interval_before: Interval | None
    interval_after: Interval | None
    fixed: int | None
    broken: int | None
    p_value: float | None


class _Labelled:
    """A data set with its labels put in place of its own; without labels, one that any model knows."""

    def __init__(self, data: Any, rename: list[int] | None) -> None:
        self._data, self._rename = data, rename
        self.names = getattr(data, "names", None)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        inputs, target = self._data[i]
        return inputs, self._rename[int(target)] if self._rename is not None else 0


class Untouched(Split):
    """Examples that the repair was not about.

    Attributes:
        labelled: whether their targets mean what the case's do.
    """

    def __init__(self, index: Index, *, labelled: bool) -> None:
        super().__init__(NAME, index, range(len(index.hashes)))
        self.labelled = labelled


def untouched_examples(case: Case, data: Any) -> Untouched:
    """A data set of pairs (input, target) as untouched examples of a case.

    They count as unlabelled where every target is None, or where the data set names classes that the case does not
    have; classes that it has are matched by name.

    Raises:
        DataError: the data are no pairs, only some of them are labelled, or some stand in a split of the case.
    """
    if isinstance(data, Untouched):
        return data
    if isinstance(data, dict):
        raise DataError("untouched data is one data set, not a dict of splits")
    index = Index(data, NAME)
    n = len(index.hashes)
    without = sum(data[i][1] is None for i in range(n)) if None in index.strata else 0
    if 0 < without < n:
        raise DataError(f"{without} of {n} untouched examples have no label; give all of them one, or none")
    theirs = [writable(name) for name in classes_of(data) or []]
    labelled = not without and (not theirs or not case.classes or set(theirs) <= set(case.classes))
    if not labelled:
        index.data = _Labelled(data, None)
    elif theirs and case.classes and theirs != case.classes:
        index.data = _Labelled(data, [case.classes.index(name) for name in theirs])
    found = Untouched(index, labelled=labelled)
    _refuse_known(case, found)
    return found


def _refuse_known(case: Case, untouched: Untouched) -> None:
    for name, split in case.splits.items():
        there = {content: i for i, content in enumerate(split.hashes)}
        shared = [(i, there[content]) for i, content in enumerate(untouched.hashes) if content in there]
        if shared:
            i, j = shared[0]
            raise DataError(
                f"{len(shared)} untouched examples also stand in '{name}': the first is {untouched.label(i)}, there "
                f"{split.label(j)}; drift is measured on data that the repair was not about, so give other examples"
            )


def measure_drift(case: Case, repaired: nn.Module, data: Any) -> Drift:
    """Compare the case's model with its repaired copy on untouched examples, both on each batch.

    Args:
        data: as `untouched_examples` takes it.

    Raises:
        DataError: the data cannot be used, or a model's output on them is not finite.
    """
    untouched = untouched_examples(case, data)
    columns: dict[str, list[Tensor]] = {"kl": [], "changed": [], "before": [], "after": []}
    models = (case.model.eval(), repaired.eval())
    with torch.inference_mode():
        for batch in batches(untouched, case.task, case.device, case.batch_size, "evaluating the untouched examples"):
            outputs = [forward(model, batch, case.task, "the untouched examples") for model in models]
            for name, measured in _measured(case.task, outputs, batch, labelled=untouched.labelled).items():
                columns[name].append(measured.cpu())
    found = {name: torch.cat(parts).numpy() for name, parts in columns.items() if parts}
    if not found:
        raise InvalidArgumentError(
            f"the task '{case.task_name}' has neither predictions nor probabilities and the untouched data no labels, "
            "so there is nothing to compare; give labelled data"
        )
    return _drift(len(untouched), found, case.seed)


def _measured(task: Any, outputs: list[Any], batch: Any, *, labelled: bool) -> dict[str, Tensor]:
    """What a batch of n examples tells, (n,) each."""
    found = {}
    if hasattr(task, "probabilities"):
        found["kl"] = _divergence(*(task.probabilities(each, batch).double() for each in outputs))
    if hasattr(task, "predictions"):
        old, new = (task.predictions(each, batch) for each in outputs)
        found["changed"] = old != new
    if labelled:
        found["before"], found["after"] = (task.verdicts(each, batch) for each in outputs)
    return found


def _divergence(old: Tensor, new: Tensor) -> Tensor:
    """Σ p log(p / q) over classes, (n, classes) each → (n,); a share below the smallest float32 counts as that."""
    if not (old.isfinite().all() and new.isfinite().all()):
        raise DataError("a model's output on the untouched examples is not finite; check them and --mean and --std")
    least = torch.finfo(torch.float32).tiny
    terms = torch.xlogy(old, old.clamp_min(least)) - torch.xlogy(old, new.clamp_min(least))
    return terms.sum(1).clamp_min(0)  # rounding must not make it negative


def _drift(n: int, found: dict[str, NDArray[Any]], seed: int) -> Drift:
    kl, changed = found.get("kl"), found.get("changed")
    moves = flips(found["before"], found["after"]) if "before" in found else None
    return Drift(
        n=n,
        kl=float(np.mean(kl)) if kl is not None else None,
        kl_interval=mean_interval(kl, seed) if kl is not None else None,
        changed=float(np.mean(changed)) if changed is not None else None,
        changed_interval=wilson(int(changed.sum()), n) if changed is not None else None,
        accuracy_before=moves.right_before / n if moves else None,
        accuracy_after=moves.right_after / n if moves else None,
        interval_before=wilson(moves.right_before, n) if moves else None,
        interval_after=wilson(moves.right_after, n) if moves else None,
        fixed=moves.fixed if moves else None,
        broken=moves.broken if moves else None,
        p_value=mcnemar(moves.fixed, moves.broken) if moves else None,
    )
