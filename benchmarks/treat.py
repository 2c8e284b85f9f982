"""Seconds and FLOPs of an epoch of treatment, against an epoch of full fine-tuning.

    python benchmarks/treat.py [--model resnet18|resnet20] [--rounds N] [--images N] [--input imagenet|cifar]

The model is torchvision's ResNet-18, for which there are goals, or the CIFAR ResNet-20 of examples/cifar_resnet, of
which each group is treated alone. For ResNet-18 `imagenet` is 64x64 pictures and the stem as it comes, `cifar` 32x32
pictures and a stem of one 3x3 convolution without pooling (four times the work). Pictures are random and in memory,
there is no augmentation, BatchNorm is in eval mode. Every round trains one epoch each way in turn, so that a slow
moment of the machine meets all of them; ratios are taken within a round, and their median is reported. On a CPU one
thread works and its processor time is taken, so that other programs count little. Beside the ratios stand the floors
that FLOPs set: of a forward and backward pass, counted as they are dispatched. Exits with 1 when a goal is missed.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from suture.loading import load_model
from suture.tasks import Classification
from suture.training import train
from suture.treatments.prefix import Tell, find_prefix

GOALS = {"last stage": 0.55, "last stage, cached": 0.30}
PLAIN_GOAL = 1.05
CACHED = "last stage, cached"
TRAINED = {
    "resnet18": {"full": "", "last stage": "layer4", CACHED: "layer4", "first layer": "conv1"},
    "resnet20": {
        "full": "",
        "conv1": "conv1",
        "layer1": "layer1",
        "layer2": "layer2",
        "layer3": "layer3",
        "linear": "linear",
    },
}
RESNET20 = Path(__file__).parents[1] / "examples/cifar_resnet/model.py"
BATCH, CLASSES = 128, 10
Examples = torch.utils.data.TensorDataset


class Pictures(Examples):
    """Random pictures in memory, read in batches."""

    def read_batch(self, positions: list[int]) -> tuple[Tensor, ...]:
        return self[positions]


def pictures(n: int, side: int) -> Pictures:
    generator = torch.Generator().manual_seed(0)
    return Pictures(torch.randn(n, 3, side, side, generator=generator), torch.arange(n) % CLASSES)


def network(name: str, stem: str, start: str, device: torch.device) -> nn.Module:
    """A network of which only parameters whose names begin so are trained."""
    torch.manual_seed(0)
    model = load_model(f"{RESNET20}:resnet20") if name == "resnet20" else resnet18(num_classes=CLASSES)
    if name == "resnet18" and stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(path.startswith(start))
    return model.eval().to(device)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-3, momentum=0.9)


def plain(model: nn.Module, data: Pictures, device: torch.device) -> None:
    """An epoch as one would write it by hand, with clipping and the mean loss."""
    optimizer, total = optimizer_of(model), 0.0
    for positions in torch.randperm(len(data)).split(BATCH):
        inputs, labels = (t.to(device) for t in data.read_batch(positions.tolist()))
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), 1.0)
        optimizer.step()
        total += loss.item()


def ours(model: nn.Module, data: Pictures, device: torch.device, tell: Tell | None = None) -> None:
    """An epoch of suture's loop."""
    train(
        model, data, Classification(), optimizer_of(model), [], epochs=1, batch_size=BATCH, seed=0, device=device,
        mode=nn.Module.eval, on_batch=tell,
    )  # fmt: skip


def flops(model: nn.Module, data: Pictures, device: torch.device, tell: Tell | None = None) -> int:
    """Of a forward and backward pass over one batch."""
    positions = list(range(BATCH))
    inputs, labels = (t.to(device) for t in data.read_batch(positions))
    with FlopCounterMode(display=False) as counter:
        if tell is not None:
            tell(positions)
        F.cross_entropy(model(inputs), labels).backward()
    model.zero_grad()
    return int(counter.get_total_flops())


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    begun = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begun


def measure(model: str, stem: str, images: int, rounds: int, device: torch.device) -> dict[str, object]:
    data = pictures(images, 64 if model == "resnet18" and stem == "imagenet" else 32)
    models = {name: network(model, stem, start, device) for name, start in TRAINED[model].items()}
    by_hand, cache = network(model, stem, "", device), {}
    times: dict[str, list[float]] = {name: [] for name in (*models, "plain loop")}
    with ExitStack() as stack:
        tells: dict[str, Tell] = {}
        if (cached := models.get(CACHED)) is not None:
            trained = {name for name, p in cached.named_parameters() if p.requires_grad}
            prefix = find_prefix(cached, trained, data, Classification(), device=device, batch_size=BATCH)
            filling = seconds_of(prefix.fill, device)
            tells[CACHED] = stack.enter_context(prefix.stubbed(cached))
            cache = {"cache": {"bytes": prefix.bytes, "place": prefix.place, "seconds_to_fill": filling}}
        counted = {name: flops(model, data, device, tells.get(name)) for name, model in models.items()}
        for round_ in range(rounds + 1):  # the first warms up
            for name in times:
                if name == "plain loop":
                    taken = seconds_of(lambda: plain(by_hand, data, device), device)
                else:
                    taken = seconds_of(lambda name=name: ours(models[name], data, device, tells.get(name)), device)
                times[name] += [taken] if round_ else []
    return {
        "seconds_per_epoch": {name: statistics.median(values) for name, values in times.items()},
        "ratio": {name: ratio(times[name], times["full"]) for name in models},
        "flop_floor": {name: counted[name] / counted["full"] for name in models},
        **cache,
        "loop_over_plain_loop": ratio(times["full"], times["plain loop"]),
    }


def ratio(these: list[float], those: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(TRAINED), default="resnet18")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--input", choices=["cifar", "imagenet"], default="imagenet")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    measured = measure(arguments.model, arguments.input, arguments.images, arguments.rounds, device)
    ratios = measured["ratio"] | {"loop over plain loop": measured["loop_over_plain_loop"]}
    goals = (GOALS if arguments.model == "resnet18" else {}) | {"loop over plain loop": PLAIN_GOAL}
    report = {
        "benchmark": "treat",
        "model": arguments.model,
        "input": arguments.input,
        "images": arguments.images,
        "batch_size": BATCH,
        "rounds": arguments.rounds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **measured,
        "goals": goals,
        "met": all(ratios[name] <= goal for name, goal in goals.items()),
    }
    print(json.dumps(report, indent=2))
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
