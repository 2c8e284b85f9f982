"""CADAM: what its learning rate means."""

import pytest
import torch

from suture.optimizers import CADAM


def steps_under_constant_gradient(gradient, steps, **settings):
    """Length of each step of one parameter that always has the same gradient."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = CADAM([p], **settings)
    lengths = []
    for _ in range(steps):
        before = p.item()
        p.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer.step()
        lengths.append(before - p.item())
    return lengths


@pytest.mark.parametrize("gradient", [1e-3, 1.0, 1e3])
def test_the_first_step_is_about_lr_to_the_three_quarters(gradient):
    (length,) = steps_under_constant_gradient(gradient, 1, lr=1e-3)
    assert length == pytest.approx(1e-3**0.75, rel=0.02)


@pytest.mark.parametrize("friction_decay", [0.5, 1.0, 2.0])
def test_later_steps_are_those_of_adam_with_another_lr(friction_decay):
    lengths = steps_under_constant_gradient(0.1, 2000, lr=1e-3, c=0, friction_decay=friction_decay)
    assert lengths[-1] == pytest.approx(1e-3 * friction_decay**0.5 / (1 - 0.9), rel=1e-5)


def test_the_scale_of_the_gradient_cancels():
    small, large = (steps_under_constant_gradient(g, 20, lr=1e-3, c=0) for g in (0.01, 100.0))
    assert small == pytest.approx(large, rel=1e-4)


def test_a_parameter_whose_gradients_were_all_zero_stays():
    assert steps_under_constant_gradient(0.0, 3, lr=1e-3) == [0, 0, 0]
