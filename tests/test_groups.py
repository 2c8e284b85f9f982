"""Groups partition the parameters, whatever the network and the level."""

import pytest
import torch
from torch import nn

from suture.errors import GroupError
from suture.groups import group_of, resolve, tensors_of
from tests import zoo


@pytest.mark.parametrize("level", ["top", "block", "tensor"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_level_partitions_the_parameters_in_model_order(name: str, level: str) -> None:
    model = zoo.build(name)
    groups = resolve(model, level)
    flat = [parameter for parameters in groups.values() for parameter in parameters]
    names = [n for n, _ in model.named_parameters()]
    assert sorted(flat) == sorted(names)
    assert all(groups.values())
    firsts = [names.index(parameters[0]) for parameters in groups.values()]
    assert firsts == sorted(firsts)
    assert all(parameters == sorted(parameters, key=names.index) for parameters in groups.values())


def test_the_paper_s_seven_groups_of_a_resnet18() -> None:
    models = pytest.importorskip("torchvision.models")
    assert list(resolve(models.resnet18())) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("nested", "top", ["wrapped.0.0", "wrapped.0.2"]),
        ("rootparameters", "top", ["scale", "body", "head"]),
        ("tied", "top", ["embed", "body"]),
        ("tied", "tensor", ["embed.weight", "body.weight", "body.bias"]),
        ("convolutions", "block", ["stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "head"]),
        ("attention", "block", ["embed", "blocks.0", "blocks.1", "head"]),
        ("recurrent", "block", ["recur", "head"]),
    ],
)
def test_names_of_groups(name: str, level: str, expected: list[str]) -> None:
    assert list(resolve(zoo.build(name), level)) == expected


def test_experts_inside_a_block_are_not_blocks() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))

    model = nn.ModuleDict({"layers": nn.ModuleList(Block() for _ in range(3)), "head": nn.Linear(2, 2)})
    assert list(resolve(model, "block")) == ["layers.0", "layers.1", "layers.2", "head"]


def test_globs_of_ones_own_and_the_rest() -> None:
    model = zoo.build("convolutions")
    groups = resolve(model, {"late": ["layer2", "head.*"], "stem": ["stem"]})
    assert list(groups) == ["stem", "rest", "late"]
    assert groups["late"] == [n for n, _ in model.named_parameters() if n.startswith(("layer2.", "head."))]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("tops", "did you mean 'top'"),
        ({"a": ["layer9.*"]}, "matches no parameter"),
        ({"a": ["layer1"], "b": ["layer1.0.*"]}, "claimed by the groups 'a' and 'b'"),
        ({"rest": ["layer1"]}, "rename yours"),
    ],
    ids=["level", "unmatched", "overlap", "rest"],
)
def test_what_does_not_partition_is_refused(spec: object, words: str) -> None:
    with pytest.raises(GroupError, match=words):
        resolve(zoo.build("convolutions"), spec)  # type: ignore[arg-type]


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(GroupError, match="no parameters"):
        resolve(nn.ReLU())


def test_buffers_follow_the_module_that_owns_the_parameters() -> None:
    model = zoo.build("norms")
    names = tensors_of(model, resolve(model)["first"])
    assert "first.1.running_mean" in names
    assert not any(name.startswith(("second", "head")) for name in names)


def test_group_of_inverts_resolve() -> None:
    model = zoo.build("norms")
    groups = resolve(model)
    owner = group_of(groups)
    assert set(owner) == {name for name, _ in model.named_parameters()}
    assert owner["second.0.weight"] == "second"
    assert torch.tensor([owner[p] == g for g, ps in groups.items() for p in ps]).all()
