"""Patches made from two states, applied in full or part of the way, and reverted."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from suture.errors import BaseMismatchError, InvalidArgumentError
from suture.patch.file import Patch, shown
from suture.patch.routed import Routed
from suture.patch.state import State, base_sha256, canonical_state, same_bits, same_kind, widened, without


def between(
    before: State, after: State, plan: str = "", aliases: Mapping[str, str] | None = None
) -> tuple[Patch, Patch]:
    """The patch that leads from one state to another, and the undo that leads back, bit by bit."""
    changed = [name for name in before if not same_bits(before[name], after[name])]
    base, result = base_sha256(before), base_sha256(after)
    names = dict(aliases or {})
    patch = Patch({n: after[n].detach().clone() for n in changed}, base, result, plan, aliases=names)
    undo = Patch({n: before[n].detach().clone() for n in changed}, result, base, plan, True, names)
    return patch, undo


def apply(state: State, patch: Patch, weight: float = 1.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The patched state and the old values of the touched tensors; `state` is not changed.

    Args:
        state: state name → tensor; tied copies may be there, and get the value of what they stand for.
        patch: a patch or an undo.
        weight: 1 applies it in full, 0.5 goes half way (WiSE-FT; Wortsman et al. 2022); integers are
            taken from the patch at any weight above 0.

    Raises:
        BaseMismatchError: a tensor is missing or misshapen, these are not the weights the patch is for, or the
            patch was changed after it was made.
        InvalidArgumentError: the weight is not in [0, 1].
    """
    if not 0 <= weight <= 1:
        raise InvalidArgumentError(f"--weight must lie between 0 (the original) and 1 (the patch), not {weight}")
    whole = base_of(state, patch)
    result = base_sha256(without(_replaced(whole, patch, 1.0)[0], patch.aliases))
    if patch.result and result != patch.result:
        raise BaseMismatchError(
            f"this patch leads to weights with sha256 {result[:12]}… and not to {patch.result[:12]}… as it says; it "
            "was changed after it was made, so fetch it again"
        )
    return _replaced(state, patch, weight)


def base_of(state: State, patch: Patch) -> dict[str, Tensor]:
    """The weights a patch is for, in the precision it was made in; tied copies that `state` holds are kept.

    Raises:
        BaseMismatchError: a tensor is missing or misshapen, or these are not the weights the patch is for.
    """
    _check_fit(state, patch)
    found = base_sha256(without(state, patch.aliases))
    if found == patch.base:
        return dict(state)
    whole = widened(state)
    if base_sha256(without(whole, patch.aliases)) == patch.base:
        return whole
    raise BaseMismatchError(
        f"this patch is for the weights with sha256 {patch.base[:12]}…, and these are {found[:12]}…; "
        + _instead(patch, found)
    )


def _instead(patch: Patch, found: str) -> str:
    """What to do with weights that a patch is not for."""
    if patch.undo:
        return "it is the undo file of a patch, so it takes patched weights back (suture revert)"
    if found == patch.result:
        return "they are patched already, so use them as they are, or suture revert to take the patch back"
    return "give the weights it was made for"


def revert(state: State, undo: Patch) -> dict[str, Tensor]:
    """The original state again, from a state that was patched in full or part of the way.

    Raises:
        BaseMismatchError: what comes out is not what the undo file promises to restore.
    """
    _check_fit(state, undo)
    restored, _ = _replaced(state, undo, 1.0)
    found = base_sha256(without(restored, undo.aliases))
    if undo.result not in (found, base_sha256(widened(without(restored, undo.aliases)))):
        raise BaseMismatchError(
            f"reverting gives weights with sha256 {found[:12]}… and not the original {undo.result[:12]}…; these "
            "weights were not made by this patch, or were changed after it"
        )
    return restored


def patched(model: nn.Module, patch: Patch, weight: float = 1.0) -> nn.Module:
    """A patched copy of a model; the model given is not changed.

    A patch with a margin gives a `Routed` of both, which needs nothing of the training code.

    Raises:
        BaseMismatchError: the patch is for other weights.
    """
    state, _ = apply(canonical_state(model), patch, weight)
    twin = copy.deepcopy(model)
    twin.load_state_dict(state, strict=False)
    return twin if patch.margin is None else Routed(copy.deepcopy(model), twin, patch.margin).train(model.training)


def _replaced(state: State, patch: Patch, weight: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    new, old = dict(state), {}
    copies = {name: original for name, original in patch.aliases.items() if name in state}
    for name in [*patch.tensors, *(name for name in copies if copies[name] in patch.tensors)]:
        old[name] = state[name]
        target = patch.tensors[copies.get(name, name)].to(state[name])  # a file in half precision stays one
        new[name] = _mix(state[name], target, weight)
    return new, old


def _mix(old: Tensor, new: Tensor, weight: float) -> Tensor:
    if weight in (0, 1):  # exact at both ends, whatever the arithmetic
        return new if weight else old
    return torch.lerp(old, new, weight) if old.is_floating_point() or old.is_complex() else new


def _check_fit(state: State, patch: Patch) -> None:
    """Every tensor of the patch is there in the same form; so is every tied copy, which the hashes do not see."""
    copies = {name: original for name, original in patch.aliases.items() if name in state}
    targets = {name: name for name in patch.tensors}
    targets |= {name: original for name, original in copies.items() if original in patch.tensors}
    for name, original in targets.items():
        tensor = patch.tensors[original]
        if name not in state:
            raise BaseMismatchError(
                f"the patch changes {shown(name)}, which these weights lack; are they of this model?"
            )
        there = state[name]
        if there.shape != tensor.shape or not same_kind(there.dtype, tensor.dtype):
            raise BaseMismatchError(
                f"the patch has {shown(name)} as {tensor.dtype} {tuple(tensor.shape)}, these weights as {there.dtype} "
                f"{tuple(there.shape)}; are they of this model?"
            )
