"""Confusion pairs against counting by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from suture.causes import confusion_pairs


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_pairs_count_every_error_once_most_frequent_first(pairs: list[tuple[int, int]]) -> None:
    targets = np.array([t for t, _ in pairs], np.int64)
    predictions = np.array([p for _, p in pairs], np.int64)
    found = confusion_pairs(targets, predictions, targets == predictions)
    errors = [(t, p) for t, p in pairs if t != p]
    assert found["count"].sum() == len(errors)
    assert found["count"].is_monotonic_decreasing
    for row in found.itertuples():
        assert row.count == errors.count((row.target, row.predicted))
        assert row.share == row.count / len(errors)
