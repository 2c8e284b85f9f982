"""Critical momentum, regimes and roots against the paper's tables, NumPy's roots and walked quadratics."""

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suture import physics
from suture.errors import InvalidArgumentError, UnknownNameError
from suture.physics import Regime, critical_momentum, regime
from tests.oracles import recurrence

FORMS = ["paper", "exact", "nesterov"]
RECURRENCES = ["exact", "nesterov"]

momenta = st.floats(0, 0.999)
strengths = st.floats(1e-6, 0.99)
fixed = settings(deadline=None, derandomize=True, max_examples=200)


def test_critical_momentum_of_each_form():
    assert critical_momentum(0.01) == pytest.approx(0.8)
    assert critical_momentum(0.1) == pytest.approx(0.367544, abs=1e-6)
    assert critical_momentum(0.1, form="exact") == pytest.approx(0.467544, abs=1e-6)
    assert critical_momentum(0.1, form="nesterov") == pytest.approx(0.519494, abs=1e-6)


@given(strengths)
@fixed
def test_paper_and_exact_form_differ_by_lr_times_curvature(strength):
    assert critical_momentum(strength, form="exact") - critical_momentum(strength) == pytest.approx(strength)


@given(st.floats(1e-6, 1), st.floats(1e-6, 100), st.sampled_from(FORMS))
@fixed
def test_only_the_product_of_lr_and_curvature_counts(lr, curvature, form):
    assert critical_momentum(lr, curvature, form) == pytest.approx(critical_momentum(lr * curvature, 1.0, form))


@pytest.mark.parametrize(
    ("epoch", "lr", "momentum", "excess", "name"),
    [
        (1, 0.10000, 0.368, 0.532, "underdamped"),
        (20, 0.09779, 0.375, 0.525, "underdamped"),
        (100, 0.05083, 0.549, 0.351, "underdamped"),
        (180, 0.00279, 0.894, 0.006, "critical"),
        (200, 0.00011, 0.979, -0.079, "overdamped"),
    ],
)
def test_rows_of_table_15_that_follow_from_its_formula(epoch, lr, momentum, excess, name):
    found = physics.cosine_lr(epoch, 200, 0.1, 1e-4)
    assert found == pytest.approx(lr, abs=5.1e-6)
    assert critical_momentum(found) == pytest.approx(momentum, abs=6e-4)
    # The paper subtracts the rounded columns.
    assert 0.9 - critical_momentum(found) == pytest.approx(excess, abs=1.1e-3)
    assert regime(0.9, found) == name


def test_rows_of_table_15_that_do_not_follow():
    lrs = {epoch: physics.cosine_lr(epoch, 200, 0.1, 1e-4) for epoch in (50, 150, 170)}
    assert {epoch: round(lr, 5) for epoch, lr in lrs.items()} == {50: 0.08592, 150: 0.01529, 170: 0.00591}
    assert regime(0.9, lrs[170]) is Regime.underdamped


@pytest.mark.parametrize(("epoch", "lr", "momentum"), [(1, 0.01, 0.8), (10, 0.00796, 0.8216), (30, 0.00013, 0.9775)])
def test_table_16(epoch, lr, momentum):
    found = physics.cosine_lr(epoch, 30, 0.01, 1e-4)
    assert found == pytest.approx(lr, abs=5.1e-6)
    assert critical_momentum(found) == pytest.approx(momentum, abs=1e-4)


def test_cosine_lr_is_torch_stepped_at_the_end_of_every_epoch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, 1e-4)
    seen = []
    for _ in range(31):
        seen.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx([physics.cosine_lr(epoch, 30, 0.1, 1e-4) for epoch in range(1, 32)], rel=1e-9)


def test_the_edge_of_the_critical_band_belongs_to_it():
    # 0.9 - 0.85 is 0.05000000000000004 in floats.
    assert regime(0.9, 0.075**2) is Regime.critical
    assert regime(0.9, 0.0757**2) is Regime.underdamped
    assert regime(0.8, 0.075**2) is Regime.critical
    assert regime(0.7999, 0.075**2) is Regime.overdamped
    assert regime(0.85, 0.075**2, tol=0) is Regime.critical


def test_regime_of_arrays_is_a_list_as_deep_as_the_array():
    lrs = [[0.1, 0.005], [0.0001, 0.002]]
    expected = [["underdamped", "critical"], ["overdamped", "critical"]]
    assert regime(0.9, np.array(lrs)) == expected
    assert regime(0.9, torch.tensor(lrs, dtype=torch.float64)) == expected
    assert regime(np.array([0.9, 0.3]), 0.1) == ["underdamped", "overdamped"]
    assert regime(torch.tensor(0.9), 0.1) is Regime.underdamped
    assert Counter(regime(0.9, np.full(3, 0.1))) == {"underdamped": 3}


