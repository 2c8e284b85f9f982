"""Confusion pairs against counting by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suture.causes import confusion_pairs
from suture.causes.pairs import expected_counts, more_than_expected


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


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=80))
def test_by_chance_every_class_has_as_many_errors_and_as_many_false_answers(pairs: list[tuple[int, int]]) -> None:
    # Over the pairs that occur, the fit can only miss what it gives to pairs that do not. Where a class must go to
    # one other class alone, proportional fitting ends a few thousandths away.
    targets, predictions = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    found = confusion_pairs(targets, predictions, targets == predictions)
    assert (found["expected"] >= 0).all()
    for side in ("target", "predicted"):
        sums = found.groupby(side)[["count", "expected"]].sum()
        assert (sums["expected"] <= sums["count"] * (1 + 0.02) + 1e-6).all()


def test_a_product_table_is_expected_as_it_is() -> None:
    # Three classes, rates 1 : 2 : 4 of being taken for, errors 6, 5, 3 per target: independent off the diagonal.
    rates = {0: 1.0, 1: 2.0, 2: 4.0}
    counts = pd.DataFrame(
        [(t, p, 1000 * (t + 1) * rates[p]) for t in range(3) for p in range(3) if t != p],
        columns=["target", "predicted", "count"],
    )
    assert expected_counts(counts) == pytest.approx(counts["count"].to_numpy(), rel=1e-4)


def test_a_confusion_that_chance_does_not_explain_exceeds_what_is_expected() -> None:
    counts = pd.DataFrame(
        [(t, p, 40 if (t, p) == (0, 1) else 4) for t in range(4) for p in range(4) if t != p],
        columns=["target", "predicted", "count"],
    )
    expected = expected_counts(counts)
    assert expected[0] < 36
    assert expected.sum() == pytest.approx(counts["count"].sum())
    assert len(expected_counts(counts.head(0))) == 0


def test_a_verdict_stricter_than_the_right_class_makes_no_pair_of_a_class_with_itself() -> None:
    labels = np.array([0, 0, 1, 1])
    found = confusion_pairs(labels, np.array([0, 1, 1, 0]), np.zeros(4, bool))
    assert found[["target", "predicted"]].to_numpy().tolist() == [[0, 1], [1, 0]]
    assert found["share"].sum() == 1


def test_a_pair_far_beyond_chance_is_significant_and_one_answer_to_all_is_not() -> None:
    def errors(counts: dict[tuple[int, int], int]) -> pd.DataFrame:
        table = pd.DataFrame([[t, p, n] for (t, p), n in counts.items()], columns=["target", "predicted", "count"])
        return table.assign(expected=expected_counts(table))

    mixed = {(t, p): 4 for t in range(6) for p in range(6) if t != p} | {(0, 1): 40}
    p = more_than_expected(errors(mixed))
    assert p[list(mixed).index((0, 1))] < 0.001
    assert sum(p < 0.05) == 1
    assert (more_than_expected(errors({(0, 2): 90, (1, 2): 60})) == 1).all()
    assert not len(more_than_expected(errors({})))


def test_where_nothing_is_mixed_up_no_pair_is_significant_in_nineteen_of_twenty() -> None:
    generator, false = np.random.default_rng(0), 0
    for _ in range(100):
        targets, predictions = generator.integers(0, 4, (2, 120))
        found = confusion_pairs(targets, predictions, targets == predictions)
        false += bool((found["p_chance"] < 0.05).any())
    assert false <= 5
