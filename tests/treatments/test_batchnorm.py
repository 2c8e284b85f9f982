"""Recalibration: the statistics are those of the repair examples, and nothing else changes."""

import pytest
import torch
from torch import Tensor, nn

from suture.case import Case
from suture.treatments.batchnorm import Recalibrate
from tests import toys
from tests.treatments import jobs


def inputs_of(case: Case) -> Tensor:
    repair = case.splits["repair"]
    return torch.stack([repair[i][0] for i in range(len(repair))])


@pytest.mark.parametrize("batch_size", [32, 57, 1000])
def test_statistics_of_one_batchnorm_equal_an_exact_computation(batch_size: int) -> None:
    case = toys.case()
    model = jobs.only(Recalibrate(batch_size=batch_size).treat(jobs.job(case)))
    with torch.no_grad():
        x = case.model.first(inputs_of(case)).double()  # type: ignore[operator]  # what the layer sees
    torch.testing.assert_close(model.norm.running_mean.double(), x.mean(0), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr, operator]
    parts = x.split(batch_size)
    variance = sum(len(part) * part.var(0) for part in parts) / len(x)  # unbiased inside each batch
    torch.testing.assert_close(model.norm.running_var.double(), variance, rtol=1e-5, atol=1e-6)  # type: ignore[union-attr, operator]


def test_nothing_but_the_statistics_changes() -> None:
    case = toys.case()
    case.model.norm.num_batches_tracked.fill_(41)  # type: ignore[union-attr, operator]
    case.model.norm.momentum = 0.03  # type: ignore[union-attr, assignment]
    before = jobs.state(case.model)
    treated = Recalibrate().treat(jobs.job(case))
    model = jobs.only(treated)
    assert jobs.differing(jobs.state(model), before) == {"norm.running_mean", "norm.running_var"}
    assert (model.norm.momentum, int(model.norm.num_batches_tracked)) == (0.03, 41)  # type: ignore[union-attr, arg-type]
    assert not any(module.training for module in model.modules())
    assert not model.norm._forward_pre_hooks  # type: ignore[union-attr]
    assert not jobs.differing(jobs.state(case.model), before)
    n = len(case.splits["repair"])
    assert treated.cost.flops == n * 2 * (2 * 16 + 16 * 16 + 16 * 3)  # one forward pass
    assert treated.cost.share == pytest.approx(0.344, abs=0.001)  # of an epoch of full fine-tuning
    assert (treated.cost.parameters, treated.cost.groups, treated.cost.epochs) == (0, 0, 1)


def test_a_last_batch_of_one_is_left_out() -> None:
    case = toys.case()
    n = len(case.splits["repair"])
    model = jobs.only(Recalibrate(batch_size=n - 1).treat(jobs.job(case)))
    with torch.no_grad():
        x = case.model.first(inputs_of(case)[:-1])  # type: ignore[operator]
    torch.testing.assert_close(model.norm.running_mean, x.mean(0), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]


class Shared(nn.Module):
    """One BatchNorm called twice, one that is never called, one without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.idle = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
        self.free = nn.BatchNorm1d(2, track_running_stats=False)
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.free(self.norm(x) + self.norm(2 * x)))


def test_a_layer_called_twice_averages_its_calls_and_one_never_called_keeps_its_statistics() -> None:
    model = Shared().eval()
    model.idle.running_mean.fill_(5.0)  # type: ignore[union-attr]
    case = Case(model, toys.data())
    found = jobs.only(Recalibrate().treat(jobs.job(case)))
    x = inputs_of(case)
    torch.testing.assert_close(found.norm.running_mean, 1.5 * x.mean(0), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
    assert jobs.differing(jobs.state(found), jobs.state(case.model)) == {"norm.running_mean", "norm.running_var"}


def test_a_network_without_batchnorm_gives_one_sentence() -> None:
    treated = Recalibrate().treat(jobs.job(jobs.zoo_case("nested")))
    assert not treated.candidates
    assert treated.stopped == "the network has no BatchNorm with running statistics"
