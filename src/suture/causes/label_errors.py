"""Label-error suspects by confident learning (Northcutt et al. 2021), so that nothing is repaired to fit wrong labels.

An example is suspected when the network is as sure of another class as it usually is of examples labelled so. A
network that *fails* systematically looks the same from here, so look at suspects before leaving them out.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture.case import Case
from suture.errors import DataError, InvalidArgumentError, NonFiniteError
from suture.splits import Split
from suture.tasks import batches, forward

# cleanlab is an extra: it is imported when suspects are asked for.
# ruff: noqa: PLC0415

COLUMNS = ["position", "label", "suggested", "confidence", "suggested_confidence"]


def label_suspects(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> pd.DataFrame:
    """Examples whose label is probably wrong, the least credible first.

    The off-diagonal of the confident joint says how many there are; those with the lowest normalised margin,
    p(label) − max p(other), are taken (cleanlab's ``low_normalized_margin``). It is a strict way, and to leave out a
    hard example with a right label costs more than to keep a wrong label: a repair learns from hard examples.

    Args:
        probabilities: (n, classes), each row from a network that was not trained on that example.
        labels: (n,), as given.

    Returns:
        Columns position, label, suggested (the most probable class), confidence (the probability of the label) and
        suggested_confidence (that of the other).
        Only examples that the network gets wrong are among them.

    Raises:
        InvalidArgumentError: cleanlab is not installed.
        DataError: shapes do not agree, a label is no class, or all labels are the same.
        NonFiniteError: a probability is NaN or infinite.
    """
    find = find_label_issues()
    labels = np.asarray(labels)
    _check(probabilities, labels)
    suggested = probabilities.argmax(1) if probabilities.size else np.zeros(len(labels), int)
    wrong = suggested != labels
    if not wrong.any():
        return pd.DataFrame({name: np.zeros(0, float if "confidence" in name else int) for name in COLUMNS})
    if len(np.unique(labels)) < 2:
        raise DataError("label suspects need labels of two classes at least, and all examples have the same")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that nothing is labelled or predicted as
        try:
            found = find(labels, probabilities, filter_by="low_normalized_margin", n_jobs=1)
        except ValueError as error:  # what cleanlab cannot judge
            raise DataError(f"cleanlab cannot judge these labels: {' '.join(str(error).split())}") from error
    suspects = np.flatnonzero(found & wrong)
    table = pd.DataFrame({
        "position": suspects, "label": labels[suspects], "suggested": suggested[suspects],
        "confidence": probabilities[suspects, labels[suspects]],
        "suggested_confidence": probabilities[suspects, suggested[suspects]],
    })  # fmt: skip
    return table.sort_values("confidence", kind="stable", ignore_index=True)


def suspects_of(case: Case, split: str | Split) -> pd.DataFrame:
    """The suspects of a split, by the case's own network; positions are those in the split.

    Confident learning needs probabilities out of sample. The network was not trained on the examples of a case, so its
    probabilities are; only further examples (``repair_extra``) may be training data, and are left out.

    Raises:
        InvalidArgumentError: the task gives no probabilities of classes, or cleanlab is not installed.
        DataError: targets are not one integer per example.
    """
    find_label_issues()  # its absence is said before the network runs
    whole = case.splits[split] if isinstance(split, str) else split
    examples = whole.without_extra()
    places = {index: position for position, index in enumerate(whole.indices)}
    found = label_suspects(*_probabilities(case, examples))
    return found.assign(position=[places[examples.indices[i]] for i in found["position"]])


def find_label_issues() -> Callable[..., NDArray[np.bool_]]:
    """cleanlab's function of that name.

    Raises:
        InvalidArgumentError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues as find
    except ImportError as error:
        raise InvalidArgumentError(
            "label suspects need cleanlab, which is not installed; pip install 'suture[labels]'"
        ) from error
    return find  # type: ignore[no-any-return]


def _probabilities(case: Case, examples: Split) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(n, classes) and labels (n,) of examples."""
    task, probabilities, labels = case.task, list[Tensor](), list[Tensor]()
    if not hasattr(task, "probabilities"):
        raise InvalidArgumentError(
            f"label suspects need probabilities of classes, which the task {type(task).__name__} does not offer"
        )
    name = f"the examples of '{examples.name}'"
    with torch.no_grad():
        for batch in batches(examples, task, case.device, case.batch_size, f"reading the labels of '{examples.name}'"):
            if not isinstance(batch[1], Tensor) or batch[1].dim() != 1 or batch[1].is_floating_point():
                raise DataError(f"label suspects need one label per example, and the targets of {name} are none")
            probabilities.append(task.probabilities(forward(case.model, batch, task, name), batch))
            labels.append(batch[1])
    if not labels:
        raise DataError(f"there are no {name}")
    return torch.cat(probabilities).cpu().double().numpy(), torch.cat(labels).cpu().numpy()


def _check(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise DataError(
            f"probabilities of shape {probabilities.shape} and labels of shape {labels.shape} do not go together; "
            "give (examples, classes) and (examples,)"
        )
    if not np.isfinite(probabilities).all():
        raise NonFiniteError("some probabilities are NaN or infinite, so that no label can be judged by them")
    if labels.size and not (labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        raise DataError(f"labels must be integers from 0 to {probabilities.shape[1] - 1}, as many as there are classes")
