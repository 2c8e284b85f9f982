"""Low-rank patches apart from the weights, in the layout of PEFT: made from a patch, or read and merged into one.

A directory holds ``adapter_model.safetensors`` and ``adapter_config.json``, as ``peft.PeftModel.from_pretrained(model,
directory)`` takes it. Nothing here needs PEFT. Directories come from strangers: sizes are bounded, no pickle is read,
and what is not plain LoRA is refused by name.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from suture.errors import BaseMismatchError, DataError, InvalidArgumentError, MissingFileError, UnsafeFileError
from suture.patch.application import base_of, between
from suture.patch.file import MOST_WORDS, Patch, check_header, shown
from suture.patch.state import State, aliases_of, canonical_state
from suture.rundir import replacing, write_json

WEIGHTS, CONFIG, PICKLE = "adapter_model.safetensors", "adapter_config.json", "adapter_model.bin"
PREFIX = "base_model.model."  # of every name in PEFT's file
MOST_CONFIG = 1 << 20  # bytes
MOST_RANK = 4096
ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
PLAIN_NAME = re.compile(r"\^?[\w.-]+")  # PEFT takes patterns of names for regular expressions; ours is no place for any
# Fields that say nothing about what the adapter computes, or that are read. Any other has to be empty.
READ = {"r", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "fan_in_fan_out", "init_lora_weights"}
HARMLESS = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "exclude_modules", "lora_dropout", "bias", "modules_to_save", "layers_to_transform",
    "layers_pattern", "megatron_config", "megatron_core", "qalora_group_size", "eva_config", "runtime_config",
    "ensure_weight_tying",
}  # fmt: skip
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # that leave the base weights as they are


@dataclass(frozen=True, eq=False)
class Adapter:
    """Changes of low rank: W + factor · B A.

    Attributes:
        pairs: name of a weight → A (r, …) of the weight's shape but for its first axis, B (out, r, 1, …), factor.
        values: name of a tensor → what takes its place, such as a head that was trained whole.
        transposed: whether the weights of linear layers are (in, out), as in GPT-2.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor, float]]
    values: Mapping[str, Tensor] = field(default_factory=dict)
    transposed: bool = False

    @property
    def names(self) -> set[str]:
        """State names of what is changed."""
        return {*self.pairs, *self.values}

    def onto(self, state: State) -> dict[str, Tensor]:
        """The state with the changes merged into it; `state` is not changed.

        Raises:
            BaseMismatchError: a tensor is missing or misshapen.
        """
        new = dict(state)
        for name in sorted(self.names):
            if name not in state:
                raise BaseMismatchError(
                    f"the adapter changes {shown(name)}, which these weights lack; are they of the model it is for?"
                )
            old, shape = state[name], self._shape(name)
            if old.shape != shape or not old.is_floating_point():
                raise BaseMismatchError(
                    f"the adapter has {shown(name)} as fractions {tuple(shape)}, these weights as {old.dtype} "
                    f"{tuple(old.shape)}; are they of the model it is for?"
                )
            new[name] = self._changed(name, old) if name in self.pairs else self.values[name].to(old)
        return new

    def _shape(self, name: str) -> torch.Size:
        if name in self.values:
            return self.values[name].shape
        a, b, _ = self.pairs[name]
        shape = torch.Size((len(b), *a.shape[1:]))
        return torch.Size(reversed(shape)) if self.transposed and len(shape) == 2 else shape

    def _changed(self, name: str, old: Tensor) -> Tensor:
        a, b, factor = self.pairs[name]
        change = factor * (b.flatten(1).float() @ a.flatten(1).float()).to(old.device)
        if not change.any():  # −0 + 0 is 0
            return old
        change = change.T if self.transposed and old.dim() == 2 else change.reshape(old.shape)
        return (old.to(torch.promote_types(old.dtype, torch.float32)) + change).to(old.dtype)

    def patch(self, state: State, aliases: Mapping[str, str] | None = None) -> tuple[Patch, Patch]:
        """The patch that merges the adapter into some weights, and its undo; see `suture.patch.between`."""
        return between(state, self.onto(state), "adapter", aliases)

    def save(self, directory: str | Path) -> None:
        """Write both files; all factors are made 1, and ranks equal.

        Raises:
            InvalidArgumentError: it holds whole tensors or transposed weights, which only PEFT itself can tell apart.
        """
        if self.values or self.transposed or not self.pairs:
            raise InvalidArgumentError("only an adapter of low-rank changes to Linear or convolution layers is written")
        rank, folder, tensors = max(len(a) for a, _, _ in self.pairs.values()), Path(directory), dict[str, Tensor]()
        for name, (a, b, factor) in self.pairs.items():
            path, more = PREFIX + name.removesuffix(".weight"), rank - len(a)
            tensors[f"{path}.lora_A.weight"] = torch.cat([a, a.new_zeros(more, *a.shape[1:])]).cpu()
            whole = torch.cat([b * factor, b.new_zeros(len(b), more, *b.shape[2:])], 1)
            tensors[f"{path}.lora_B.weight"] = whole.cpu()
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as temporary:
            save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata={"format": "pt"})
        paths = [name.removesuffix(".weight") for name in self.pairs]
        write_json(folder / CONFIG, {
            "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
            "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none", "init_lora_weights": True,
            "target_modules": "|".join(map(re.escape, paths)),  # in a list, 'fc' would stand for 'head.fc' too
        })  # fmt: skip


