"""The example of the quadratic: its simulation against the recurrence, its minimum against theory, its README."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from suture.physics import critical_momentum, settling_time
from tests.oracles import recurrence

EXAMPLE = Path(__file__).parents[1] / "examples/quadratic"


@pytest.fixture(scope="module")
def settling():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("settling", EXAMPLE / "settling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_simulation_is_the_recurrence(settling):
    strengths, momenta = np.array([0.02, 0.5]), np.array([0.0, 0.4, 0.9])
    path = settling.distances(strengths, momenta, steps=400)
    times = settling.settling_times(path, 1e-3)
    for i, mu in enumerate(momenta):
        for j, strength in enumerate(strengths):
            walked = abs(recurrence.walk(mu, settling.LR, strength / settling.LR, 400))
            np.testing.assert_allclose(path[:, i, j], walked, rtol=1e-8, atol=1e-12)
            assert times[i, j] == recurrence.steps_to(1e-3, walked)
    assert np.isinf(settling.settling_times(path, 1e-200)[2]).all()


@pytest.mark.parametrize("strength", [0.1, 0.2])
def test_the_minimum_is_where_theory_says_and_nearer_the_smaller_the_tolerance(settling, strength):
    best = critical_momentum(strength, form="exact")
    momenta = best + np.arange(-12, 13) / 200
    path = settling.distances(np.array([strength]), momenta, steps=800)
    found = [momenta[np.argmin(settling.settling_times(path, tol)[:, 0])] - best for tol in (1e-3, 1e-9, 1e-60)]
    assert found[0] >= found[1] >= found[2] - 1e-12
    assert 0 <= found[0] < 0.06
    assert abs(found[2]) < 0.0051  # a step of the grid
    # Away from the double root, time is that of the larger root alone, to a few steps for where a swing stands.
    for i in (0, -1):
        theory = settling_time(momenta[i], strength, tolerance=1e-60)
        assert settling.settling_times(path, 1e-60)[i, 0] == pytest.approx(theory, rel=0.03)


def test_the_papers_form_settles_later(settling):
    for strength in settling.STRENGTHS:
        momenta = np.array([critical_momentum(strength, form=form) for form in settling.FORMS])
        times = settling.settling_times(settling.distances(np.array([strength]), momenta, steps=500), 1e-9)[:, 0]
        assert times[0] < times[1]


def test_the_readme_shows_what_the_script_prints(settling):
    strengths = np.array(settling.STRENGTHS)
    momenta = np.unique([0.9, *(critical_momentum(s, form=form) for s in strengths for form in settling.FORMS)])
    found = settling.table(strengths, momenta, settling.distances(strengths, momenta, steps=2000))
    rows = [re.findall(r"[\d.]+", line) for line in (EXAMPLE / "README.md").read_text().splitlines()]
    shown = [[float(x) for x in row] for row in rows if len(row) == 9 and float(row[0]) in settling.STRENGTHS]
    assert len(shown) == len(strengths)
    for row, (_, expected) in zip(shown, found.iterrows(), strict=True):
        assert row[1:3] == pytest.approx([expected["exact mu_c"], expected["paper mu_c"]], abs=6e-4)
        assert row[6:] == [expected[f"steps {name}"] for name in ("exact", "paper", "0.9")]


def test_the_figure_is_drawn(settling, tmp_path):
    strengths, momenta = np.array([0.1, 0.2]), np.linspace(0, 0.95, 12)
    drawn = settling.figure(strengths, momenta, settling.distances(strengths, momenta, steps=900))
    drawn.savefig(tmp_path / "figure.svg")
    assert "momentum" in drawn.axes[0].get_xlabel()
    assert (tmp_path / "figure.svg").stat().st_size > 10_000
