"""Whether the classes of the data are those of the network, in its order: what no layer is to blame for."""

import numpy as np
import torch

from suture.case import Case
from suture.tasks import Outcomes, batches
from suture.wording import several

FEWEST = 3  # examples of a class that can tell where it goes
NAMED = 4  # classes that are named in a sentence


def doubts(case: Case, split: str, outcomes: Outcomes) -> list[str]:
    """Sentences on the labels of a split, none where they look like the network's.

    Args:
        outcomes: of the case's model on the split.
    """
    return [*missing_folders(case, split), *permuted(case, outcomes)]


def missing_folders(case: Case, split: str) -> list[str]:
    """Fewer classes in the data than the network has: labels are numbered by name, so a missing one shifts them."""
    if not case.classes or not hasattr(case.task, "probabilities"):
        return []
    with torch.inference_mode():
        batch = next(batches(case.splits[split].only([0]), case.task, case.device, 1))
        outputs = case.task.probabilities(case.task.outputs(case.model, batch), batch).shape[-1]
    if outputs == len(case.classes):
        return []
    return [
        f"the network tells {outputs} classes and the data has {len(case.classes)}: labels are numbered by the names "
        "of the folders, so that a folder which is missing shifts all that follow; name all of the network's "
        "classes, in its order, with --classes"
    ]


def permuted(case: Case, outcomes: Outcomes) -> list[str]:
    """Classes of which most examples go to one other class, each to its own: the labels have another order.

    That is said of a circle of classes, such as two that were swapped, and where it is so of half the classes.
    """
    if outcomes.targets is None or outcomes.predictions is None:
        return []
    labels = np.unique(outcomes.targets).tolist()
    goes = {label: to for label in labels if (to := _most(outcomes, label)) is not None}
    moved = {label: to for label, to in goes.items() if to != label}
    each_its_own = len(moved) > 1 and len(set(goes.values())) == len(goes)
    if not each_its_own or not (set(moved) == set(moved.values()) or 2 * len(moved) >= len(labels)):
        return []
    named = ", ".join(f"'{case.class_name(a)}' for '{case.class_name(b)}'" for a, b in list(moved.items())[:NAMED])
    more = ", …" if len(moved) > NAMED else ""
    return [
        f"the labels look permuted: most examples of {several(len(moved), 'class', 'classes')} are taken for one other "
        f"class each ({named}{more}); unless the network itself has swapped them, the data numbers its classes in "
        f"another order: check that before anything is repaired{_by_name(case)}"
    ]


def _most(outcomes: Outcomes, label: int) -> int | None:
    """The class that more than half the examples of a label are taken for; None where there is none, or too few."""
    assert outcomes.predictions is not None
    predicted = outcomes.predictions[outcomes.targets == label]
    found, counts = np.unique(predicted, return_counts=True)
    if len(predicted) < FEWEST or 2 * counts.max() <= len(predicted):
        return None
    return int(found[counts.argmax()])


def _by_name(case: Case) -> str:
    """That names which are numbers are sorted as text, where that matters."""
    names = case.classes or []
    if not all(name.isdecimal() for name in names) or names != sorted(names) or names == sorted(names, key=int):
        return ""
    return f" (folders are sorted by name: {', '.join(names[:4])}, …; --classes gives the network's order)"
