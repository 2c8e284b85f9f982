"""Per-example gradient norms against other ways to them, as ratios to a plain forward and backward pass.

    python benchmarks/per_example_norms.py [--models resnet20 …] [--rounds N] [--max-memory BYTES] [--json FILE]

Ways: ours; ours with two gradient sums (errors, correct); a loop of one backward per example; vmap of grad;
and, where they are installed, BackPACK's BatchL2Grad, Opacus' GradSampleModule and Opacus' ghost norms. A peer
that is not installed, or does not take a model, is named with the reason; so is one whose norms differ from ours.

All ways take turns in every round. Times are the process's own, on one thread, which other programs on the
machine disturb least; printed are the median, least and largest of the rounds' ratios to the plain pass of the
same round. Memory is the peak of the process above what it holds before the pass, each in a process of its own,
and read from Linux. What a pass gives is kept until its next turn, as a plain pass keeps ``.grad``.

Exits with 1 when ours, with sums or without, misses a goal or is behind a peer; peers give norms alone.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from suture.gradients import Meter
from suture.loading import load_model
from suture.tasks import Classification

GOALS = {"resnet20": 1.3, "resnet18": 1.3, "transformer": 1.1}  # times a plain pass
MEMORY_GOAL = 1.3
OURS = ("suture", "suture, two sums")
PEERS = {"backpack": "backpack-for-pytorch", "opacus": "opacus", "opacus ghost": "opacus"}  # way → package
MODEL = Path(__file__).parents[1] / "examples/cifar_resnet/model.py"
Norms = dict[str, Tensor]  # parameter → (n,)
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


def own_ways(model: nn.Module, x: Tensor, y: Tensor, max_memory: int | None) -> dict[str, Way]:
    """What needs torch alone: name → one measurement of the whole batch."""
    meter = Meter(model, Classification(), max_memory=max_memory)

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

    def mapped() -> Norms:
        parameters = {n: p.detach() for n, p in model.named_parameters()}
        buffers = dict(model.named_buffers())

        def loss(values: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(model, (values, buffers), (one[None],)), label[None])

        found = vmap(grad(loss), (None, 0, 0), chunk_size=32)(parameters, x, y)
        return {n: g.flatten(1).norm(dim=1) for n, g in found.items()}

    return {
        "plain": plain,
        "suture": lambda: meter.measure((x, y)),
        "suture, two sums": lambda: meter.measure((x, y), lambda right: torch.stack([~right, right]).float()),
        "vmap(grad)": mapped,
        "loop": loop,
    }


def backpack(model: nn.Module, x: Tensor, y: Tensor) -> Way:
    """BackPACK's squared norms."""
    from backpack import backpack as computing  # noqa: PLC0415
    from backpack import extend  # noqa: PLC0415
    from backpack.extensions import BatchL2Grad  # noqa: PLC0415

    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # its hooks do not allow it
    model, criterion = extend(model), extend(nn.CrossEntropyLoss(reduction="sum"))

    def measure() -> Norms:
        model.zero_grad()
        with computing(BatchL2Grad()):
            criterion(model(x), y).backward()
        return {n: p.batch_l2.sqrt() for n, p in model.named_parameters() if hasattr(p, "batch_l2")}

    return measure


def opacus(model: nn.Module, x: Tensor, y: Tensor, ghost: bool) -> Way:
    """Opacus' hooks, which keep every per-example gradient, or with `ghost` only norms.

    They see modules in train mode only, so BatchNorms, which must be in eval mode here, go without; torch's
    attention is replaced by Opacus' own, as its validator does; that of 1.6.0 puts heads together in another order
    with ``batch_first``, so the norms are those of another network, at the same cost.
    """
    from opacus import GradSampleModule  # noqa: PLC0415
    from opacus.grad_sample import GradSampleModuleFastGradientClipping  # noqa: PLC0415
    from opacus.validators import ModuleValidator  # noqa: PLC0415

    model = copy.deepcopy(model)
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        model = ModuleValidator.fix(model)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)  # else it refuses the model
        if isinstance(module, nn.ReLU):
            module.inplace = False
    wrap = GradSampleModuleFastGradientClipping if ghost else GradSampleModule
    wrapped = wrap(model, strict=False, loss_reduction="sum")

    def measure() -> Norms:
        wrapped.zero_grad()
        F.cross_entropy(wrapped(x), y, reduction="sum").backward()
        if ghost:
            named = {n: getattr(p, "_norm_sample", None) for n, p in model.named_parameters()}
            return {n: norms for n, norms in named.items() if norms is not None}
        grads = {n: p.grad_sample for n, p in model.named_parameters() if p.grad_sample is not None}
        return {n: g.flatten(1).norm(dim=1) for n, g in grads.items()}

    return measure


def ways(name: str, max_memory: int | None) -> dict[str, Callable[[], Way]]:
    """Name → how to get ready for it; a peer may fail at that."""
    model, x, y = case(name)
    own = own_ways(model, x, y, max_memory)
    peers: dict[str, Callable[[], Way]] = {
        "backpack": lambda: backpack(model, x, y),
        "opacus": lambda: opacus(model, x, y, ghost=False),
        "opacus ghost": lambda: opacus(model, x, y, ghost=True),
    }
    return {way: (lambda run=run: run) for way, run in own.items()} | peers


