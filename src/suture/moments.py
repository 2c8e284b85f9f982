"""Moments of activations: what each layer of a healthy network gave, kept to compare with later.

A record holds the mean and variance of every channel of every layer's output. BatchNorm layers keep such a record
of their inputs by themselves; for other networks ``suture train`` stores one beside the weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves

from suture.errors import InvalidArgumentError, MissingFileError
from suture.rundir import replacing
from suture.tasks import Examples, Task, fetch, to_device

SUFFIX = ".moments.safetensors"
ENOUGH = 1000  # examples of a record: the error of a mean is then 3 % of the channel's deviation
SECOND = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and (biased) variance of every channel, both (channels,)."""

    mean: Tensor
    var: Tensor


Record = Mapping[str, Moments]
"""Path of a layer → moments of its output."""


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Path → module, for modules that own floating-point parameters themselves; in model order, roots left out.

    Parameters that a weight is made of belong to the layer whose weight it is.
    """

    def owned(module: nn.Module) -> Iterator[nn.Parameter]:
        yield from module.parameters(recurse=False)
        if is_parametrized(module):
            yield from module.parametrizations.parameters()  # type: ignore[union-attr]

    return {
        path: module
        for path, module in model.named_modules()
        if path and "parametrizations" not in path.split(".") and any(p.is_floating_point() for p in owned(module))
    }


def output_of(output: Any) -> Tensor | None:
    """The first floating-point tensor with channels in a layer's output."""
    leaves = (leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    return next((leaf for leaf in leaves if leaf.dim() > 1), None)


def channel_axis(module: nn.Module, values: Tensor) -> int:
    """Axis of the channels in a layer's output."""
    if isinstance(module, SECOND):
        return 1
    # These give pictures whose channels come first, whatever they do inside.
    own = isinstance(module, nn.LayerNorm) and type(module).forward is not nn.LayerNorm.forward
    return 1 if values.dim() == 4 and (own or isinstance(module, nn.PReLU)) else -1


def moments_of(values: Tensor, axis: int) -> Moments:
    """Moments of the channels along an axis, over all other axes; differentiable."""
    axis %= values.dim()
    others = [d for d in range(values.dim()) if d != axis]
    var, mean = torch.var_mean(values.float(), others, correction=0)
    return Moments(mean, var)


def pooled(parts: Sequence[Moments], weights: Sequence[float] | None = None) -> Moments:
    """Moments of several parts taken together."""
    share = torch.tensor(list(weights or [1.0] * len(parts)), device=parts[0].mean.device)
    share = (share / share.sum()).unsqueeze(1)
    means, variances = torch.stack([p.mean for p in parts]), torch.stack([p.var for p in parts])
    mean = (share * means).sum(0)
    return Moments(mean, (share * (variances + (means - mean) ** 2)).sum(0))


def measure_moments(
    model: nn.Module,
    examples: Examples,
    task: Task,
    *,
    device: torch.device,
    batch_size: int = 128,
    most: int = ENOUGH,
    seed: int = 0,
) -> dict[str, Moments]:
    """Moments of every layer's output over at most `most` examples drawn by seed, in eval mode.

    A layer that is called several times counts every call; one that is never called is missing, and so is one that
    gives several numbers of channels.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(examples))[:most]).tolist()
    parts: dict[str, list[Moments]] = {}
    weights: dict[str, list[float]] = {}

    def hook(path: str) -> Any:
        def note(module: nn.Module, _: Any, output: Any) -> None:
            values = output_of(output)
            if values is not None:
                parts.setdefault(path, []).append(moments_of(values.detach(), channel_axis(module, values)))
                weights.setdefault(path, []).append(float(values.numel()))

        return note

    training = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(hook(path)) for path, module in layers_of(model).items()]
    try:
        model.eval()
        with torch.no_grad():
            for start in range(0, len(drawn), batch_size):
                task.outputs(model, to_device(fetch(examples, drawn[start : start + batch_size], task), device))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    alike = {path: several for path, several in parts.items() if len({len(each.mean) for each in several}) == 1}
    return {path: pooled(several, weights[path]) for path, several in alike.items()}


def save_moments(record: Record, path: Path) -> None:
    """Write a record as safetensors, keys ``<layer>.mean`` and ``<layer>.var``."""
    tensors = {f"{layer}.mean": m.mean.cpu().contiguous() for layer, m in record.items()}
    tensors |= {f"{layer}.var": m.var.cpu().contiguous() for layer, m in record.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def load_moments(path: Path, device: torch.device | str = "cpu") -> dict[str, Moments]:
    """Read a record.

    Raises:
        MissingFileError: there is no such file.
        InvalidArgumentError: it is no record.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}")
    try:
        tensors = load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise InvalidArgumentError(f"{path} is no record of moments ({str(error).splitlines()[0]})") from error
    found = {}
    for key, mean in tensors.items():
        layer, _, what = key.rpartition(".")
        if what == "mean":
            var = tensors.get(f"{layer}.var")
            if var is None or mean.dim() != 1 or var.shape != mean.shape or not _sound(mean, var):
                raise InvalidArgumentError(f"{path} is no record of moments: '{layer}' lacks a mean and a variance")
            found[layer] = Moments(mean, var)
    if not found or len(tensors) != 2 * len(found):
        raise InvalidArgumentError(f"{path} is no record of moments; suture train writes one beside the weights")
    return found


def beside(weights: Path) -> Path:
    """Where the record of a weights file lies: ``net.safetensors`` → ``net.moments.safetensors``."""
    return weights.with_name(f"{weights.stem}{SUFFIX}")


def _sound(mean: Tensor, var: Tensor) -> bool:
    return bool(mean.isfinite().all() and var.isfinite().all() and (var >= 0).all())
