"""Localizers that read gradients: sizes, agreement among errors, errors against correct examples."""

import pandas as pd

from suture.localizers.evidence import Evidence
from suture.localizers.registry import localizer

ROUNDING = 1e-6  # relative: a smaller difference of squared norms in float32 is none


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


@localizer("rgn")
def rgn(evidence: Evidence) -> pd.Series:
    """Mean over the group's tensors of ‖∇_t‖ / ‖θ_t‖ in nats per squared unit of weight: Auto-RGN.

    A tensor of zeros has no such ratio and is left out; a group of nothing else scores 0.

    Source: Lee et al., Surgical fine-tuning, ICLR 2023.
    """
    gradient = evidence.errors.tensor_norm_of_mean
    weight = pd.Series({name: float(p.detach().double().norm()) for name, p in evidence.model.named_parameters()})
    ratio = gradient / weight[gradient.index].where(lambda size: size > 0)
    return pd.Series({g: ratio.reindex(list(names)).mean() for g, names in evidence.groups.items()}).fillna(0.0)


@localizer("eb")
def eb(evidence: Evidence) -> pd.Series:
    """‖ḡ‖² / (mean_i ‖g_i‖² − ‖ḡ‖²): what the errors agree on over what they do not, without unit, ≥ 0.

    Times the number of errors, it is the signal-to-noise ratio of their mean gradient, so the two rank alike. 0 for
    a group without gradients, NaN where all gradients are one and the same, as that of a single error is.

    Source: the evidence-based criterion of Mahsereci et al., arXiv:1703.09580, for whole groups.
    """
    signal, total = evidence.errors.norm_of_mean**2, evidence.errors.mean_square
    noise = (total - signal).where(total - signal > ROUNDING * total)
    return (signal / noise).where(total > 0, 0.0)


@localizer("taylor")
def taylor(evidence: Evidence) -> pd.Series:
    """Σ_w |ḡ_w · θ_w| in nats: to first order, what the loss changes by when weights of the group are removed.

    Source: Molchanov et al., CVPR 2019, without the square.
    """
    gradient = evidence.errors.mean_gradient
    weights = {name: p.detach() for name, p in evidence.model.named_parameters()}
    return pd.Series(
        {
            group: sum(float((gradient[n] * weights[n]).abs().double().sum()) for n in names if n in gradient)
            for group, names in evidence.groups.items()
        },
        dtype=float,
    )
