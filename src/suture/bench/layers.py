"""What a fault can damage: the weights of a group, each with the bias and the statistics of its output channels."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# By name, so that Conv1D of transformers, a Linear whose weight lies the other way round, needs no import.
CHANNELS_SECOND = {"Embedding", "EmbeddingBag", "Conv1D"}
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CHANNELS_FIRST = (nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.LayerNorm, nn.RMSNorm)  # may have weights of several axes, yet one number per channel


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight of the group with what belongs to its output channels.

    Tensors are those of the damaged copy, to be changed in place. Without a bias of its own in the group a
    layer has None; a bias whose weight is in another group is a layer by itself.

    Attributes:
        path: name of the module that owns the weight, empty for the root.
        module: that module.
        weight: of any shape. Output channels are the rows of a Linear or convolution, the features of an
            Embedding, the elements of a norm, and the first axis longer than one of a bare parameter.
        bias: one number per channel, or None.
        statistics: running mean and variance, (channels,) each, or empty.
    """

    path: str
    module: nn.Module
    weight: Tensor
    bias: Tensor | None = None
    statistics: tuple[Tensor, ...] = ()

    @property
    def vector(self) -> bool:
        """Whether the weight, too, is one number per channel: a norm, a bare vector."""
        return self.weight.dim() < 2 or isinstance(self.module, NORMS)

    @property
    def channels(self) -> int:
        """How many output channels there are."""
        first, second = self._by_channel().shape[:2]
        return first * second

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The weight, and the bias where there is one."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def scale(self, factor: Tensor) -> None:
        """Multiply what every output channel gives, weight and bias; `factor` is (channels,)."""
        for view in self._views(self.parameters):
            shaped = factor.reshape(view.shape[:2] + (1,) * (view.dim() - 2))
            view.mul_(shaped.to(view.device, view.dtype))

    def permute(self, source: Tensor) -> None:
        """Let channel c be what channel ``source[c]`` was: weight, bias and statistics together."""
        for view in self._views(self.parameters + self.statistics):
            view.copy_(view.flatten(0, 1)[source.to(view.device)].reshape(view.shape))

    def _views(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        blocks = self._by_channel().shape[0]
        return [self._by_channel() if t is self.weight else t.view(blocks, -1) for t in tensors]

    def _by_channel(self) -> Tensor:
        """A view of the weight whose first two axes count the output channels: (blocks, channels / blocks, …)."""
        if self.vector:
            return self.weight.view(1, -1)
        if isinstance(self.module, TRANSPOSED):
            # (in, out / groups, …): each block of inputs has outputs of its own.
            return self.weight.view(self.module.groups, -1, *self.weight.shape[1:]).transpose(1, 2)
        return self.weight.movedim(self._axis(), 0).unsqueeze(0)

    def _axis(self) -> int:
        if any(cls.__name__ in CHANNELS_SECOND for cls in type(self.module).__mro__):
            return 1
        if isinstance(self.module, CHANNELS_FIRST):
            return 0
        return next((axis for axis, size in enumerate(self.weight.shape) if size > 1), 0)


def layers_of(model: nn.Module, parameters: Iterable[str]) -> list[Layer]:
    """The layers that the named parameters make up, in their order; integers and empty tensors are left out."""
    named = dict(model.named_parameters())
    wanted = {n: named[n] for n in parameters if named[n].is_floating_point() and named[n].numel()}
    layers: list[Layer] = []
    paired: set[str] = set()
    seen: set[nn.Module] = set()
    for name, weight in wanted.items():
        path, _, local = name.rpartition(".")
        module = model.get_submodule(path)
        layer = Layer(path, module, weight)
        partner = f"{path}.{local.replace('weight', 'bias')}".lstrip(".")
        if partner != name and partner in wanted and wanted[partner].numel() == layer.channels:
            layer = Layer(path, module, weight, wanted[partner])
            paired.add(partner)
        if module not in seen:
            layer = Layer(path, module, weight, layer.bias, _statistics(module, layer.channels))
            seen.add(module)
        layers.append(layer)
    return [layer for layer, name in zip(layers, wanted, strict=True) if name not in paired]


def _statistics(module: nn.Module, channels: int) -> tuple[Tensor, ...]:
    found = (getattr(module, "running_mean", None), getattr(module, "running_var", None))
    kept = tuple(t for t in found if isinstance(t, torch.Tensor) and t.numel() == channels)
    return kept if len(kept) == 2 else ()
