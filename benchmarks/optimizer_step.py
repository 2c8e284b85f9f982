"""Time per step of each optimizer against torch's, on the parameter list of a ResNet-18.

    python benchmarks/optimizer_step.py [--rounds N] [--device D] > optimizer_step.json

Every round takes one step of every optimizer in turn, so that a slow moment of the machine meets all of
them; the medians are divided by that of torch.optim.SGD(momentum, foreach) or AdamW(foreach). Exits with
1 when a goal is missed.
"""

import argparse
import json
import platform
import statistics
import sys
import time

import torch
from torch import nn

from suture.optimizers import CADAM, IKFAD, CubicDamping

GOALS = {"CubicDamping": ("SGD", 2.0), "IKFAD": ("AdamW", 1.5), "CADAM": ("AdamW", 1.5)}

MAKERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, foreach=True),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=True),
    "CubicDamping": lambda params: CubicDamping(params, lr=0.1, momentum=0.9, foreach=True),
    "IKFAD": lambda params: IKFAD(params, lr=0.1, momentum=0.9, foreach=True),
    "CADAM": lambda params: CADAM(params, lr=1e-3, momentum=0.9, foreach=True),
}


def resnet18_shapes() -> list[tuple[int, ...]]:
    """Shapes of the 62 parameters of torchvision's resnet18 with 1000 classes, in its order."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(width, inputs, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if block == 0 and inputs != width:
                shapes += [(width, inputs, 1, 1), (width,), (width,)]
            inputs = width
    return [*shapes, (1000, 512), (1000,)]


def parameters(device: torch.device) -> list[nn.Parameter]:
    """Random parameters of those shapes, each with a gradient."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape in resnet18_shapes():
        p = nn.Parameter((0.05 * torch.randn(shape, generator=generator)).to(device))
        p.grad = (0.01 * torch.randn(shape, generator=generator)).to(device)
        made.append(p)
    return made


def seconds_per_step(rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of one step, by optimizer, the steps interleaved."""
    optimizers = {name: make(parameters(device)) for name, make in MAKERS.items()}
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for round_ in range(rounds + 3):  # three to make state and warm the caches
        for name, optimizer in optimizers.items():
            synchronize(device)
            start = time.perf_counter()
            optimizer.step()
            synchronize(device)
            if round_ >= 3:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    seconds = seconds_per_step(arguments.rounds, device)
    rows = {
        name: {
            "seconds": seconds[name],
            "against": other,
            "ratio": seconds[name] / seconds[other],
            "goal": goal,
        }
        for name, (other, goal) in GOALS.items()
    }
    report = {
        "benchmark": "optimizer_step",
        "parameters": sum(torch.Size(shape).numel() for shape in resnet18_shapes()),
        "rounds": arguments.rounds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": seconds,
        "optimizers": rows,
        "met": all(row["ratio"] <= row["goal"] for row in rows.values()),
    }
    print(json.dumps(report, indent=2))
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
