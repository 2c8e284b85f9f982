"""What may be wrong with the data that a treatment learns from: said, not mended."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import BaseModel
from scipy.stats import fisher_exact

from suture.case import Case
from suture.splits import Split
from suture.tasks import Outcomes, batches
from suture.training import Augment
from suture.treatments.plan import Plan
from suture.wording import percent, several

SURE = 1e-6  # two-sided p below which two accuracies are not those of one task
APART = 0.2  # and at least so far apart


def doubts_of(case: Case) -> list[str]:
    """Sentences on the repair examples, none where they look sound."""
    repair = case.splits["repair"]
    found = [*_missing_folders(case), *_contradictions(case, repair)]
    failing = case.outcomes("diagnose")
    found += _missing_classes(case, repair, failing)
    accuracy = case.outcomes("repair")
    counts = np.array([[each.right.sum(), (~each.right).sum()] for each in (accuracy, failing)])
    if failing.accuracy - accuracy.accuracy > APART and fisher_exact(counts).pvalue < SURE:
        found.append(
            f"the model is right on {percent(accuracy.accuracy, 0)} of 'repair' and on "
            f"{percent(failing.accuracy, 0)} of 'diagnose': their labels may not mean the same; check the order of the "
            "classes"
        )
    return found


def crops_of(plan: Plan, case: Case) -> list[str]:
    """Crops that lose much of a picture, in any training of a plan."""
    inputs = case.splits["repair"][0][0]
    return list(dict.fromkeys(filter(None, (augment.doubt(inputs) for augment in _augments(plan)))))


def _augments(part: BaseModel) -> Iterator[Augment]:
    """What happens to pictures in the trainings of a plan: its own word in place of its recipes'."""
    own = part if isinstance(part, Augment) else getattr(part, "augment", None)
    if own is not None:
        yield own
        return
    for _, value in part:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, BaseModel):
                yield from _augments(each)


def _missing_folders(case: Case) -> list[str]:
    """Fewer classes in the data than the network has: labels are numbered by name, so a missing one shifts them."""
    if not case.classes or not hasattr(case.task, "probabilities"):
        return []
    with torch.inference_mode():
        batch = next(batches(case.splits["repair"].only([0]), case.task, case.device, 1))
        outputs = case.task.probabilities(case.task.outputs(case.model, batch), batch).shape[-1]
    if outputs == len(case.classes):
        return []
    return [
        f"the network tells {outputs} classes and the data has {len(case.classes)}: labels are numbered by the names "
        "of the folders, so that a folder which is missing shifts all that follow; check that every class has one"
    ]


def _contradictions(case: Case, repair: Split) -> list[str]:
    """Equal inputs with different labels: one of them is wrong, and training cannot fit both."""
    labels: dict[str, set[int | None]] = defaultdict(set)
    for name in ("diagnose", "repair", "select"):
        if name in case.splits:
            for content, label in zip(case.splits[name].hashes, case.splits[name].strata, strict=True):
                labels[content].add(label)
    odd = sum(len(labels[content]) > 1 for content in repair.hashes)
    have = f"{several(odd, 'example')} of 'repair' {'has' if odd == 1 else 'have'}"
    return [f"{have} a twin with another label; check those labels"] if odd else []


def _missing_classes(case: Case, repair: Split, failing: Outcomes) -> list[str]:
    """Classes with errors that treatment has no example of."""
    if failing.targets is None or None in repair.strata:
        return []
    missing = sorted({int(t) for t in np.unique(failing.targets[~failing.right])} - set(repair.strata))
    if not missing:
        return []
    names = ", ".join(case.class_name(label) for label in missing[:5]) + (" and others" if len(missing) > 5 else "")
    return [f"'repair' has no example of {names}, where the model fails; such errors cannot be learnt from it"]
