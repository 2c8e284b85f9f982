"""A model's tensors by name: tied ones once, hashed, compared byte by byte."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]

COUNTER = "num_batches_tracked"  # BatchNorm's step counter: no output depends on it, old files lack it
HALF = (torch.float16, torch.bfloat16)


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


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality of bytes, for which NaN equals itself and −0 is not 0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.equal(*(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))))


def widened(state: State) -> dict[str, Tensor]:
    """Half precision as the float32 that a model holds after loading it."""
    return {name: tensor.float() if tensor.dtype in HALF else tensor for name, tensor in state.items()}


def without(state: State, names: Iterable[str]) -> dict[str, Tensor]:
    """The state less some names, such as those of tied copies."""
    left_out = set(names)
    return {name: tensor for name, tensor in state.items() if name not in left_out}


def same_kind(there: torch.dtype, patched: torch.dtype) -> bool:
    """Equal types, or half precision on disk of what a model holds as float32."""
    return there == patched or (there in HALF and patched == torch.float32)
