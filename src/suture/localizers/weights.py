"""Localizers that read weights alone: singular values of each matrix, against what noise or a trained layer has.

A convolution's weight is the matrix (out, in · k · k), a transposed one's (in, out · k · k); vectors have no spectrum.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from suture.localizers.evidence import Evidence
from suture.localizers.registry import localizer

Spectrum = NDArray[np.float64]

IQR_OF_NORMAL = 1.349  # interquartile range of a standard normal distribution
FEWEST = 10  # eigenvalues that a power law is fitted to: WeightWatcher's default
RANK = 1e-6  # singular values below this share of the largest are zero


@localizer("spectrum_snr", reads="weights")
def spectrum_snr(evidence: Evidence) -> pd.Series:
    """1 / SNR in units of weight, mean over the group's matrices, ≥ 0: the weights with least signal first.

    SNR = Σ_{σ>ε} σ / Σ_{σ≤ε} σ / σ_max over singular values σ, with ε = IQR(σ)/1.349 · (1 + √β), the edge of the
    Marchenko-Pastur law for noise of that spread, and β = short side / long side. The largest σ always counts as
    signal; a matrix without noise scores 0. NaN for a group without a matrix other than zero.

    Source: Hartford et al., Spectrum, arXiv:2406.06623.
    """
    return _mean_by_group(evidence, noise_to_signal)


@localizer("alpha", reads="weights")
def alpha(evidence: Evidence) -> pd.Series:
    """Exponent α of the power law ρ(λ) ∝ λ^−α that the largest eigenvalues λ = σ² follow, mean over matrices.

    Well trained layers have 2 to 6; larger is worse. NaN for a group without a matrix of ten eigenvalues above 0.

    Source: Martin, Peng and Mahoney, Nature Communications 12:4122 (2021), WeightWatcher; fit of Clauset, Shalizi
    and Newman (2009).
    """
    return _mean_by_group(evidence, power_law_exponent)


def noise_to_signal(shape: tuple[int, int], sigma: Spectrum) -> float:
    """Σ_{σ≤ε} σ · σ_max / Σ_{σ>ε} σ of a matrix, from its singular values in descending order."""
    quarter, three_quarters = np.quantile(sigma, [0.25, 0.75])
    edge = (three_quarters - quarter) / IQR_OF_NORMAL * (1 + (min(shape) / max(shape)) ** 0.5)
    signal = sigma > min(edge, sigma[0] * (1 - RANK))
    return float(sigma[~signal].sum() * sigma[0] / sigma[signal].sum())


def power_law_exponent(_: tuple[int, int], sigma: Spectrum) -> float:
    """Maximum-likelihood exponent of the tail λ ≥ λ_min, λ_min by the least Kolmogorov-Smirnov distance; or NaN."""
    values = np.sort(sigma[sigma > RANK * sigma[0]] ** 2)
    if len(values) < FEWEST:
        return float("nan")
    logs = np.log(values)
    best, exponent = np.inf, float("nan")
    for start in range(len(values) - 1):
        excess = logs[start:] - logs[start]
        if excess.sum() <= 0:
            continue  # equal values follow no law
        steepness = len(excess) / excess.sum()  # α − 1
        distance = np.abs(1 - np.exp(-steepness * excess) - np.arange(len(excess)) / len(excess)).max()
        if distance < best:
            best, exponent = distance, float(1 + steepness)
    return exponent


def _mean_by_group(evidence: Evidence, measure: Callable[[tuple[int, int], Spectrum], float]) -> pd.Series:
    """Mean of a measure over the matrices of each group for which it is a number."""
    weights = dict(evidence.model.named_parameters())
    means = {}
    for group, names in evidence.groups.items():
        found = []
        for name in names:
            if weights[name].dim() > 1 and weights[name].is_floating_point():
                matrix = weights[name].detach().flatten(1).float()
                if min(matrix.shape) < 2:  # a row or a column has one singular value, and no noise
                    continue
                sigma = torch.linalg.svdvals(matrix).double().cpu().numpy()
                if sigma[0] > 0:  # a matrix of zeros has no spectrum
                    found.append(measure((matrix.shape[0], matrix.shape[1]), sigma))
        known = [value for value in found if not np.isnan(value)]
        means[group] = float(np.mean(known)) if known else float("nan")
    return pd.Series(means, dtype=float)
