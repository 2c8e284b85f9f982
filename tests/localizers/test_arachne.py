"""Arachne against loops over single weights."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.localizers import LOCALIZERS
from suture.localizers.arachne import pareto_front
from suture.localizers.impact import impacts
from suture.localizers.network import twin
from tests import zoo
from tests.localizers.contract import assert_scores, batch, evidence, on
from tests.oracles import localizers as oracle

pytestmark = [
    pytest.mark.filterwarnings("ignore:no rule for"),
    pytest.mark.filterwarnings("ignore:.*used outside of its module"),
]


@pytest.mark.parametrize("network", zoo.ZOO)
def test_every_group_is_scored_and_nothing_is_left_behind(network: str) -> None:
    assert_scores("arachne", network)


@pytest.mark.parametrize("network", zoo.ZOO)
def test_shares_of_the_front_sum_to_one(network: str) -> None:
    shares = LOCALIZERS["arachne"](evidence(network))
    if network == "parametrized":  # no layer there has a weight of its own
        assert shares.isna().all()
    else:
        assert shares.sum() == pytest.approx(1)


def test_pareto_front_against_all_pairs() -> None:
    generator = np.random.default_rng(0)
    for values in (3, 5, 1000):  # few values: many ties and equal points
        points = generator.integers(0, values, (60, 2)).astype(float)
        assert pareto_front(points).tolist() == oracle.pareto_front(points)
    assert pareto_front(np.ones((3, 2))).all()
    assert pareto_front(np.zeros((0, 2))).tolist() == []


class Perceptron(nn.Module):
    """Two layers, with an activation that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x), inplace=True))


def costs(positions: np.ndarray, model: Perceptron, n: int) -> dict[str, Tensor]:
    """(weights, 2) gradient loss and forward impact of both layers."""
    inputs, targets = (t[positions] for t in batch(n))
    found = oracle.example_gradients(model, inputs, targets, ["body.weight", "head.weight"])
    hidden = F.relu(model.body(inputs)).detach()
    on_off = (model.body(inputs) > 0).float()
    slopes = {"body.weight": (on_off * model.head.weight.sum(0)).abs().mean(0), "head.weight": torch.ones(3)}
    pairs = {}
    for name, given in {"body.weight": inputs, "head.weight": hidden}.items():
        share, _ = oracle.linear_impact(model.get_parameter(name), given)
        gradient = torch.stack([row[name] for row in found]).mean(0).abs()
        pairs[name] = torch.stack([gradient.flatten(), (share * slopes[name][:, None]).flatten()], 1).detach()
    return pairs


def test_by_loops_over_single_weights() -> None:
    torch.manual_seed(1)
    found = on(Perceptron(), n=20)
    wrong, right = (costs(at, found.model, 20) for at in (found.wrong_at, found.correct_at))
    points = torch.cat([wrong[name] / (1 + right[name]) for name in wrong]).double().numpy()
    front = np.array(oracle.pareto_front(points))
    expected = {"body": front[:20].sum() / front.sum(), "head": front[20:].sum() / front.sum()}
    assert 0 < expected["body"] < 1
    assert LOCALIZERS["arachne"](found).to_dict() == pytest.approx(expected)
    measured = impacts(found, found.wrong_at, twin(found).requires_grad_(True))
    for name, impact in measured.items():
        torch.testing.assert_close(impact.arachne.flatten(), wrong[name][:, 1], rtol=1e-4, atol=1e-6)


class Picture(nn.Module):
    """A convolution, then a mean over the picture."""

    def __init__(self, conv: Callable[[], nn.Conv2d]) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.reshape(-1, 1, 2, 2).repeat(1, 2, 2, 2)).mean((2, 3))[:, :3]


@pytest.mark.parametrize(
    "conv",
    [
        lambda: nn.Conv2d(2, 4, 3, padding=1),
        lambda: nn.Conv2d(2, 4, 2, stride=2, bias=False),
        lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2, padding_mode="circular"),
    ],
    ids=["padded", "strided", "grouped"],
)
def test_a_convolution_is_a_linear_layer_at_every_place(conv: Callable[[], nn.Conv2d]) -> None:
    found = on(Picture(conv))
    layer = found.model.conv
    inputs, _ = batch(len(found.examples))
    x = inputs.reshape(-1, 1, 2, 2).repeat(1, 2, 2, 2)
    if layer.padding_mode == "circular":
        x = F.pad(x, (1, 1, 1, 1), mode="circular")
        unfolded = F.unfold(x, layer.kernel_size)
    else:
        unfolded = F.unfold(x, layer.kernel_size, padding=layer.padding, stride=layer.stride)
    rows = unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1])
    impact = impacts(found, np.arange(len(inputs)), twin(found), slopes=False)["conv.weight"]
    width, out = rows.shape[1] // layer.groups, 4 // layer.groups
    for g in range(layer.groups):
        weight = layer.weight.detach().flatten(1)[g * out : (g + 1) * out]
        share, size = oracle.linear_impact(weight, rows[:, g * width : (g + 1) * width])
        part = slice(g * out, (g + 1) * out)
        torch.testing.assert_close(impact.mean_size.flatten(1)[part], size, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(impact.share.flatten(1)[part] / impact.rows, share, rtol=1e-4, atol=1e-6)
