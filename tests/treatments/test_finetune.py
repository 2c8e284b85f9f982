"""Surgery touches what it was told to, and nothing else by a bit."""

import pandas as pd
import pytest
import torch
from torch import nn

import suture
from suture.errors import GroupError
from suture.groups import tensors_of
from suture.patch import same_bits
from suture.training import Augment, Recipe
from suture.treatments import FineTune, Groups, Job
from suture.treatments.cost import Cost, step_flops
from tests import toys

SHORT = Recipe(epochs=2, batch_size=32, augment=Augment(pad=0, flip=False))


def fine_tune(case: suture.Case, groups: list[str], how: FineTune) -> tuple[nn.Module, pd.DataFrame, Cost]:
    places = Groups(names=tuple(groups)).places(case, [])
    treated = how.treat(Job(case, case.model, places, groups, "mine", seed=case.seed))
    return treated.candidates["mine"].model, treated.history, treated.cost


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("groups", [["first"], ["norm"], ["norm", "last"], ["second"]], ids="+".join)
def test_everything_outside_the_treated_groups_is_bit_identical(groups: list[str], batchnorm: str) -> None:
    case = toys.case()
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    how = FineTune(recipe=SHORT, batchnorm=batchnorm)  # type: ignore[arg-type]
    model, history, cost = fine_tune(case, groups, how)
    changed = {n for n, t in model.state_dict().items() if not same_bits(t, before[n])}
    parameters = {n for g in groups for n in case.groups[g]}
    allowed = set(tensors_of(model, parameters)) if batchnorm == "train" else parameters
    assert parameters <= changed <= allowed
    assert ("norm.running_mean" in changed) == (batchnorm == "train" and "norm" in groups)
    assert all(same_bits(t, before[n]) for n, t in case.model.state_dict().items())
    assert len(history) == 2
    assert cost.parameters == sum(model.get_parameter(n).numel() for n in parameters)


def test_cost_is_counted_and_the_first_layer_is_not_much_cheaper_than_all() -> None:
    case = toys.case()
    names = {name for name, _ in case.model.named_parameters()}
    full, last, first = (
        step_flops(case, chosen, 32) for chosen in (names, {"last.weight", "last.bias"}, {"first.weight"})
    )
    # By hand, in multiply-adds x 2 over 32 examples: forward 2*16 + 16*16 + 16*3 per example.
    forward = 2 * 32 * (2 * 16 + 16 * 16 + 16 * 3)
    assert last == forward + 2 * 32 * 16 * 3
    assert full == forward + 2 * 32 * (2 * 16 + 16 * 16 + 16 * 3) + 2 * 32 * (16 * 16 + 16 * 3)
    assert last < first < full


def test_shares_of_cost() -> None:
    _, _, cost = fine_tune(toys.case(), ["last"], FineTune(recipe=SHORT))
    assert 0 < cost.share < 1
    assert cost.paper_share == pytest.approx(1 / 4)
    assert cost.flops < cost.full_flops


def test_unknown_groups() -> None:
    with pytest.raises(GroupError, match="no group 'layer9'; there are first, norm, second, last"):
        fine_tune(toys.case(), ["layer9"], FineTune(recipe=SHORT))


def test_the_same_seed_gives_the_same_treatment() -> None:
    models = [fine_tune(toys.case(), ["second"], FineTune(recipe=SHORT))[0] for _ in range(2)]
    assert torch.equal(*(m.get_parameter("second.weight") for m in models))
