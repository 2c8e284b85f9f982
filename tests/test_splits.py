"""Cutting data into parts: disjoint by content, stratified, reproducible."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suture.case import Case
from suture.errors import DataError, SplitOverlapError
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


def test_further_repair_examples_are_trained_on_and_nothing_is_chosen_on_them() -> None:
    further = toys.points(70, seed=9, shift=0.9)
    plain, more = toys.case().splits, toys.case(repair_extra=further).splits
    for name in ("diagnose", "select", "verify"):
        assert more[name].hashes == plain[name].hashes
    repair = more["repair"]
    n = len(plain["repair"])
    assert repair.hashes == plain["repair"].hashes + [content_hash(x) for x, _ in further]
    assert repair.strata[n:] == [y for _, y in further]
    for i in (0, n - 1, n, n + 69):
        x, y = repair[i]
        assert content_hash(x) == repair.hashes[i]
        assert y == repair.strata[i]
    own = repair.without_extra()
    assert own.hashes == plain["repair"].hashes
    assert plain["repair"].without_extra().indices == plain["repair"].indices
    assert repair.only([0, n, n + 1]).without_extra().indices == repair.indices[:1]
    assert toys.case(repair_extra=further).fingerprint != toys.case().fingerprint


def test_further_repair_examples_go_with_splits_given_by_hand_and_keep_their_names() -> None:
    class Named(list):  # type: ignore[type-arg]
        def __init__(self, items: list[object], word: str) -> None:
            super().__init__(items)
            self.names = [f"{word}{i}" for i in range(len(items))]

    data = toys.data()
    parts = {"diagnose": data[:100], "repair": Named(data[100:300], "own"), "verify": data[300:]}
    further = Named(toys.points(5, seed=9, shift=0.9), "more")
    repair = Case(toys.network(), parts, repair_extra=further).splits["repair"]
    assert len(repair) == 155
    assert repair.label(154) == "more4"
    assert repair.label(0).startswith("own")
    assert Case(toys.network(), parts, repair_extra=list(further)).splits["repair"].label(154) == "example 204"


@pytest.mark.parametrize("name", ["diagnose", "select", "verify"])
def test_further_repair_examples_may_not_stand_in_another_split(name: str) -> None:
    x, y = toys.case().splits[name][3]
    with pytest.raises(SplitOverlapError, match=f"(?=.*'repair')(?=.*'{name}')"):
        toys.case(repair_extra=[*toys.points(5, seed=9), (x.clone(), y)])


def test_unusable_further_examples() -> None:
    with pytest.raises(DataError, match="the data for repair_extra is empty"):
        toys.case(repair_extra=[])
    with pytest.raises(DataError, match="example 0 of repair_extra is Tensor, not a pair"):
        toys.case(repair_extra=[torch.zeros(2)])
    with pytest.raises(DataError, match="no examples to repair on"):
        Case(toys.network(), verify=toys.data(), repair_extra=toys.points(5, seed=9)).splits["repair"]


class Described(list):  # type: ignore[type-arg]
    """Points with attributes that say more of them."""

    def __init__(self, **attributes: object) -> None:
        super().__init__(toys.data())
        vars(self).update(attributes)


NAMES, CAMERAS = [f"p{i}" for i in range(600)], ["old" if i % 3 else "new" for i in range(600)]


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series], ids=lambda kind: kind.__name__)
def test_names_and_classes_may_be_of_any_kind(kind: Callable[[Any], Any]) -> None:
    further = Described(names=NAMES, classes=["a", "b", "c"])
    further[:] = toys.points(600, seed=9, shift=0.9)
    case = Case(toys.network(), Described(names=kind(NAMES), classes=kind(["a", "b", "c"])))
    split = case.splits["verify"]
    assert [split.label(i) for i in (0, 5)] == [f"p{split.indices[i]}" for i in (0, 5)]
    assert case.classes == ["a", "b", "c"]
    more = Case(toys.network(), Described(names=kind(NAMES)), repair_extra=further).splits["repair"]
    assert (more.label(0), more.label(len(more) - 1)) == (f"p{more.indices[0]}", "p599")


@pytest.mark.parametrize(
    "metadata",
    [
        {"camera": CAMERAS},
        {"camera": np.array(CAMERAS)},
        pd.DataFrame({"camera": CAMERAS}, index=range(7, 607)),
        [{"camera": each} for each in CAMERAS],
    ],
    ids=["dict", "array", "table", "dicts"],
)
def test_metadata_may_be_of_any_kind(metadata: object) -> None:
    split = Case(toys.network(), Described(metadata=metadata)).splits["verify"]
    assert split.metadata == {"camera": [CAMERAS[i] for i in split.indices]}


def test_what_a_dict_of_an_example_lacks_is_missing() -> None:
    rows = [{"camera": "old"} if i % 2 else {"site": i} for i in range(600)]
    found = Case(toys.network(), Described(metadata=rows)).splits["verify"]
    assert found.metadata["camera"] == ["old" if i % 2 else None for i in found.indices]
    assert found.metadata["site"] == [None if i % 2 else i for i in found.indices]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"names": ["x"] * 3}, "`names` of the data set has 3 values for 600 examples; give one name per example"),
        ({"names": 7}, "`names` of the data set must be a list, not int"),
        ({"classes": 7}, "`classes` of the data set must be a list, not int"),
        ({"metadata": {"a": [1, 2]}}, "the metadata column 'a' has 2 values for 600 examples; give one value"),
        ({"metadata": [{"a": 1}] * 2}, "the metadata column 'a' has 2 values for 600 examples"),
        ({"metadata": {"a": 3}}, "the metadata column 'a' of the data set must be a list, not int"),
        ({"metadata": CAMERAS}, "`metadata` of the data set is list; give a table, a dict of columns, or a list with"),
        ({"metadata": np.array(CAMERAS)}, "`metadata` of the data set is ndarray; give a table"),
    ],
)
def test_what_does_not_fit_the_examples_is_refused_at_once(attributes: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Case(toys.network(), Described(**attributes))


def test_of_copies_it_is_said_how_many_differ() -> None:
    (x, y), other = toys.data()[:2]
    said = "'diagnose' would be empty; of 50 examples only 1 is different, and equal ones stay in one split"
    with pytest.raises(DataError, match=said):
        Case(toys.network(), [(x, y)] * 50)
    with pytest.raises(DataError, match="of 51 examples only 2 are different"):
        Case(toys.network(), [*[(x, y)] * 50, other])
    with pytest.raises(DataError, match=r"would be empty$"):
        Case(toys.network(), toys.data()[:1])


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor, lambda y: torch.tensor([y]), np.array])
def test_labels_of_every_kind_are_strata(kind: object) -> None:
    examples = [(torch.tensor([float(i)]), kind(i % 3)) for i in range(60)]  # type: ignore[operator]
    parts = {name: examples[i::3] for i, name in enumerate(("diagnose", "repair", "verify"))}
    case = Case(torch.nn.Linear(1, 3), parts)
    assert case.splits["diagnose"].strata == [y % 3 for y in range(0, 60, 3)]
