"""Sites, and the forward pass in which every recorded activation is put back to what the record says.

What went wrong before a site then no longer shows behind it, so that each site speaks of the layers between it and
the one before. A site is a place whose healthy moments are known: the input of a BatchNorm, which keeps them in
its running statistics, or the output of any layer, where a record was taken at a healthy time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from suture.moments import Moments, Record, channel_axis, layers_of, moments_of, output_of

MOST = 10.0  # times that a channel is amplified at a site: one that is all but dead would bring noise alone


@dataclass(frozen=True, eq=False)
class Site:
    """A place with a record.

    Attributes:
        path: of the module.
        at: whether its input or its output is recorded.
        recorded: healthy moments.
        eps: added to variances, recorded and seen.
        producer: the group whose layer gave what arrives here, None when it belongs to none.
        keeper: the group that owns the record, or the producer where none does; for an output the producer itself.
    """

    path: str
    at: Literal["input", "output"]
    recorded: Moments
    eps: float
    producer: str | None
    keeper: str | None

    @property
    def owner(self) -> str | None:
        """The group that answers for a mismatch at first sight."""
        return self.keeper if self.keeper is not None else self.producer


Seen = dict[str, Moments]
"""Path of a site → moments in one batch."""


def keeps_record(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm with running statistics."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def sites_of(
    model: nn.Module, groups: Mapping[str, Sequence[str]], record: Record | None, order: Sequence[str]
) -> list[Site]:
    """Sites in the order in which they are passed.

    Args:
        record: moments of layers' outputs; None takes the running statistics of BatchNorm layers.
        order: paths of the layers as they were called.
    """
    layers = layers_of(model)
    group_of = {name: group for group, names in groups.items() for name in names}
    owner = {path: _group(path, module, group_of) for path, module in layers.items()}
    found, before = [], None
    modules = dict(model.named_modules())
    for path in dict.fromkeys(order):
        module = modules[path]
        if record is not None and path in record and path in layers:
            eps = 1e-5 * float(record[path].var.mean()) + 1e-12
            found.append(Site(path, "output", record[path], eps, owner[path], owner[path]))
        elif record is None and keeps_record(module):
            recorded = Moments(module.running_mean.clone(), module.running_var.clone())
            eps = float(module.eps)
            # One without scale and shift belongs to no group; then the layer that feeds it answers for it.
            found.append(Site(path, "input", recorded, eps, before, owner.get(path, before)))
        before = owner.get(path, before)
    return found


@contextmanager
def call_order(model: nn.Module) -> Iterator[list[str]]:
    """The list of paths of layers and BatchNorms in the order in which they are called in here."""
    paths: list[str] = []
    watched = {path: m for path, m in model.named_modules() if path and keeps_record(m)} | layers_of(model)

    def note(path: str) -> Any:
        return lambda *_: paths.append(path)

    handles = [module.register_forward_hook(note(path)) for path, module in watched.items()]
    try:
        yield paths
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def walking(model: nn.Module, sites: Sequence[Site]) -> Iterator[Seen]:
    """Forward passes in here are walks; what the last call of each site saw is left in the dict."""
    seen: Seen = {}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fast path calls no layers
    handles = [
        model.get_submodule(site.path).register_forward_hook(_hook(site, seen), with_kwargs=True) for site in sites
    ]
    try:
        yield seen
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()


def mismatch(site: Site, seen: Moments) -> Tensor:
    """How far what a site saw is from its record, a scalar ≥ 0; differentiable in `seen`.

    The mean over channels of log(1 + KL), KL being that of the channel's normal distribution as seen from the one
    recorded, after one factor for all channels that makes the mean KL least: contrast, brightness and the loss of
    fine detail that comes with compression change all channels alike, which faults do not. The logarithm keeps
    a channel that is all but dead from outweighing the others.
    """
    mean, var = seen.mean, seen.var + site.eps
    k = _common_factor(site, seen)
    return torch.log1p(_divergence(site, k * mean, k * k * var)).mean()


def concentration(site: Site, seen: Moments) -> float:
    """Median over mean of the channels' log(1 + KL): near 0 when few channels are off, near 1 when all are."""
    each = torch.log1p(_divergence(site, seen.mean, seen.var + site.eps))
    return float(each.median() / each.mean().clamp_min(1e-12))


def channel_mismatch(site: Site, seen: Moments) -> Tensor:
    """What is left of the mismatch when every channel may have a factor of its own, a scalar."""
    mean, var = seen.mean, seen.var + site.eps
    k = _factor(
        (var + mean**2) / (site.recorded.var + site.eps), mean * site.recorded.mean / (site.recorded.var + site.eps)
    )
    return torch.log1p(_divergence(site, k * mean, k * k * var)).mean()


def _hook(site: Site, seen: Seen) -> Any:
    def at_input(module: Any, args: tuple[Any, ...], named: dict[str, Any], _: Any) -> Tensor:
        given = args[0] if args else named["input"]
        seen[site.path] = moments_of(given, 1)
        return F.batch_norm(given, None, None, module.weight, module.bias, training=True, eps=module.eps)

    def at_output(module: nn.Module, _: Any, __: Any, output: Any) -> Any:
        values = output_of(output)
        if values is None:
            return output
        axis = channel_axis(module, values) % values.dim()
        if values.shape[axis] != len(site.recorded.mean):
            return output  # another number of channels than was recorded
        now = moments_of(values, axis)
        seen[site.path] = now
        shape = [-1 if d == axis else 1 for d in range(values.dim())]
        scale = ((site.recorded.var + site.eps) / (now.var + site.eps)).sqrt().clamp_max(MOST)
        mended = (values - now.mean.view(shape)) * scale.view(shape) + site.recorded.mean.view(shape)
        return tree_map(lambda leaf: mended.to(values.dtype) if leaf is values else leaf, output)

    return at_input if site.at == "input" else at_output


def _divergence(site: Site, mean: Tensor, var: Tensor) -> Tensor:
    """KL of normal distributions per channel, from the recorded one."""
    there = site.recorded.var + site.eps
    return (0.5 * ((there / var).log() + (var + (mean - site.recorded.mean) ** 2) / there - 1)).clamp_min(0)


def _common_factor(site: Site, seen: Moments) -> Tensor:
    there = site.recorded.var + site.eps
    size = ((seen.var + site.eps + seen.mean**2) / there).mean()
    agreement = (seen.mean * site.recorded.mean / there).mean()
    return _factor(size, agreement).detach()


def _factor(size: Tensor, agreement: Tensor) -> Tensor:
    """The k > 0 that makes k²·size − 2k·agreement − 2 log k least."""
    return (agreement + (agreement**2 + 4 * size).sqrt()) / (2 * size)


def _group(path: str, module: nn.Module, group_of: Mapping[str, str]) -> str | None:
    names = (f"{path}.{name}" for name, _ in module.named_parameters(recurse=False))
    return next((group_of[name] for name in names if name in group_of), None)
