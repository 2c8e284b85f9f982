"""Networks that were damaged in one known place, against the record of when they were well."""

import copy
from collections import OrderedDict
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suture.bench import plant
from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers import LOCALIZERS, Evidence, Finding
from suture.localizers.brief import treat_briefly
from suture.localizers.sites import Site, channel_mismatch, mismatch
from suture.localizers.tail import refit
from suture.localizers.walk import FLOOR, INPUT, Walk, first_of, take_walk
from suture.moments import Moments, beside, load_moments, measure_moments, moments_of, pooled, save_moments
from suture.patch import base_sha256, canonical_state
from suture.tasks import Classification, evaluate
from tests import toys, zoo

CPU = torch.device("cpu")


def evidence(model: nn.Module, n: int = 400, shift: float = 0.0, **options: object) -> Evidence:
    """On points like those the toy network was trained on."""
    return evidence_on(model, toys.points(n, seed=5, shift=shift), **options)


def evidence_on(model: nn.Module, points: toys.Pairs, **options: object) -> Evidence:
    case = Case(model, diagnose=points, **options)
    right = evaluate(case.model, case.splits["diagnose"], case.task, device=CPU).right
    wrong, correct = np.flatnonzero(~right), np.flatnonzero(right)
    return Evidence(case, case.model, right, wrong, correct[: len(wrong)])


@cache
def healthy_state() -> dict[str, torch.Tensor]:
    """The toy network with a last layer that is trained to the end: the toy's own can still be bettered."""
    model = toys.network()
    pairs = toys.points(300, seed=1)
    inputs, targets = torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])
    with torch.no_grad():
        features = F.relu(model.second(F.relu(model.norm(model.first(inputs)))))
    optimizer = torch.optim.Adam(model.last.parameters(), lr=0.05, weight_decay=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model.last(features), targets).backward()
        optimizer.step()
    return model.state_dict()


def healthy() -> nn.Module:
    model = toys.network()
    model.load_state_dict(healthy_state())
    return model


def find(model: nn.Module, **options: object) -> Finding:
    return LOCALIZERS["norm_statistics"].find(evidence(model, **options))


def record() -> dict[str, Moments]:
    """Of the healthy toy network on points it was trained on."""
    return measure_moments(healthy(), toys.points(300, seed=1), Classification(), device=CPU)


def site(mean: torch.Tensor, var: torch.Tensor) -> Site:
    return Site("x", "input", Moments(mean, var), 0.0, None, None)


def test_mismatch_is_zero_at_the_record_and_for_one_factor_for_all_channels() -> None:
    mean, var = torch.randn(8), torch.rand(8) + 0.1
    assert float(mismatch(site(mean, var), Moments(mean, var))) == pytest.approx(0, abs=1e-6)
    assert float(mismatch(site(mean, var), Moments(3 * mean, 9 * var))) == pytest.approx(0, abs=1e-6)
    scale = torch.linspace(0.2, 3, 8)
    scaled = Moments(scale * mean, scale**2 * var)
    assert float(mismatch(site(mean, var), scaled)) > 0.1
    assert float(channel_mismatch(site(mean, var), scaled)) == pytest.approx(0, abs=1e-6)
    assert float(channel_mismatch(site(mean, var), Moments(mean + 1, var))) > 0.05


def test_mismatch_is_the_mean_log_of_one_plus_kl_after_the_best_factor() -> None:
    mean, var, seen_mean, seen_var = torch.randn(5), torch.rand(5) + 0.1, torch.randn(5), torch.rand(5) + 0.1

    def kl(k: float) -> torch.Tensor:
        ours = torch.distributions.Normal(k * seen_mean, k * seen_var.sqrt())
        return torch.distributions.kl_divergence(ours, torch.distributions.Normal(mean, var.sqrt()))

    best = min(np.linspace(0.05, 5, 4000), key=lambda k: float(kl(k).mean()))
    expected = float(torch.log1p(kl(best)).mean())
    assert float(mismatch(site(mean, var), Moments(seen_mean, seen_var))) == pytest.approx(expected, abs=1e-3)


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = torch.randn(6, 3, 5, 4)
    whole = moments_of(values, 1)
    parts = pooled([moments_of(values[:2], 1), moments_of(values[2:], 1)], [2, 4])
    assert torch.allclose(whole.mean, values.mean((0, 2, 3)))
    assert torch.allclose(whole.var, values.var((0, 2, 3), correction=0))
    assert torch.allclose(parts.mean, whole.mean, atol=1e-6)
    assert torch.allclose(parts.var, whole.var, atol=1e-6)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_network_has_moments_and_they_survive_the_disk(name: str, tmp_path: object) -> None:
    model = zoo.build(name).eval()
    before = base_sha256(canonical_state(model))
    inputs, targets = zoo.batch()
    examples = list(zip(inputs, targets.tolist(), strict=True))
    found = measure_moments(model, examples, Classification(), device=CPU, batch_size=2)
    assert base_sha256(canonical_state(model)) == before
    assert not any(module._forward_hooks for module in model.modules())
    assert all((m.var >= 0).all() and m.mean.shape == m.var.shape for m in found.values())
    path = beside(tmp_path / "net.safetensors")  # type: ignore[operator]
    if found:
        save_moments(found, path)
        again = load_moments(path)
        assert {path: m.mean.tolist() for path, m in again.items()} == {
            path: m.mean.tolist() for path, m in found.items()
        }


