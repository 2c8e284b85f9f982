"""Patches: the changed tensors of a repair, applied and reverted without training code.

A patch is a safetensors file whose keys are the model's state names, so that
``model.load_state_dict(load_file("patch.safetensors"), strict=False)`` works without suture. Its
metadata says which weights it was made for.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from suture.errors import BaseMismatchError, DataError, InvalidArgumentError, MissingFileError
from suture.rundir import replacing

State = Mapping[str, Tensor]

COUNTER = "num_batches_tracked"  # BatchNorm's step counter: no output depends on it, old files lack it


def canonical_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by state name, tied tensors once (under their first name), counters left out."""
    aliases = aliases_of(model)
    return {
        name: tensor.detach()
        for name, tensor in model.state_dict().items()
        if name not in aliases and not name.endswith(COUNTER)
    }


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Later name → first name, for every tensor that the model's state holds more than once."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        original = first.setdefault(id(tensor), name)
        if original != name:
            aliases[name] = original
    return aliases


def base_sha256(state: State) -> str:
    """sha256 over the (name, dtype, shape, bytes) of every tensor, sorted by name; counters left out."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith(COUNTER):
            tensor = state[name].detach().cpu().contiguous()
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


@dataclass(frozen=True)
class Patch:
    """Changed tensors and what they were changed from.

    Attributes:
        tensors: state name → new value.
        base: sha256 of the weights the patch applies to.
        result: sha256 of the weights after it was applied in full.
        plan: name of the plan that made it.
        undo: whether it leads back from a repair.
        aliases: names of tied copies that the hashes leave out → the name they stand for.
        version: the suture that made it.
    """

    tensors: dict[str, Tensor]
    base: str
    result: str
    plan: str = ""
    undo: bool = False
    aliases: dict[str, str] = field(default_factory=dict)
    version: str = field(default_factory=lambda: version("suture"))

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def size(self) -> int:
        """How many numbers the patch holds."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def save(self, path: str | Path) -> None:
        """Write the patch as safetensors, atomically."""
        metadata = {
            "base_sha256": self.base,
            "result_sha256": self.result,
            "plan": self.plan,
            "kind": "undo" if self.undo else "patch",
            "aliases": json.dumps(self.aliases),
            "suture_version": self.version,
        }
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.tensors.items()}
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, metadata=metadata)


def load_patch(path: str | Path) -> Patch:
    """Read a patch.

    Raises:
        MissingFileError: no such file.
        DataError: the file is no patch.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"there is no patch {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        aliases = json.loads(metadata.get("aliases", "{}"))
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as a patch ({error})") from error
    if "base_sha256" not in metadata or not isinstance(aliases, dict):
        raise DataError(f"{path} is a safetensors file but no patch of suture: it does not say which weights it is for")
    return Patch(
        tensors,
        base=metadata["base_sha256"],
        result=metadata.get("result_sha256", ""),
        plan=metadata.get("plan", ""),
        undo=metadata.get("kind") == "undo",
        aliases=aliases,
        version=metadata.get("suture_version", ""),
    )


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


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality of bytes, for which NaN equals itself and −0 is not 0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.equal(*(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))))


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
    _check_fit(state, patch)
    found = base_sha256(_without(state, patch.aliases))
    whole = state if found == patch.base else _widened(state)
    if base_sha256(_without(whole, patch.aliases)) != patch.base:
        raise BaseMismatchError(
            f"this patch is for the weights with sha256 {patch.base[:12]}…, and these are {found[:12]}…; "
            + ("they are patched already" if found == patch.result else "give the weights it was made for")
        )
    result = base_sha256(_without(_replaced(whole, patch, 1.0)[0], patch.aliases))
    if patch.result and result != patch.result:
        raise BaseMismatchError(
            f"this patch leads to weights with sha256 {result[:12]}… and not to {patch.result[:12]}… as it says; it "
            "was changed after it was made"
        )
    return _replaced(state, patch, weight)


def revert(state: State, undo: Patch) -> dict[str, Tensor]:
    """The original state again, from a state that was patched in full or part of the way.

    Raises:
        BaseMismatchError: what comes out is not what the undo file promises to restore.
    """
    _check_fit(state, undo)
    restored, _ = _replaced(state, undo, 1.0)
    found = base_sha256(_without(restored, undo.aliases))
    if undo.result not in (found, base_sha256(_widened(_without(restored, undo.aliases)))):
        raise BaseMismatchError(
            f"reverting gives weights with sha256 {found[:12]}… and not the original {undo.result[:12]}…; these "
            "weights were not made by this patch, or were changed after it"
        )
    return restored


def patched(model: nn.Module, patch: Patch, weight: float = 1.0) -> nn.Module:
    """A patched copy of a model; the model given is not changed.

    Raises:
        BaseMismatchError: the patch is for other weights.
    """
    state, _ = apply(canonical_state(model), patch, weight)
    twin = copy.deepcopy(model)
    twin.load_state_dict(state, strict=False)
    return twin


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
    return torch.lerp(old, new, weight) if old.is_floating_point() else new


def _widened(state: State) -> dict[str, Tensor]:
    """Half precision as the float32 that a model holds after loading it."""
    half = (torch.float16, torch.bfloat16)
    return {name: tensor.float() if tensor.dtype in half else tensor for name, tensor in state.items()}


def _without(state: State, names: Iterable[str]) -> dict[str, Tensor]:
    left_out = set(names)
    return {name: tensor for name, tensor in state.items() if name not in left_out}


def _same_kind(there: torch.dtype, patched: torch.dtype) -> bool:
    """Equal types, or half precision on disk of what a model holds as float32."""
    return there == patched or (there in (torch.float16, torch.bfloat16) and patched == torch.float32)


def _check_fit(state: State, patch: Patch) -> None:
    for name, tensor in patch.tensors.items():
        if name not in state:
            raise BaseMismatchError(f"the patch changes '{name}', which these weights lack; are they of this model?")
        there = state[name]
        if there.shape != tensor.shape or not _same_kind(there.dtype, tensor.dtype):
            raise BaseMismatchError(
                f"the patch has '{name}' as {tensor.dtype} {tuple(tensor.shape)}, these weights as {there.dtype} "
                f"{tuple(there.shape)}; are they of this model?"
            )
