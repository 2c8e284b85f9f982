"""LoRA: merged weights by hand, frozen weights bit by bit, and adapters that PEFT reads and writes."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.patch import adapter_of
from suture.stages.treat import treat
from suture.training import Checkpoints
from suture.treatments import PRESETS, Everything, FineTune, Groups, Job, Plan
from suture.treatments.finetune import fit_places, penalty_of
from suture.treatments.guards import L2SP, EarlyStop
from suture.treatments.lora import Adapted, LoRA, layers_of
from suture.treatments.where import Entries
from tests import toys, zoo
from tests.cli.conftest import suture as suture
from tests.treatments import jobs, networks

peft = pytest.importorskip("peft", reason="LoRA needs PEFT, which is the extra 'lora'")

HOW = LoRA(rank=2, recipe=jobs.SHORT)


def pictures(model: nn.Module) -> Case:
    return Case(model.eval(), networks.pictures(60), batch_size=16)


def adapted(job: Job, how: LoRA = HOW, *, moved: bool = True) -> Adapted:
    """The job's network with adapters that change something."""
    made, generator = how.adapted(job, layers_of(job)[0]), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name in sorted(made.names) if moved else ():
            p = made.model.get_parameter(name)
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return made


def parts(made: Adapted, path: str) -> tuple[Tensor, Tensor]:
    layer = made.model.get_submodule(path)
    return layer.get_parameter("lora_A.default.weight").detach(), layer.get_parameter("lora_B.default.weight").detach()


# merging


def test_a_merged_linear_layer_is_w_plus_alpha_over_rank_b_a() -> None:
    case = jobs.small_case()
    made = adapted(jobs.job(case), LoRA(rank=2, alpha=3.0))
    a, b = parts(made, "second")
    expected = case.model.get_parameter("second.weight") + 3 / 2 * b @ a
    torch.testing.assert_close(made.merged(case.model).get_parameter("second.weight"), expected)


@pytest.mark.parametrize("path", ["stem", "layer2.conv1", "layer2.shortcut"])
def test_a_merged_convolution_is_w_plus_alpha_over_rank_b_a(path: str) -> None:
    torch.manual_seed(0)
    case = pictures(networks.Residual())
    made = adapted(jobs.job(case), LoRA(rank=2, alpha=3.0))
    (a, b), old = parts(made, path), case.model.get_submodule(path).get_parameter("weight")
    expected = old + 1.5 * torch.einsum("or,rikl->oikl", b[:, :, 0, 0], a)
    torch.testing.assert_close(made.merged(case.model).get_submodule(path).get_parameter("weight"), expected)


def test_adapters_begin_as_nothing_and_merged_ones_answer_as_they_do() -> None:
    torch.manual_seed(0)
    case = pictures(networks.Residual())
    inputs = torch.stack([x for x, _ in networks.pictures(9)])
    fresh = adapted(jobs.job(case), moved=False)
    assert torch.equal(fresh.model.eval()(inputs), case.model(inputs))
    assert jobs.identical(fresh.merged(case.model), case.model)
    made = adapted(jobs.job(case))
    assert not torch.allclose(made.model.eval()(inputs), case.model(inputs), atol=1e-3)
    torch.testing.assert_close(made.model(inputs), made.merged(case.model)(inputs), rtol=1e-4, atol=1e-4)


def test_guards_see_merged_weights_under_their_old_names() -> None:
    case = jobs.small_case()
    job = jobs.job(case, guards=(L2SP(strength=0.4),))
    made, batch = adapted(job), (torch.zeros(1, 2), torch.zeros(1))
    known, merged = dict(made.stand.known.named_parameters()), dict(made.merged(case.model).named_parameters())
    assert known.keys() == merged.keys()
    for name, value in merged.items():
        torch.testing.assert_close(known[name], value)
    penalty = penalty_of(job, made.stand.known)
    assert penalty is not None
    old = dict(case.model.named_parameters())
    expected = 0.2 * sum(float((p - old[n]).detach().square().sum()) for n, p in merged.items())
    found = penalty(made.model, batch, None)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.backward()  # type: ignore[no-untyped-call]
    assert all(made.model.get_parameter(name).grad is not None for name in made.names)


# training