@pytest.mark.parametrize("name", zoo.ZOO)
@pytest.mark.filterwarnings("ignore:no rule for")
@pytest.mark.filterwarnings("ignore:.*used outside of its module")
def test_it_answers_on_every_network_and_leaves_it_alone(name: str) -> None:
    model = zoo.build(name)
    inputs, targets = zoo.batch(120)
    examples = list(zip(inputs, targets.tolist(), strict=True))
    case = Case(model, diagnose=examples)
    before, everything = base_sha256(canonical_state(case.model)), np.arange(len(examples))
    found = LOCALIZERS["norm_statistics"].find(
        Evidence(case, case.model, np.zeros(len(examples), bool), everything, everything)
    )
    assert list(found.scores.index) == list(case.groups)
    assert found.top is None or found.top in case.groups
    assert base_sha256(canonical_state(case.model)) == before
    assert not any(module._forward_hooks for module in case.model.modules())


def test_a_healthy_network_has_no_sick_group() -> None:
    found = find(healthy())
    assert found.top is None
    assert found.scores["norm"] < 1


@pytest.mark.parametrize(("n", "answers"), [(99, False), (101, True), (151, True)])
def test_few_examples_are_too_few_and_odd_numbers_are_no_trouble(n: int, answers: bool) -> None:
    found = LOCALIZERS["norm_statistics"].find(evidence(healthy(), n=n))
    assert found.top is None
    assert found.scores.notna().any() == answers
    assert ("It takes 100 examples" in found.why) != answers


def without_norms(seed: int = 0, steps: int = 300) -> nn.Module:
    """A trained network that keeps no record."""
    torch.manual_seed(seed)
    model, pairs = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3)), toys.points(300, seed=1)
    inputs, targets = torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval()


def test_a_network_without_any_record_is_treated_group_by_group() -> None:
    model = plant(without_norms(), "2", "noise", 4.0, seed=0)
    found, here = find(model), evidence(model)
    gains = {}
    for group in here.groups:
        treated = treat_briefly(here, group)
        gains[group] = float((np.log1p(treated.before.losses) - np.log1p(treated.after.losses)).mean())
    assert found.top == max(gains, key=gains.__getitem__)
    assert found.scores[found.top] == found.scores.max() > 1
    assert found.scores["0"] / found.scores["2"] == pytest.approx(gains["0"] / gains["2"])
    assert "no record" in found.why
    assert "weak sign" in found.why


def test_without_a_record_nothing_is_named_where_treating_gains_nothing() -> None:
    class Says(nn.Module):  # always sure, always wrong in the same way: no weight of its own can help
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * self.idle(x) + torch.tensor([5.0, 0.0, 0.0])

    found = find(Says())
    assert found.top is None
    assert "no record" in found.why
    assert not (found.scores > 1).any()


def test_stale_statistics_are_the_norm_s_and_a_rescaled_layer_is_the_layer_s() -> None:
    stale = plant(healthy(), "norm", "bnstat", 1.0, seed=1)
    assert find(stale).top == "norm"
    rescaled = healthy()
    with torch.no_grad():
        factor = torch.linspace(0.3, 3, 16)
        rescaled.first.weight.mul_(factor[:, None])
        rescaled.first.bias.mul_(factor)
    assert find(rescaled).top == "first"


