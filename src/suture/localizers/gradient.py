"""Localizers that read gradients: sizes, agreement among errors, errors against correct examples."""

import pandas as pd

from suture.localizers.evidence import Evidence
from suture.localizers.registry import localizer


@localizer("grad_norm")
def grad_norm(evidence: Evidence) -> pd.Series:
    """‖mean_i ∇_g ℓ_i‖ in nats per unit of weight: the paper's score (section 5.3, Table 8)."""
    return evidence.errors.norm_of_mean


@localizer("mean_grad_norm")
def mean_grad_norm(evidence: Evidence) -> pd.Series:
    """mean_i ‖∇_g ℓ_i‖: large gradients that need not agree."""
    return evidence.errors.mean_norm


@localizer("relative")
def relative(evidence: Evidence) -> pd.Series:
    """‖∇_g‖ / ‖θ_g‖ of the group as a whole (RGN of Lee et al. 2023 is per tensor: see ``rgn``); no weights give 0."""
    return (evidence.errors.norm_of_mean / evidence.weight_norm.where(evidence.weight_norm > 0)).fillna(0.0)


@localizer("rms")
def rms(evidence: Evidence) -> pd.Series:
    """‖∇_g‖ / √n_g: root mean square over the group's n_g parameters."""
    return evidence.errors.norm_of_mean / evidence.size**0.5


@localizer("coherence")
def coherence(evidence: Evidence) -> pd.Series:
    """‖mean_i ∇_g ℓ_i‖ / mean_i ‖∇_g ℓ_i‖ in [0, 1]: do the errors agree on a direction?"""
    size = evidence.errors.mean_norm
    return (evidence.errors.norm_of_mean / size.where(size > 0)).fillna(0.0)


@localizer("contrast")
def contrast(evidence: Evidence) -> pd.Series:
    """The group's share of ‖∇_g‖ on errors over its share on as many correct examples; 1 = no different."""
    if not len(evidence.correct_at):
        return pd.Series(float("nan"), index=list(evidence.groups))
    wrong, right = evidence.errors.norm_of_mean, evidence.correct.norm_of_mean
    share = right / right.sum() if right.sum() > 0 else right
    return (wrong / max(wrong.sum(), 1e-300) / share.where(share > 0)).fillna(0.0)