def ready(name: str, max_memory: int | None) -> tuple[dict[str, Way], dict[str, str]]:
    """The ways that work, each tried once, and what there is to say about the others: way → words."""
    runs: dict[str, Way] = {}
    said: dict[str, str] = {}
    for way, prepare in ways(name, max_memory).items():
        try:
            if way in PEERS:
                version(PEERS[way])
            run = prepare()
            found = run()
        except PackageNotFoundError:
            said[way] = f"not installed (pip install {PEERS[way]})"
            continue
        except Exception as error:  # a benchmark goes on without a peer, whatever it dislikes
            if way not in PEERS:
                raise
            said[way] = f"does not take this model: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
            continue
        runs[way] = run
        if way == "suture":
            exact = dict(zip(found.names, found.squares.sqrt().T, strict=True))
        if way in PEERS:
            note = compared(found, exact)
            if note:
                said[way] = note
    return runs, said


def compared(found: Norms, exact: Norms) -> str:
    """In what a peer's norms are not ours, or nothing."""
    missing = [n for n in exact if n not in found]
    wrong = [n for n in exact if n in found and not torch.allclose(found[n].flatten(), exact[n], rtol=1e-2, atol=1e-5)]
    parts = [f"{len(names)} of {len(exact)} parameters {what} (such as {names[0]})"
             for names, what in ((missing, "left out"), (wrong, "differ")) if names]  # fmt: skip
    return "; ".join(parts)


def peak(name: str, way: str, max_memory: int | None) -> float:
    """Peak resident memory in MB of one way, beyond the model and the batch, in a process of its own."""
    run = ways(name, max_memory)[way]()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak that importing left
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """A line of the process's own status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(name: str, rounds: int, max_memory: int | None) -> dict[str, Any]:
    """Seconds and ratios of all ways that take a model, and their memory."""
    runs, said = ready(name, max_memory)
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    kept: dict[str, Any] = {}
    for _ in range(rounds):
        for way, run in runs.items():
            begun = time.process_time()
            kept[way] = run()
            seconds[way].append(time.process_time() - begun)
    kept.clear()
    ratios = {way: sorted(t / p for t, p in zip(times, seconds["plain"], strict=True))
              for way, times in seconds.items()}  # fmt: skip
    bound = ["--max-memory", str(max_memory)] if max_memory else []
    memory = {
        way: float(subprocess.run(
            [sys.executable, __file__, "--peak", name, way, *bound], capture_output=True, text=True, check=True
        ).stdout.split()[-1])
        for way in runs
    }  # fmt: skip
    rows = {
        way: {
            "seconds": statistics.median(seconds[way]), "ratio": statistics.median(r), "least": r[0], "most": r[-1],
            "memory_mb": memory[way], "memory_ratio": memory[way] / memory["plain"],
        }
        for way, r in ratios.items()
    }  # fmt: skip
    return {"model": name, "ways": rows, "said": said, "missed": missed(name, rows)}


def missed(name: str, rows: dict[str, dict[str, float]]) -> list[str]:
    """Goals that ours does not reach, in words."""
    out = []
    for which in OURS:
        ours = rows[which]
        if ours["ratio"] > GOALS[name]:
            out.append(f"{which}: time {ours['ratio']:.2f} > {GOALS[name]}")
        if ours["memory_ratio"] > MEMORY_GOAL:
            out.append(f"{which}: memory {ours['memory_ratio']:.2f} > {MEMORY_GOAL}")
        for way, row in rows.items():
            if way not in ("plain", *OURS):
                # No pass over a batch can do with the memory of a loop, which holds one example.
                fields = ("ratio",) if way == "loop" else ("ratio", "memory_ratio")
                out += [f"{which}: {way} is ahead in {field}" for field in fields if row[field] < ours[field]]
    return out


def table(result: dict[str, Any]) -> str:
    """A row for each way of one model."""
    lines = [f"\n{result['model']:<18}{'seconds':>9}{'× plain':>9}{'least':>7}{'most':>7}{'MB':>7}{'× plain':>9}"]
    for way, r in result["ways"].items():
        lines.append(f"{way:<18}{r['seconds']:>9.3f}{r['ratio']:>9.2f}{r['least']:>7.2f}{r['most']:>7.2f}"
                     f"{r['memory_mb']:>7.0f}{r['memory_ratio']:>9.2f}")  # fmt: skip
    lines += [f"{way:<18} {words}" for way, words in result["said"].items()]
    lines += [f"missed: {goal}" for goal in result["missed"]] or ["all goals reached"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-memory", type=int, help="bytes that the factors of one layer may take at a time")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "WAY"), help="print the peak memory of one way and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    remarks = "Full backward hook is firing|Secure RNG|Extension saving to|There is a performance drop"
    warnings.filterwarnings("ignore", message=remarks)  # of the peers; the last is vmap's
    if options.peak:
        print(peak(*options.peak, options.max_memory))
        return 0
    versions = {"torch": torch.__version__}
    for package in sorted(set(PEERS.values())):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    print(", ".join(f"{package} {number}" for package, number in versions.items()), "; one thread")
    results = []
    for name in options.models:
        results.append(measure(name, options.rounds, options.max_memory))
        print(table(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"versions": versions, "threads": 1, "results": results}, indent=2))
    return int(any(result["missed"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
