"""Cutting data into parts: disjoint by content, stratified, reproducible."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suture.splits import content_hash, stratified
from tests import toys


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=120),
    st.integers(0, 5),
)
def test_parts_are_a_partition_in_which_copies_stay_together(examples: list[tuple[int, int]], seed: int) -> None:
    hashes, strata = [str(h) for h, _ in examples], [s for _, s in examples]
    parts = stratified(hashes, strata, [0.2, 0.4, 0.4], seed)
    assert sorted(i for part in parts for i in part) == list(range(len(examples)))
    contents = [{hashes[i] for i in part} for part in parts]
    assert sum(map(len, contents)) == len(set(hashes))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 5))
def test_every_part_gets_its_share_of_every_class_up_to_rounding(strata: list[int], seed: int) -> None:
    shares = [0.2, 0.4, 0.4]
    parts = stratified([str(i) for i in range(len(strata))], strata, shares, seed)
    for label, count in Counter(strata).items():
        for part, share in zip(parts, shares, strict=True):
            assert abs(sum(strata[i] == label for i in part) - share * count) <= 1


def test_rounding_errors_do_not_add_up_over_classes() -> None:
    # 300 classes of two: whole-number rounding class by class would leave one part empty.
    strata = [i // 2 for i in range(600)]
    parts = stratified([str(i) for i in range(600)], strata, [0.2, 0.4, 0.4], seed=0)
    assert [len(p) / 600 for p in parts] == pytest.approx([0.2, 0.4, 0.4], abs=0.05)


def test_content_hashes_see_values_types_and_nesting() -> None:
    things = [
        torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, dtype=torch.float64), np.zeros(2), {"a": 1}, {"a": "1"},
        {"b": 1}, [1, [2]], [[1], 2], "x", b"x", None, True, 1, 1.0, toys.Text(torch.zeros(1), torch.ones(1)),
    ]  # fmt: skip
    assert len({content_hash(thing) for thing in things}) == len(things)
    assert content_hash({"a": 1, "b": torch.ones(2)}) == content_hash({"b": torch.ones(2), "a": 1})
