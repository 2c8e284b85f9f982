"""Composing, scaling and comparing patches: what comes out is what doing it step by step gives."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from suture.errors import BaseMismatchError, InvalidArgumentError
from suture.patch import (
    Patch,
    aliases_of,
    apply,
    base_sha256,
    between,
    canonical_state,
    compose,
    diff,
    load_patch,
    revert,
    same_bits,
    scaled,
)
from tests import toys, zoo
from tests.test_patch import DTYPES, State, _tensor, equal

Chain = tuple[State, ...]


@st.composite
def chains(draw: st.DrawFn, length: int = 3) -> Chain:
    """States of one layout, as repairs on top of each other leave them; tensors may come back to what they were."""
    made: list[State] = [{} for _ in range(length)]
    for i in range(draw(st.integers(1, 4))):
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        for state in made:
            state[f"part{i % 2}.t{i}"] = _tensor(draw(st.integers(0, 3)), shape, dtype)
    return tuple(made)


# compose


@given(chains())
def test_a_composed_patch_does_what_both_do(chain: Chain) -> None:
    a, b, c = chain
    (first, first_undo), (second, second_undo) = between(a, b, "A"), between(b, c, "C")
    both = compose(first, second)
    assert equal(apply(a, both)[0], apply(apply(a, first)[0], second)[0])
    assert (both.base, both.result) == (base_sha256(a), base_sha256(c))
    assert (both.plan, both.undo) == ("A then C", False)
    back = compose(second_undo, first_undo)
    assert back.undo
    assert back.plan == "undo of C then undo of A"
    assert equal(apply(c, back)[0], a)
    assert equal(revert(c, back), a)


@given(chains(), st.floats(0, 1))
def test_a_composed_patch_is_reverted_from_any_weight(chain: Chain, weight: float) -> None:
    a, b, c = chain
    (first, first_undo), (second, second_undo) = between(a, b), between(b, c)
    part, _ = apply(a, compose(first, second), weight)
    assert equal(revert(part, compose(second_undo, first_undo)), a)


@given(chains(4))
def test_composing_is_associative(chain: Chain) -> None:
    p, q, r = (between(x, y, f"p{i}")[0] for i, (x, y) in enumerate(pairwise(chain)))
    left, right = compose(compose(p, q), r), compose(p, compose(q, r))
    assert (left.base, left.result, left.plan) == (right.base, right.result, right.plan)
    assert equal(apply(chain[0], left)[0], apply(chain[0], right)[0])


@given(chains(2))
def test_a_patch_and_its_undo_cancel(chain: Chain) -> None:
    patch, undo = between(*chain)
    for nothing in (compose(patch, undo), compose(undo, patch)):
        assert nothing.tensors == {}
        assert nothing.base == nothing.result
    assert equal(apply(chain[0], compose(patch, undo))[0], chain[0])


def test_a_composed_patch_survives_the_disk_and_leaves_metrics_behind(tmp_path: Path) -> None:
    a, b, c = ({"w": torch.full((2,), float(i))} for i in range(3))
    first, second = (replace(between(x, y)[0], metrics={"fixed": 3}) for x, y in ((a, b), (b, c)))
    both = compose(first, second)
    assert both.metrics == {}
    both.save(tmp_path / "p.safetensors")
    assert equal(apply(a, load_patch(tmp_path / "p.safetensors"))[0], c)


def test_patches_that_do_not_follow_each_other_are_refused_and_why() -> None:
    a, b, c = ({"w": torch.full((2,), float(i))} for i in range(3))
    ab, bc, ac = between(a, b)[0], between(b, c)[0], between(a, c)[0]
    for first, second, advice in (
        (bc, ab, "the other way round"),
        (ab, ac, "compare them with diff"),
        (ac, bc, "made on top of the other"),
        (replace(ab, result=""), bc, "does not say which weights it leads to"),
    ):
        with pytest.raises(BaseMismatchError, match=advice):
            compose(first, second)
    with pytest.raises(BaseMismatchError, match="disagree on what 'h' stands for"):
        compose(replace(ab, aliases={"h": "w"}), replace(bc, aliases={"h": "v"}))


def test_a_route_is_neither_composed_nor_scaled() -> None:
    a, b = ({"w": torch.full((2,), float(i))} for i in range(2))
    patch, undo = between(a, b)
    route = replace(patch, margin=0.1)
    for do in (lambda: compose(route, undo), lambda: compose(undo, route), lambda: scaled(a, route, 0.5)):
        with pytest.raises(InvalidArgumentError, match="margin=None"):
            do()


def test_tied_tensors_stay_tied_through_composition() -> None:
    states = []
    for i in range(3):
        model = zoo.build("tied")
        with torch.no_grad():
            model.embed.weight.fill_(i)  # type: ignore[union-attr, operator]
        states.append(model)
    aliases = aliases_of(states[0])
    first, second = (between(canonical_state(x), canonical_state(y), "p", aliases)[0] for x, y in pairwise(states))
    new, _ = apply(states[0].state_dict(), compose(first, second))  # the file holds both names
    assert equal(new, dict(states[2].state_dict()))


# scaled


@given(chains(2), st.floats(0, 1))
def test_a_scaled_patch_applied_in_full_is_the_patch_at_that_weight(chain: Chain, weight: float) -> None:
    before, after = chain
    patch, undo = between(before, after, "A")
    part = scaled(before, replace(patch, metrics={"net": 1.0}), weight)
    expected, _ = apply(before, patch, weight)
    assert equal(apply(before, part)[0], expected)
    assert (part.base, part.result) == (patch.base, base_sha256(expected))
    assert part.plan == f"A at weight {weight:g}"
    assert part.metrics == {}
    assert equal(revert(apply(before, part)[0], undo), before)


def test_the_ends_of_scaling() -> None:
    before, after = canonical_state(toys.network()), canonical_state(toys.untrained())
    patch, undo = between(before, after)
    assert len(scaled(before, patch, 0)) == 0
    assert equal(scaled(before, patch, 1).tensors, patch.tensors)
    back = scaled(after, undo, 0.5)
    assert back.undo
    assert equal(apply(after, back)[0], apply(after, undo, 0.5)[0])
    with pytest.raises(InvalidArgumentError, match="between 0"):
        scaled(before, patch, 2)
    with pytest.raises(BaseMismatchError, match="patched already"):
        scaled(after, patch, 0.5)


def test_half_precision_is_scaled_as_what_the_patch_was_made_in() -> None:
    half = {"w": torch.arange(4).half()}
    patch, _ = between({"w": half["w"].float()}, {"w": torch.ones(4) / 3})
    part = scaled(half, patch, 0.5)
    assert part.base == patch.base
    assert part.tensors["w"].dtype == torch.float32


# diff


@given(chains(), st.sampled_from(["tensor", "group", "all"]), st.booleans())
def test_diff_is_symmetric(chain: Chain, by: str, known: bool) -> None:
    base, one, other = chain
    a, b = between(base, one)[0], between(base, other)[0]
    old = base if known else ()
    swapped = {"in_a": "in_b", "in_b": "in_a", "change_a": "change_b", "change_b": "change_a"}
    there, back = diff(a, b, old, by), diff(b, a, old, by).rename(columns=swapped)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(there, back[list(there.columns)])
    assert there.index.name == by


@given(chains())
def test_undo_files_tell_what_the_weights_tell(chain: Chain) -> None:
    base, one, other = chain
    (a, undo_a), (b, undo_b) = between(base, one), between(base, other)
    pd.testing.assert_frame_equal(diff(a, b, base), diff(a, b, [undo_a, undo_b]))


@given(chains(2))
def test_a_patch_is_not_apart_from_itself(chain: Chain) -> None:
    patch, undo = between(*chain)
    table = diff(patch, patch, undo)
    assert (table["equal"] == table["tensors"]).all()
    apart, cosine = table["apart"].dropna(), table["cosine"].dropna()
    np.testing.assert_allclose(apart, 0)
    np.testing.assert_allclose(cosine, 1)


def made(**tensors: list[float]) -> State:
    return {name.replace("_", "."): torch.tensor(values) for name, values in tensors.items()}


def test_diff_against_numbers_by_hand() -> None:
    base = made(l2_w=[3.0, 4.0], l10_w=[0.0, 0.0], l10_b=[1.0])
    one = made(l2_w=[3.0, 5.0], l10_w=[0.0, 2.0], l10_b=[1.0])
    other = made(l2_w=[3.0, 2.0], l10_w=[0.0, 0.0], l10_b=[2.0])
    (a, undo_a), (b, undo_b) = between(base, one), between(base, other)
    table = diff(a, b, base)
    assert list(table.index) == ["l2.w", "l10.b", "l10.w"]
    assert table[["in_a", "in_b", "equal"]].to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    np.testing.assert_allclose(table["change_a"], [0.2, 0, math.inf])
    np.testing.assert_allclose(table["change_b"], [0.4, 1, 0])
    np.testing.assert_allclose(table["cosine"], [-1, math.nan, math.nan])
    np.testing.assert_allclose(table.loc["l2.w", "apart"], 3 / ((34**0.5 + 13**0.5) / 2))
    np.testing.assert_allclose(table.loc["l10.w", "apart"], 2)
    total = diff(a, b, [undo_a, undo_b], by="all").loc["all"]
    assert (total["tensors"], total["parameters"], total["in_a"], total["in_b"]) == (3, 5, 2, 2)
    np.testing.assert_allclose(total["change_a"], (5 / 26) ** 0.5)
    np.testing.assert_allclose(total["cosine"], -2 / 5)
    assert list(diff(a, b, by="group").index) == ["l2", "l10"]


def test_what_is_not_known_is_not_said() -> None:
    base, one = made(v=[1.0], w=[1.0, 2.0]), made(v=[2.0], w=[1.0, 3.0])
    a, undo = between(base, one)
    b, _ = between(base, {**one, "v": base["v"]})
    table = diff(a, b)
    assert table["change_a"].isna().all()
    assert table["cosine"].isna().all()
    assert table.loc["w", ["equal", "apart"]].tolist() == [1, 0]
    assert table.loc["v", "change_b"] == 0  # b leaves it as it was, whatever it was
    assert math.isnan(table.loc["v", "apart"])  # type: ignore[arg-type]
    assert diff(a, b, undo).loc["v", "change_a"] == 1
    assert len(diff(Patch({}, a.base, a.base), Patch({}, a.base, a.base))) == 0


def test_complex_whole_and_true_or_false_numbers_are_numbers_too() -> None:
    base = {"c": torch.tensor([1 + 1j]), "i": torch.tensor([1, 2]), "t": torch.tensor([True])}
    after = {"c": torch.tensor([1 - 1j]), "i": torch.tensor([1, 4]), "t": torch.tensor([False])}
    patch, _ = between(base, after)
    np.testing.assert_allclose(diff(patch, patch, base)["change_a"], [2 / 2**0.5, 2 / 5**0.5, 1])


def test_repairs_that_cannot_be_compared_are_refused_and_why() -> None:
    a, b, c = ({"w": torch.full((2,), float(i))} for i in range(3))
    (ab, undo), (bc, _) = between(a, b), between(b, c)
    with pytest.raises(BaseMismatchError, match="compose joins"):
        diff(ab, bc)
    with pytest.raises(BaseMismatchError, match="beside the patch"):
        diff(ab, ab, between(b, c)[1])
    with pytest.raises(BaseMismatchError, match="give the weights"):
        diff(ab, ab, c)
    with pytest.raises(BaseMismatchError, match=r"float32 \(2,\) here and float32 \(3,\) there"):
        diff(ab, replace(ab, tensors={"w": torch.zeros(3)}))
    with pytest.raises(BaseMismatchError, match="float64"):
        diff(ab, ab, replace(undo, tensors={"w": torch.zeros(2, dtype=torch.float64)}))
    with pytest.raises(InvalidArgumentError, match="not by 'layer'"):
        diff(ab, ab, by="layer")  # type: ignore[arg-type]


def test_nothing_is_changed_by_looking() -> None:
    base, one = canonical_state(toys.network()), canonical_state(toys.untrained())
    patch, undo = between(base, one)
    before: list[Tensor] = [tensor.clone() for tensor in (*patch.tensors.values(), *undo.tensors.values())]
    diff(patch, patch, base)
    scaled(base, patch, 0.5)
    compose(patch, undo)
    after = (*patch.tensors.values(), *undo.tensors.values())
    assert all(same_bits(x, y) for x, y in zip(before, after, strict=True))