@pytest.mark.parametrize("groups", [("first", "norm"), ("second",), ("second", "last")], ids="+".join)
def test_only_weights_of_layers_in_the_places_change(groups: tuple[str, ...]) -> None:
    case = jobs.small_case()
    before = jobs.state(case.model)
    model = jobs.only(HOW.treat(jobs.job(case, Groups(names=groups))))
    assert jobs.differing(before, jobs.state(model)) == {f"{g}.weight" for g in groups if g != "norm"}
    assert not jobs.differing(before, jobs.state(case.model))
    assert type(model) is type(case.model)
    for group in {*groups} - {"norm"}:
        change = model.get_parameter(f"{group}.weight") - before[f"{group}.weight"]
        assert int(torch.linalg.matrix_rank(change, rtol=1e-4)) <= 2


def test_gradients_reach_the_adapters_and_nothing_else() -> None:
    case = jobs.small_case()
    job = jobs.job(case, Groups(names=("second",)))
    made = adapted(job, moved=False)
    frozen = {n: p.detach().clone() for n, p in made.model.named_parameters() if n not in made.names}
    fit_places(job, FineTune(recipe=jobs.SHORT), made.model, made.stand)
    assert made.names == {f"second.lora_{half}.default.weight" for half in "AB"}
    now = dict(made.model.named_parameters())
    assert {n for n, p in now.items() if p.grad is not None} == made.names
    assert all(torch.equal(now[n], value) for n, value in frozen.items())


def test_training_lowers_the_loss_and_costs_what_adapters_cost() -> None:
    case = toys.case()
    how = LoRA(rank=2, recipe=jobs.SHORT.model_copy(update={"epochs": 6}))
    job = jobs.job(case, Groups(names=("first", "second")))
    treated = how.treat(job)
    losses = treated.history["loss"]
    assert losses.iloc[-1] < 0.6 * losses.iloc[0]
    cost = treated.cost
    assert (cost.parameters, cost.groups, cost.epochs) == (2 * (2 + 16) + 2 * (16 + 16), 2, 6)
    assert 0 < cost.flops < cost.full_flops
    assert how.estimate(job).flops == pytest.approx(cost.flops, rel=0.4)  # a frozen prefix is looked up
    assert treated.account == ["LoRA of rank 2 on 2 layers: first, second"]


def test_the_same_seed_gives_the_same_treatment_and_another_seed_another() -> None:
    case = jobs.small_case()
    a, b, c = (jobs.only(HOW.treat(replace(jobs.job(case), seed=seed))) for seed in (1, 1, 2))
    assert jobs.identical(a, b)
    assert not jobs.identical(a, c)


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    case = jobs.small_case()
    state = torch.get_rng_state()
    HOW.treat(jobs.job(case))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stopped_training_goes_on_where_it_was(tmp_path: Path) -> None:
    case = jobs.small_case()
    whole = jobs.only(HOW.treat(jobs.job(case)))
    job = jobs.job(case, checkpoints=Checkpoints(tmp_path, "key"))
    half = HOW.treat(replace(job, share=0.5))
    assert len(half.history) == 1
    rest = HOW.treat(job)
    assert len(rest.history) == 2
    assert jobs.identical(jobs.only(rest), whole)


def test_batchnorm_keeps_its_statistics_and_dropout_is_of_the_adapters_alone() -> None:
    torch.manual_seed(0)
    case = pictures(networks.Residual())
    made = adapted(jobs.job(case), LoRA(rank=2, dropout=0.3))
    made.stand.mode(made.model)
    training = {name for name, module in made.model.named_modules() if module.training}
    assert training
    assert all(".lora_dropout" in name for name in training)
    before = {n: t.clone() for n, t in case.model.state_dict().items() if "running" in n or "num_batches" in n}
    model = jobs.only(LoRA(rank=2, dropout=0.3, recipe=jobs.SHORT).treat(jobs.job(case)))
    assert not jobs.differing(before, {n: t for n, t in model.state_dict().items() if n in before})


def test_a_guard_can_stop_it() -> None:
    how = LoRA(recipe=jobs.SHORT.model_copy(update={"lr": 5.0, "clip": None}))
    treated = how.treat(jobs.job(toys.case(), guards=(EarlyStop(max_regression=0.01),)))
    assert treated.stopped
    assert "epoch" in treated.stopped


