"""Compare: who gets what wrong, for any number of models on one data set (section 5.2, Table 7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from torch import nn

from suture.case import pick_device
from suture.errors import InvalidArgumentError
from suture.images import ImageFormat
from suture.loading import load_data, load_task
from suture.stages.result import Result, Table
from suture.stats import flips, holm, mcnemar, wilson
from suture.tasks import Examples, Outcomes, Task, evaluate


@dataclass(frozen=True, kw_only=True)
class Comparison(Result, stage="compare", schema=1):
    """Errors of several models on the same examples.

    Attributes:
        n: examples.
        models: model, errors, accuracy, low, high (95 % Wilson interval).
        categories: category, count: all right, all wrong, only X wrong for every model, and X right and Y wrong
            for every ordered pair; the rows overlap, as Table 7's do.
        patterns: wrong (names of the models that are wrong, or nobody), count: these add up to n.
        pairs: a row per pair of models: a, b, only_a_wrong, only_b_wrong, both_wrong, p_value (exact McNemar),
            p_adjusted (Holm, over all pairs), both_expected (wrong together if errors were independent), overlap
            (both_wrong / both_expected), p_overlap (hypergeometric, at least that many together), disagreement
            (share of examples with different predictions; missing for tasks without predictions).
    """

    n: int
    models: Table
    categories: Table
    patterns: Table
    pairs: Table


def compare(
    models: Mapping[str, nn.Module],
    data: Examples | str | Path,
    *,
    image: ImageFormat | None = None,
    task: str | Task = "classification",
    device: str = "auto",
    batch_size: int = 128,
) -> Comparison:
    """Compare two or more models example by example.

    Args:
        models: name → model; none is modified.
        data: n pairs (input, target), the same for all; or a path as `suture.load_data` takes it.
        image: how pixels become inputs, where `data` is a path.

    Raises:
        InvalidArgumentError: fewer than two models.
        NonFiniteError: a model's outputs are not finite.
    """
    if len(models) < 2:
        raise InvalidArgumentError("there is nothing to compare: give two models or more")
    kind, where = load_task(task), pick_device(device)
    examples: Examples = load_data(data, image) if isinstance(data, str | Path) else data
    outcomes = {}
    for name, model in models.items():
        home = next(iter(model.parameters())).device
        outcomes[name] = evaluate(
            model.to(where), examples, kind, device=where, batch_size=batch_size, name=f"the examples with {name}"
        )
        model.to(home)
    wrong = pd.DataFrame({name: ~each.right for name, each in outcomes.items()})
    return Comparison(
        n=len(wrong),
        models=_models(wrong),
        categories=_categories(wrong),
        patterns=_patterns(wrong),
        pairs=_pairs(outcomes),
    )


def _models(wrong: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for name in wrong:
        errors = int(wrong[name].sum())
        interval = wilson(len(wrong) - errors, len(wrong))
        rows.append([name, errors, 1 - errors / len(wrong), interval.low, interval.high])
    return pd.DataFrame(rows, columns=["model", "errors", "accuracy", "low", "high"])


def _categories(wrong: pd.DataFrame) -> pd.DataFrame:
    names, total = list(wrong), wrong.sum(axis=1)
    rows = [("all right", int((total == 0).sum())), ("all wrong", int((total == len(names)).sum()))]
    rows += [(f"only {name} wrong", int((wrong[name] & (total == 1)).sum())) for name in names]
    rows += [
        (f"{a} right, {b} wrong", int((~wrong[a] & wrong[b]).sum())) for a in names for b in names if a != b
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["category", "count"])


def _patterns(wrong: pd.DataFrame) -> pd.DataFrame:
    names = [", ".join(wrong.columns[row]) or "nobody" for row in wrong.to_numpy()]
    counts = pd.Series(names).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return pd.DataFrame({"wrong": counts.index, "count": counts.to_numpy()})


def _pairs(outcomes: Mapping[str, Outcomes]) -> pd.DataFrame:
    rows = []
    for (a, one), (b, two) in combinations(outcomes.items(), 2):
        moves = flips(one.right, two.right)  # fixed: a wrong, b right
        n, wrong_a, wrong_b = moves.n, int((~one.right).sum()), int((~two.right).sum())
        expected = wrong_a * wrong_b / n
        together = scipy_stats.hypergeom(n, wrong_a, wrong_b).sf(moves.both_wrong - 1)
        rows.append({
            "a": a, "b": b, "only_a_wrong": moves.fixed, "only_b_wrong": moves.broken, "both_wrong": moves.both_wrong,
            "p_value": mcnemar(moves.fixed, moves.broken), "both_expected": expected,
            "overlap": moves.both_wrong / expected if expected else float("nan"), "p_overlap": float(together),
            "disagreement": _disagreement(one.predictions, two.predictions),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table.insert(6, "p_adjusted", holm(table["p_value"].to_numpy()))
    return table


def _disagreement(a: NDArray[np.int64] | None, b: NDArray[np.int64] | None) -> float:
    return float((a != b).mean()) if a is not None and b is not None else float("nan")
