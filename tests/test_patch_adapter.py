"""Adapters apart: PEFT reads ours, we merge PEFT's as PEFT does, and strangers' files get a sentence."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from suture.case import Case
from suture.errors import BaseMismatchError, DataError, InvalidArgumentError, MissingFileError, UnsafeFileError
from suture.patch import Patch, adapter_of, apply, between, canonical_state, load_adapter, patched
from suture.stages.verify import verify
from suture.treatments.lora import LoRA
from tests import toys
from tests.cli.conftest import Suture
from tests.cli.conftest import suture as suture
from tests.treatments import jobs, networks

peft = pytest.importorskip("peft", reason="LoRA needs PEFT, which is the extra 'lora'")


def trained_patch(case: Case) -> Patch:
    """What LoRA of rank 2 did to everything."""
    model = jobs.only(LoRA(rank=2, recipe=jobs.SHORT).treat(jobs.job(case)))
    return between(canonical_state(case.model), canonical_state(model))[0]


def pictures(model: nn.Module) -> Case:
    return Case(model.eval(), networks.pictures(60), batch_size=16)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_peft_loads_a_saved_adapter_and_answers_as_the_patched_network(tmp_path: Path, weight: float) -> None:
    torch.manual_seed(0)
    case = pictures(networks.Residual())
    patch = trained_patch(case)
    state = canonical_state(case.model)
    part = between(state, apply(state, patch, weight)[0])[0]
    adapter_of(case.model, part, rank=2).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(case.model), str(tmp_path)).eval()
    inputs = torch.stack([x for x, _ in networks.pictures(20)])
    expected = patched(case.model, patch, weight)(inputs)
    torch.testing.assert_close(theirs(inputs), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, case.model(inputs), atol=1e-3)


def test_a_saved_adapter_merges_into_the_patch_again(tmp_path: Path) -> None:
    case = jobs.small_case()
    patch, state = trained_patch(case), canonical_state(case.model)
    adapter_of(case.model, patch, rank=2).save(tmp_path)
    again, undo = load_adapter(tmp_path).patch(state)
    assert again.tensors.keys() == patch.tensors.keys()
    assert (again.base, undo.base) == (patch.base, again.result)
    for name, tensor in patch.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [
    {}, {"use_rslora": True}, {"alpha_pattern": {"second": 32}},
    {"rank_pattern": {"^first": 1}, "alpha_pattern": {"^first": 3}},
    {"modules_to_save": ["last"], "target_modules": ["first"]}, {"bias": "lora_only"},
], ids=lambda options: "+".join(options) or "plain")  # fmt: skip
def test_adapters_of_peft_are_merged_as_peft_merges_them(tmp_path: Path, options: dict[str, Any]) -> None:
    model = toys.network()
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": ["first", "second"]} | options)
    wrapped, generator = peft.get_peft_model(copy.deepcopy(model), config), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in (p for p in wrapped.parameters() if p.requires_grad):
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    wrapped.save_pretrained(str(tmp_path))
    merged = load_adapter(tmp_path).onto(canonical_state(model))
    expected = wrapped.merge_and_unload().state_dict()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, expected[name].detach(), rtol=1e-5, atol=1e-6)
    assert jobs.differing(canonical_state(model), merged)


def test_suture_apply_takes_an_adapter(tmp_path: Path, suture: Suture) -> None:
    case = jobs.small_case()
    patch = trained_patch(case)
    adapter_of(case.model, patch).save(tmp_path / "adapter")
    save_file(case.model.state_dict(), tmp_path / "w.safetensors")
    words = ("apply", tmp_path / "adapter", "--weights", tmp_path / "w.safetensors", "--out")
    answer = suture(*words, tmp_path / "new.safetensors")
    assert (answer.code, answer.err) == (0, "")
    found = load_file(tmp_path / "new.safetensors")
    for name, tensor in patched(case.model, patch).state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)
    assert suture(*words, tmp_path / "half.safetensors", "--weight", "0.5").code == 0
    half = load_file(tmp_path / "half.safetensors")["second.weight"]
    old = case.model.get_parameter("second.weight").detach()
    torch.testing.assert_close(half, (old + found["second.weight"]) / 2)


def test_suture_verify_takes_an_adapter_and_does_not_call_its_examples_unseen(tmp_path: Path, suture: Suture) -> None:
    case = jobs.small_case()
    patch = trained_patch(case)
    adapter_of(case.model, patch).save(tmp_path / "adapter")
    save_file(case.model.state_dict(), tmp_path / "w.safetensors")
    words = ("--model", f"{toys.__file__}:untrained", "--weights", tmp_path / "w.safetensors")
    answer = suture("verify", "--patch", tmp_path / "adapter", *words, "--data", f"{toys.__file__}:data")
    assert answer.code == 0, answer.err
    proof = verify(Case(case.model, verify=toys.data()), patch)
    assert re.search(rf"fixed\s*│\s*{proof.fixed}\s*│", answer.out)
    assert f"on {proof.n} examples" in proof.sentence
    assert "unseen" not in answer.out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"last.bias": torch.ones(3)}, "'last.bias', which is no weight of a Linear"),
        ({"norm.weight": torch.ones(16) * 2}, "'norm.weight', which is no weight of a Linear"),
        ({"second.weight": torch.eye(16) * 2}, "rank 1[0-9], above 2"),
    ],
    ids=["bias", "norm", "rank"],
)
def test_other_patches_are_no_adapters(change: dict[str, Tensor], why: str) -> None:
    model = toys.network()
    state = canonical_state(model)
    with pytest.raises(InvalidArgumentError, match=why):
        adapter_of(model, between(state, state | change)[0], rank=2)
    with pytest.raises(BaseMismatchError):
        adapter_of(model, Patch({}, "0" * 64, "1" * 64))


def written(folder: Path, config: object = None, **tensors: Tensor) -> Path:
    """An adapter as anybody can write it, for the second layer of the toy network."""
    good = {"second.lora_A.weight": torch.ones(2, 16), "second.lora_B.weight": torch.ones(16, 2)}
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": 2} | (config if isinstance(config, dict) else {})
    text = config if isinstance(config, str) else json.dumps(whole)
    (folder / "adapter_config.json").write_text(text)
    save_file({f"base_model.model.{n}": t for n, t in (tensors or good).items()}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "adapter_config.json is no JSON"),
        ("[]", "adapter_config.json is no JSON object"),
        ("[" * 100_000, "."),
        ({"peft_type": "IA3"}, "peft_type is 'IA3' and not LORA"),
        ({"peft_type": "\x1b[2J" * 99}, r"peft_type is '\\x1b"),
        ({"use_dora": True}, "asks for 'use_dora', beyond plain LoRA"),
        ({"layer_replication": [[0, 2]]}, "asks for 'layer_replication'"),
        ({"of_tomorrow": 1}, "asks for 'of_tomorrow'"),
        ({"init_lora_weights": "pissa"}, "asks for 'init_lora_weights'"),
        ({"lora_alpha": float("nan")}, "lora_alpha 'nan' is no number"),
        ({"lora_alpha": "9"}, "lora_alpha '9' is no number"),
        ({"alpha_pattern": {"(a+)+$": 2}}, r"alpha_pattern '\(a\+\)\+\$' is no name of a layer"),
        ({"alpha_pattern": [1]}, "alpha_pattern is no JSON object"),
        ({"base_model_name_or_path": "x" * (1 << 20)}, "at most 1048576 are read"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "+".join(value),
)
def test_hostile_configs_get_a_sentence(tmp_path: Path, config: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        load_adapter(written(tmp_path, config))


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"second.lora_A.weight": torch.ones(2, 16)}, "lora_A and lora_B of 'second.weight' do not fit"),
        ({"second.lora_A.weight": torch.ones(2, 16), "second.lora_B.weight": torch.ones(16, 3)}, "do not fit"),
        ({"second.lora_A.weight": torch.ones(2), "second.lora_B.weight": torch.ones(2)}, "do not fit"),
        ({"embed.lora_embedding_A": torch.ones(2, 3)}, "is of no Linear or convolution layer"),
        ({"second.lora_magnitude_vector": torch.ones(2)}, "is of no Linear or convolution layer"),
        ({"second.weight": torch.full((16, 16), torch.inf)}, "other than finite fractions"),
        ({"second.weight": torch.ones(16, 16, dtype=torch.int64)}, "other than finite fractions"),
    ],
    ids=["half", "ranks", "vectors", "embedding", "dora", "infinite", "integers"],
)
def test_hostile_tensors_get_a_sentence(tmp_path: Path, tensors: dict[str, Tensor], why: str) -> None:
    with pytest.raises(DataError, match=why):
        load_adapter(written(tmp_path, **tensors))


def test_tensors_that_do_not_fit_the_weights_are_refused(tmp_path: Path) -> None:
    state = canonical_state(toys.network())
    adapter = load_adapter(written(tmp_path))
    assert adapter.names == {"second.weight"}
    with pytest.raises(BaseMismatchError, match="which these weights lack"):
        adapter.onto({n: t for n, t in state.items() if n != "second.weight"})
    with pytest.raises(BaseMismatchError, match=r"as fractions \(16, 16\), these weights as torch.float32 \(4, 64\)"):
        adapter.onto(state | {"second.weight": torch.ones(4, 64)})
    with pytest.raises(BaseMismatchError, match=r"these weights as torch\.int8"):
        adapter.onto(state | {"second.weight": torch.ones(16, 16, dtype=torch.int8)})


def test_files_that_are_missing_or_pickles_are_refused(tmp_path: Path, suture: Suture) -> None:
    with pytest.raises(MissingFileError, match="an adapter is a directory with"):
        load_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsafeFileError, match=r"adapter_model.bin is a pickle, which may hold code; it was not read"):
        load_adapter(tmp_path)
    answer = suture("apply", tmp_path, "--weights", tmp_path / "w.pt", "--out", tmp_path / "new.pt")
    assert answer.code == 2
    assert "pickle" in answer.error
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="is no adapter that can be merged"):
        load_adapter(tmp_path)


def test_weights_in_half_and_double_precision_keep_their_kind(tmp_path: Path) -> None:
    adapter, old = load_adapter(written(tmp_path)), torch.full((16, 16), 1 / 3, dtype=torch.float64)
    assert torch.equal(adapter.onto({"second.weight": old})["second.weight"], old + 2)
    half = adapter.onto({"second.weight": old.bfloat16()})["second.weight"]
    assert torch.equal(half, (old.bfloat16().float() + 2).bfloat16())


def test_weights_of_gpt2_stand_the_other_way_round(tmp_path: Path) -> None:
    a, b = torch.randn(2, 5), torch.randn(7, 2)
    written(tmp_path, {"fan_in_fan_out": True}, **{"c.lora_A.weight": a, "c.lora_B.weight": b})
    found = load_adapter(tmp_path).onto({"c.weight": torch.zeros(5, 7)})["c.weight"]
    torch.testing.assert_close(found, (b @ a).T)


def test_factors_survive_interpolation_and_keep_few_ranks() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(8, 12, 3))
    state = canonical_state(layer)
    change = torch.einsum("or,rikl->oikl", torch.randn(12, 3), 0.1 * torch.randn(3, 8, 3, 3))
    adapter = adapter_of(layer, between(state, state | {"0.weight": state["0.weight"] + change})[0], rank=3)
    a, b, factor = adapter.pairs["0.weight"]
    assert (a.shape, b.shape, factor) == ((3, 8, 3, 3), (12, 3, 1, 1), 1.0)
    torch.testing.assert_close(F.conv2d(a.transpose(0, 1), b).transpose(0, 1), change, rtol=1e-4, atol=1e-5)
