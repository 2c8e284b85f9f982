"""Kinds of faults: ways in which the weights of a group go wrong. The registry is open to users.

A kind of one's own is a function and a line::

    @suture.bench.fault("deaf", share=True)
    def deaf(site, share):
        \"\"\"A share of inputs is never heard.\"\"\"
        for layer in site.layers:
            (chosen,) = site.share([layer.weight.shape[-1]], share)
            layer.weight[..., chosen] = 0
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from suture.bench.examples import Pairs
from suture.bench.layers import Layer
from suture.errors import InvalidArgumentError
from suture.registry import Registry
from suture.tasks import Task


@dataclass(frozen=True, eq=False)
class Site:
    """What a kind may change and what it may draw from.

    Every draw comes from `generator`, in the same order whatever the strength, so that with one seed a larger
    strength is more of the same fault.

    Attributes:
        layers: what is damaged, in model order; gradients are off while a kind runs.
        generator: on the CPU, from (seed, group, kind) alone.
        model: the copy the layers belong to.
        examples: inputs and targets, for kinds that train, else None.
        task: what the model is for.
    """

    layers: list[Layer]
    generator: Generator
    model: nn.Module
    task: Task
    examples: Pairs | None = field(default=None, repr=False)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of a tensor's shape, on its device, float32."""
        return torch.randn(like.shape, generator=self.generator).to(like.device)

    def integer(self, below: int) -> int:
        """A number from 0 to ``below - 1``."""
        return int(torch.randint(below, (), generator=self.generator))

    def pick(self, sizes: list[int], count: int) -> list[Tensor]:
        """Positions of `count` units out of several pools: one (k,) for each, in the order of being drawn."""
        order = torch.randperm(sum(sizes), generator=self.generator)[:count]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [
            order[(order >= start) & (order < start + size)] - start for start, size in zip(starts, sizes, strict=True)
        ]

    def share(self, sizes: list[int], share: float) -> list[Tensor]:
        """Like `pick`, a share of all units, at least one; a larger share holds every smaller one."""
        return self.pick(sizes, max(1, round(share * sum(sizes))))


@dataclass(frozen=True)
class Kind:
    """A way of damaging layers.

    Attributes:
        damage: changes the layers of a site in place. A function that yields is a training: it yields after
            each step, and the strength is the number of steps.
        fits: whether it can damage a layer.
        needs: what it needs, for the error when no layer fits.
        share: whether strength is a share, above 0 and at most 1.
        first: the strength that a search tries first.
        most: the largest that it tries.
    """

    damage: Callable[[Site, float], Any]
    fits: Callable[[Layer], bool]
    needs: str
    share: bool
    first: float
    most: float

    @property
    def trains(self) -> bool:
        """Whether the damage is done in steps, on examples."""
        return inspect.isgeneratorfunction(self.damage)

    def check(self, name: str, strength: float) -> None:
        """Refuse a strength that means nothing.

        Raises:
            InvalidArgumentError: naming what the strength of this kind is.
        """
        if self.share:
            good, meant = 0 < strength <= 1, "a share, above 0 and at most 1"
        elif self.trains:
            good, meant = strength >= 1 and float(strength).is_integer(), "a number of steps, at least 1"
        else:
            good, meant = 0 < strength < float("inf"), "a finite number above 0"
        if not good:
            raise InvalidArgumentError(f"the strength of a '{name}' fault is {meant}, not {strength}")


FAULTS: Registry[Kind] = Registry("fault")


def fault(
    name: str,
    *,
    fits: Callable[[Layer], bool] = lambda layer: True,
    needs: str = "a floating-point parameter",
    share: bool = False,
    first: float = 0.25,
    most: float = 64.0,
) -> Callable[[Callable[[Site, float], Any]], Callable[[Site, float], Any]]:
    """Decorator that registers a function (site, strength) as a kind of fault; see `Kind` for the options.

    Raises:
        InvalidArgumentError: the name is taken.
    """

    def add(damage: Callable[[Site, float], Any]) -> Callable[[Site, float], Any]:
        FAULTS.register(name)(Kind(damage, fits, needs, share, first, 1.0 if share else most))
        return damage

    return add


