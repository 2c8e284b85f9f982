"""Gradient localizers against one backward pass per example."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from suture.localizers import LOCALIZERS, Evidence
from tests import zoo
from tests.localizers.contract import assert_scores, batch, evidence, parabola
from tests.oracles import localizers as oracle

pytestmark = [
    pytest.mark.filterwarnings("ignore:no rule for"),
    pytest.mark.filterwarnings("ignore:.*used outside of its module"),
]

NAMES = ("rgn", "eb", "taylor")


@pytest.mark.parametrize("score", NAMES)
@pytest.mark.parametrize("network", zoo.ZOO)
def test_every_group_is_scored_and_nothing_is_left_behind(network: str, score: str) -> None:
    assert_scores(score, network)


def exact(found: Evidence, score: str, group: str, positions: Sequence[int]) -> float:
    """A score from the gradients of the examples at some positions, which may repeat."""
    inputs, targets = batch(len(found.examples))
    names = found.groups[group]
    weights = {n: p.detach() for n, p in found.model.named_parameters()}
    rows = oracle.example_gradients(found.model, inputs[list(positions)], targets[list(positions)], names)
    mean = {n: torch.stack([row[n] for row in rows]).mean(0) for n in names}
    if score == "rgn":
        return float(np.mean([mean[n].norm() / weights[n].norm() for n in names if weights[n].any()]))
    if score == "taylor":
        return sum(float((mean[n] * weights[n]).abs().sum()) for n in names)
    signal = sum(float(mean[n].square().sum()) for n in names)
    total = np.mean([sum(float(row[n].square().sum()) for n in names) for row in rows])
    return signal / (total - signal)


@pytest.mark.parametrize("score", NAMES)
@pytest.mark.parametrize("group", ["stem", "layer1", "head"])
def test_formulas(score: str, group: str) -> None:
    found = evidence("convolutions")
    assert LOCALIZERS[score](found)[group] == pytest.approx(exact(found, score, group, found.wrong_at), rel=1e-4)


@pytest.mark.parametrize("score", NAMES)
def test_a_bootstrap_replicate_is_the_score_of_the_examples_drawn(score: str) -> None:
    found = evidence("norms")
    replicate = found.resampled(np.random.default_rng(3))
    times = replicate.errors.weights.astype(int)
    drawn = np.repeat(found.wrong_at, times)
    assert sorted(set(times)) != [1]
    assert LOCALIZERS[score](replicate)["head"] == pytest.approx(exact(found, score, "head", drawn), rel=1e-3)


def test_rgn_leaves_out_tensors_of_zeros() -> None:
    found = evidence("nested")
    head = list(found.groups)[-1]
    with torch.no_grad():
        found.model.get_parameter(found.groups[head][1]).zero_()
    weight, _ = found.groups[head]
    alone = found.errors.tensor_norm_of_mean[weight] / float(found.model.get_parameter(weight).detach().norm())
    assert LOCALIZERS["rgn"](found)[head] == pytest.approx(alone)


def test_a_group_without_gradient_scores_zero_and_gradients_that_are_all_one_have_no_noise() -> None:
    for score in NAMES:
        assert LOCALIZERS[score](evidence("unused"))["idle"] == 0
    assert np.isnan(LOCALIZERS["eb"](parabola())["line"])
    assert LOCALIZERS["taylor"](parabola())["line"] == pytest.approx(2.0)  # (w − 1) w
