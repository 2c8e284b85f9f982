"""The demo: a small network that meets blurred, noisy pictures after training on clean ones.

The digits come with scikit-learn, so nothing is downloaded. Everything here can be named on the command
line: ``suture run --model suture.demo:network --data suture.demo:photographed …``.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from suture.images import ImageFormat
from suture.rundir import write_atomic
from suture.tasks import Classification
from suture.training import Augment, Recipe, fit

SIDE = 16  # the 8x8 digits are enlarged, so that a network with strides has something to look at
FORMAT = ImageFormat(mean=(0.3,), std=(0.35,))
TRAINED_ON = 720  # of 1,797 digits; the others are photographed
SEED = 42
BLUR, NOISE = 1.1, 0.16  # standard deviations: of the blur in pixels, of the noise in units of [0, 1]
RECIPE = Recipe(epochs=24, batch_size=64, lr=0.1, lr_min=1e-4, momentum=0.9, augment=Augment(pad=1, flip=False))
PLAN = """\
name = "auto"            # in results; otherwise the name of this file
base = "auto"            # without mirroring: a mirrored digit is no digit

[augment]
pad = 1
flip = false
"""


class Block(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Conv2d(planes_in, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, planes_in, h, w) → (n, planes, h / stride, w / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class Network(nn.Module):
    """A residual network of 8 convolutions for 16x16 grey pictures, 24 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = Block(8, 8, 1)
        self.layer2 = Block(8, 16, 2)
        self.layer3 = Block(16, 32, 2)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 16, 16) → logits (n, 10)."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class Digits(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Pictures (n, 16, 16, 1) uint8 and their labels."""

    classes = tuple("0123456789")

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self._inputs = [FORMAT.normalise(picture) for picture in pixels]
        self._labels = [int(label) for label in labels]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self._inputs[i], self._labels[i]


def network() -> nn.Module:
    """The demo's network at random weights."""
    return Network()


def clean() -> Digits:
    """Digits as they were scanned: what the network is trained on."""
    pictures, labels = _pictures()
    return Digits(_bytes(pictures[:TRAINED_ON]), labels[:TRAINED_ON])


def photographed() -> Digits:
    """Other digits, blurred and noisy as from a cheap camera: what the network meets in use."""
    pictures, labels = _pictures()
    pictures, labels = pictures[TRAINED_ON:], labels[TRAINED_ON:]
    reach = torch.arange(-3.0, 4.0)
    weights = torch.exp(-(reach**2) / (2 * BLUR**2))
    kernel = (weights / weights.sum())[None, None, :, None]
    padded = F.pad(pictures[:, None], (3, 3, 3, 3))
    blurred = F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))[:, 0]
    noise = torch.randn(blurred.shape, generator=torch.Generator().manual_seed(SEED))
    return Digits(_bytes(blurred + NOISE * noise), labels)


def _pictures() -> tuple[Tensor, NDArray[np.int64]]:
    """All digits (1797, 16, 16) in [0, 1] and their labels, in one fixed random order."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    small = torch.from_numpy(digits.images[order] / 16).float()[:, None]
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return large[:, 0], digits.target[order].astype(np.int64)


def _bytes(pictures: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (pictures.clamp(0, 1) * 255).round().byte()[..., None].numpy()
    return pixels


def prepare(directory: Path) -> tuple[Path, Path, Path]:
    """Train the demo's network, unless it is there already: paths of its weights, log and plan."""
    fitted = fit(network, clean(), Classification(), RECIPE, directory, seed=SEED, image=FORMAT)
    write_atomic(directory / "plan.toml", PLAN)
    return fitted.weights, fitted.log, directory / "plan.toml"
