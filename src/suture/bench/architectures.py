"""Networks that the bench damages: residual ones with BatchNorm, and plain ones without."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.fresh = stride, planes - planes_in

    def forward(self, x: Tensor) -> Tensor:
        """(n, planes_in, h, w) → (n, planes, h / stride, w / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        front = self.fresh // 2
        return F.relu(out + F.pad(shortcut, (0, 0, 0, 0, front, self.fresh - front)))


class Residual(nn.Module):
    """A CIFAR-style ResNet (He et al. 2016, section 4.2) of 2 · blocks · stages + 2 layers.

    Groups: conv1, bn1, layer1 to layerN, linear. With widths 16, 32, 64 its state is that of the checkpoints of
    akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), whose module names these are; the code is ours.

    Args:
        widths: channels of each stage; every stage but the first halves the picture.
        blocks: per stage.
        channels: of the picture.
    """

    def __init__(self, widths: Sequence[int], blocks: int, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = [f"layer{i}" for i in range(1, len(widths) + 1)]
        before = widths[0]
        for i, (name, width) in enumerate(zip(self.stages, widths, strict=True)):
            rest = [Block(width, width, 1) for _ in range(blocks - 1)]
            setattr(self, name, nn.Sequential(Block(before, width, 2 if i else 1), *rest))
            before = width
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) → logits (n, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class Plain(nn.Module):
    """A VGG-like network without normalisation, so that nothing in it remembers what healthy activations were.

    Groups: stem, stage1, stage2, stage3, hidden, head. Every stage is two convolutions and a max-pool.

    Args:
        stem: channels of the first convolution.
        widths: channels of the three stages.
        side: of the square picture, in pixels; divisible by 8.
        hidden: units before the last layer.
        channels: of the picture.
    """

    def __init__(
        self, stem: int, widths: tuple[int, int, int], side: int, hidden: int, channels: int, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, stem, 3, padding=1)
        self.stage1 = _stage(stem, widths[0])
        self.stage2 = _stage(widths[0], widths[1])
        self.stage3 = _stage(widths[1], widths[2])
        self.hidden = nn.Linear(widths[2] * (side // 8) ** 2, hidden)
        self.head = nn.Linear(hidden, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # without norms the default initialisation fades out
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, side, side) → logits (n, classes)."""
        x = F.relu(self.stem(x))
        x = torch.flatten(self.stage3(self.stage2(self.stage1(x))), 1)
        logits: Tensor = self.head(F.relu(self.hidden(x)))
        return logits


def _stage(planes_in: int, planes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(planes_in, planes, 3, padding=1), nn.ReLU(),
        nn.Conv2d(planes, planes, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2),
    )  # fmt: skip
