"""Values of metadata columns: under which more is wrong, and which set some examples apart."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from suture.causes.rates import RATES, error_rates, p_more_wrong
from suture.splits import writable
from suture.stats import ALPHA, holm
from suture.wording import percent

LEAST = 3  # examples with a value; fewer make no pattern, whoever has them
MOST_NUMBERS = 10  # distinct numbers that are taken one by one; more are cut into quarters

COLUMNS = ["slice", "column", "value", "count", "n", "share_outside", "p", "text"]
SUBGROUPS = ["column", "value", *RATES, "p"]


def subgroups(metadata: Mapping[str, Sequence[Any]], right: NDArray[np.bool_]) -> tuple[pd.DataFrame, int]:
    """Values under which the network is wrong more often than elsewhere, most surely first.

    Tested as `over_represented` tests: where being wrong has nothing to do with the metadata, there is a row in at
    most 5 % of cases.

    Args:
        metadata: column → a value for each of n examples; numbers with more than ten values are cut into quarters.
        right: (n,) verdicts.

    Returns:
        Columns column, value (text), n and errors (examples that have it, and how many of them are wrong), rate with
        its Wilson 95 % interval (low, high), rate_outside (of all others), p (Holm); and how many values were tested.
    """
    found = [(column, value, has, p_more_wrong(has, right)) for column, value, has in _values(metadata)]
    adjusted = holm(np.array([p for *_, p in found], float))
    rows = [
        [column, value, *error_rates(has, right), float(p)]
        for (column, value, has, _), p in zip(found, adjusted, strict=True)
        if p < ALPHA
    ]
    table = pd.DataFrame(rows, columns=SUBGROUPS).sort_values("p", kind="stable", ignore_index=True)
    return table, len(found)


def over_represented(metadata: Mapping[str, Sequence[Any]], inside: Mapping[str, NDArray[np.bool_]]) -> pd.DataFrame:
    """Values that some examples have more often than the rest, most surely first.

    One-sided Fisher exact tests at 5 %, with Holm's correction over every slice, column and value. Which values are
    tested depends on how many examples have them and not on which, so the correction stays valid.

    Args:
        metadata: column → a value for each of n examples; numbers with more than ten values are cut into quarters.
        inside: slice → (n,) its members.

    Returns:
        Columns slice, column, value (text), count (members that have it), n (members), share_outside (of all others
        that have it), p (Holm), text.
    """
    rows = [
        [name, column, value, *_counted(has, members)]
        for column, value, has in _values(metadata)
        for name, members in inside.items()
    ]
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    table["p"] = holm(table["p"].to_numpy(float))
    table = table[table["p"] < ALPHA].sort_values(["slice", "p"], kind="stable", ignore_index=True)
    return table.assign(text=[_sentence(row) for row in table.to_dict("records")])


def _values(metadata: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Column, value as text and (n,) who has it, for each value that some have and others do not."""
    for column, values in metadata.items():
        texts, place, counts = np.unique(np.array(_texts(values), str), return_inverse=True, return_counts=True)
        for i in np.flatnonzero((counts >= LEAST) & (counts < len(place))):
            yield column, str(texts[i]), np.asarray(place == i, bool)


def _texts(values: Sequence[Any]) -> list[str]:
    """(n,) values as text, or the quarter of the column that each lies in."""
    column = pd.Series(list(values)).replace([np.inf, -np.inf], np.nan)
    missing = column.isna().tolist()
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        if column.nunique() > MOST_NUMBERS:
            quarters = pd.qcut(column, 4, duplicates="drop")
            shown = [
                q if gone else f"{q.left:.10g} to {q.right:.10g}" for q, gone in zip(quarters, missing, strict=True)
            ]
        else:
            shown = [f"{x:.10g}" for x in column]
    else:
        shown = [writable(x) for x in column]
    return ["missing" if gone else str(text) for text, gone in zip(shown, missing, strict=True)]


def _counted(has: NDArray[np.bool_], members: NDArray[np.bool_]) -> tuple[int, int, float, float]:
    """Members with the value, members, share of the others with it, and the one-sided p."""
    counts = np.array([[(part & has).sum(), (part & ~has).sum()] for part in (members, ~members)])
    p = float(fisher_exact(counts, alternative="greater").pvalue)
    others = int(counts[1].sum())
    return int(counts[0, 0]), int(counts[0].sum()), float(counts[1, 0] / others) if others else float("nan"), p


def _sentence(row: Mapping[Any, Any]) -> str:
    had = f"{row['count']} of {row['n']} have {row['column']} = {row['value']}"
    return f"{had}, against {percent(row['share_outside'], 0)} elsewhere"
