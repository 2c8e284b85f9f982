"""Patches: the changed tensors of a repair, applied and reverted without training code.

A patch is a safetensors file whose keys are the model's state names, so that
``model.load_state_dict(load_file("patch.safetensors"), strict=False)`` works without suture. Its
metadata says which weights it was made for, which weights it leads to, and what was measured of it.
"""

from suture.patch.adapter import Adapter, adapter_of, load_adapter
from suture.patch.algebra import compose, diff, scaled
from suture.patch.application import apply, between, patched, revert
from suture.patch.file import PATCH, UNDO, Patch, load_patch
from suture.patch.inspection import Inspection, inspect
from suture.patch.routed import Routed
from suture.patch.state import COUNTER, State, aliases_of, base_sha256, canonical_state, same_bits

__all__ = [
    "COUNTER",
    "PATCH",
    "UNDO",
    "Adapter",
    "Inspection",
    "Patch",
    "Routed",
    "State",
    "adapter_of",
    "aliases_of",
    "apply",
    "base_sha256",
    "between",
    "canonical_state",
    "compose",
    "diff",
    "inspect",
    "load_adapter",
    "load_patch",
    "patched",
    "revert",
    "same_bits",
    "scaled",
]
