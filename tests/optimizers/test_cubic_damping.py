"""CubicDamping against torch's SGD and what the cubic term does."""

import pytest
import torch

from suture.optimizers import CubicDamping
from tests.optimizers.test_base import descend, parameters


@pytest.mark.parametrize("momentum", [0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("extra", [{}, {"weight_decay": 0.01}, {"maximize": True}], ids=str)
def test_without_cubic_term_it_is_sgd_at_constant_lr(momentum, foreach, extra):
    mine = CubicDamping(parameters(), lr=0.01, momentum=momentum, c=0, foreach=foreach, **extra)
    torchs = torch.optim.SGD(parameters(), lr=0.01, momentum=momentum, **extra)
    steps = 20 if extra.get("maximize") else 200
    descend(mine, steps)
    descend(torchs, steps)
    for a, b in zip(mine.param_groups[0]["params"], torchs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_the_momentum_buffer_is_minus_sqrt_lr_times_that_of_sgd():
    mine = CubicDamping(parameters(), lr=0.01, momentum=0.9, c=0)
    torchs = torch.optim.SGD(parameters(), lr=0.01, momentum=0.9)
    descend(mine, 10)
    descend(torchs, 10)
    for a, b in zip(mine.param_groups[0]["params"], torchs.param_groups[0]["params"], strict=True):
        expected = -0.1 * 0.9 * torchs.state[b]["momentum_buffer"]
        torch.testing.assert_close(mine.state[a]["momentum_buffer"], expected, rtol=1e-11, atol=1e-13)


def test_under_a_changing_lr_it_is_another_method_than_sgd():
    mine = CubicDamping(parameters(), lr=0.1, momentum=0.9, c=0)
    torchs = torch.optim.SGD(parameters(), lr=0.1, momentum=0.9)
    for lr in (0.1, 0.01):
        for optimizer in (mine, torchs):
            optimizer.param_groups[0]["lr"] = lr
            descend(optimizer, 2)
    pairs = zip(mine.param_groups[0]["params"], torchs.param_groups[0]["params"], strict=True)
    assert all((a - b).abs().max() > 1e-3 for a, b in pairs)


def test_the_cubic_term_bounds_a_large_momentum_and_spares_a_small_one():
    def momentum_after(gradient, c):
        p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        p.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer = CubicDamping([p], lr=0.01, momentum=0.9, c=c)
        optimizer.step()
        return optimizer.state[p]["momentum_buffer"].item()

    # p / sqrt(1 + 2chp²) stays below 1 / sqrt(2ch).
    assert abs(momentum_after(1e6, 0.1)) == pytest.approx(0.9 / (2 * 0.1 * 0.1) ** 0.5)
    assert momentum_after(1e-3, 0.1) == pytest.approx(momentum_after(1e-3, 0), rel=1e-8)
