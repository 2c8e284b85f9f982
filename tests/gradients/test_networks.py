"""Whole networks, in the ways they are run: memory formats, half precision, checkpoints."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from suture.gradients import Meter
from suture.tasks import Classification
from tests.gradients.networks import PICTURES, TEXTS, WORDS
from tests.gradients.oracle import Wrapped, agrees, labels, plain

# LSTMs have no rule; nor have ViT's class token and Swin's table of positions, which hang beside modules.
pytestmark = pytest.mark.filterwarnings("ignore:no rule for:UserWarning")
N = 5


def pictures(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    return PICTURES[name](models).eval()


@pytest.mark.filterwarnings("ignore:.*used outside of its module:UserWarning")
@pytest.mark.parametrize("name", PICTURES)
def test_networks_of_torchvision(name: str) -> None:
    agrees(pictures(name), torch.randn(N, 3, 32, 32), N, looped=name == "swin")  # which calls no module to project


@pytest.mark.parametrize("name", TEXTS)
def test_networks_over_words(name: str) -> None:
    torch.manual_seed(0)
    agrees(TEXTS[name](), torch.randint(0, WORDS, (N, 7)), N)


def test_a_tied_embedding_has_one_name() -> None:
    torch.manual_seed(0)
    meter = agrees(TEXTS["gpt"](), torch.randint(0, WORDS, (N, 7)), N)
    assert "wte.weight" in meter.names
    assert "lm_head.weight" not in meter.names


@pytest.mark.parametrize("name", ["resnet18", "mobilenet v2"])
def test_channels_last(name: str) -> None:
    model = pictures(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    agrees(model, torch.randn(3, 3, 32, 32).to(memory_format=torch.channels_last), 3)


@pytest.mark.parametrize("name", ["vgg16 bn", "vit b 16, narrow", "gpt", "llama"])
def test_half_precision_is_as_near_as_its_own_gradients_are(name: str) -> None:
    torch.manual_seed(0)
    if name in TEXTS:
        model, x = TEXTS[name]().eval(), torch.randint(0, WORDS, (N, 7))
    else:
        model, x = pictures(name), torch.randn(N, 3, 32, 32)
    exact = plain(model, x, labels(N))[0].sqrt()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = plain(model, x, labels(N))[0].sqrt()
        found = Meter(model, Classification()).measure((x, labels(N))).squares.sqrt().double()
    scale = exact.square().sum(1).sqrt()  # (n,), the whole gradient of each example
    ours, theirs = ((norms - exact).square().sum(1).sqrt() / scale for norms in (found, rounded))
    assert ours.max() < 2 * theirs.max() + 1e-3
    assert ours.max() < 0.1


@pytest.mark.parametrize("name", ["vgg16 bn", "llama"])
def test_networks_stored_in_half_precision(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, WORDS, (N, 7)) if name in TEXTS else torch.randn(N, 3, 32, 32).bfloat16()
    model = (TEXTS[name]() if name in TEXTS else pictures(name)).bfloat16().eval()
    rounded = plain(model, x, labels(N))[0].sum(1).sqrt()
    found = Meter(model, Classification()).measure((x, labels(N))).squares.sum(1).sqrt().double()
    assert torch.allclose(found, rounded, rtol=0.05)


class Stages(nn.Module):
    """Stages that are run again in the backward pass: convolutions with batch norms, then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.stage = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = checkpoint_sequential(self.stage, 2, self.stem(x), use_reentrant=False)
        return checkpoint(self.encoder, y.flatten(2).mT, use_reentrant=False).mean(1)


def test_checkpointed_stages() -> None:
    torch.manual_seed(0)
    agrees(Wrapped(Stages(), 4), torch.randn(N, 3, 8, 8), N)


@pytest.mark.parametrize("memory", [1, 20_000])
@pytest.mark.parametrize("build", [PICTURES["vgg16 bn"], PICTURES["vit b 16, narrow"]], ids=["vgg16 bn", "vit"])
def test_little_memory_gives_the_same(build: Callable[[Any], nn.Module], memory: int) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    agrees(build(models), torch.randn(N, 3, 32, 32), N, max_memory=memory)