@given(momenta, strengths, st.sampled_from(FORMS))
@fixed
def test_sign_of_the_discriminant_names_the_regime(momentum, strength, form):
    found = physics.discriminant(momentum, strength, form=form)
    excess = momentum - critical_momentum(strength, form=form)
    if abs(excess) < 1e-6:
        assert abs(found) < 1e-5
    else:
        assert (found < 0) == (excess > 0)


@given(strengths, st.sampled_from(FORMS))
@fixed
def test_discriminant_vanishes_at_the_critical_momentum(strength, form):
    momentum = critical_momentum(strength, form=form)
    if 0 <= momentum < 1:
        assert physics.discriminant(momentum, strength, form=form) == pytest.approx(0, abs=1e-12)


@given(momenta, strengths)
@fixed
def test_damping_ratio_is_one_at_the_papers_critical_momentum(momentum, strength):
    ratio = physics.damping_ratio(momentum, strength)
    assert ratio == pytest.approx((1 - momentum) / (1 - critical_momentum(strength)))
    assert physics.damping_ratio(0.8, 0.01) == pytest.approx(1)


@given(momenta, st.floats(1e-6, 3.9), st.sampled_from(RECURRENCES))
@fixed
def test_spectral_radius_is_that_of_numpys_roots(momentum, strength, form):
    # A double root moves by the square root of a rounding error, in NumPy's solver too.
    oracle = np.abs(recurrence.roots(momentum, strength, form)).max()
    assert physics.spectral_radius(momentum, strength, form=form) == pytest.approx(oracle, abs=1e-7)


@given(st.floats(1e-3, 0.9), st.sampled_from(RECURRENCES))
@fixed
def test_settling_time_is_least_at_the_critical_momentum(strength, form):
    best = critical_momentum(strength, form=form)
    least = physics.settling_time(best, strength, form=form)
    others = physics.settling_time(np.linspace(0, 0.999, 400), strength, form=form)
    assert np.all(others >= least * (1 - 1e-6))
    assert abs(np.linspace(0, 0.999, 400)[np.argmin(others)] - best) < 0.003


def test_an_ill_conditioned_quadratic_is_governed_by_its_smallest_curvature():
    grid = np.linspace(0, 0.999, 1000)
    times = physics.settling_time(grid[:, None], 0.1, np.array([0.05, 1.0, 8.0])).max(axis=1)
    assert grid[np.argmin(times)] == pytest.approx(critical_momentum(0.1, 0.05, "exact"), abs=1e-3)


@pytest.mark.parametrize("nesterov", [False, True])
def test_walked_quadratic_settles_fastest_where_theory_says(nesterov):
    lr, curvature = 0.01, 1.0
    grid = np.arange(0.5, 0.99, 0.005)
    walked = [recurrence.steps_to(1e-6, recurrence.walk(mu, lr, curvature, 3000, nesterov)) for mu in grid]
    critical = critical_momentum(lr, curvature, "nesterov" if nesterov else "exact")
    # Slightly underdamped settles first: the tail crosses zero and loses the factor t of the double root.
    assert critical - 0.005 <= grid[np.argmin(walked)] <= critical + 0.03
    # The predicted time is that of the root alone, to within the logarithm of that factor.
    for mu in (0.5, 0.7, 0.95):
        form = "nesterov" if nesterov else "exact"
        steps = recurrence.steps_to(1e-6, recurrence.walk(mu, lr, curvature, 3000, nesterov))
        assert steps == pytest.approx(physics.settling_time(mu, lr, curvature, 1e-6, form), rel=0.1)