@fault("noise")
def noise(site: Site, strength: float) -> None:
    """w += s · rms(w) · N for every weight tensor, and for the bias of a norm."""
    for layer in site.layers:
        for tensor in layer.parameters if layer.vector else (layer.weight,):
            rms = tensor.float().square().mean().sqrt()
            tensor.add_((strength * rms * site.normal(tensor)).to(tensor.dtype))


@fault("zero", share=True, first=0.2)
def zero(site: Site, share: float) -> None:
    """A share of output channels is dead: weights and bias are zero."""
    for layer, chosen in _channels(site, share):
        layer.scale(torch.ones(layer.channels).index_fill(0, chosen, 0.0))


@fault("sign", share=True, first=0.05)
def sign(site: Site, share: float) -> None:
    """A share of single weights has the wrong sign; where all layers are norms, a share of channels, weight and bias.

    Beside other layers norms are left alone: one of their channels weighs as much as hundreds of single weights,
    so that a share of both together would be a share of nothing.
    """
    layers = [layer for layer in site.layers if not layer.vector] or site.layers
    sizes = [layer.channels if layer.vector else layer.weight.numel() for layer in layers]
    for layer, chosen in zip(layers, site.share(sizes, share), strict=True):
        if layer.vector:
            layer.scale(torch.ones(layer.channels).index_fill(0, chosen, -1.0))
        else:
            places = torch.unravel_index(chosen.to(layer.weight.device), layer.weight.shape)
            layer.weight[places] = -layer.weight[places]


@fault("scale", most=8.0)
def scale(site: Site, strength: float) -> None:
    """Every output channel, weights and bias, times exp(s · N)."""
    for layer in site.layers:
        layer.scale((strength * torch.randn(layer.channels, generator=site.generator)).exp())


@fault("permute", share=True, fits=lambda layer: layer.channels > 1, needs="a layer of at least two channels")
def permute(site: Site, share: float) -> None:
    """A share of each layer's output channels, at least two, change places in a ring; of a norm, all four vectors."""
    for layer in site.layers:
        order = torch.randperm(layer.channels, generator=site.generator)
        moved = order[: max(2, round(share * layer.channels))]
        source = torch.arange(layer.channels)
        source[moved] = moved.roll(-1)
        layer.permute(source)


@fault("bnstat", fits=lambda layer: bool(layer.statistics), needs="a norm with running statistics", most=8.0)
def bnstat(site: Site, strength: float) -> None:
    """Stale statistics: running_mean += s · σ · N and running_var *= exp(s · N)."""
    for layer in site.layers:
        mean, variance = layer.statistics
        mean.add_(strength * variance.sqrt() * site.normal(mean))
        variance.mul_((strength * site.normal(variance)).exp())


@fault("huge", first=8.0, most=4096.0)
def huge(site: Site, strength: float) -> None:
    """One to three single weights become ±s · max|w| of their tensor."""
    chosen = site.pick([layer.weight.numel() for layer in site.layers], 1 + site.integer(3))
    for layer, positions in zip(site.layers, chosen, strict=True):
        signs = torch.randint(2, (3,), generator=site.generator) * 2.0 - 1.0
        size = layer.weight.abs().max()
        places = torch.unravel_index(positions.to(size.device), layer.weight.shape)
        layer.weight[places] = strength * size * signs[: len(positions)].to(size)


def _channels(site: Site, share: float) -> list[tuple[Layer, Tensor]]:
    """Each layer with its part of a share of all output channels."""
    chosen = site.share([layer.channels for layer in site.layers], share)
    return list(zip(site.layers, chosen, strict=True))
