"""Examples to look at: fixed and broken ones, over all of `verify` and in the confusions that changed most.

How many there are is bounded, so that neither a result nor a page grows with the data.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from suture.case import Case
from suture.tasks import Outcomes
from suture.tasks.outcomes import batches, forward

GALLERY = 24  # examples of each kind
CELLS, PER_CELL = 10, 4  # confusions of which examples are kept, and how many of each kind
COLUMNS = ["kind", "example", "true", "before", "after", "sure_before", "sure_after"]
CELL = ["true class", "predicted class"]  # the confusion that an example left, or joined
Shown = tuple[pd.DataFrame, NDArray[np.uint8] | None]
KINDS = ("fixed", "broken")


def gallery(
    case: Case, repaired: nn.Module, before: Outcomes, after: Outcomes
) -> tuple[pd.DataFrame, dict[str, NDArray[np.uint8]]]:
    """Fixed and broken examples, those whose loss changed most first, with columns `COLUMNS`.

    Returns:
        The rows, and pictures by kind, (k, h, w, c) in the order of the rows.
    """
    tables, pictures = [], {}
    for kind in KINDS:
        table, drawn = _shown(case, repaired, before, after, kind, _moved(before, after, kind)[:GALLERY])
        tables.append(table)
        if drawn is not None:
            pictures[kind] = drawn
    return _joined(tables, COLUMNS), pictures


def cells(case: Case, repaired: nn.Module, before: Outcomes, after: Outcomes, pairs: pd.DataFrame) -> Shown:
    """Examples that were fixed out of, or broken into, each of the confusions that changed most.

    Args:
        pairs: what `suture.stages.subsets.pair_table` gives.

    Returns:
        Rows with columns `CELL` and `COLUMNS`, and their pictures (k, h, w, c), or None.
    """
    changed = pairs[pairs["change"] != 0]
    order = changed["change"].abs().sort_values(ascending=False, kind="stable").index[:CELLS]
    moves = {kind: _by_cell(case, before, after, kind) for kind in KINDS} if len(order) else {}
    tables, pictures = [], []
    for true, predicted in changed.loc[order, ["true", "predicted"]].itertuples(index=False):
        for kind in moves:
            positions = moves[kind].get((true, predicted), [])[:PER_CELL]
            table, drawn = _shown(case, repaired, before, after, kind, positions)
            tables.append(table.assign(**{CELL[0]: true, CELL[1]: predicted}))
            pictures += [] if drawn is None else [drawn]
    rows = _joined(tables, [*CELL, *COLUMNS])
    complete = len(rows) > 0 and sum(map(len, pictures)) == len(rows) and len({p.shape[1:] for p in pictures}) == 1
    return rows, np.concatenate(pictures) if complete else None


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    rows = [row for table in tables for row in table[columns].to_numpy(object).tolist()]  # concat would guess dtypes
    return pd.DataFrame(rows, columns=columns)


def _moved(before: Outcomes, after: Outcomes, kind: str) -> list[int]:
    """Positions of the fixed or broken examples, largest change of the loss first."""
    hit = ~before.right & after.right if kind == "fixed" else before.right & ~after.right
    positions = np.flatnonzero(hit)
    change = (after.losses - before.losses)[positions]
    return [int(i) for i in positions[np.argsort(change if kind == "fixed" else -change, kind="stable")]]


def _by_cell(case: Case, before: Outcomes, after: Outcomes, kind: str) -> dict[tuple[str, str], list[int]]:
    """(true, wrong prediction) → positions of the examples that left it fixed, or joined it broken."""
    wrong = before.predictions if kind == "fixed" else after.predictions
    found: dict[tuple[str, str], list[int]] = {}
    if before.targets is None or wrong is None:
        return found
    for i in _moved(before, after, kind):
        pair = case.class_name(int(before.targets[i])), case.class_name(int(wrong[i]))
        found.setdefault(pair, []).append(i)
    return found


def _shown(
    case: Case, repaired: nn.Module, before: Outcomes, after: Outcomes, kind: str, positions: list[int]
) -> Shown:
    """Rows and pictures of some examples of a kind."""
    models = ((case.model, before.predictions), (repaired, after.predictions))
    sure = [_sure(case, model, predictions, positions) for model, predictions in models]
    rows = [
        [kind, case.splits["verify"].label(i), *_names(case, before, after, i), *(share[k] for share in sure)]
        for k, i in enumerate(positions)
    ]
    pictures = case.pictures("verify", positions) if positions else None
    return pd.DataFrame(rows, columns=COLUMNS), pictures


def _names(case: Case, before: Outcomes, after: Outcomes, i: int) -> list[str | None]:
    """True class, and predicted before and after, where they are known."""
    columns = (before.targets, before.predictions, after.predictions)
    return [None if labels is None else case.class_name(int(labels[i])) for labels in columns]


def _sure(
    case: Case, model: nn.Module, predictions: NDArray[np.int64] | None, positions: list[int]
) -> list[float | None]:
    """The probability that a model gives its own prediction, where the task has probabilities."""
    task: Any = case.task
    if not positions or predictions is None or not hasattr(task, "probabilities"):
        return [None] * len(positions)
    chosen = case.splits["verify"].only(positions)
    parts = []
    with torch.inference_mode():
        for batch in batches(chosen, task, case.device, case.batch_size):
            outputs = forward(model.eval(), batch, task, "the examples of 'verify'")
            parts.append(task.probabilities(outputs, batch).double().cpu().numpy())
    shares = np.concatenate(parts)
    return [float(row[k]) if 0 <= k < len(row) else None for row, k in zip(shares, predictions[positions], strict=True)]
