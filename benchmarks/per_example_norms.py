"""Per-example gradient norms against other ways to them, as ratios to a plain forward and backward pass.

    python benchmarks/per_example_norms.py [--models resnet20 transformer …] [--rounds N]

Ways: ours; ours with two gradient sums (errors, correct); a loop of one backward per example; vmap of grad;
and, where they are installed, BackPACK's BatchL2Grad, Opacus' GradSampleModule. All ways take turns in every
round. Seconds are medians of rounds, memory is the peak of the process above the model and batch, each in a
process of its own. Prints JSON; exits with 1 when a goal is missed.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from suture.gradients import Meter
from suture.loading import load_model
from suture.tasks import Classification

GOALS = {"resnet20": 1.3, "resnet18": 1.3, "transformer": 1.1}
MODEL = Path(__file__).parents[1] / "examples/cifar_resnet/model.py"
Way = Callable[[], Any]


class Transformer(nn.Module):
    """A small text classifier of plain layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 256)
        layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, dropout=0.0)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x)).mean(1))


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model in eval mode and a batch of 128 pictures or 32 texts."""
    torch.manual_seed(0)
    if name == "transformer":
        return Transformer().eval(), torch.randint(0, 1000, (32, 64)), torch.arange(32) % 10
    if name == "resnet20":
        model = load_model(f"{MODEL}:resnet20")
    else:
        from torchvision.models import resnet18  # noqa: PLC0415

        model = resnet18(num_classes=10)
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model.eval(), torch.randn(128, 3, 32, 32), torch.arange(128) % 10


def ways(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Way]:
    """Name → one measurement of the whole batch."""
    meter = Meter(model, Classification())

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y, reduction="sum").backward()

    def loop() -> list[Tensor]:
        norms = []
        for i in range(len(x)):
            model.zero_grad()
            F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
            norms.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]))
        return norms

    def mapped() -> dict[str, Tensor]:
        parameters = {n: p.detach() for n, p in model.named_parameters()}
        buffers = dict(model.named_buffers())

        def loss(values: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(model, (values, buffers), (one[None],)), label[None])

        found = vmap(grad(loss), (None, 0, 0), chunk_size=32)(parameters, x, y)
        return {n: g.flatten(1).norm(dim=1) for n, g in found.items()}

    found: dict[str, Way] = {
        "plain": plain,
        "suture": lambda: meter.measure((x, y)),
        "suture with sums": lambda: meter.measure((x, y), lambda right: torch.stack([~right, right]).float()),
        "vmap(grad)": mapped,
        "loop": loop,
    }
    if find_spec("opacus"):
        found["opacus"] = opacus(model, x, y)
    return found


def opacus(model: nn.Module, x: Tensor, y: Tensor) -> Way:
    """Opacus' hooks, which keep every per-example gradient."""
    from opacus import GradSampleModule  # noqa: PLC0415

    wrapped = GradSampleModule(copy.deepcopy(model), strict=False)

    def measure() -> list[Tensor]:
        wrapped.zero_grad()
        F.cross_entropy(wrapped(x), y, reduction="sum").backward()
        return [p.grad_sample.flatten(1).norm(dim=1) for p in wrapped.parameters()]

    return measure


def peak(name: str, way: str) -> float:
    """Peak resident memory in MB of one way, beyond the model and the batch, in a process of its own."""
    model, x, y = case(name)
    run = ways(model, x, y)[way]
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak that importing left
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """A line of the process's own status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(name: str, rounds: int) -> dict[str, Any]:
    model, x, y = case(name)
    runs = ways(model, x, y)
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for turn in range(rounds + 1):
        for way, run in runs.items():
            begun = time.perf_counter()
            run()
            if turn:  # the first round warms up
                seconds[way].append(time.perf_counter() - begun)
    ratios = {way: statistics.median(t / p for t, p in zip(times, seconds["plain"], strict=True))
              for way, times in seconds.items()}  # fmt: skip
    memory = {
        way: float(subprocess.run(
            [sys.executable, __file__, "--peak", name, way], capture_output=True, text=True, check=True
        ).stdout)
        for way in runs
    }  # fmt: skip
    return {"model": name, "plain_seconds": statistics.median(seconds["plain"]), "time_ratio": ratios,
            "memory_mb": memory, "goal": GOALS[name]}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "WAY"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peak(*options.peak))
        return 0
    results = [measure(name, options.rounds) for name in options.models]
    print(json.dumps({"torch": torch.__version__, "threads": 1, "results": results}, indent=2))
    return int(any(r["time_ratio"]["suture"] > r["goal"] for r in results))


if __name__ == "__main__":
    sys.exit(main())
