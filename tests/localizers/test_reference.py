"""Localizers that have a healthy reference, against hand computation."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers import LOCALIZERS, Evidence
from tests import zoo
from tests.localizers.contract import RIGHT, WRONG, Counted, N, assert_scores, batch, evidence, on
from tests.oracles import localizers as oracle

NAMES = ("swap", "neurecover", "weight_change")


@pytest.mark.parametrize("score", NAMES)
@pytest.mark.parametrize("network", zoo.ZOO)
def test_every_group_is_scored_and_nothing_is_left_behind(network: str, score: str) -> None:
    assert_scores(score, network)


@pytest.mark.parametrize("score", NAMES)
def test_without_a_reference_one_sentence(score: str) -> None:
    assert LOCALIZERS[score].needs == "reference"
    with pytest.raises(InvalidArgumentError) as caught:
        LOCALIZERS[score](evidence("norms", reference=False))
    assert str(caught.value) == f"localizer '{score}' needs a healthy reference; give suture run a --reference"


@pytest.mark.parametrize("score", NAMES)
def test_a_reference_of_another_architecture_is_refused(score: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'head.weight' has shape \(3, 4\) in the model and .*\(3, 5\)"):
        LOCALIZERS[score](against(zoo.build("reused"), zoo.build("recurrent").requires_grad_(True), strip=True))


def against(model: nn.Module, reference: nn.Module, *, strip: bool = False) -> Evidence:
    """Evidence on a model with a reference; stripped, both are their heads alone."""
    if strip:
        model, reference = nn.ModuleDict({"head": model.head}), nn.ModuleDict({"head": reference.head})
    inputs, targets = batch(N)
    examples = list(zip(inputs, targets.tolist(), strict=True))
    case = Case(model, diagnose=examples, reference=reference, batch_size=4, device="cpu")
    return Evidence(case, case.model, np.arange(N) % 2 == 1, WRONG, RIGHT)


def loss(model: nn.Module) -> float:
    inputs, targets = batch(N)
    with torch.no_grad():
        return float(F.cross_entropy(model.eval()(inputs), targets))


def test_swap_undoes_the_damage_with_its_buffers() -> None:
    healthy, sick = zoo.build("norms"), zoo.build("norms")
    sick.first[1].running_mean += 3
    sick.first[0].weight.data *= -1
    scores = LOCALIZERS["swap"](against(sick, healthy))
    assert scores["first"] == pytest.approx(loss(sick) - loss(healthy), abs=1e-6)
    assert scores["first"] != 0
    assert scores["second"] == scores["head"] == 0


def test_swap_by_hand_where_everything_differs() -> None:
    found = evidence("norms")
    healthy = found.case.reference
    assert healthy is not None
    scores = LOCALIZERS["swap"](found)
    for group in found.groups:
        mixed = zoo.build("norms")
        getattr(mixed, group).load_state_dict(getattr(healthy, group).state_dict())
        assert scores[group] == pytest.approx(loss(found.model) - loss(mixed), abs=1e-6)


def test_neurecover_by_hand() -> None:
    found = on(zoo.build("reused"), reference=zoo.build("reused"), n=40)  # head(body(relu(body(x))))
    model, healthy = found.model, found.case.reference
    assert healthy is not None
    inputs, targets = batch(40)
    with torch.no_grad():
        was, now = (m(inputs).argmax(1) == targets for m in (healthy, model))
        shares = []
        for chosen in (inputs[was & ~now], inputs[~was & now]):
            assert len(chosen)
            again = F.relu(model.body(chosen))
            given = {"body": torch.cat([chosen, again]), "head": model.body(again)}
            sizes = [float(oracle.linear_impact(getattr(model, g).weight, given[g])[1].mean()) for g in given]
            shares.append({g: size / sum(sizes) for g, size in zip(given, sizes, strict=True)})
    expected = {}
    for g in ("body", "head"):
        pairs = zip(getattr(model, g).parameters(), getattr(healthy, g).parameters(), strict=True)
        change = sum(float((p - q).detach().square().sum()) for p, q in pairs) ** 0.5
        expected[g] = shares[0][g] / (shares[0][g] + shares[1][g]) * change
    assert LOCALIZERS["neurecover"](found).to_dict() == pytest.approx(expected, rel=1e-4)


def test_neurecover_has_nothing_to_say_when_nothing_got_worse() -> None:
    model = zoo.build("frozen")
    assert LOCALIZERS["neurecover"](against(model, zoo.build("frozen"))).isna().all()


def test_costs() -> None:
    task = Counted()
    found = on(zoo.build("norms"), reference=zoo.build("norms"), n=40, task=task)
    LOCALIZERS["swap"](found)
    assert (task.forward, task.both) == (40 * (1 + 3), 0)
    LOCALIZERS["weight_change"](found)
    assert task.forward == 160


def test_weight_change_by_hand() -> None:
    healthy, sick = zoo.build("rootparameters"), zoo.build("rootparameters")
    sick.scale.data *= 1.5
    nn.init.zeros_(healthy.head.weight)
    nn.init.zeros_(healthy.head.bias)
    scores = LOCALIZERS["weight_change"](against(sick, healthy))
    assert scores["scale"] == pytest.approx(0.5)
    assert scores["body"] == 0
    assert np.isnan(scores["head"])
