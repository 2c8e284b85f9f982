"""The training loop against a plain PyTorch loop: same network, same pictures in memory, same augmentation.

    python benchmarks/training_loop.py

Prints JSON: seconds per epoch of each (median of interleaved epochs) and their ratio; exits with 1 when the
ratio is above the goal.
"""

import json
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from suture.images import ImageFormat
from suture.loading import load_model
from suture.tasks import Classification
from suture.training import Augment, Recipe, train

GOAL = 1.05
ROUNDS = 9
PICTURES, BATCH = 1024, 128
FORMAT = ImageFormat((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
MODEL = Path(__file__).parents[1] / "examples/cifar_resnet/model.py"


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Random pictures (n, 32, 32, 3) in memory, read in batches as an image folder is."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.labels = torch.arange(len(pixels)) % 10

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return FORMAT.normalise(self.pixels[i]), int(self.labels[i])

    def read_batch(self, positions: list[int]) -> tuple[Tensor, Tensor]:
        return FORMAT.normalise(self.pixels[positions]), self.labels[positions]


def network() -> nn.Module:
    torch.manual_seed(0)
    return load_model(f"{MODEL}:resnet20").train()


def plain(model: nn.Module, data: Pictures) -> None:
    """What one would write by hand."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    generator, augment = torch.Generator().manual_seed(0), Augment()
    total = 0.0
    for positions in torch.randperm(len(data), generator=generator).split(BATCH):
        inputs, labels = data.read_batch(positions.tolist())
        inputs = augment.apply(inputs, generator, FORMAT)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()


def ours(model: nn.Module, data: Pictures) -> None:
    recipe = Recipe(epochs=1, batch_size=BATCH, momentum=0.9, clip=None)
    optimizer, schedules = recipe.build(model.parameters())
    train(
        model, data, Classification(), optimizer, schedules, epochs=1, batch_size=BATCH, seed=0,
        device=torch.device("cpu"), augment=recipe.augment, image=FORMAT, clip=None,
    )  # fmt: skip


def main() -> int:
    torch.set_num_threads(1)
    data = Pictures(np.random.default_rng(0).integers(0, 256, (PICTURES, 32, 32, 3), np.uint8))
    loops = {"plain": plain, "suture": ours}
    models = {name: network() for name in loops}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(ROUNDS + 1):
        for name, loop in loops.items():
            begun = time.perf_counter()
            loop(models[name], data)
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begun)
    ratio = statistics.median(b / a for a, b in zip(seconds["plain"], seconds["suture"], strict=True))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    found = {"seconds_per_epoch": medians, "ratio": ratio, "goal": GOAL, "torch": torch.__version__}
    print(json.dumps(found | {"machine": platform.machine(), "threads": 1}, indent=2))
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
