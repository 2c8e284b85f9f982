"""Faults planted to a given drop of accuracy, measured here without the package."""

import pytest
import torch
from torch import Tensor, nn

from suture.bench import FAULTS, Planted, calibrate, plant, plant_to_drop
from suture.errors import InvalidArgumentError, NonFiniteError
from suture.groups import resolve, tensors_of
from suture.patch import base_sha256, canonical_state
from tests import toys, zoo


def examples(n: int = 300, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Points where the toy network learnt them: nearly all are right."""
    pairs = toys.points(n, seed)
    return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    with torch.no_grad():
        return float((model(inputs).argmax(1) == targets).float().mean())


def lost(model: nn.Module, damaged: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    return accuracy(model, inputs, targets) - accuracy(damaged, inputs, targets)


@pytest.mark.parametrize(
    ("group", "kind"),
    [(g, k) for g in ("first", "norm", "second") for k in FAULTS if k != "bnstat"] + [("norm", "bnstat")],
)
def test_the_drop_is_reached_or_it_is_said_what_is(group: str, kind: str) -> None:
    model, (inputs, targets) = toys.network(), examples()
    before = base_sha256(canonical_state(model))
    own = set(tensors_of(model, resolve(model)[group]))
    planted = [plant_or_say(model, group, kind, inputs, targets, seed) for seed in range(6)]
    reached = [each for each in planted if each is not None]
    assert reached  # three classes in the plane make coarse steps: not every seed has a drop in between
    for each in reached:
        drop = lost(model, each.model, inputs, targets)
        assert 0.075 <= drop <= 0.3
        assert each.fault.drop == pytest.approx(drop, abs=1e-6)
        assert each.fault.accuracy_before == pytest.approx(accuracy(model, inputs, targets), abs=1e-6)
        changed = {n for n, old in model.state_dict().items() if not torch.equal(old, each.model.state_dict()[n])}
        assert {n for n in changed if not n.endswith("tracked")} == set(each.fault.tensors)
        assert changed <= own
        assert not each.model.training
    assert base_sha256(canonical_state(model)) == before


def plant_or_say(model: nn.Module, group: str, kind: str, inputs: Tensor, targets: Tensor, seed: int) -> Planted | None:
    """None where no strength comes near, which must be what the error says."""
    try:
        return calibrate(model, group, kind, 0.15, inputs, targets, seed, examples=examples(200, seed=4))
    except InvalidArgumentError as error:
        if f"a '{kind}' fault in '{group}' cannot lower accuracy by 0.15 (reaches " not in str(error):
            raise
        return None


@pytest.mark.parametrize(("kind", "seed"), [("noise", 0), ("zero", 6), ("finetune", 3)])
def test_the_strength_that_was_found_plants_the_same_fault(kind: str, seed: int) -> None:
    model, (inputs, targets) = toys.network(), examples()
    planted = calibrate(model, "second", kind, 0.15, inputs, targets, seed)
    again = plant(model, "second", kind, planted.fault.strength, seed, inputs=inputs, targets=targets)
    assert base_sha256(canonical_state(again)) == base_sha256(canonical_state(planted.model))
    alone = plant_to_drop(model, "second", kind, 0.15, inputs, targets, seed)
    assert base_sha256(canonical_state(alone)) == base_sha256(canonical_state(planted.model))


@pytest.mark.parametrize("drop", [0.05, 0.1, 0.2, 0.3])
def test_smooth_kinds_come_within_the_tolerance(drop: float) -> None:
    model, (inputs, targets) = toys.network(), examples()
    for seed in range(3):
        damaged = plant_to_drop(model, "second", "noise", drop, inputs, targets, seed)
        assert lost(model, damaged, inputs, targets) == pytest.approx(drop, abs=0.02 + 1e-6)


def test_batches_do_not_matter() -> None:
    model, (inputs, targets) = toys.network(), examples()
    one, many = (
        plant_to_drop(model, "second", "noise", 0.15, inputs, targets, 0, batch_size=size) for size in (7, 300)
    )
    assert base_sha256(canonical_state(one)) == base_sha256(canonical_state(many))


def test_a_search_evaluates_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (inputs, targets) = toys.network(), examples()
    passes: list[int] = []
    forward = toys.Net.forward
    monkeypatch.setattr(toys.Net, "forward", lambda self, x: (passes.append(len(x)), forward(self, x))[1])
    calibrate(model, "second", "noise", 0.15, inputs, targets, 0, tolerance=0.0, batch_size=300)
    assert passes == [300] * len(passes)
    assert 2 <= len(passes) <= 13  # the model's own accuracy, and 12
    passes.clear()
    with pytest.raises(InvalidArgumentError, match="cannot lower"):
        calibrate(model, "last", "permute", 0.1, inputs, targets, 0, batch_size=300)
    assert len(passes) <= 4  # three channels: rings of two and of three, and no strength is tried twice


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "permute", "group": "last", "drop": 0.1},
         r"a 'permute' fault in 'last' cannot lower accuracy by 0.1 \(reaches 0\.\d+\)"),
        ({"kind": "noise", "group": "norm", "drop": 0.3}, "a 'noise' fault in 'norm' cannot lower accuracy by 0.3 "),
        ({"kind": "bnstat", "group": "last", "drop": 0.1}, "needs a norm with running statistics"),
        ({"kind": "noise", "group": "last", "drop": 0.0}, "the drop must be above 0 and at most the accuracy"),
        ({"kind": "noise", "group": "last", "drop": 1.0}, "at most the accuracy on these examples, 0.9.*, not 1.0"),
        ({"kind": "noise", "group": "last", "drop": float("nan")}, "not nan"),
        ({"kind": "noise", "group": "last", "drop": 0.1, "tolerance": -1}, "tolerance must be a fraction"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said(options: dict[str, object], words: str) -> None:
    inputs, targets = examples()
    with pytest.raises(InvalidArgumentError, match=words):
        plant_to_drop(toys.network(), inputs=inputs, targets=targets, seed=0, **options)


def test_a_model_whose_own_outputs_are_not_finite_is_refused() -> None:
    model, (inputs, targets) = toys.network(), examples()
    with torch.no_grad():
        model.last.bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match="not finite on 300 of 300 of the examples of the fault"):
        plant_to_drop(model, "first", "noise", 0.1, inputs, targets, 0)


def test_too_strong_is_too_much_and_not_an_error() -> None:
    model, (inputs, targets) = toys.network().half(), examples()
    with torch.no_grad():
        model.last.weight.mul_(500)  # logits near the largest float16
        model.last.bias.mul_(500)
    damaged = plant_to_drop(model, "last", "noise", 0.1, inputs.half(), targets, 0)
    assert 0.05 <= lost(model, damaged, inputs.half(), targets) <= 0.2


class Named(nn.Module):
    """Takes its inputs by name or by place."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.other = nn.Linear(1, 1)

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return self.net(x * by)


@pytest.mark.parametrize("kind", ["noise", "finetune"])
def test_inputs_may_be_several_tensors(kind: str) -> None:
    inputs, targets = examples()
    ones = torch.ones(len(inputs), 1)
    plain = plant_to_drop(Named(toys.network()), "net", kind, 0.15, (inputs, ones), targets, 4)
    named = plant_to_drop(Named(toys.network()), "net", kind, 0.15, {"x": inputs, "by": ones}, targets, 4)
    assert base_sha256(canonical_state(plain.net)) == base_sha256(canonical_state(named.net))
    assert 0.075 <= lost(toys.network(), plain.net, inputs, targets) <= 0.3


def test_a_task_that_has_nothing_to_do_with_labels() -> None:
    model, task = toys.speaker(), toys.CopyTask()
    pairs = toys.sentences(200, seed=3, words=9)
    inputs, targets = [x for x, _ in pairs], [y for _, y in pairs]
    planted = calibrate(model, "embed", "noise", 0.2, inputs, targets, 0, task=task)

    def said(network: nn.Module) -> float:
        batch = task.collate(pairs)
        with torch.no_grad():
            return float(task.verdicts(task.outputs(network.eval(), batch), batch).float().mean())

    assert said(model) - said(planted.model) == pytest.approx(planted.fault.drop, abs=0.011)
    assert planted.fault.drop == pytest.approx(0.2, abs=0.1)
    assert planted.fault.tensors == ("embed.weight",)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_zoo_is_searched_without_other_than_said_errors(name: str) -> None:
    model = zoo.build(name).eval()
    inputs, _ = zoo.batch(60)
    with torch.no_grad():
        targets = model(inputs).argmax(1)  # a network that is always right
    planted = [
        plant_or_say(model, group, kind, inputs, targets, 0)
        for group in resolve(model)
        for kind in ("noise", "zero", "huge")
    ]
    reached = [each for each in planted if each is not None]
    assert reached
    for each in reached:
        assert lost(model, each.model, inputs, targets) == pytest.approx(each.fault.drop, abs=1e-6)
        assert 0.075 <= each.fault.drop <= 0.3


def real(cifar_model: nn.Module, cifar_images: torch.utils.data.Dataset, group: str, kind: str) -> Planted:
    pairs = [cifar_images[i] for i in range(len(cifar_images))]
    chosen, others = pairs[::2], pairs[1::2]
    inputs, targets = torch.stack([x for x, _ in chosen]), torch.tensor([y for _, y in chosen])
    taught = torch.stack([x for x, _ in others]), torch.tensor([y for _, y in others])
    planted = calibrate(cifar_model, group, kind, 0.15, inputs, targets, 1, examples=taught)
    assert lost(cifar_model, planted.model, inputs, targets) == pytest.approx(planted.fault.drop, abs=1e-6)
    return planted


@pytest.mark.parametrize(("group", "kind"), [("layer2", "sign"), ("bn1", "bnstat"), ("layer3", "finetune")])
def test_a_real_network_is_damaged_to_the_drop(
    cifar_model: nn.Module, cifar_images: torch.utils.data.Dataset, group: str, kind: str
) -> None:
    before = base_sha256(canonical_state(cifar_model))
    planted = real(cifar_model, cifar_images, group, kind)
    assert planted.fault.drop == pytest.approx(0.15, abs=0.05)
    assert all(name.startswith(f"{group}.") for name in planted.fault.tensors)
    assert base_sha256(canonical_state(cifar_model)) == before
