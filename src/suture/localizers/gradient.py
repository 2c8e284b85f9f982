"""Localizers that read the mean gradient."""

import pandas as pd

from suture.localizers.evidence import Evidence
from suture.localizers.registry import localizer


@localizer("grad_norm")
def grad_norm(evidence: Evidence) -> pd.Series:
    """‖mean_i ∇_g ℓ_i‖ in nats per unit of weight: the paper's score (section 5.3, Table 8)."""
    return evidence.norm_of_mean


@localizer("relative")
def relative(evidence: Evidence) -> pd.Series:
    """‖∇_g‖ / ‖θ_g‖, RGN of Lee et al. 2023; infinite weights or none give 0."""
    return (evidence.norm_of_mean / evidence.weight_norm.where(evidence.weight_norm > 0)).fillna(0.0)


@localizer("rms")
def rms(evidence: Evidence) -> pd.Series:
    """‖∇_g‖ / √n_g: root mean square over the group's n_g parameters."""
    return evidence.norm_of_mean / evidence.size**0.5
