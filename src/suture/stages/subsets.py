"""What a repair did to classes, confusions and slices: a row each, corrected for the number of rows.

Each table is a family of its own: in each of them, a word stands beside a row that did not change with a
probability of at most 5 %.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.splits import Split, writable
from suture.stats import ALPHA, Verdict, flips, several_looks
from suture.tasks import Outcomes

TESTED = ["p", "adjusted", "word"]
CLASSES = ["class", "n", "before", "after", "fixed", "broken", *TESTED]
PAIRS = ["true", "predicted", "before", "after", "change", "left", "joined", *TESTED]
SLICES = ["slice", "n", "before", "after", "fixed", "broken", *TESTED]
DISTINCT = 20  # values of a metadata column: more numbers than this are cut at their quartiles
Masks = dict[str, NDArray[np.bool_]]


def class_table(case: Case, before: Outcomes, after: Outcomes) -> pd.DataFrame:
    """Accuracy and flips of each class, with columns `CLASSES`; empty where targets are no labels."""
    if before.targets is None:
        return pd.DataFrame(columns=CLASSES)
    labels = [int(label) for label in np.unique(before.targets)]
    rows = [[case.class_name(label), *_moves(before, after, before.targets == label)] for label in labels]
    return with_tests(pd.DataFrame(rows, columns=CLASSES[:6]))


def slice_table(masks: Masks, before: Outcomes, after: Outcomes) -> pd.DataFrame:
    """Accuracy and flips of each slice, with columns `SLICES`; slices may overlap."""
    rows = [[name, *_moves(before, after, mask)] for name, mask in masks.items()]
    return with_tests(pd.DataFrame(rows, columns=SLICES[:6]))


def pair_table(case: Case, before: Outcomes, after: Outcomes) -> pd.DataFrame:
    """How often each class is taken for each other one, with columns `PAIRS`, most frequent before first.

    What is tested is whether more examples left the confusion than joined it.
    """
    if before.targets is None or before.predictions is None or after.predictions is None:
        return pd.DataFrame(columns=PAIRS)
    seen = [
        [(int(t), int(p)) if not right else None for t, p, right in zip(before.targets, predicted, hit, strict=True)]
        for predicted, hit in ((before.predictions, before.right), (after.predictions, after.right))
    ]
    counts: dict[tuple[int, int], list[int]] = {}  # before, after, left, joined
    for was, now in zip(*seen, strict=True):
        for pair, place in ((was, 0), (now, 1)):
            if pair is not None:
                counts.setdefault(pair, [0, 0, 0, 0])[place] += 1
                counts[pair][place + 2] += was != now
    rows = [
        [case.class_name(t), case.class_name(p), n[0], n[1], n[1] - n[0], n[2], n[3]]
        for (t, p), n in sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    ]
    return with_tests(pd.DataFrame(rows, columns=PAIRS[:7]), "left", "joined")


def _moves(before: Outcomes, after: Outcomes, mask: NDArray[np.bool_]) -> list[Any]:
    moves = flips(before.right[mask], after.right[mask])
    return [moves.n, moves.right_before / moves.n, moves.right_after / moves.n, moves.fixed, moves.broken]


def with_tests(table: pd.DataFrame, better: str = "fixed", worse: str = "broken") -> pd.DataFrame:
    """The table with p, p corrected for the number of rows, and what may be said of each row."""
    table["p"], table["adjusted"] = several_looks(list(table[better]), list(table[worse]))
    said = np.where(table[better] > table[worse], str(Verdict.BETTER), str(Verdict.WORSE))
    table["word"] = np.where(table["adjusted"] < ALPHA, said, "").astype(object)
    return table


def slices_of(split: Split, given: Mapping[str, Any] | None = None) -> tuple[Masks, list[str]]:
    """Slices by name: the values of the data set's metadata, then those given.

    Up to 20 values of a column are a slice each; more numbers than that are cut at their quartiles. Missing values
    belong to no slice.

    Args:
        split: n examples.
        given: name → positions in the split, or a bool mask (n,).

    Returns:
        Name → mask (n,), and the metadata columns that gave no slice: names, identifiers, a single value.

    Raises:
        InvalidArgumentError: a slice given is empty, has another length, or a position outside.
    """
    masks: Masks = {}
    left_out = []
    for column, values in split.metadata.items():
        parts = _column_slices(column, values)
        masks |= parts
        left_out += [] if parts else [column]
    own = {writable(name): _mask(writable(name), which, len(split)) for name, which in (given or {}).items()}
    return masks | own, left_out


def _column_slices(column: str, values: Sequence[Any]) -> Masks:
    known = np.array([not pd.isna(value) if np.ndim(value) == 0 else False for value in values], bool)
    kept = [value for value, there in zip(values, known, strict=True) if there]
    texts = np.array([writable(value) for value in values], object)
    names = list(dict.fromkeys(str(text) for text in texts[known]))
    if 1 < len(names) <= DISTINCT:
        return {f"{column} = {name}": known & (texts == name) for name in _ordered(names)}
    if len(names) > 1 and all(isinstance(value, Real) for value in kept):
        return _quarters(column, np.array([float(v) if k else np.nan for v, k in zip(values, known, strict=True)]))
    return {}


def _ordered(names: list[str]) -> list[str]:
    """Numbers by size, other names by alphabet."""
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def _quarters(column: str, numbers: NDArray[np.float64]) -> Masks:
    finite = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])) if len(finite) else np.empty(0)
    masks: Masks = {}
    for low, high in pairwise(edges):
        last = high == edges[-1]
        inside = (numbers >= low) & ((numbers <= high) if last else (numbers < high))
        masks[f"{column} {low:.4g} to {high:.4g}"] = inside
    return {name: mask for name, mask in masks.items() if mask.any()}


def _mask(name: str, which: Any, n: int) -> NDArray[np.bool_]:
    found = np.asarray(which)
    if found.dtype == bool and found.shape != (n,):
        raise InvalidArgumentError(
            f"the mask of slice '{name}' has shape {found.shape}; it needs one value for each of {n} examples"
        )
    if found.dtype == bool:
        mask = found
    else:
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise InvalidArgumentError(f"slice '{name}' must be a bool mask or a list of positions")
        outside = found[(found < 0) | (found >= n)]
        if outside.size:
            raise InvalidArgumentError(
                f"slice '{name}' has position {outside[0]}; there are {n} examples, 0 to {n - 1}"
            )
        mask = np.zeros(n, bool)
        mask[found.astype(int)] = True
    if not mask.any():
        raise InvalidArgumentError(f"slice '{name}' is empty; leave it out or give it examples")
    return mask
