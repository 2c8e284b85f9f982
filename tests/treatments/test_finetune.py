"""Surgery touches what it was told to, and nothing else by a bit."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import suture
from suture.errors import GroupError
from suture.groups import tensors_of
from suture.patch import same_bits
from suture.training import Augment, Recipe
from suture.treatments import FineTune, Groups, Job, Plan
from suture.treatments.cost import Cost, step_flops
from suture.treatments.precision import has_bfloat16, is_emulated
from suture.treatments.prefix import Prefix
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


def test_a_cap_on_examples_seen_makes_an_epoch_a_part_of_them() -> None:
    case = toys.case()
    n = len(case.splits["repair"])
    assert [FineTune(recipe=SHORT, seen=seen).per_epoch(n) for seen in (None, 10_000, 101, 1)] == [n, n, 51, 1]
    _, history, cost = fine_tune(case, ["last"], FineTune(recipe=SHORT, seen=100))
    assert len(history) == cost.epochs == 2


@pytest.mark.parametrize("change", [{"channels_last": True}, {"cache": 0}], ids=["channels last", "no cache"])
def test_ways_to_be_quicker_give_the_same_network(change: dict[str, Any]) -> None:
    pictures = [(torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(100)]
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    case = suture.Case(network, pictures)
    plain, other = (fine_tune(case, ["4"], FineTune(recipe=SHORT, **more))[0] for more in ({}, change))  # type: ignore[arg-type]
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert b.is_contiguous()


def test_bfloat16_is_of_the_forward_pass_alone() -> None:
    case = toys.case()
    plain, half = (fine_tune(case, ["second"], FineTune(recipe=SHORT, precision=p))[0] for p in ("float32", "bfloat16"))  # type: ignore[arg-type]
    assert {t.dtype for t in half.state_dict().values()} == {t.dtype for t in plain.state_dict().values()}
    a, b, old = (m.get_parameter("second.weight").detach() for m in (plain, half, case.model))
    assert 0 < float((a - b).norm()) < 0.3 * float((a - old).norm())


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_said_to_be_slower_where_the_processor_has_none(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suture.treatments.precision.has_bfloat16", lambda: native)
    plan = Plan(where=Groups(names=("second",)), how=FineTune(recipe=SHORT, precision="bfloat16"))
    said: list[str] = []
    for each in (plan, plan.model_copy(update={"how": FineTune(recipe=SHORT)})):
        suture.treat(toys.case(), [], each, say=said.append)
    assert ["bfloat16, which will be slower than float32" in line for line in said] == [not native, False]


def test_a_processor_s_own_instructions_are_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for own in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda own=own: own)
        assert has_bfloat16() is own
        assert is_emulated("bfloat16", torch.device("cpu")) is not own
    assert not is_emulated("float32", torch.device("cpu"))
    assert not is_emulated("bfloat16", torch.device("cuda"))


def test_what_is_looked_up_on_disk_gives_the_same_bits_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    places: list[tuple[str, int]] = []
    stubbed = Prefix.stubbed

    def watched(self: Prefix, model: nn.Module) -> Any:
        places.append((self.place, len(list(tmp_path.iterdir()))))
        return stubbed(self, model)

    monkeypatch.setattr(Prefix, "stubbed", watched)
    on_disk = FineTune(recipe=SHORT, cache_on_disk=True)
    a, b = (fine_tune(toys.case(), ["last"], how)[0] for how in (FineTune(recipe=SHORT), on_disk))
    assert places == [("memory", 0), ("disk", 1)]
    assert not list(tmp_path.iterdir())
    assert all(same_bits(p, b.state_dict()[name]) for name, p in a.state_dict().items())
    fine_tune(toys.case(), ["last"], on_disk.model_copy(update={"cache": 100}))  # is the bound there too
    assert len(places) == 2


def test_a_full_disk_does_not_end_a_treatment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(BytesIO):
        def write(self, *_: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("suture.treatments.prefix.tempfile.TemporaryFile", lambda **_: Full())
    full, plain = (
        fine_tune(toys.case(), ["last"], FineTune(recipe=SHORT, **more))[0]  # type: ignore[arg-type]
        for more in ({"cache_on_disk": True}, {"cache": 0})
    )
    assert all(same_bits(p, plain.state_dict()[name]) for name, p in full.state_dict().items())


def test_whether_the_disk_is_used_is_a_yes_or_a_no() -> None:
    assert Plan.model_validate({"how": {"kind": "finetune", "cache_on_disk": True}}).how.cache_on_disk is True
    with pytest.raises(ValueError, match="cache_on_disk"):
        FineTune(cache_on_disk="/tmp/folder")  # type: ignore[arg-type]


def test_the_plan_s_augmentation_takes_the_place_of_the_recipe_s(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Augment] = []
    apply = Augment.apply

    def watched(self: Augment, *args: Any) -> Any:
        used.append(self)
        return apply(self, *args)

    monkeypatch.setattr(Augment, "apply", watched)
    case, mine = toys.case(), Augment(pad=1, flip=False)
    places = Groups(names=("last",)).places(case, [])
    for given, expected in ((None, SHORT.augment), (mine, mine)):
        used.clear()
        FineTune(recipe=SHORT).treat(Job(case, case.model, places, [], "x", augment=given, seed=1))
        assert set(map(repr, used)) == {repr(expected)}
    plan = Plan(where=Groups(names=("last",)), how=FineTune(recipe=SHORT), augment=mine)
    used.clear()
    suture.treat(case, [], plan)
    assert set(map(repr, used)) == {repr(mine)}
