"""A patch and its undo are inverse, bit by bit, and refuse weights they were not made for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from suture.errors import BaseMismatchError, DataError, InvalidArgumentError, MissingFileError
from suture.patch import (
    aliases_of,
    apply,
    base_sha256,
    between,
    canonical_state,
    load_patch,
    patched,
    revert,
    same_bits,
)
from tests import toys, zoo

State = dict[str, Tensor]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]


@st.composite
def states(draw: st.DrawFn) -> tuple[State, State]:
    """Two states of one layout; some tensors are equal, others hold NaN, infinities and −0."""
    before, after = {}, {}
    for i in range(draw(st.integers(1, 4))):
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        seeds = [draw(st.integers(0, 3)) for _ in range(2)]
        before[f"t{i}"], after[f"t{i}"] = (_tensor(seed, shape, dtype) for seed in seeds)
    return before, after


def _tensor(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
    if values.numel():
        values.view(-1)[0] = [0.0, -0.0, float("nan"), float("inf")][seed]
    return values.nan_to_num(0, 0, 0).to(dtype) if not dtype.is_floating_point else values.to(dtype)


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


@given(states())
def test_apply_then_revert_gives_identical_bytes(pair: tuple[State, State]) -> None:
    before, after = pair
    patch, undo = between(before, after)
    new, old = apply(before, patch)
    assert equal(new, after)
    assert equal({**new, **old}, before)
    assert equal(revert(new, undo), before)


@given(states(), st.floats(0, 1))
def test_revert_restores_from_any_weight(pair: tuple[State, State], weight: float) -> None:
    before, after = pair
    patch, undo = between(before, after)
    half, _ = apply(before, patch, weight)
    assert equal(revert(half, undo), before)


@given(states())
def test_a_file_holds_the_patch(tmp_path_factory: pytest.TempPathFactory, pair: tuple[State, State]) -> None:
    path = tmp_path_factory.mktemp("patch") / "patch.safetensors"
    patch, undo = between(*pair, plan="mine")
    for each in (patch, undo):
        each.save(path)
        read = load_patch(path)
        assert equal(read.tensors, each.tensors)
        assert (read.base, read.result, read.plan, read.undo) == (each.base, each.result, "mine", each.undo)


def test_interpolation_goes_half_way_for_floats_only() -> None:
    before = {"w": torch.zeros(3), "n": torch.tensor([1])}
    after = {"w": torch.full((3,), 4.0), "n": torch.tensor([5])}
    patch, _ = between(before, after)
    half, _ = apply(before, patch, 0.5)
    assert half["w"].tolist() == [2.0] * 3
    assert half["n"].tolist() == [5]
    assert before["w"].tolist() == [0.0] * 3
    with pytest.raises(InvalidArgumentError, match="between 0"):
        apply(before, patch, 1.5)


def test_torch_alone_can_load_a_patch(tmp_path: Path) -> None:
    model, target = toys.network(), toys.untrained()
    patch, _ = between(canonical_state(model), canonical_state(target))
    patch.save(tmp_path / "p.safetensors")
    model.load_state_dict(load_file(tmp_path / "p.safetensors"), strict=False)
    x = torch.randn(5, 2)
    assert torch.equal(model.eval()(x), target.eval()(x))


def test_other_weights_are_refused_and_why() -> None:
    a, b = canonical_state(toys.network()), canonical_state(toys.untrained())
    patch, undo = between(a, b)
    with pytest.raises(BaseMismatchError, match="patched already"):
        apply(b, patch)
    with pytest.raises(BaseMismatchError, match="give the weights it was made for"):
        apply({**a, "last.bias": a["last.bias"] + 1}, patch)
    with pytest.raises(BaseMismatchError, match=r"'first\.weight'.*lack"):
        apply({name: t for name, t in a.items() if name != "first.weight"}, patch)
    with pytest.raises(BaseMismatchError, match=r"these weights as .* \(16, 3\)"):
        apply({**a, "first.weight": torch.zeros(16, 3)}, patch)
    untouched = {**b, "first.weight": b["first.weight"] + 1}
    assert equal(revert(untouched, undo), a)  # a touched tensor is put back whatever it became
    partial, back = between(a, {**a, "last.bias": b["last.bias"]})
    changed_elsewhere = {**apply(a, partial)[0], "first.weight": b["first.weight"]}
    with pytest.raises(BaseMismatchError, match="changed after it"):
        revert(changed_elsewhere, back)


def test_patched_is_a_copy() -> None:
    model, target = toys.network(), toys.untrained()
    patch, _ = between(canonical_state(model), canonical_state(target))
    before = base_sha256(canonical_state(model))
    twin = patched(model, patch)
    assert base_sha256(canonical_state(twin)) == patch.result
    assert base_sha256(canonical_state(model)) == before == patch.base


def test_the_hash_sees_names_types_shapes_and_bytes_but_no_counters_and_no_order() -> None:
    base = {"a": torch.zeros(2), "b": torch.ones(2)}
    same = base_sha256({"b": base["b"], "a": base["a"], "bn.num_batches_tracked": torch.tensor(3)})
    assert same == base_sha256(base)
    for other in (
        {"a": torch.zeros(2), "c": torch.ones(2)},
        {"a": torch.zeros(2, dtype=torch.float64), "b": torch.ones(2)},
        {"a": torch.zeros(2, 1), "b": torch.ones(2)},
        {"a": -torch.zeros(2), "b": torch.ones(2)},
    ):
        assert base_sha256(other) != same


def test_tied_tensors_are_patched_once_and_stay_tied_in_files() -> None:
    model = zoo.build("tied")
    assert aliases_of(model) == {"head.weight": "embed.weight"}
    target = zoo.build("tied")
    with torch.no_grad():
        target.embed.weight.add_(1)  # type: ignore[union-attr, operator]
    patch, undo = between(canonical_state(model), canonical_state(target), "p", aliases_of(model))
    assert list(patch.tensors) == ["embed.weight"]
    new, _ = apply(model.state_dict(), patch)  # a file of torch.save holds both names
    assert torch.equal(new["head.weight"], target.head.weight)  # type: ignore[arg-type, union-attr]
    assert equal(revert(new, undo), dict(model.state_dict()))
    twin = patched(model, patch)
    assert twin.head.weight is twin.embed.weight  # type: ignore[union-attr]
    assert torch.equal(twin.head.weight, target.head.weight)  # type: ignore[arg-type, union-attr]


def test_files_that_are_no_patches(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no patch"):
        load_patch(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(DataError, match="not readable as a patch"):
        load_patch(tmp_path / "text.safetensors")
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="no patch of suture"):
        load_patch(tmp_path / "weights.safetensors")


def test_a_patch_that_was_changed_after_it_was_made_is_refused() -> None:
    a, b = canonical_state(toys.network()), canonical_state(toys.untrained())
    patch, _ = between(a, {**a, "last.bias": b["last.bias"]})
    for change in (
        {"last.bias": b["last.bias"] + 1},
        {"last.bias": torch.full((3,), float("nan"))},
        {"last.bias": b["last.bias"], "last.weight": torch.zeros(3, 16)},
    ):
        for weight in (0.5, 1.0):
            with pytest.raises(BaseMismatchError, match="changed after it was made"):
                apply(a, replace(patch, tensors=change), weight)
    with pytest.raises(BaseMismatchError, match="float64"):
        apply(a, replace(patch, tensors={"last.bias": b["last.bias"].double()}))


def test_a_file_in_half_precision_stays_one_and_comes_back_bit_by_bit() -> None:
    half = {name: t.half() if t.is_floating_point() else t for name, t in canonical_state(toys.network()).items()}
    loaded = {name: t.float() if t.is_floating_point() else t for name, t in half.items()}
    patch, undo = between(loaded, {**loaded, "last.bias": loaded["last.bias"] + 1 / 3})
    new, _ = apply(half, patch)
    assert new["last.bias"].dtype == torch.float16
    assert torch.allclose(new["last.bias"].float(), patch.tensors["last.bias"], atol=1e-2)
    assert equal(revert(new, undo), half)
