"""Localizers against their formulas, nulls and rules; every one of them over the zoo."""

import numpy as np
import pandas as pd
import pytest
import torch

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers import LOCALIZERS, Evidence, localizer
from suture.localizers.nulls import matched, reinitialised
from suture.patch import base_sha256, canonical_state
from tests import zoo

# The zoo is made of what takes the slow way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:no rule for"),
    pytest.mark.filterwarnings("ignore:.*used outside of its module"),
]


def evidence(name: str, level: str = "top") -> Evidence:
    """On all examples of the zoo, taken for errors; the correct ones are the same."""
    model = zoo.build(name)
    inputs, targets = zoo.batch()
    examples = list(zip(inputs, targets.tolist(), strict=True))
    case = Case(model, diagnose=examples, groups=level, batch_size=3)
    everything = np.arange(len(examples))
    return Evidence(case, case.model, np.zeros(len(examples), bool), everything, everything)


@pytest.mark.parametrize("score", [name for name, each in LOCALIZERS.items() if each.reads == "gradients"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_localizer_of_gradients_scores_every_group_of_every_network(name: str, score: str) -> None:
    found = evidence(name)
    scores = LOCALIZERS[score](found)
    assert list(scores.index) == list(found.groups)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


def test_formulas() -> None:
    found = evidence("convolutions")
    gradient = torch.cat([found.errors.mean_gradient[n].flatten() for n in found.groups["layer1"]])
    model = zoo.build("convolutions")
    weights = torch.cat([p.detach().flatten() for n, p in model.named_parameters() if n.startswith("layer1.")])
    norm = float(gradient.norm())
    assert LOCALIZERS["grad_norm"](found)["layer1"] == pytest.approx(norm)
    assert LOCALIZERS["relative"](found)["layer1"] == pytest.approx(norm / float(weights.norm()))
    assert LOCALIZERS["rms"](found)["layer1"] == pytest.approx(norm / len(gradient) ** 0.5)


def test_a_group_without_gradient_or_weight_scores_zero() -> None:
    assert LOCALIZERS["grad_norm"](evidence("unused"))["idle"] == 0
    model = zoo.build("unused")
    torch.nn.init.zeros_(model.idle.weight)  # type: ignore[union-attr, arg-type]
    torch.nn.init.zeros_(model.idle.bias)  # type: ignore[union-attr, arg-type]
    case = Case(model, diagnose=[(torch.zeros(4), 0)])
    found = Evidence(case, case.model, np.zeros(1, bool), np.zeros(1, int), np.zeros(0, int))
    assert LOCALIZERS["relative"](found)["idle"] == 0


def test_levels_agree_parents_are_the_root_of_their_children_s_squares() -> None:
    top, tensor = (LOCALIZERS["grad_norm"](evidence("convolutions", level)) for level in ("top", "tensor"))
    for group in top.index:
        children = [x for name, x in tensor.items() if str(name).startswith(f"{group}.")]
        assert np.sqrt(np.square(children).sum()) == pytest.approx(top[group])


def test_a_localizer_of_ones_own_is_a_function_and_a_line() -> None:
    @localizer("position for a test")
    def position(found: Evidence) -> pd.Series:
        return pd.Series(range(len(found.groups)), index=list(found.groups), dtype=float)

    try:
        assert LOCALIZERS["position for a test"](evidence("norms")).idxmax() == "head"
        with pytest.raises(InvalidArgumentError, match="exists already"):
            localizer("position for a test")(lambda found: found.size)
    finally:
        del LOCALIZERS._things["position for a test"]


def test_the_null_is_as_many_correct_examples_drawn_by_seed() -> None:
    correct = np.arange(100, 200)
    drawn = matched(correct, 20, seed=1)
    assert len(set(drawn)) == 20
    assert set(drawn) <= set(correct)
    assert np.array_equal(drawn, matched(correct, 20, seed=1))
    assert not np.array_equal(drawn, matched(correct, 20, seed=2))
    assert len(matched(correct[:5], 20, seed=1)) == 5


def test_reinitialised_is_another_network_by_seed_and_leaves_the_model() -> None:
    model = zoo.build("norms")
    before = base_sha256(canonical_state(model))
    hashes = [base_sha256(canonical_state(reinitialised(model, seed))) for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert before not in hashes
    assert base_sha256(canonical_state(model)) == before
