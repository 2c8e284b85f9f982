"""DeepFault's spectra by hand, and what units give in every kind of layer."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suture.case import Case
from suture.localizers import LOCALIZERS, Evidence
from suture.localizers.coverage import _places
from suture.localizers.network import carriers, unit_means
from tests import zoo
from tests.localizers.contract import Counted, assert_scores, batch, evidence, on

NAMES = ("tarantula", "ochiai", "dstar")


@pytest.mark.parametrize("score", NAMES)
@pytest.mark.parametrize("network", zoo.ZOO)
def test_every_group_is_scored_and_nothing_is_left_behind(network: str, score: str) -> None:
    assert_scores(score, network)


class Switches(nn.Module):
    """Units that are on where an input is above 0, in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 2, bias=False)
        self.b = nn.Linear(4, 3, bias=False)
        self.a.weight.data = torch.eye(4)[:2]
        self.b.weight.data = torch.eye(4)[[2, 3, 2]]

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x) + self.a(x).sum(1, keepdim=True)


# Four errors, then three correct examples; a column per input.
ON = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])


def switched() -> Evidence:
    examples = [(row, 0) for row in (ON * 2.0 - 1.0 + torch.arange(7)[:, None] / 100)]
    case = Case(Switches(), diagnose=examples, batch_size=3, device="cpu")
    right = np.arange(7) > 3
    return Evidence(case, case.model, right, np.flatnonzero(~right), np.flatnonzero(right))


# Units of a: x0 (cf 3, uf 1, cs 0, us 3), x1 (2, 2, 2, 1). Units of b: x2 twice (1, 3, 1, 2), x3 (4, 0, 3, 0).
# Two of five places are given (half of the units), shares over 2/5 and 3/5 of all units.
# tarantula: x0 1, x1 .5/(.5 + .67) = .43, x2 .25/(.25 + .33) = .43 twice, x3 .5: x0 and x3
# ochiai: x0 3/√12 = .87, x1 2/√16 = .5, x2 1/√8 = .35, x3 4/√28 = .76: x0 and x3
# dstar: x0 27, x1 8/4, x2 1/4, x3 64/3: x0 and x3
@pytest.mark.parametrize("score", NAMES)
def test_by_hand(score: str) -> None:
    assert LOCALIZERS[score](switched()).to_dict() == pytest.approx({"a": 0.5 / 0.4, "b": 0.5 / 0.6})


def test_suspicions_of_single_units(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def spy(score: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.update(score)
        return _places(score)

    monkeypatch.setattr("suture.localizers.coverage._places", spy)
    expected = {
        "tarantula": ([1, 0.5 / (0.5 + 2 / 3)], [0.25 / (0.25 + 1 / 3), 0.5, 0.25 / (0.25 + 1 / 3)]),
        "ochiai": ([3 / 12**0.5, 2 / 16**0.5], [1 / 8**0.5, 4 / 28**0.5, 1 / 8**0.5]),
        "dstar": ([27, 2], [1 / 4, 64 / 3, 1 / 4]),
    }
    for score, (a, b) in expected.items():
        LOCALIZERS[score](switched())
        assert seen["a"] == pytest.approx(a)
        assert seen["b"] == pytest.approx(b)


def test_units_that_tie_share_the_last_places() -> None:
    parts = _places({"a": np.array([9.0, 1.0]), "b": np.array([1.0, 1.0, 0.0, 0.0, np.inf, 0.0])})
    assert parts["a"] * 4 == pytest.approx([1, 2 / 3])  # 4 places: inf, 9, and two among three ones
    assert parts["b"] * 4 == pytest.approx([2 / 3, 2 / 3, 0, 0, 1, 0])


def test_cost() -> None:
    task = Counted()
    found = on(zoo.build("norms"), n=40, task=task)
    LOCALIZERS["ochiai"](found)
    assert (task.forward, task.both) == (40, 0)


def test_nothing_to_compare_with_is_nan() -> None:
    found = switched()
    alone = Evidence(found.case, found.model, found.right, found.wrong_at, found.correct_at[:0])
    assert LOCALIZERS["ochiai"](alone).isna().all()


class Layers(nn.Module):
    """One layer of each kind, and what it gave as (n, positions, units)."""

    def __init__(self, layer: nn.Module, second: bool = False) -> None:
        super().__init__()
        self.layer, self.second = layer, second
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), 2, 2)
        if isinstance(self.layer, nn.MultiheadAttention | nn.LSTM):
            x = x.transpose(0, 1) if self.second else x
            given = self.layer(*[x] * 3)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)[0]
            given = given.transpose(0, 1) if self.second else given
        else:
            given = self.layer(x)
        self.seen.append(given.detach().movedim(1, -1) if isinstance(self.layer, nn.Conv1d) else given.detach())
        return given.flatten(1)[:, :3]


@pytest.mark.parametrize("n", [2, 5])  # 2 examples of 2 positions: only the layer knows which axis is which
@pytest.mark.parametrize(
    ("layer", "second"),
    [
        (lambda: nn.Linear(2, 3), False),
        (lambda: nn.Conv1d(2, 3, 1), False),
        (lambda: nn.LayerNorm(2), False),
        (lambda: nn.LSTM(2, 3), True),
        (lambda: nn.LSTM(2, 3, batch_first=True), False),
        (lambda: nn.MultiheadAttention(2, 1), True),
        (lambda: nn.MultiheadAttention(2, 1, batch_first=True), False),
    ],
    ids=["linear", "conv", "layernorm", "lstm", "lstm first", "attention", "attention first"],
)  # fmt: skip
def test_units_are_the_channels_and_every_example_keeps_its_own(layer: object, second: bool, n: int) -> None:
    found = on(Layers(layer(), second), n=n)  # type: ignore[operator]
    model = found.model
    model.seen.clear()
    means = unit_means(found, np.arange(n), model, ["layer"])["layer"]
    expected = torch.cat(model.seen).mean(1)
    assert means == pytest.approx(expected.double().numpy(), abs=1e-6)


def test_a_layer_that_is_called_twice_is_the_mean_of_its_calls() -> None:
    found = evidence("reused")
    inputs, _ = batch(len(found.examples))
    with torch.no_grad():
        once = found.model.body(inputs)
        twice = found.model.body(torch.relu(once))
    means = unit_means(found, np.arange(len(inputs)), found.model, ["body"])["body"]
    assert means == pytest.approx(((once + twice) / 2).numpy(), abs=1e-6)


def test_parameters_act_through_layers_that_are_called() -> None:
    model = zoo.build("attention")
    blocks = [n for n, _ in model.named_parameters() if n.startswith("blocks.")]
    assert carriers(model, blocks) == ["blocks.0", "blocks.1"]
    assert carriers(model, ["blocks.0.self_attn.out_proj.weight"]) == ["blocks.0.self_attn"]
    layers = carriers(model, blocks, layers=True)
    assert layers[:2] == ["blocks.0.self_attn", "blocks.0.linear1"]
    assert not any("out_proj" in path for path in layers)
    assert carriers(zoo.build("rootparameters"), ["scale"]) == []
    assert carriers(zoo.build("tied"), ["embed.weight"]) == ["embed", "head"]
