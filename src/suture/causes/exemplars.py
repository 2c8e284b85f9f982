"""Which errors of a confusion to look at: the ordinary ones and the extreme ones."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from suture.case import Case
from suture.causes.features import penultimate
from suture.causes.margins import Pair, class_scores
from suture.errors import DataError
from suture.tasks import batches, forward

TYPICAL, EXTREME = "typical", "extreme"


def exemplars(case: Case, positions: Sequence[int], pair: Pair, each: int = 3) -> pd.DataFrame:
    """The errors nearest to the pair's centre in the network's features, and those furthest over the border.

    Args:
        positions: the pair's errors, in `diagnose`.
        each: how many of both kinds; none is named twice.

    Returns:
        Columns kind (``"typical"``, then ``"extreme"``), position, margin (score of true minus predicted, nats; the
        further below zero, the surer the network was; NaN where the task gives no scores). A task without features
        has no typical ones.
    """
    examples = case.splits["diagnose"].only(positions)
    margins, features = margins_of(case, positions, pair), penultimate(case, examples)
    chosen: list[tuple[str, int]] = []
    if features is not None and np.isfinite(features).all():
        away = np.linalg.norm(features - features.mean(0), axis=1)
        chosen += [(TYPICAL, int(i)) for i in np.argsort(away, kind="stable")[:each]]
    taken = {i for _, i in chosen}
    order = [int(i) for i in np.argsort(margins, kind="stable") if int(i) not in taken]
    chosen += [(EXTREME, i) for i in order[: each if taken else 2 * each]]
    rows = [(kind, int(positions[i]), float(margins[i])) for kind, i in chosen]
    return pd.DataFrame(rows, columns=["kind", "position", "margin"])


def margins_of(case: Case, positions: Sequence[int], pair: Pair) -> NDArray[np.float64]:
    """(n,): score of true minus predicted, in nats; NaN where the task gives no scores of classes."""
    found: list[NDArray[np.float64]] = []
    examples = case.splits["diagnose"].only(positions)
    with torch.no_grad():
        for batch in batches(examples, case.task, case.device, case.batch_size):
            outputs = forward(case.model, batch, case.task, "the examples of 'diagnose'")
            try:
                scores = class_scores(case.task, outputs, batch)
            except DataError:
                return np.full(len(positions), np.nan)
            found.append((scores[:, pair.true] - scores[:, pair.predicted]).cpu().double().numpy())
    return np.concatenate(found)
