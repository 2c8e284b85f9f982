"""CIFAR ResNets (He et al. 2016, section 4.2), with parameter-free option-A shortcuts.

Module names follow the widely used checkpoints: conv1, bn1, layer1 to layer3, linear.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.extra = stride, planes - planes_in

    def forward(self, x: Tensor) -> Tensor:
        """(n, planes_in, h, w) → (n, planes, h / stride, w / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        # Option A: every stride-th pixel, and zeros for the channels that are new.
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(out + shortcut)


class ResNet(nn.Module):
    """A network of 6 * blocks + 2 layers for 32x32 pictures."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(planes_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [BasicBlock(planes, planes, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(planes_in, planes, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 32, 32) → logits (n, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet20() -> ResNet:
    """0.27 M parameters."""
    return ResNet(3)


def resnet32() -> ResNet:
    """0.46 M parameters."""
    return ResNet(5)


def resnet44() -> ResNet:
    """0.66 M parameters."""
    return ResNet(7)


def resnet56() -> ResNet:
    """0.85 M parameters."""
    return ResNet(9)