def with_tail() -> nn.Module:
    """Without a layer between the last record and the last layer, which is as it was drawn."""
    network = toys.network()
    tail = nn.Sequential()
    tail.body = nn.Sequential(network.first, network.norm, nn.ReLU())
    tail.last = nn.Linear(16, 3)
    return tail


def fitted_tail() -> nn.Module:
    """The same with a trained last layer."""
    tail = with_tail()
    features = tail.body.eval()(torch.stack([x for x, _ in toys.points(300, seed=1)])).detach()
    targets = torch.tensor([y for _, y in toys.points(300, seed=1)])
    optimizer = torch.optim.Adam(tail.last.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(tail.last(features), targets).backward()
        optimizer.step()
    return tail


@pytest.mark.parametrize(("group", "kind"), [("last", "noise"), ("last", "permute")])
def test_a_last_layer_behind_the_last_record_is_found_by_fitting_it_anew(group: str, kind: str) -> None:
    tail = fitted_tail()
    assert abs(refit(evidence(tail), "last").gain) < 0.1
    assert refit(evidence(with_tail()), "last").gain > 0.5
    found = find(plant(tail, group, kind, {"noise": 3.0, "permute": 1.0}[kind], seed=0))
    assert found.top == "last"
    assert "anew" in found.why


def test_where_most_errors_are_of_one_class_its_inputs_are_to_be_looked_at() -> None:
    tail = fitted_tail()
    with torch.no_grad():
        tail.last.bias[2] -= 20
    found = find(tail)
    assert found.top == "last"
    assert " errors are of 2: look at its inputs and labels first." in found.why
    with torch.no_grad():
        tail.last.weight.copy_(tail.last.weight.roll(1, 0))
    assert "look at its inputs" not in find(tail).why


@pytest.mark.parametrize("group", ["first", "second", "last"])
@pytest.mark.parametrize("kind", ["noise", "scale", "permute"])
def test_with_moments_from_a_healthy_time_every_layer_answers_for_itself(group: str, kind: str) -> None:
    strength = {"noise": 1.0, "scale": 1.0, "permute": 1.0}[kind]
    damaged = plant(healthy(), group, kind, strength, seed=3)
    assert find(damaged, moments=record()).top == group
    assert find(damaged, reference=healthy()).top == group


def test_healthy_moments_and_a_healthy_reference_raise_no_alarm() -> None:
    assert find(healthy(), moments=record()).top is None
    assert find(healthy(), reference=healthy()).top is None


def test_a_mismatch_at_the_first_site_says_that_the_inputs_may_have_shifted() -> None:
    shifted = LOCALIZERS["norm_statistics"].find(evidence(healthy(), shift=3.0))
    assert shifted.top is not None
    assert "check them first" in shifted.why
    assert "check them first" not in find(plant(healthy(), "last", "noise", 3.0, seed=0), moments=record()).why


def affineless() -> nn.Module:
    """The healthy toy network whose norm keeps statistics and owns nothing, behind one that normalises the inputs."""
    old, points = healthy(), torch.stack([x for x, _ in toys.points(300, seed=1)])
    scaled = nn.Linear(2, 16)
    inputs, norm = nn.BatchNorm1d(2, affine=False, momentum=None), nn.BatchNorm1d(16, affine=False)
    inputs(points)
    with torch.no_grad():  # the same function as the first layers of the toy network
        deviation = (inputs.running_var + inputs.eps).sqrt()
        scaled.weight.copy_(old.first.weight * deviation)
        scaled.bias.copy_(old.first.bias + old.first.weight @ inputs.running_mean)
        norm.running_mean, norm.running_var = old.norm.running_mean.clone(), old.norm.running_var.clone()
    head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), old.second, nn.ReLU(), old.last)
    with torch.no_grad():
        head[0].weight.copy_(torch.diag(old.norm.weight))
        head[0].bias.copy_(old.norm.bias)
    return nn.Sequential(OrderedDict(inputs=inputs, first=scaled, norm=norm, head=head)).eval()


def test_a_norm_that_owns_nothing_speaks_of_the_layer_that_feeds_it() -> None:
    assert find(affineless()).top is None
    damaged = plant(affineless(), "first", "noise", 1.0, seed=0)
    assert find(damaged).top == "first"


