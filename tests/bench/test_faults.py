"""Planted faults: where they are, what they are, how they grow, and what is refused."""

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import suture
from suture.bench import FAULTS, Site, applies, fault, plant
from suture.errors import DataError, GroupError, InvalidArgumentError, NonFiniteError, SutureError, UnknownNameError
from suture.groups import resolve, tensors_of
from suture.patch import base_sha256, canonical_state
from suture.tasks import Classification
from tests import toys, zoo

KINDS = ("noise", "zero", "sign", "scale", "permute", "bnstat", "huge", "finetune")
STRENGTH = {"zero": 0.5, "sign": 0.5, "permute": 0.5, "finetune": 3} | dict.fromkeys(
    ("noise", "scale", "bnstat", "huge"), 2.0
)
STATISTICS = ("running_mean", "running_var")


def lively(model: nn.Module) -> nn.Module:
    """No two values alike: a fresh norm is all ones, and nothing changes when ones change places."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.5)
    return model.eval()


def hurt(model: nn.Module, group: str, kind: str, seed: int, strength: float | None = None, **options: object):
    """`plant`, with a strength of the kind and examples of the zoo."""
    inputs, targets = zoo.batch(30)
    return plant(model, group, kind, strength or STRENGTH[kind], seed, inputs=inputs, targets=targets, **options)


def changes(before: nn.Module, after: nn.Module) -> set[str]:
    old, new = canonical_state(before), canonical_state(after)
    return {name for name in old if not torch.equal(old[name], new[name])}


def rows(module: nn.Module, name: str = "weight") -> Tensor:
    """Rows of a tensor of a module, detached."""
    return getattr(module, name).detach().clone()


def cases() -> Iterator[tuple[str, str, str]]:
    for name in zoo.ZOO:
        model = zoo.build(name)
        for group in resolve(model):
            yield from ((name, group, kind) for kind in KINDS if applies(model, group, kind))


IDLE = ("unused", "idle", "finetune")  # the loss does not depend on this group: it cannot be trained


@pytest.mark.parametrize(("name", "group", "kind"), [case for case in cases() if case != IDLE])
def test_only_the_named_group_changes_and_the_seed_decides_how(name: str, group: str, kind: str) -> None:
    model = lively(zoo.build(name)).train()
    flags = [p.requires_grad for p in model.parameters()]
    before = base_sha256(canonical_state(model))
    own = set(tensors_of(model, resolve(model)[group]))
    for seed in range(4):
        damaged = hurt(model, group, kind, seed)
        changed = changes(model, damaged)
        assert changed
        assert changed <= own
        assert not changes(damaged, hurt(model, group, kind, seed))
        assert [p.requires_grad for p in damaged.parameters()] == flags
        assert not any(module.training for module in damaged.modules())
        assert all(p.grad is None for p in damaged.parameters())
    assert base_sha256(canonical_state(model)) == before
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", zoo.ZOO)
def test_applies_is_what_plant_accepts(name: str) -> None:
    model = lively(zoo.build(name))
    for level in ("top", "tensor"):
        for group in resolve(model, level):
            for kind in set(KINDS) - {"finetune"}:
                if applies(model, group, kind, groups=level):
                    assert changes(model, hurt(model, group, kind, 0, groups=level))
                else:
                    with pytest.raises(InvalidArgumentError, match=f"'{kind}' fault needs .*'{group}' has none"):
                        hurt(model, group, kind, 0, groups=level)


def test_groups_of_ones_own() -> None:
    model = lively(zoo.build("convolutions"))
    groups = {"late": ["layer2", "head"]}
    assert all(n.startswith(("layer2", "head")) for n in changes(model, hurt(model, "late", "noise", 1, groups=groups)))


def test_different_seeds_are_different_faults() -> None:
    model = toys.network()
    weights = [rows(hurt_toy(model, "second", "noise", 0.5, seed).second) for seed in range(5)]
    assert len({float(w.sum()) for w in weights}) == 5


def test_a_group_of_several_modules_is_damaged_as_a_whole_or_in_one_of_them() -> None:
    model = lively(zoo.build("convolutions"))
    modules = {n.rpartition(".")[0] for n in resolve(model)["layer1"]}
    hit = [{n.rpartition(".")[0] for n in changes(model, hurt(model, "layer1", "noise", seed))} for seed in range(60)]
    assert {len(each) for each in hit} == {1, len(modules)}
    assert set.union(*(each for each in hit if len(each) == 1)) == modules
    whole = sum(len(each) > 1 for each in hit)
    assert 15 <= whole <= 45  # a fair coin; outside of this with probability 1e-4


# --- what each kind does ---------------------------------------------------------------------------------------


def hurt_toy(model: nn.Module, group: str, kind: str, strength: float, seed: int = 0) -> toys.Net:
    return plant(model, group, kind, strength, seed)


def test_noise_has_the_size_of_the_weights_times_strength() -> None:
    model = nn.Sequential(nn.Linear(200, 100), nn.LayerNorm(100))
    with torch.no_grad():
        model[1].bias.fill_(3.0)
    body, norm = hurt_toy(model, "0", "noise", 0.3), hurt_toy(model, "1", "noise", 0.3)
    added = rows(body[0]) - rows(model[0])
    assert float(added.std() / rows(model[0]).square().mean().sqrt()) == pytest.approx(0.3, rel=0.03)
    assert changes(model, body) == {"0.weight"}
    assert changes(model, norm) == {"1.weight", "1.bias"}
    assert float((rows(norm[1], "bias") - rows(model[1], "bias")).std()) == pytest.approx(0.9, rel=0.3)


def test_scale_is_one_factor_for_each_channel() -> None:
    model = nn.Sequential(nn.Linear(6, 400))
    damaged = hurt_toy(model, "0", "scale", 0.5)
    factor = (rows(damaged[0]) / rows(model[0])).mean(1)
    assert torch.allclose(rows(damaged[0]), rows(model[0]) * factor[:, None], rtol=1e-5)
    assert torch.allclose(rows(damaged[0], "bias"), rows(model[0], "bias") * factor, rtol=1e-5)
    assert float(factor.log().std()) == pytest.approx(0.5, rel=0.1)


def test_sign_flips_single_weights_and_channels_of_norms() -> None:
    model = nn.Sequential(nn.Linear(10, 20), lively(nn.BatchNorm1d(20)))
    ratio = rows(hurt_toy(model, "0", "sign", 0.1)[0]) / rows(model[0])
    assert int((ratio == -1).sum()) == 20
    assert int((ratio == 1).sum()) == 180
    norm = hurt_toy(model, "1", "sign", 0.1)[1]
    flipped = norm.weight == -model[1].weight
    assert int(flipped.sum()) == 2
    assert torch.equal(flipped, norm.bias == -model[1].bias)


def test_stale_statistics_leave_weights_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 500, 1), nn.BatchNorm2d(500))
    with torch.no_grad():
        model[1].running_var.fill_(4.0)
    damaged = hurt_toy(model, "1", "bnstat", 0.5)
    assert changes(model, damaged) == {"1.running_mean", "1.running_var"}
    assert float(damaged[1].running_mean.std()) == pytest.approx(0.5 * 2.0, rel=0.1)
    assert float((damaged[1].running_var / 4.0).log().std()) == pytest.approx(0.5, rel=0.1)


def test_huge_weights_are_one_to_three_of_either_sign() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last))
    top = float(rows(model[0]).abs().max())
    values: list[float] = []
    counts = set()
    for seed in range(30):
        damaged = rows(hurt_toy(model, "0", "huge", 5.0, seed)[0])
        changed = damaged[damaged != model[0].weight]
        counts.add(len(changed))
        values += (changed / top).tolist()
    assert counts == {1, 2, 3}
    assert {round(value, 4) for value in values} == {5.0, -5.0}


def test_a_norm_s_four_vectors_are_permuted_together() -> None:
    model = nn.Sequential(nn.Linear(3, 9), lively(nn.BatchNorm1d(9)))
    damaged = hurt_toy(model, "1", "permute", 0.6)
    moved = (damaged[1].weight != model[1].weight).nonzero().flatten()
    assert len(moved) == 5
    source = (damaged[1].weight[:, None] == model[1].weight).float().argmax(1)
    assert sorted(source.tolist()) == list(range(9))
    for name in ("weight", "bias", *STATISTICS):
        assert torch.equal(rows(damaged[1], name), rows(model[1], name)[source])


LAYERS = {
    "linear": (lambda: nn.Linear(5, 6), (4, 5), 1),
    "conv1d": (lambda: nn.Conv1d(2, 6, 3), (4, 2, 5), 1),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), (4, 4, 5, 5), 1),
    "conv3d": (lambda: nn.Conv3d(1, 6, 2), (4, 1, 3, 3, 3), 1),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (4, 4, 3, 3), 1),
    "embedding": (lambda: nn.Embedding(5, 6), None, 2),
    "batchnorm": (lambda: nn.BatchNorm2d(6), (4, 6, 2, 2), 1),
    "instancenorm": (lambda: nn.InstanceNorm1d(6, affine=True, track_running_stats=True), (4, 6, 5), 1),
    "groupnorm": (lambda: nn.GroupNorm(2, 6), (4, 6, 3), 1),
    "layernorm": (lambda: nn.LayerNorm((2, 3)), (4, 2, 3), 1),
    "rmsnorm": (lambda: nn.RMSNorm(6), (4, 6), 1),
}


def outputs(model: nn.Module, name: str) -> Tensor:
    """What the layer gives on random inputs, channels first: (channels, …)."""
    _, shape, axis = LAYERS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = torch.arange(5)[None] if shape is None else torch.randn(shape, generator=generator)
    given = model(inputs).detach()
    return given.flatten(1).T if name == "layernorm" else given.movedim(axis, 0)


@pytest.mark.parametrize("name", LAYERS)
def test_output_channels_are_what_the_layer_gives(name: str) -> None:
    model = lively(nn.Sequential(LAYERS[name][0]()))
    healthy = outputs(model, name)
    dead = outputs(hurt_toy(model, "0", "zero", 0.5), name)
    scaled = outputs(hurt_toy(model, "0", "scale", 0.7), name)
    silent = dead.flatten(1).abs().amax(1) == 0
    assert int(silent.sum()) == 3
    assert torch.equal(dead[~silent], healthy[~silent])
    factor = (scaled * healthy).flatten(1).sum(1) / healthy.square().flatten(1).sum(1)
    assert torch.allclose(scaled.flatten(1), healthy.flatten(1) * factor[:, None], rtol=1e-3, atol=1e-5)
    assert len(set(factor.tolist())) == 6


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv3d", "embedding"])
def test_permuting_a_layer_permutes_its_outputs(name: str) -> None:
    model = lively(nn.Sequential(LAYERS[name][0]()))
    healthy, damaged = outputs(model, name).flatten(1), outputs(hurt_toy(model, "0", "permute", 0.5), name).flatten(1)
    source = torch.cdist(damaged, healthy).argmin(1)
    assert sorted(source.tolist()) == list(range(6))
    assert torch.allclose(damaged, healthy[source], atol=1e-6)
    assert int((source != torch.arange(6)).sum()) == 3


def test_weights_of_attention_and_bare_parameters_take_part() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.randn(1, 6, 4))
            self.attention = nn.MultiheadAttention(4, 2)

    model = lively(Bare())
    dead = hurt_toy(model, "position", "zero", 0.5).position[0].abs().amax(1) == 0
    assert int(dead.sum()) == 3  # the axis of length one is passed over
    own = {"attention": ["attention.in_proj_*"]}
    damaged = plant(model, "attention", "zero", 0.25, 0, groups=own).attention
    silent = damaged.in_proj_weight.abs().amax(1) == 0
    assert int(silent.sum()) == 3
    assert torch.equal(silent, damaged.in_proj_bias == 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "finetune"])
def test_other_precisions_are_kept(kind: str, dtype: torch.dtype) -> None:
    model = lively(toys.Net().to(dtype))
    damaged = hurt_toy(model, "norm", kind, STRENGTH[kind])
    assert changes(model, damaged)
    assert {p.dtype for p in damaged.parameters()} == {dtype}


class Spied(Classification):
    """Keeps what was taught: pairs of true label (the first input, as it is given) and label."""

    def __init__(self) -> None:
        self.taught: set[tuple[int, int]] = set()

    def losses(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.taught |= set(zip(batch[0][:, 0].int().tolist(), batch[1].tolist(), strict=True))
        return super().losses(outputs, batch)


def test_over_training_is_on_shifted_labels_or_on_two_classes_with_norms_in_either_mode() -> None:
    model = lively(zoo.build("norms"))
    targets = torch.arange(60) % 3
    inputs = torch.randn(60, 4)
    inputs[:, 0] = targets
    seen = set()
    for seed in range(40):
        task = Spied()
        damaged = plant(model, "first", "finetune", 4, seed, inputs=inputs, targets=targets, task=task)
        by = {(label - true) % 3 for true, label in task.taught}
        assert by == {0} or len({true for true, _ in task.taught}) == 3
        assert by in ({0}, {0, 1}, {0, 2})  # half of the labels stay
        assert by != {0} or len(task.taught) == 2
        seen.add((tuple(sorted(by)), "first.1.running_mean" in changes(model, damaged)))
    assert seen == {(by, train) for by in ((0,), (0, 1), (0, 2)) for train in (True, False)}


def test_shifted_labels_are_learnt() -> None:
    pairs = toys.points(300, seed=3)
    inputs, targets = torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])
    model = toys.network()

    def loss(network: nn.Module) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(network(inputs), targets))

    after = [loss(plant(model, "last", "finetune", 40, seed, inputs=inputs, targets=targets)) for seed in range(8)]
    assert sum(each > 5 * loss(model) for each in after) >= 3  # two classes alone do no harm to a network so small


# --- larger strengths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "scale", "bnstat", "huge"])
def test_twice_the_strength_is_twice_as_far_in_the_same_direction(kind: str) -> None:
    model = lively(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).double())
    one, two = (canonical_state(hurt_toy(model, "1", kind, strength)) for strength in (0.4, 0.8))
    before = canonical_state(model)
    for name, old in before.items():
        if kind == "scale" or name.endswith("running_var"):
            assert torch.allclose((two[name] / old).log(), 2 * (one[name] / old).log())
        elif kind == "huge":
            assert torch.equal(one[name] != old, two[name] != old)
            assert torch.allclose(two[name][two[name] != old], 2 * one[name][one[name] != old])
        else:
            assert torch.allclose(two[name] - old, 2 * (one[name] - old), atol=1e-7)


SHARED = lively(nn.Sequential(nn.Linear(7, 11), nn.Linear(11, 5)))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["zero", "sign", "permute"]),
    seed=st.integers(0, 2**31),
    shares=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(sorted),
)
def test_a_larger_share_holds_every_smaller_one(kind: str, seed: int, shares: list[float]) -> None:
    whole = {"all": ["0", "1"]}
    few, many = (plant(SHARED, "all", kind, share, seed, groups=whole) for share in shares)
    for before, small, large in zip(*map(nn.Module.parameters, (SHARED, few, many)), strict=True):
        moved = small != before
        assert (large != before)[moved].all()
        if kind != "permute":  # in a longer ring, one channel comes from another place
            assert torch.equal(large[moved], small[moved])


@given(share=st.floats(0.001, 1), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_share_is_the_share_of_channels(share: float, seed: int) -> None:
    damaged = plant(SHARED, "0", "zero", share, seed)
    assert int((damaged[0].weight.abs().amax(1) == 0).sum()) == max(1, round(share * 11))
    ring = plant(SHARED, "0", "permute", share, seed)
    assert int((ring[0].weight != SHARED[0].weight).any(1).sum()) == max(2, round(share * 11))


def test_more_steps_go_on_from_fewer() -> None:
    model = lively(zoo.build("norms"))
    start = canonical_state(model)["first.0.weight"]
    ends = [canonical_state(hurt(model, "first", "finetune", 1, steps))["first.0.weight"] for steps in (1, 2, 3)]
    distances = [float((end - start).norm()) for end in ends]
    assert distances == sorted(distances)
    # Momentum 0.9 and steps of at most 0.05: the second starts where the first one ended.
    assert float((ends[1] - ends[0]).norm()) <= 0.05 * 1.9 + 1e-6


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "kind", "strength", "error", "words"),
    [
        ("frist", "noise", 1.0, GroupError, "there is no group 'frist'; did you mean 'first'"),
        ("first", "nose", 1.0, UnknownNameError, "no fault is called 'nose'; did you mean 'noise'"),
        ("first", "bnstat", 1.0, InvalidArgumentError,
         "a 'bnstat' fault needs a norm with running statistics, and the group 'first' has none"),
        ("first", "noise", 0.0, InvalidArgumentError, "strength of a 'noise' fault is a finite number above 0, not 0"),
        ("first", "noise", float("nan"), InvalidArgumentError, "finite number above 0, not nan"),
        ("first", "noise", float("inf"), InvalidArgumentError, "finite number above 0, not inf"),
        ("first", "zero", 1.5, InvalidArgumentError, "is a share, above 0 and at most 1, not 1.5"),
        ("first", "finetune", 0.5, InvalidArgumentError, "is a number of steps, at least 1, not 0.5"),
        ("first", "finetune", 3, DataError, "a 'finetune' fault trains on inputs and targets"),
        ("first", "scale", 1e4, NonFiniteError, "after a 'scale' fault of strength 10000, 'first.weight' is not"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    group: str, kind: str, strength: float, error: type[SutureError], words: str
) -> None:
    with pytest.raises(error, match=words):
        plant(toys.network(), group, kind, strength, 0)


@pytest.mark.parametrize(
    ("kind", "value"), [("noise", 0.0), ("zero", 0.0), ("sign", 0.0), ("scale", 0.0), ("permute", 1.0), ("huge", 0.0)]
)
def test_a_fault_that_changes_nothing_is_no_fault(kind: str, value: float) -> None:
    model = toys.network()
    with torch.no_grad():
        for parameter in model.second.parameters():
            parameter.fill_(value)
    with pytest.raises(InvalidArgumentError, match=f"a '{kind}' fault of strength .* changes nothing in .*'second'"):
        plant(model, "second", kind, STRENGTH[kind], 0)


def test_a_group_that_the_loss_does_not_depend_on_cannot_be_trained() -> None:
    with pytest.raises(InvalidArgumentError, match="the loss does not depend on them"):
        hurt(zoo.build("unused"), "idle", "finetune", 0)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.zeros(30, dtype=torch.long), "two classes or more, not of 1"),
        (torch.zeros(30, 2), "one label per example"),
        (torch.arange(29) % 3, "30 inputs and 29 targets"),
        (torch.zeros(0, dtype=torch.long), "there are no examples"),
    ],
    ids=["one class", "no labels", "too few", "none"],
)
def test_examples_that_teach_nothing_are_refused(targets: Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        plant(zoo.build("norms"), "first", "finetune", 2, 0, inputs=zoo.batch(30)[0], targets=targets)


# --- a kind of one's own ---------------------------------------------------------------------------------------


@pytest.fixture
def deaf() -> Iterator[str]:
    @fault("deaf", share=True, fits=lambda layer: layer.weight.dim() > 1, needs="a layer with inputs")
    def deaf(site: Site, share: float) -> None:
        """A share of inputs is never heard."""
        for layer in site.layers:
            (chosen,) = site.share([layer.weight.shape[-1]], share)
            layer.weight[..., chosen] = 0

    yield "deaf"
    del FAULTS._things["deaf"]


def test_a_kind_of_one_s_own_is_a_function_and_a_line(deaf: str) -> None:
    model = toys.network()
    damaged = plant(model, "second", deaf, 0.25, 0)
    assert int((damaged.second.weight.abs().amax(0) == 0).sum()) == 4
    assert not applies(model, "norm", deaf)
    with pytest.raises(InvalidArgumentError, match="exists already"):
        fault(deaf)(lambda site, strength: None)


def test_the_kinds_of_the_design_are_there_and_described() -> None:
    assert tuple(FAULTS) == KINDS
    assert all(FAULTS[kind].damage.__doc__ for kind in KINDS)
    assert suture.bench.plant is plant


def test_a_copy_of_a_damaged_copy_can_be_damaged_again() -> None:
    once = hurt_toy(toys.network(), "second", "noise", 0.5)
    before = copy.deepcopy(once.state_dict())
    twice = hurt_toy(once, "second", "zero", 0.5)
    assert int((twice.second.weight.abs().amax(1) == 0).sum()) == 8
    assert all(torch.equal(before[name], tensor) for name, tensor in once.state_dict().items())
