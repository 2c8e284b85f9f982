"""Parameters that are used outside of their modules, wherever in the network that is: what lies behind is right too."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from suture.errors import InvalidArgumentError
from suture.gradients import Meter
from suture.tasks import Classification
from tests.gradients.oracle import agrees, labels

pytestmark = pytest.mark.filterwarnings("ignore:(no rule for|.*used outside of its module):UserWarning")
N = 7


class TiedByHand(nn.Module):
    """An output that uses the embedding's weight without calling a module that owns it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.h, self.norm = nn.Embedding(11, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(self.h(self.words(x)).relu()).mean(1), self.words.weight)


class UsedTwice(nn.Module):
    """A layer's weight that a second path uses: of the first layer, or of one in the middle."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first, self.a, self.b, self.head = first, nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        beside = F.linear(x, self.a.weight[:3]) if self.first else F.linear(h, self.b.weight[:3])
        return self.head(self.b(h).relu()) + beside


class Held(nn.Module):
    """A parameter in a module that is never called, added at the input; the layer behind may be run again."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again, self.box, self.a, self.head = again, nn.Module(), nn.Linear(6, 8), nn.Linear(8, 3)
        self.box.places = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.box.places
        h = checkpoint(self.a, x, use_reentrant=False) if self.again else self.a(x)
        return self.head(h.relu())


class TiedHead(nn.Module):
    """A head that shares the embedding's weight and has a bias, beside a layer that is used outside its module."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.h, self.q, self.head = (
            nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 11),
        )  # fmt: skip
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.h(self.words(x)).relu()
        return self.head((self.q(h) + F.linear(h, self.q.weight)).mean(1))


def rows() -> Tensor:
    return torch.randn(N, 6)


def words() -> Tensor:
    return torch.randint(0, 11, (N, 5))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "tied by hand": (TiedByHand, words),
    "the first layer's weight twice": (lambda: UsedTwice(True), rows),
    "a middle layer's weight twice": (lambda: UsedTwice(False), rows),
    "held by no layer": (lambda: Held(False), rows),
    "held by no layer, checkpointed": (lambda: Held(True), rows),
    "a tied head with a bias": (TiedHead, words),
    "weight norm": (lambda: nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)), rows),
    "spectral norm": (lambda: nn.Sequential(spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)), rows),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_every_other_parameter_are_right_too(name: str) -> None:
    torch.manual_seed(0)
    build, inputs = NETWORKS[name]
    meter = agrees(build().eval(), inputs(), N, looped=True)
    assert len(meter.looped) < len(meter.names), "only what is used outside is looped over"


class Stubborn(nn.Module):
    """Keeps its BatchNorm in training mode, whatever it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def train(self, mode: bool = True) -> "Stubborn":
        super().train(mode)
        self.bn.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.a(x)).relu())


def test_a_batchnorm_that_stays_in_training_mode_is_refused_and_left_as_found() -> None:
    torch.manual_seed(0)
    model = Stubborn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InvalidArgumentError, match="'bn' is a BatchNorm that stays in training mode after eval"):
        Meter(model, Classification()).measure((rows(), labels(N)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