def adapter_of(model: nn.Module, patch: Patch, rank: int | None = None) -> Adapter:
    """A patch as an adapter, by the singular values of its changes that rounding does not explain.

    Args:
        model: that the patch is for.
        rank: the highest that is allowed; None for any.

    Raises:
        BaseMismatchError: the patch is for other weights.
        InvalidArgumentError: it changes something else than weights of Linear and convolution layers, or its rank is
            too high.
    """
    old, pairs = base_of(canonical_state(model), patch), {}
    for name, new in patch.tensors.items():
        layer = dict(model.named_modules()).get(name.removesuffix(".weight"))
        if not name.endswith(".weight") or not _adapted(layer) or name in aliases_of(model):
            raise InvalidArgumentError(
                f"the patch changes {shown(name)}, which is no weight of a Linear or plain convolution layer "
                "(ungrouped, undilated, padded with zeros), so it is no adapter; keep the patch"
            )
        a, b = _factors(old[name], new)
        if rank is not None and len(a) > rank:
            raise InvalidArgumentError(
                f"the change of {shown(name)} has rank {len(a)}, above {rank}, so it is no such adapter; keep the patch"
            )
        pairs[name] = (a, b, 1.0)
    return Adapter(pairs)


def _adapted(layer: nn.Module | None) -> bool:
    """Whether PEFT's adapter of a layer answers as its merged weight does."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        plain = layer.groups == 1 and all(d == 1 for d in layer.dilation) and layer.padding_mode == "zeros"
        return plain and isinstance(layer, ADAPTED)
    return isinstance(layer, ADAPTED)


def _factors(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """A and B with B A = new − old but for rounding; at least of rank 1."""
    change = (new.double() - old.double()).flatten(1).cpu()
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    # Rounding moves each entry by half a unit in the last place at most; the norm of such noise is below this.
    noise = torch.finfo(new.dtype).eps * float(new.abs().max()) * sum(math.sqrt(n) for n in change.shape)
    rank = max(int((s > noise).sum()), 1)
    root = s[:rank].sqrt()
    a = (root[:, None] * v[:rank]).reshape(rank, *old.shape[1:])
    b = (u[:, :rank] * root).reshape(len(old), rank, *(1,) * (old.dim() - 2))
    return a.to(new.dtype).contiguous(), b.to(new.dtype).contiguous()


def load_adapter(directory: str | Path) -> Adapter:
    """Read a LoRA adapter in PEFT's layout.

    Raises:
        MissingFileError: a file is missing.
        UnsafeFileError: the weights are a pickle.
        DataError: they are damaged, or something else than plain LoRA.
    """
    folder = Path(directory)
    path = folder / WEIGHTS
    if not path.is_file() and (folder / PICKLE).is_file():
        raise UnsafeFileError(
            f"{folder / PICKLE} is a pickle, which may hold code; it was not read. Save the adapter with "
            "safe_serialization=True and give that"
        )
    for wanted in (path, folder / CONFIG):
        if not wanted.is_file():
            raise MissingFileError(f"there is no {wanted}; an adapter is a directory with {WEIGHTS} and {CONFIG}")
    try:
        config = _config(folder / CONFIG)
        check_header(path)
        return _read(load_file(path), config)
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise DataError(f"{folder} is no adapter that can be merged: {error}") from error


def _config(path: Path) -> dict[str, Any]:
    """The config, as far as it is plain LoRA; ValueError says what is not."""
    if path.stat().st_size > MOST_CONFIG:
        raise ValueError(f"its config takes {path.stat().st_size} bytes; at most {MOST_CONFIG} are read")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{CONFIG} is no JSON") from error
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is no JSON object")
    if config.get("peft_type") != "LORA":
        raise ValueError(f"its peft_type is {shown(str(config.get('peft_type')))} and not LORA")
    asked = next((key for key, value in config.items() if value and key not in READ | HARMLESS), None)
    start = config.get("init_lora_weights", True)
    if asked is None and not any(start is known or start == known for known in STARTS):
        asked = "init_lora_weights"
    if asked is not None:
        raise ValueError(
            f"it asks for {shown(asked)}, beyond plain LoRA; merge it with PEFT (merge_and_unload) and give the weights"
        )
    if not isinstance(config.get("alpha_pattern") or {}, dict):
        raise ValueError("its alpha_pattern is no JSON object")
    return config


def _read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Adapter:
    halves: dict[str, dict[str, Tensor]] = {}
    values: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if not key.startswith(PREFIX) or len(key) > MOST_WORDS:
            raise ValueError(f"{shown(key)} does not begin with {PREFIX}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"{shown(key)} holds other than finite fractions")
        name = key.removeprefix(PREFIX)
        path, found, half = name.partition(".lora_")
        if not found:
            values[name.replace(".base_layer.", ".")] = tensor
        elif half in ("A.weight", "B.weight"):
            halves.setdefault(f"{path}.weight", {})[half[0]] = tensor
        else:
            raise ValueError(f"{shown(key)} is of no Linear or convolution layer")
    if not halves and not values:
        raise ValueError("it holds no tensors")
    pairs = {}
    for name, pair in halves.items():
        a, b = pair.get("A"), pair.get("B")
        fits = a is not None and b is not None and min(a.dim(), b.dim()) > 1 and b[0].numel() == len(a)
        if a is None or b is None or not fits or not 0 < len(a) <= MOST_RANK:
            raise ValueError(f"lora_A and lora_B of {shown(name)} do not fit each other")
        pairs[name] = (a, b, _factor(name.removesuffix(".weight"), len(a), config))
    return Adapter(pairs, values, transposed=bool(config.get("fan_in_fan_out")))


def _factor(path: str, rank: int, config: Mapping[str, Any]) -> float:
    """alpha / r, or alpha / √r (rank-stabilised; Kalajdzievski 2023), with the first pattern that fits the path."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if not PLAIN_NAME.fullmatch(pattern):
            raise ValueError(f"its alpha_pattern {shown(pattern)} is no name of a layer")
        if path == pattern.removeprefix("^") or (pattern[0] != "^" and path.endswith(f".{pattern}")):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not -1e6 < alpha < 1e6:
        raise ValueError(f"its lora_alpha {shown(str(alpha))} is no number")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