def test_a_shift_before_every_group_is_one_of_the_inputs() -> None:
    shifted = LOCALIZERS["norm_statistics"].find(evidence(affineless(), shift=3.0))
    assert shifted.top is None
    assert shifted.why.startswith("What arrives at inputs, before any group, is not what the network was trained on")
    assert "check them first" in shifted.why


def test_a_mild_shift_points_to_the_input_or_early_layers() -> None:
    mild = next(f for f in (find_shifted(shift) for shift in (0.1, 0.2, 0.3, 0.4)) if "furthest" in f.why)
    assert mild.top is None
    assert "so if anything it is the input or early layers" in mild.why


def test_many_errors_of_a_network_that_is_as_it_was_point_to_the_input_too() -> None:
    generator = torch.Generator().manual_seed(0)
    points = [(x, int(torch.randint(0, 3, (), generator=generator))) for x, _ in toys.points(400, seed=5)]
    found = LOCALIZERS["norm_statistics"].find(evidence_on(healthy(), points))
    assert found.top is None
    assert "so if anything it is the input or early layers" in found.why


def find_shifted(shift: float) -> Finding:
    return LOCALIZERS["norm_statistics"].find(evidence(healthy(), shift=shift))


@pytest.mark.parametrize("steps", [60, 300])
def test_without_a_record_healthy_networks_raise_few_alarms(steps: int) -> None:
    alarms = [find(without_norms(seed, steps)).top for seed in range(10)]
    assert sum(top is not None for top in alarms) <= 2  # at a rate of 5 % more come in 1 of 85 such tests


def test_without_a_record_nothing_is_named_where_nothing_is_wrong() -> None:
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
    points = [(x, int(model(x[None]).argmax())) for x, _ in toys.points(400, seed=5)]  # right, and not sure of it
    found = LOCALIZERS["norm_statistics"].find(evidence_on(model, points))
    assert found.top is None
    assert "mends more than chance" in found.why


def test_a_record_of_another_network_is_not_believed() -> None:
    other = toys.untrained().eval()
    walk, unfit = take_walk(evidence(healthy(), reference=other))
    assert walk is not None
    assert {site.at for site in walk.sites} == {"input"}  # the running statistics, then
    assert unfit == ["the healthy reference"]
    found = LOCALIZERS["norm_statistics"].find(evidence(healthy(), reference=other))
    assert "record is that of its BatchNorm layers; that of the healthy reference is of another network" in found.why


def test_the_record_that_was_taken_is_named() -> None:
    said = {
        "its BatchNorm layers": find(healthy()),
        "the moments beside the weights": find(healthy(), moments=record()),
        "the healthy reference": find(healthy(), reference=healthy(), moments=record()),
    }
    for name, found in said.items():
        assert found.why.endswith(f"The record is that of {name}.")


@pytest.mark.parametrize(("shift", "said"), [(0.0, False), (0.25, True)])
def test_a_mild_shift_points_to_the_inputs_without_an_alarm(shift: float, said: bool) -> None:
    found = LOCALIZERS["norm_statistics"].find(evidence(healthy(), shift=shift))
    assert found.top is None
    assert ("the input or early layers (inputs that have shifted look the same" in found.why) is said


def test_a_record_with_layers_that_the_model_lacks_is_refused() -> None:
    strange = {"nowhere": Moments(torch.zeros(2), torch.ones(2))}
    with pytest.raises(InvalidArgumentError, match="'nowhere' that the model lacks"):
        Case(healthy(), diagnose=toys.points(30, seed=1), moments=strange)


def test_files_that_are_no_record_are_refused_in_a_sentence(tmp_path: object) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"  # type: ignore[operator]
    for tensors in (
        {"a.mean": torch.zeros(2)},
        {"a.mean": torch.zeros(2), "a.var": torch.ones(3)},
        {"a.mean": torch.zeros(2), "a.var": -torch.ones(2)},
        {"weight": torch.zeros(2)},
    ):
        save_file(tensors, path)
        with pytest.raises(InvalidArgumentError, match="no record of moments"):
            load_moments(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InvalidArgumentError, match="no record of moments"):
        load_moments(path)


def test_the_answer_is_the_same_twice() -> None:
    damaged = plant(healthy(), "second", "noise", 2.0, seed=0)
    first, second = (find(copy.deepcopy(damaged), moments=record()) for _ in range(2))
    assert first.top == second.top
    assert first.scores.equals(second.scores)
    assert first.confidence == second.confidence