# layers


class Odd(nn.Module):
    """Layers that an adapter cannot be put on, or not so that merging gives the same."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.around = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.around(self.dilated(self.depthwise(self.plain(x))))).mean((2, 3))
        y = self.two(self.one(y))[:, None]
        return self.last(self.attention(y, y, y)[0][:, 0])


def test_layers_that_cannot_be_adapted_are_left_out_with_a_reason() -> None:
    torch.manual_seed(0)
    case = pictures(Odd())
    before = jobs.state(case.model)
    treated = HOW.treat(jobs.job(case))
    assert treated.account == [
        "LoRA of rank 2 on 2 layers: plain, last",
        "left out by LoRA: depthwise, since it is a grouped convolution",
        "left out by LoRA: dilated, since it is a dilated convolution",
        "left out by LoRA: around, since its padding is circular",
        "left out by LoRA: up, since it is a ConvTranspose2d",
        "left out by LoRA: one, two, since its weight is used twice",
        "left out by LoRA: attention.out_proj, since it is a NonDynamicallyQuantizableLinear",
    ]
    assert jobs.differing(before, jobs.state(jobs.only(treated))) == {"plain.weight", "last.weight"}


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_networks_of_the_zoo_change_where_they_may_or_say_why_not(name: str) -> None:
    case = jobs.zoo_case(name)
    before = jobs.state(case.model)
    job = jobs.job(case)
    treated = HOW.treat(job)
    assert not jobs.differing(before, jobs.state(case.model))
    if treated.candidates:
        weights = {f"{path}.weight" for path in layers_of(job)[0]}
        assert jobs.differing(before, jobs.state(jobs.only(treated))) <= weights
    else:
        assert treated.stopped


def test_a_weight_that_is_read_past_its_layer_is_noticed() -> None:
    torch.manual_seed(0)
    examples = networks.points(60)
    treated = HOW.treat(jobs.job(Case(networks.Borrowed().eval(), examples), Groups(names=("head",))))
    assert not treated.candidates
    assert treated.stopped == (
        "the merged weights do not answer as the adapters do: the network reads weights of layers by itself"
    )


def test_where_there_is_no_layer_nothing_is_treated() -> None:
    treated = HOW.treat(jobs.job(jobs.small_case(), Groups(names=("norm",))))
    assert treated.stopped == "there is no Linear or convolution layer to adapt"
    assert not treated.candidates


def test_single_entries_are_refused() -> None:
    case = jobs.small_case()
    with pytest.raises(InvalidArgumentError, match="LoRA treats parameters whole"):
        HOW.treat(jobs.job(case, Entries(score="gradient")))


def test_without_peft_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InvalidArgumentError, match=r"PEFT, which is not installed; pip install 'suture\[lora\]'"):
        HOW.treat(jobs.job(jobs.small_case()))


def test_a_network_with_adapters_is_refused() -> None:
    case = jobs.small_case()
    made = adapted(jobs.job(case)).model
    with pytest.raises(InvalidArgumentError, match="has adapters of PEFT already"):
        HOW.adapted(Job(case, made, Everything().places(case, ()), (), "mine"), {"last": nn.Linear(1, 1)})


def test_the_preset_treats_flagged_groups_and_its_patch_has_low_rank() -> None:
    plan = PRESETS["lora"]
    assert isinstance(plan.how, LoRA)
    assert (plan.where.kind, plan.how.rank, plan.how.recipe.lr, plan.how.recipe.clip) == ("flagged", 4, 0.01, 1.0)
    case = toys.case()
    fix = treat(case, ["second"], Plan(name="lora", how=HOW))
    assert set(fix.patch.tensors) == {"second.weight"}
    assert fix.account == ["LoRA of rank 2 on 1 layer: second"]
    assert len(adapter_of(case.model, fix.patch, rank=2).pairs["second.weight"][0]) <= 2


def test_half_precision_is_merged_in_half_precision() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).bfloat16().eval()
    examples = [(x.bfloat16(), y) for x, y in networks.points(60)]
    treated = HOW.treat(jobs.job(Case(model, examples)))
    assert jobs.only(treated).get_parameter("0.weight").dtype == torch.bfloat16
