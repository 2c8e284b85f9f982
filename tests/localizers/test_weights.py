"""Spectra of weights against hand-made matrices and plain loops."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suture.localizers import LOCALIZERS, Evidence
from suture.localizers.weights import power_law_exponent
from tests import zoo
from tests.localizers.contract import assert_scores, on
from tests.oracles import localizers as oracle


class Matrices(nn.Module):
    """A matrix and a convolution of one's choice, and a norm."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.wide = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        self.conv = nn.Conv2d(matrix.shape[1] // 9, matrix.shape[0], 3, bias=False)
        self.norm = nn.LayerNorm(4)
        self.wide.weight.data = matrix.clone()
        self.conv.weight.data = matrix.clone().reshape(self.conv.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)[:, :3]


def spectrum(*sigma: float, columns: int = 18) -> Evidence:
    """Evidence on matrices with given singular values."""
    k = len(sigma)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in (k, columns))
    return on(Matrices(left @ torch.diag(torch.tensor(sigma)) @ right[:k]))


@pytest.mark.parametrize("score", ["spectrum_snr", "alpha"])
@pytest.mark.parametrize("network", zoo.ZOO)
def test_every_group_is_scored_and_nothing_is_left_behind(network: str, score: str) -> None:
    assert_scores(score, network)


def test_spectrum_by_hand() -> None:
    # Quartiles 1 and 2: ε = (2 − 1)/1.349 · (1 + √(5/18)) = 1.132, so 1 and 0.5 are noise.
    scores = LOCALIZERS["spectrum_snr"](spectrum(5.0, 2.0, 1.5, 1.0, 0.5))
    assert scores["wide"] == pytest.approx(1.5 * 5.0 / 8.5, rel=1e-4)


def test_a_convolution_is_one_matrix_and_a_vector_is_none() -> None:
    for score in ("spectrum_snr", "alpha"):
        scores = LOCALIZERS[score](spectrum(*(1.3**-i for i in range(12))))
        assert scores["conv"] == pytest.approx(scores["wide"], rel=1e-4)
        assert scores["wide"] > 0
        assert np.isnan(scores["norm"])


def test_noise_buries_the_signal() -> None:
    generator = torch.Generator().manual_seed(1)
    low_rank = torch.randn(30, 2, generator=generator) @ torch.randn(2, 36, generator=generator)
    noise = torch.randn(30, 36, generator=generator)
    clean, noisy = (LOCALIZERS["spectrum_snr"](on(Matrices(low_rank + s * noise)))["wide"] for s in (0.01, 1.0))
    assert noisy > 10 * clean


def test_equal_values_are_signal_and_zeros_are_nothing() -> None:
    assert LOCALIZERS["spectrum_snr"](spectrum(*[2.0] * 10))["wide"] == 0
    assert np.isnan(LOCALIZERS["spectrum_snr"](on(Matrices(torch.zeros(10, 18))))["wide"])
    assert np.isnan(LOCALIZERS["alpha"](on(Matrices(torch.zeros(10, 18))))["wide"])


def test_pure_noise_keeps_one_signal() -> None:
    # Half of the values 1, half 0: the edge, 1/1.349 · (1 + √(8/18)) = 1.24, is above all of them.
    scores = LOCALIZERS["spectrum_snr"](spectrum(*[1.0] * 4, *[0.0] * 4))
    assert np.isfinite(scores["wide"])
    assert scores["wide"] <= 3.01


def test_alpha_is_the_fit_by_plain_loops() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).pareto(1.5, 40) + 1
        sigma = np.sort(values**0.5)[::-1]
        assert power_law_exponent((40, 40), sigma) == pytest.approx(oracle.power_law_exponent(values))


def test_alpha_finds_the_exponent_of_a_power_law() -> None:
    for true in (2.0, 3.5, 6.0):
        quantiles = (np.arange(2000) + 0.5) / 2000
        eigenvalues = (1 - quantiles) ** (-1 / (true - 1))
        found = power_law_exponent((2000, 2000), np.sort(eigenvalues**0.5)[::-1])
        assert found == pytest.approx(true, rel=0.03)


def test_alpha_needs_ten_eigenvalues_that_are_not_zero() -> None:
    assert np.isnan(LOCALIZERS["alpha"](spectrum(*(1.3**-i for i in range(9))))["wide"])
    assert np.isnan(LOCALIZERS["alpha"](spectrum(*(1.3**-i for i in range(9)), *[0.0] * 4))["wide"])
    assert np.isfinite(LOCALIZERS["alpha"](spectrum(*(1.3**-i for i in range(10))))["wide"])
