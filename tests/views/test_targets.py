"""Exports against the matching rules of PEFT and axolotl, written down again here."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from suture import groups as grouping
from suture.errors import InvalidArgumentError
from suture.views.targets import Export, export
from tests import zoo


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)


class Block(nn.Module):
    """A transformer block with experts, which are numbered too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))


class Body(nn.Module):
    """The list of blocks is at the root."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 4)
        self.layers = nn.ModuleList(Block() for _ in range(12))


class Language(nn.Module):
    """The list of blocks lies deeper."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Body()
        self.head = nn.Linear(4, 3)


class Twins(nn.Module):
    """Two lists of one name: an index says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Body(), Body()


class Odd(nn.Module):
    """Names that are regular expressions, prefixes of each other, and endings of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "a+b": nn.Linear(2, 2), "aab": nn.Linear(2, 2)})
        self.layer10 = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1)})
        self.conv = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)


class Residual(nn.Module):
    """Convolutions and what follows them, at the root and in a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        self.layer1 = nn.ModuleDict({
            "conv1": nn.Conv2d(2, 2, 1), "bn1": nn.BatchNorm2d(2), "conv2": nn.Conv2d(2, 2, 1),
            "bn2": nn.BatchNorm2d(2), "norm": nn.LayerNorm(2),
        })  # fmt: skip
        self.fc = nn.Linear(2, 3)


MODELS: dict[str, type[nn.Module]] = {"body": Body, "language": Language, "twins": Twins, "odd": Odd}
CASES = [
    ("language", "block", ["model.layers.1", "model.layers.3"]),
    ("language", "block", ["model.layers.1"]),  # not 10 and 11
    ("language", "block", ["model.layers.2", "head"]),
    ("language", "top", ["model"]),
    ("language", "tensor", ["model.layers.0.experts.1.weight", "model.layers.2.experts.1.weight"]),
    ("body", "block", ["layers.1", "layers.11"]),
    ("body", "block", ["embed"]),
    ("twins", "block", ["encoder.layers.0"]),
    ("odd", "top", ["conv"]),
    ("odd", "top", ["layer1"]),
    ("odd", "tensor", ["layer1.a+b.weight", "layer1.a+b.bias"]),
    ("odd", {"mine": ["layer1.conv", "conv"]}, ["mine"]),
]


def exported(model: nn.Module, level: Any, flagged: list[str], form: str) -> tuple[Export, dict[str, list[str]]]:
    groups = grouping.resolve(model, level)
    result: Any = SimpleNamespace(flagged=flagged, groups=groups)
    return export(result, form, model), {group: groups[group] for group in flagged}


def peft_takes(config: dict[str, Any], key: str, *, greedy: bool) -> bool:
    """What `check_target_module_exists` of PEFT says of a module; older releases looked for the last list."""
    targets = config["target_modules"]
    if isinstance(targets, str):
        return bool(re.fullmatch(targets, key))
    if key in targets:
        return True
    hit = any(key.endswith(f".{target}") for target in targets)
    if not hit or config.get("layers_to_transform") is None:
        return hit
    pattern = config["layers_pattern"]
    found = re.match(rf".*\.{pattern}\.(\d+)\." if greedy else rf"(?:^|.*?\.){pattern}\.(\d+)\.", key)
    return found is not None and int(found[1]) in config["layers_to_transform"]


@pytest.mark.parametrize(("name", "level", "flagged"), CASES, ids=lambda value: str(value)[:40])
def test_peft_gets_the_flagged_layers_and_no_others(name: str, level: Any, flagged: list[str]) -> None:
    model = MODELS[name]()
    made, groups = exported(model, level, flagged, "peft")
    owners = {parameter.rpartition(".")[0] for names in groups.values() for parameter in names}
    wanted = {
        n for n, m in model.named_modules() if n in owners and isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)
    }
    assert wanted
    config = json.loads(made.text)
    for greedy in (True, False):
        assert {n for n, _ in model.named_modules() if n and peft_takes(config, n, greedy=greedy)} == wanted
    assert {n for names in made.matches.values() for n in names} == wanted


def test_blocks_of_a_list_are_named_by_their_indices() -> None:
    made, _ = exported(Language(), "block", ["model.layers.1", "model.layers.3"], "peft")
    assert made.config == {
        "peft_type": "LORA",
        "target_modules": ["q_proj", "v_proj", "experts.0", "experts.1", "experts.2"],
        "layers_to_transform": [1, 3],
        "layers_pattern": "layers",
    }
    assert made.lines[0] == "q_proj -> 2 modules"
    at_root, _ = exported(Body(), "block", ["layers.2"], "peft")
    assert at_root.config["layers_to_transform"] == [2]


def test_two_lists_of_one_name_are_not_confused() -> None:
    made, _ = exported(Twins(), "block", ["encoder.layers.0"], "peft")
    assert "layers_to_transform" not in made.config


@pytest.mark.parametrize(("name", "level", "flagged"), CASES, ids=lambda value: str(value)[:40])
def test_axolotl_trains_the_flagged_parameters_and_no_others(name: str, level: Any, flagged: list[str]) -> None:
    model = MODELS[name]()
    made, groups = exported(model, level, flagged, "axolotl")
    head, *entries = made.text.splitlines()
    assert head == "unfrozen_parameters:"
    patterns = [json.loads(entry.removeprefix("  - ")) for entry in entries]
    assert all(pattern.startswith("^") and pattern.endswith("$") for pattern in patterns)
    wanted = {parameter for names in groups.values() for parameter in names}
    every = [n for n, _ in model.named_parameters()]
    axolotl = [re.compile(re.sub(r"\.(?!\+)", "\\.", pattern)) for pattern in patterns]
    for compiled in (axolotl, [re.compile(pattern) for pattern in patterns]):
        assert {n for n in every if any(each.match(n) for each in compiled)} == wanted
    assert {n for names in made.matches.values() for n in names} == wanted


@pytest.mark.parametrize("name", ["tied", "convolutions", "attention", "norms", "rootparameters"])
@pytest.mark.parametrize("form", ["axolotl", "json"])
def test_every_group_of_the_zoo_can_be_exported(name: str, form: str) -> None:
    model = zoo.build(name)
    for group, parameters in grouping.resolve(model, "block").items():
        made, _ = exported(model, "block", [group], form)
        assert [n for names in made.matches.values() for n in names] == parameters


def test_json_is_the_names() -> None:
    made, groups = exported(Odd(), "top", ["layer1"], "json")
    assert json.loads(made.text) == groups
    assert made.lines == ["layer1 -> 6 parameters"]


def test_a_flagged_group_without_a_layer_for_lora_is_said_to_be_left_out() -> None:
    made, _ = exported(Residual(), "top", ["conv1", "bn1"], "peft")
    assert json.loads(made.text)["target_modules"] == "conv1"
    assert made.lines == [
        "conv1 -> 1 module",
        "bn1 -> 0 modules; 1 BatchNorm2d left out, which LoRA does not adapt",
    ]


def test_norms_inside_a_flagged_group_are_said_to_be_left_out() -> None:
    made, _ = exported(Residual(), "top", ["layer1", "fc"], "peft")
    assert made.lines == [
        "layer1.conv1 -> 1 module",
        "conv2 -> 1 module",
        "fc -> 1 module",
        "layer1 -> 2 modules; 2 BatchNorm2d and 1 LayerNorm left out, which LoRA does not adapt",
    ]


@pytest.mark.parametrize(("name", "level", "flagged"), CASES, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("form", ["peft", "axolotl", "json"])
def test_the_lines_account_for_every_flagged_group(form: str, name: str, level: Any, flagged: list[str]) -> None:
    model = MODELS[name]()
    made, groups = exported(model, level, flagged, form)
    assert list(made.groups) == flagged
    for group, parameters in groups.items():
        mine = {n.rpartition(".")[0] for n in parameters} if form == "peft" else set(parameters)
        n = len(made.groups[group])
        assert n + len(made.left_out.get(group, [])) == len(mine)
        ours = [line for line in made.lines if line.startswith(f"{group} -> {n} ")]
        whole = [p for p, names in made.matches.items() if set(names) == mine]
        assert len(ours) == 1 or whole


def test_what_axolotl_and_json_take_is_not_said_twice() -> None:
    flagged = ["layer1", "bn1"]
    axolotl, _ = exported(Residual(), "top", flagged, "axolotl")
    assert axolotl.lines == ["^layer1[.].+$ -> 10 parameters", "^bn1[.].+$ -> 2 parameters"]
    plain, _ = exported(Residual(), "top", flagged, "json")
    assert plain.lines == ["layer1 -> 10 parameters", "bn1 -> 2 parameters"]
    mine, _ = exported(Residual(), {"mine": ["bn1.weight", "fc.bias"]}, ["mine"], "axolotl")
    assert mine.lines == ["^bn1[.]weight$ -> 1 parameter", "^fc[.]bias$ -> 1 parameter", "mine -> 2 parameters"]


@pytest.mark.parametrize(
    ("flagged", "form", "part"),
    [
        (["conv"], "lora", "no export is called 'lora'"),
        ([], "peft", "no group is flagged"),
        (["norm"], "peft", "norm -> 0 modules: LoRA goes on linear, convolution and embedding layers"),
    ],
)
def test_what_cannot_be_exported(flagged: list[str], form: str, part: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(part)):
        exported(Odd(), "top", flagged, form)


@pytest.mark.parametrize("form", ["peft", "axolotl", "json"])
def test_another_model_has_none_of_the_names(form: str) -> None:
    result: Any = SimpleNamespace(flagged=["head"], groups=grouping.resolve(Language(), "top"))
    with pytest.raises(InvalidArgumentError, match="'head' -> 0 parameters"):
        export(result, form, Odd())
