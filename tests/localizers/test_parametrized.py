"""Weights made of other parameters: a layer with them is the layer that computes the same with plain weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from suture.case import Case
from suture.localizers import LOCALIZERS, gather
from suture.localizers.friction import friction_from_state
from suture.localizers.walk import take_walk
from suture.moments import channel_axis, measure_moments
from suture.optimizers import IKFAD
from suture.tasks import Classification, evaluate

CPU = torch.device("cpu")
Examples = list[tuple[Tensor, int]]


def twins() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    normed = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(24, 16)), nn.ReLU(),
        parametrizations.weight_norm(nn.Linear(16, 16)), nn.ReLU(), nn.Linear(16, 3),
    )  # fmt: skip
    plain = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for i in (0, 2, 4):
            plain[i].weight.copy_(normed[i].weight)
            plain[i].bias.copy_(normed[i].bias)
    return normed.eval(), plain.eval()


@pytest.fixture(scope="module")
def examples() -> tuple[Examples, Examples]:
    generator = torch.Generator().manual_seed(0)

    def make(n: int, shift: float = 0.0) -> Examples:
        ramp = torch.arange(24) % 4 / 1.5 - 1
        labels = torch.randint(0, 3, (n,), generator=generator).tolist()
        return [(torch.randn(24, generator=generator) + shift * ramp, label) for label in labels]

    return make(200), make(200, 0.2)


@pytest.mark.parametrize("localizer", ["norm_statistics", "spectrum_snr", "tarantula", "ochiai", "dstar"])
@pytest.mark.filterwarnings("ignore:(no rule for|.*used outside of its module):UserWarning")
def test_scores_are_those_of_plain_weights(localizer: str, examples: tuple[Examples, Examples]) -> None:
    scores, walks = [], []
    for model in twins():
        healthy = measure_moments(model, examples[0], Classification(), device=CPU)
        assert list(healthy) == ["0", "2", "4"]
        case = Case(model, diagnose=examples[1], verify=examples[0][:9], repair=examples[0][9:90], moments=healthy)
        right = evaluate(case.model, case.splits["diagnose"], case.task, device=CPU).right
        evidence, _ = gather(case, right)
        walks.append([site.path for site in take_walk(evidence)[0].sites])
        scores.append(LOCALIZERS[localizer].find(evidence).scores)
    assert walks[0] == walks[1] == ["0", "2", "4"]
    assert scores[0].to_dict() == pytest.approx(scores[1].to_dict(), rel=1e-4, nan_ok=True)
    assert scores[1].notna().all()


def test_channels_of_layers_on_pictures() -> None:
    class ChannelsFirst(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Twice(nn.Module):
        """One activation on two numbers of channels."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.second = nn.Conv2d(1, 6, 1), ChannelsFirst(6), nn.Conv2d(6, 5, 1)
            self.act, self.head = nn.PReLU(), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.second(self.act(self.norm(self.first(x))))).mean((2, 3)))

    model = Twice()
    pictures = [(torch.rand(1, 8, 7), i % 2) for i in range(12)]
    found = measure_moments(model, pictures, Classification(), device=CPU)
    assert {path: len(moments.mean) for path, moments in found.items()} == {
        "first": 6,
        "norm": 6,
        "second": 5,
        "head": 2,
    }
    assert channel_axis(nn.LayerNorm(4), torch.zeros(1, 2, 3, 4)) == -1


def test_an_empty_parameter_has_no_friction() -> None:
    model = nn.Linear(3, 2)
    model.nothing = nn.Parameter(torch.zeros(0))
    optimizer = IKFAD(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scores = friction_from_state(optimizer, model, {"a": ["weight", "bias"], "none": ["nothing"]})
    assert scores["a"] > 0
    assert scores.isna().to_dict() == {"a": False, "none": True}
