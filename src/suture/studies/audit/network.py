"""Sections 4.1 and 5.5: tensors, parameters and operations, counted on torchvision's ResNet-18 for CIFAR-10."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from suture.groups import resolve
from suture.studies.audit import printed
from suture.studies.audit.findings import Finding, Verdict, check, compared, decided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

NEEDS = "needs torchvision"
HOW_TO = "pip install suture[vision]"


@dataclass(frozen=True)
class Counts:
    """What the network is made of. Sizes are numbers of scalars, work is multiply-adds for one 32×32 image.

    Attributes:
        sizes: parameter → scalars.
        work: parameter → multiply-adds of its layer going forward; absent for BatchNorm and biases.
        entries: names of the state_dict, buffers too.
        modules: how many modules there are.
        flagged: parameters of the three problem groups.
    """

    sizes: dict[str, int]
    work: dict[str, int]
    entries: list[str]
    modules: int
    flagged: list[str]

    @property
    def matching(self) -> list[str]:
        """Parameters whose name contains that of a problem layer anywhere: ``layer1.0.conv1.weight`` too."""
        return [name for name in self.sizes if any(layer in name for layer in printed.FLAGGED)]

    def share(self, parameters: list[str]) -> float:
        """The share of all scalars."""
        return sum(self.sizes[name] for name in parameters) / sum(self.sizes.values())

    def training_cost(self, parameters: list[str]) -> float:
        """Operations of a training step that trains only these, in units of one that trains all.

        Forward, gradients of inputs from the first trained layer on (conv1 is the first of all, so
        everywhere but at conv1 itself), gradients of the weights that are trained.
        """
        forward = sum(self.work.values())
        inputs = forward - self.work["conv1.weight"]
        trained = sum(self.work.get(name, 0) for name in parameters)
        return (forward + inputs + trained) / (2 * forward + inputs)


@cache
def counts() -> Counts | None:
    """Counts of the network of section 4.1; None when torchvision is not installed."""
    try:
        model = _resnet18()
    except ImportError:
        return None
    groups = resolve(model, "top")
    return Counts(
        sizes={name: parameter.numel() for name, parameter in model.named_parameters()},
        work=_work(model),
        entries=list(model.state_dict()),
        modules=len(list(model.modules())),
        flagged=[name for group in printed.FLAGGED for name in groups[group]],
    )


def _resnet18() -> nn.Module:
    """3×3 first convolution with stride 1, no max-pooling, ten classes; without memory for its weights."""
    import torch  # noqa: PLC0415 - all other checks do without
    from torchvision.models import resnet18  # noqa: PLC0415

    with torch.device("meta"):
        model: nn.Module = resnet18(weights=None, num_classes=10)
        model.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.eval()
    return model


def _work(model: nn.Module) -> dict[str, int]:
    import torch  # noqa: PLC0415

    work: dict[str, int] = {}

    def counted(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            weight = module.get_parameter("weight")
            work[f"{name}.weight"] = output[0].numel() * weight[0].numel()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(counted(name))
    model(torch.zeros(1, 3, 32, 32, device="meta"))
    return work


@check("Section 4.1")
def size_of_the_network() -> Iterator[Finding]:
    network = counts()
    if network is None:
        yield _absent("parameters of ResNet-18", "11.2M")
        return
    millions = sum(network.sizes.values()) / 1e6
    yield compared("parameters of ResNet-18", "11.2", millions, "torchvision's, changed as described", unit="M", more=2)


@check("Section 5.5")
def tensors() -> Iterator[Finding]:
    network = counts()
    if network is None:
        yield _absent("parameter tensors of the network", str(printed.ALL_TENSORS))
        yield _absent("parameter tensors of the three problem layers", str(printed.TRAINED_TENSORS))
        return
    total = len(network.sizes)
    ways = {
        "entries of the state_dict": len(network.entries),
        "entries of the state_dict without fc": len([name for name in network.entries if not name.startswith("fc.")]),
        "modules": network.modules,
    }
    fitting = [way for way, number in ways.items() if number == printed.ALL_TENSORS]
    yield Finding(
        "parameter tensors of the network",
        str(printed.ALL_TENSORS),
        str(total),
        decided(total == printed.ALL_TENSORS),
        f"{printed.ALL_TENSORS} is the number of {' or '.join(fitting) or 'nothing counted here'}: buffers are no "
        "parameters and cannot be frozen",
    )
    mine = len(network.flagged)
    matching = len(network.matching)
    yield Finding(
        "parameter tensors of the three problem layers",
        str(printed.TRAINED_TENSORS),
        str(mine),
        decided(mine == printed.TRAINED_TENSORS),
        f"{matching} names contain 'layer3', 'conv1' or 'layer2': every residual block has a conv1, so four tensors of "
        "layer1 and layer4 may have been trained too",
    )


@check("Section 5.5")
def share_of_parameters() -> Iterator[Finding]:
    what, claimed = "share of parameters that is trained", "29 %"
    network = counts()
    if network is None:
        yield _absent(what, claimed)
        return
    share, matching = network.share(network.flagged), network.share(network.matching)
    tensors = printed.TRAINED_TENSORS / printed.ALL_TENSORS
    yield Finding(
        what,
        claimed,
        f"{100 * share:.1f} %",
        decided(round(100 * share) == 29),
        f"35 / 120 = {100 * tensors:.0f} % is of tensors, which differ in size; if all names that contain a layer's "
        f"were trained, {100 * matching:.1f} %",
    )


def _absent(what: str, claimed: str) -> Finding:
    return Finding(what, claimed, NEEDS, Verdict.UNDECIDED, HOW_TO)