@pytest.mark.parametrize("nesterov", [False, True])
def test_torchs_sgd_on_a_spectrum_settles_fastest_where_theory_says(nesterov):
    lr, curvatures, steps = 0.1, torch.tensor([0.05, 0.3, 1.0, 4.0], dtype=torch.float64), 1200
    grid = [0.8 + 0.01 * i for i in range(18)]
    params = [torch.nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in grid]
    groups = [{"params": [p], "momentum": mu} for p, mu in zip(params, grid, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=nesterov)
    distances = np.empty((steps, len(grid)))
    for step in range(steps):
        for i, p in enumerate(params):
            distances[step, i] = p.detach().abs().max()
            p.grad = curvatures * p.detach()
        optimizer.step()
    times = [recurrence.steps_to(1e-6, distances[:, i]) for i in range(len(grid))]
    critical = critical_momentum(lr, 0.05, "nesterov" if nesterov else "exact")
    assert max(times) < steps
    assert critical - 0.01 <= grid[int(np.argmin(times))] <= critical + 0.02


def test_settling_time_of_the_extremes():
    assert physics.settling_time(0.0, 1.0) == 0
    assert physics.settling_time(0.5, 3.5) == math.inf
    assert physics.settling_time(np.array([0.0, 0.5]), np.array([1.0, 3.5])).tolist() == [0, math.inf]


def test_effective_lr():
    assert physics.effective_lr(0.1, 0.9) == pytest.approx(1.0)
    assert physics.effective_lr(0.1, 0.5) == pytest.approx(0.2)


def test_clamp():
    assert [physics.clamp(x, 0.5, 0.99) for x in (0.1, 0.7, 1.0)] == [0.5, 0.7, 0.99]
    assert physics.clamp(np.array([0.1, 0.7]), 0.5, 0.99).tolist() == [0.5, 0.7]
    assert physics.clamp(torch.tensor([0.1, 0.75]), 0.5, 0.99).tolist() == [0.5, 0.75]
    assert math.isnan(physics.clamp(math.nan, 0.5, 0.99))
    with pytest.raises(InvalidArgumentError, match="low <= high, got 1 and 0"):
        physics.clamp(0.5, 1, 0)


@pytest.mark.parametrize(
    "function",
    [
        critical_momentum,
        lambda x: critical_momentum(x, 2.0, "exact"),
        lambda x: critical_momentum(0.1, x, "nesterov"),
        lambda x: physics.discriminant(x, 0.1),
        lambda x: physics.discriminant(0.9, x, form="exact"),
        lambda x: physics.damping_ratio(x, x),
        lambda x: physics.spectral_radius(x, 0.05),
        lambda x: physics.spectral_radius(0.9, x, form="nesterov"),
        lambda x: physics.settling_time(0.3, x),
        lambda x: physics.effective_lr(0.1, x),
        lambda x: physics.cosine_lr(x + 1, 20, 0.1, 1e-4),
    ],
)
def test_numbers_arrays_and_tensors_alike(function):
    values = [[0.01, 0.1, 0.3], [0.5, 0.7, 0.9]]
    expected = [[function(v) for v in row] for row in values]
    array = function(np.array(values))
    tensor = function(torch.tensor(values, dtype=torch.float64))
    assert isinstance(array, np.ndarray)
    assert array.shape == (2, 3)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float64
    np.testing.assert_allclose(array, expected, rtol=1e-12)
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("lr", [0, -0.1, math.nan, math.inf, np.array([0.1, -0.1]), torch.tensor([-0.1])])
def test_lr_must_be_positive_and_finite(lr):
    for call in (critical_momentum, lambda x: regime(0.9, x), lambda x: physics.effective_lr(x, 0.9)):
        with pytest.raises(InvalidArgumentError, match=r"lr must be positive and finite, got (0$|-0\.1|nan|inf)"):
            call(lr)


@pytest.mark.parametrize("momentum", [-0.1, 1, 1.5, math.nan, np.array([0.5, 1.0])])
def test_momentum_must_lie_below_one(momentum):
    for call in (physics.spectral_radius, physics.discriminant, physics.damping_ratio, regime):
        with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got (-0\.1|1|1\.5|1\.0|nan)$"):
            call(momentum, 0.1)


def test_other_arguments_that_make_no_sense():
    with pytest.raises(InvalidArgumentError, match=r"curvature must be positive and finite, got -1"):
        critical_momentum(0.1, -1)
    with pytest.raises(InvalidArgumentError, match="tol must be a number from 0 up, got -1"):
        regime(0.9, 0.1, tol=-1)
    with pytest.raises(InvalidArgumentError, match="tolerance must lie between 0 and 1, got 1"):
        physics.settling_time(0.9, 0.1, tolerance=1)
    with pytest.raises(InvalidArgumentError, match=r"epoch must lie between 1 and 200 \+ 1, got 0"):
        physics.cosine_lr(0, 200, 0.1)
    with pytest.raises(InvalidArgumentError, match=r"need 0 <= lr_min <= lr_max, got lr_min 0\.2"):
        physics.cosine_lr(1, 200, 0.1, 0.2)
    with pytest.raises(InvalidArgumentError, match="epochs must be at least 1, got 0"):
        physics.cosine_lr(1, 0, 0.1)


def test_unknown_forms():
    with pytest.raises(UnknownNameError, match="no form is called 'exat'; did you mean 'exact'"):
        critical_momentum(0.1, form="exat")
    with pytest.raises(UnknownNameError, match="no form is called 'papr'; did you mean 'paper'"):
        physics.discriminant(0.9, 0.1, form="papr")
    with pytest.raises(UnknownNameError, match="no form is called 'paper'; there are exact, nesterov"):
        physics.spectral_radius(0.9, 0.1, form="paper")


def test_importing_it_loads_neither_numpy_nor_torch():
    code = "import sys, suture.physics; print([m for m in ('numpy', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