def deeper(spread: float = 0.5) -> nn.Module:
    """Groups first, norm, body, last: the norm of one group comes before a layer and a norm of the next.

    Args:
        spread: of that norm's scales around 1 and shifts around 0.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential()
        model.first, model.norm = nn.Linear(2, 16), nn.Sequential(nn.BatchNorm1d(16, momentum=None), nn.ReLU())
        model.body = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16, momentum=None), nn.ReLU())
        model.last = nn.Linear(16, 3)
        nn.init.uniform_(model.norm[0].weight, 1 - spread, 1 + spread)
        nn.init.uniform_(model.norm[0].bias, -spread, spread)
    model.train()(torch.stack([x for x, _ in toys.points(300, seed=1)]))
    return model.eval()


def walk_with(mismatches: list[float], chunks: int = 8) -> Walk:
    """A walk of 50 examples a chunk that found these mismatches."""
    sites = [site(torch.zeros(1), torch.ones(1)) for _ in mismatches]
    walk = Walk(sites, [{}] * chunks, FLOOR)
    vars(walk)["mismatches"] = pd.Series(mismatches, index=[f"s{i}" for i in range(len(mismatches))])
    return walk


@pytest.mark.parametrize(
    ("first", "chunks", "floor"),
    [(0.0, 8, 3 / 400), (0.001, 8, 3 / 400), (0.005, 8, 0.01), (0.03, 8, FLOOR), (0.0, 4, 3 / 200), (0.0, 2, FLOOR)],
)
def test_later_floors_are_low_where_the_first_site_shows_no_shift(first: float, chunks: int, floor: float) -> None:
    walk = walk_with([first, 0.1, 0.0], chunks)
    assert walk.floors.tolist() == pytest.approx([INPUT * FLOOR, floor, floor])
    assert walk.relative().tolist() == pytest.approx([first / (INPUT * FLOOR), 0.1 / floor, 0.0])


def test_the_first_group_above_its_floor_is_named_however_small_its_excess() -> None:
    assert first_of(pd.Series({"a": 0.0, "b": 0.01, "c": 50.0})) == "b"
    assert first_of(pd.Series({"a": 0.0, "b": 0.0})) is None


def test_a_small_fault_is_seen_unless_a_shift_of_the_inputs_could_have_made_it() -> None:
    damaged = plant(healthy(), "second", "noise", 0.15, seed=0)
    here = evidence(damaged, moments=record())
    walk, _ = take_walk(here)
    assert walk is not None
    assert walk.mismatches["first"] < 0.005 < 3 / 400 < walk.mismatches["second"] < FLOOR
    assert LOCALIZERS["norm_statistics"].find(here).top == "second"
    moved = [torch.cat([x[:1] * 1.3, x[1:]]) for x, _ in toys.points(400, seed=5)]
    targets = [y for _, y in toys.points(400, seed=5)]
    shifted, _ = take_walk(evidence_on(damaged, list(zip(moved, targets, strict=True)), moments=record()))
    assert shifted is not None
    assert 0.0125 < shifted.mismatches["first"] < INPUT * FLOOR
    assert first_of(shifted.excess()) is None


@pytest.mark.parametrize(("kind", "strength"), [("zero", 0.3), ("noise", 1.0), ("sign", 0.3)])
def test_a_fault_of_the_norms_before_is_theirs_dead_channels_too(kind: str, strength: float) -> None:
    found = find(plant(deeper(), "norm", kind, strength, seed=0))
    assert found.top == "norm"
    assert "explains" in found.why


def test_dead_channels_of_norms_that_were_all_alike_are_theirs() -> None:
    """What explains them is where the search for an explanation starts."""
    assert find(plant(deeper(spread=0.0), "norm", "zero", 0.3, seed=0)).top == "norm"


@pytest.mark.parametrize(("kind", "share", "seed"), [("zero", 0.3, 0), ("sign", 0.2, 1), ("sign", 0.2, 5)])
def test_norms_before_are_not_blamed_for_what_their_change_explains_in_part(kind: str, share: float, seed: int) -> None:
    damaged = plant(deeper(), "body", kind, share, seed=seed)
    assert find(damaged).top == "body"


def test_a_mismatch_of_few_channels_is_the_layer_s_whatever_follows() -> None:
    found = find(plant(deeper(), "first", "huge", 8.0, seed=0))
    assert found.top == "first"
    assert "few channels" in found.why
