"""Scores of single entries against slow oracles, and masks that hold bit by bit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.case import Case
from suture.optimizers import CADAM, IKFAD, CubicDamping
from suture.patch import same_bits
from suture.tasks import Classification
from suture.training import train
from suture.treatments import FineTune
from suture.treatments.entries import EXAMPLES, SCORES, evidence_of, mean_square
from suture.treatments.finetune import only_entries
from suture.treatments.where import Entries
from tests import toys
from tests.treatments import jobs


def errors_of(case: Case) -> list[Any]:
    split = case.splits["diagnose"]
    return [split[i] for i in range(len(split)) if int(case.model(split[i][0][None]).argmax()) != split[i][1]]


def one_by_one(case: Case, examples: list[Any]) -> list[dict[str, Tensor]]:
    """The gradient of each example, from a forward and a backward of its own."""
    found = []
    for x, y in examples:
        model = copy.deepcopy(case.model).requires_grad_(True)
        F.cross_entropy(model(x[None]), torch.tensor([y])).backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    return found


def test_scores_equal_a_loop_over_the_errors() -> None:
    case = toys.case()
    evidence, gradients = evidence_of(case), one_by_one(case, errors_of(case))
    assert len(gradients) > 20
    for name, p in case.model.named_parameters():
        mean = sum(g[name] for g in gradients) / len(gradients)
        square = sum(g[name].square() for g in gradients) / len(gradients)
        expected = {"gradient": mean.abs(), "gradient_weight": (mean * p).abs(), "fisher": square}  # type: ignore[union-attr]
        for score, values in expected.items():
            torch.testing.assert_close(SCORES[score](evidence)[name], values.detach(), rtol=1e-4, atol=1e-7)


def test_the_mean_square_takes_no_more_examples_than_asked_for() -> None:
    case = toys.case()
    evidence, split = evidence_of(case), case.splits["diagnose"]
    positions = evidence.wrong_at[::-1].copy()
    found = mean_square(evidence, positions, most=3)
    three = one_by_one(case, [split[i] for i in positions[:3]])
    for name, values in found.items():
        torch.testing.assert_close(values, sum(g[name].square() for g in three) / 3, rtol=1e-4, atol=1e-9)
    assert mean_square(evidence, positions[:0]) == {}
    assert EXAMPLES == 256


def test_friction_is_that_of_ikfad_after_twenty_steps_on_the_errors() -> None:
    case = toys.case()
    found = SCORES["friction"](evidence_of(case))
    assert found.keys() == {n for n, _ in case.model.named_parameters()}
    assert all(bool((values >= 0).all()) for values in found.values())
    assert sum(float(values.sum()) for values in found.values()) > 0
    # Method B ranks groups by the mean of the same numbers.
    from suture.localizers import LOCALIZERS

    grouped = LOCALIZERS["friction"](evidence_of(case))
    for group, names in case.groups.items():
        mean = torch.cat([found[n].flatten() for n in names]).mean()
        assert float(mean) == pytest.approx(grouped[group], rel=1e-4)


Maker = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Maker] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "cubic_damping": lambda p: CubicDamping(p, lr=0.05, weight_decay=0.1),
    "ikfad": lambda p: IKFAD(p, lr=0.05, weight_decay=0.1),
    "cadam": lambda p: CADAM(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_entries_outside_the_masks_stay_bit_by_bit_under_every_optimizer(name: str) -> None:
    case = toys.case()
    masks = Entries(score="gradient", share=0.15).places(case, []).masks
    model = copy.deepcopy(case.model)
    before = jobs.state(model)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    group = optimizer.param_groups[0]
    # Momentum from before, which would carry every entry along.
    outside = {n: torch.zeros(p.shape, dtype=torch.bool) for n, p in model.named_parameters()} | dict(masks)
    with only_entries(model, optimizer, outside):
        train(
            model, toys.points(96, seed=5, shift=0.9), Classification(), optimizer, [], epochs=2, batch_size=32, seed=0,
            device=torch.device("cpu"), mode=nn.Module.eval,
        )  # fmt: skip
    assert group["weight_decay"] == 0.1
    moved = 0
    for n, p in model.named_parameters():
        assert same_bits(p.detach()[~outside[n]], before[n][~outside[n]])
        moved += int((p.detach() != before[n])[outside[n]].sum())
    assert moved > 0.8 * sum(int(mask.sum()) for mask in masks.values())
    # The hooks are gone: another step moves what was held.
    F.cross_entropy(model(torch.randn(8, 2)), torch.zeros(8, dtype=torch.long)).backward()
    optimizer.step()
    assert any((p.detach() != before[n])[~outside[n]].any() for n, p in model.named_parameters())


def test_momentum_from_before_moves_nothing_outside_the_masks() -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    before, mask = model.weight.detach().clone(), torch.zeros(3, 4, dtype=torch.bool)
    mask[1, 2] = True
    with only_entries(model, optimizer, {"weight": mask}):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        assert torch.equal(model.weight.grad != 0, mask)  # type: ignore[arg-type]  # clipping sees no other entry
        optimizer.step()
    assert torch.equal(model.weight.detach() != before, mask)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "cubic_damping", "ikfad", "cadam"])
def test_a_treatment_of_entries_changes_no_other_entry(optimizer: str) -> None:
    case = toys.case()
    how = FineTune(recipe=jobs.SHORT.model_copy(update={"optimizer": optimizer, "weight_decay": 0.1}))
    job = jobs.job(case, Entries(score="fisher", share=0.3))
    treated = how.treat(job)
    model = jobs.only(treated)
    assert treated.cost.parameters == -(-3 * sum(p.numel() for p in model.parameters()) // 10)
    for name, tensor in model.state_dict().items():
        mask = job.places.masks.get(name, torch.zeros(tensor.shape, dtype=torch.bool))
        assert same_bits(tensor[~mask], case.model.state_dict()[name][~mask])
    assert jobs.differing(jobs.state(model), jobs.state(case.model)) <= job.places.parameters
    assert jobs.differing(jobs.state(model), jobs.state(case.model))
