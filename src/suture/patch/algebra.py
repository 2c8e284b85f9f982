"""Arithmetic of patches: one after another, part of one, one beside another."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from suture.errors import BaseMismatchError, InvalidArgumentError
from suture.patch.application import apply, base_of, between
from suture.patch.file import Patch, shown
from suture.patch.inspection import added_up, group_names, in_order, numbers, share
from suture.patch.state import State, same_bits, without

SUMS = [
    "tensors", "parameters", "in_a", "in_b", "equal", "old", "moved_a", "moved_b", "along", "size_a", "size_b", "apart",
]  # fmt: skip


def compose(first: Patch, second: Patch) -> Patch:
    """One patch that does what `first` and then `second` does, bit by bit.

    The undo of it is composed the other way round: ``compose(undo_of_second, undo_of_first)``. A patch composed with
    its own undo holds nothing. Metrics are left out: nobody has measured the whole.

    Raises:
        BaseMismatchError: `second` is not for the weights that `first` leads to.
        InvalidArgumentError: one of them is half of a route, which asks two networks: no weights do that.
    """
    _refuse_routes(first, second)
    if first.result != second.base:
        raise BaseMismatchError(_why_not(first, second))
    for name in first.aliases.keys() & second.aliases.keys():
        if first.aliases[name] != second.aliases[name]:
            raise BaseMismatchError(
                f"the patches disagree on what {shown(name)} stands for; are both of this model? Make them again"
            )
    # Equal hashes mean equal weights, so the way there and back changes nothing.
    tensors = {} if first.base == second.result else {**first.tensors, **second.tensors}
    return Patch(
        tensors,
        base=first.base,
        result=second.result,
        plan=" then ".join(filter(None, (_title(first), _title(second)))),
        undo=first.undo and second.undo,
        aliases={**first.aliases, **second.aliases},
    )


def _refuse_routes(*patches: Patch) -> None:
    if any(patch.margin is not None for patch in patches):
        raise InvalidArgumentError(
            "a route answers with two networks, so it is neither composed nor scaled; dataclasses.replace(patch, "
            "margin=None) is the patch alone"
        )


def _title(patch: Patch) -> str:
    return f"undo of {patch.plan}" if patch.undo and patch.plan else patch.plan


def _why_not(first: Patch, second: Patch) -> str:
    if not first.result:
        return "the first patch does not say which weights it leads to; apply it, and make the patch again with between"
    said = (
        f"the second patch is for the weights with sha256 {second.base[:12]}…, and the first leads to "
        f"{first.result[:12]}…; "
    )
    if second.result == first.base:
        return said + "give them the other way round"
    if second.base == first.base:
        return said + "both are for the same weights, so compare them with diff, or repair the patched weights again"
    return said + "give patches of which one was made on top of the other"


def scaled(state: State, patch: Patch, weight: float) -> Patch:
    """A patch whose full application is the application of `patch` at `weight`, bit by bit.

    Weights that were stored in half precision are scaled as the float32 that the patch was made in. The old undo
    still leads back. Metrics are left out: they were measured at full weight.

    Args:
        state: the weights that `patch` is for; both hashes need all of them.
        patch: a patch or an undo.
        weight: in [0, 1], as in `apply`.

    Raises:
        BaseMismatchError: these are not the weights the patch is for.
        InvalidArgumentError: the weight is not in [0, 1], or the patch is half of a route.
    """
    _refuse_routes(patch)
    whole = base_of(state, patch)
    part, _ = apply(whole, patch, weight)
    plan = f"{patch.plan} at weight {weight:g}".strip()
    made, _ = between(without(whole, patch.aliases), without(part, patch.aliases), plan, patch.aliases)
    return Patch(made.tensors, made.base, made.result, plan, patch.undo, made.aliases)


def diff(
    a: Patch, b: Patch, old: State | Patch | Iterable[Patch] = (), by: Literal["tensor", "group", "all"] = "tensor"
) -> pd.DataFrame:
    """Two repairs of the same weights, side by side.

    Args:
        a, b: patches for the same weights.
        old: those weights, or undo files of `a` and `b`; without them a tensor's change is not known, only its
            new values.
        by: a row per tensor, per group (the first part of a tensor's name that tells tensors apart), or one in all.

    Returns:
        A row per name, sorted, and these columns; swapping the patches swaps `a` and `b` and nothing else:

        - ``tensors``, ``parameters``: how many there are in either patch.
        - ``in_a``, ``in_b``: how many of the tensors each patch holds; ``equal``: how many end with the same bits.
        - ``change_a``, ``change_b``: ‖new − old‖ / ‖old‖, 0 where the patch holds none of it, NaN where the old
          values are not known.
        - ``apart``: ‖a − b‖ over the mean of ‖a‖ and ‖b‖: how far apart the two results are. Where both hold a tensor
          this needs no old values.
        - ``cosine``: between the two changes, in [−1, 1]: 1 the same direction, 0 nothing to do with each other,
          −1 opposite; NaN where one of them is zero or not known.

    Raises:
        BaseMismatchError: the patches are for different weights, disagree on a tensor's form, or `old` is not of them.
        InvalidArgumentError: `by` is none of the three.
    """
    if by not in ("tensor", "group", "all"):
        raise InvalidArgumentError(f"diff is by tensor, group or all, not by '{by}'")
    if a.base != b.base:
        raise BaseMismatchError(
            f"the patches are for different weights, sha256 {a.base[:12]}… and {b.base[:12]}…; diff compares repairs "
            "of the same weights, and compose joins one to another that follows it"
        )
    before = old_values(a, old)
    names = in_order({**a.tensors, **b.tensors})
    keys = {"tensor": names, "group": group_names(names), "all": ["all"] * len(names)}[by]
    rows = pd.DataFrame([_sums(name, a, b, before.get(name)) for name in names], columns=SUMS)
    return _measures(added_up(rows, pd.Index(keys, name=by, dtype=object)))


def _sums(name: str, a: Patch, b: Patch, old: Tensor | None) -> dict[str, float]:
    """Of one tensor: counts, and squared norms that can be added up; NaN where a value is not known."""
    new_a, new_b = a.tensors.get(name, old), b.tensors.get(name, old)
    _check_forms(name, [each for each in (new_a, new_b, old) if each is not None])
    before, after_a, after_b = (None if each is None else numbers(each) for each in (old, new_a, new_b))
    zero = torch.zeros((), dtype=torch.float64)
    change_a = _less(after_a, before) if name in a.tensors else zero
    change_b = _less(after_b, before) if name in b.tensors else zero
    known = next(each for each in (new_a, new_b) if each is not None)
    return {
        "tensors": 1,
        "parameters": known.numel(),
        "in_a": name in a.tensors,
        "in_b": name in b.tensors,
        "equal": new_a is not None and new_b is not None and same_bits(new_a, new_b),
        "old": _dot(before, before),
        "moved_a": _dot(change_a, change_a),
        "moved_b": _dot(change_b, change_b),
        "along": _dot(change_a, change_b),
        "size_a": _dot(after_a, after_a),
        "size_b": _dot(after_b, after_b),
        "apart": _dot(*[_less(after_a, after_b)] * 2),
    }


def _check_forms(name: str, tensors: list[Tensor]) -> None:
    forms = list(dict.fromkeys(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in tensors))
    if len(forms) > 1:
        raise BaseMismatchError(f"{shown(name)} is {forms[0]} here and {forms[1]} there; are both of this model?")


def _less(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a - b


def _dot(a: Tensor | None, b: Tensor | None) -> float:
    return math.nan if a is None or b is None else float((a * b).sum())


def _measures(sums: pd.DataFrame) -> pd.DataFrame:
    """What `diff` returns, from its sums."""
    table = sums[["tensors", "parameters", "in_a", "in_b", "equal"]].astype(int)
    for side in ("a", "b"):
        moved = sums[f"moved_{side}"].to_numpy(float)
        table[f"change_{side}"] = share(moved**0.5, sums["old"].to_numpy(float) ** 0.5)
    sizes = [sums[f"size_{side}"].to_numpy(float) ** 0.5 for side in ("a", "b")]
    table["apart"] = share(sums["apart"].to_numpy(float) ** 0.5, (sizes[0] + sizes[1]) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):  # no direction: 0 / 0; infinite values: none either
        lengths = sums["moved_a"].to_numpy(float) ** 0.5 * sums["moved_b"].to_numpy(float) ** 0.5
        table["cosine"] = (sums["along"].to_numpy(float) / lengths).clip(-1, 1)
    return table


def old_values(patch: Patch, old: State | Patch | Iterable[Patch]) -> dict[str, Tensor]:
    """Old values by name, from whole weights or undo files, as far as they are known.

    Raises:
        BaseMismatchError: they are not those of the weights that `patch` is for.
    """
    if isinstance(old, Mapping):
        return base_of(old, patch)
    found: dict[str, Tensor] = {}
    for undo in [old] if isinstance(old, Patch) else old:
        if undo.result != patch.base:
            raise BaseMismatchError(
                f"this undo file leads to the weights with sha256 {undo.result[:12]}…, and the patch is for "
                f"{patch.base[:12]}…; give the one that was written beside the patch"
            )
        found |= undo.tensors
    return found
