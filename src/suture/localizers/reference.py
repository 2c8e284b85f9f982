"""Localizers that compare with a healthy reference of the same architecture. Δθ = θ − θ_ref.

Costs are in passes: 1 = forward and backward over all n examples of `diagnose`; G is the number of groups.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from suture.errors import InvalidArgumentError
from suture.gradients import group_norms
from suture.groups import tensors_of
from suture.localizers.evidence import Evidence
from suture.localizers.impact import impacts
from suture.localizers.network import Positions, losses_at, twin, unknown
from suture.localizers.registry import localizer
from suture.tasks import evaluate


@localizer("swap", reads="network", needs="reference")
def swap(evidence: Evidence) -> pd.Series:
    """L − L with the group taken from the reference, in nats: what healing this group alone would gain.

    Its parameters are taken and the buffers of the modules that own them, such as running statistics. L is the mean
    loss over all of `diagnose`; nothing is chosen on it. Below 0 where the reference's group fits the rest worse.

    Cost: (1 + G) / 3 passes, forward only.
    """
    reference, model = _reference(evidence, "swap"), twin(evidence)
    everything = np.arange(len(evidence.examples))
    healthy, state = _state(reference), _state(model)
    before = losses_at(evidence, everything, model).mean()
    drops = {}
    for group, names in evidence.groups.items():
        taken = tensors_of(model, names)
        own = {name: state[name].clone() for name in taken}
        with torch.no_grad():
            for name in taken:
                state[name].copy_(healthy[name])
            drops[group] = before - losses_at(evidence, everything, model).mean()
            for name in taken:
                state[name].copy_(own[name])
    return pd.Series(drops, dtype=float)


@localizer("neurecover", reads="network", needs="reference")
def neurecover(evidence: Evidence) -> pd.Series:
    """F_deg / (F_deg + F_imp) · ‖Δθ_g‖ in units of weight: what changed, and matters where things got worse.

    F is the group's mean forward impact, mean over its weights and examples of |a_i w_ij|, as a share of the sum over
    groups; on degraded examples (the reference is right and the model wrong) and on improved ones (the
    other way round). NaN for all groups when nothing degraded, and for a group without Linear or convolution layers.

    Cost: 2/3 pass for the verdicts of both, and a forward and about as much again over the examples where they differ.

    Source: Tokui et al., NeuRecover, SANER 2022, for two checkpoints, as in the eAI-Repair toolkit.
    """
    reference, model = _reference(evidence, "neurecover"), twin(evidence)
    case = evidence.case
    was_right = evaluate(
        reference, evidence.examples, case.task, device=case.device, batch_size=case.batch_size,
        name="the examples of 'diagnose' by the reference",
    ).right  # fmt: skip
    right = evaluate(
        model, evidence.examples, case.task, device=case.device, batch_size=case.batch_size,
        name="the examples of 'diagnose'",
    ).right  # fmt: skip
    degraded, improved = np.flatnonzero(was_right & ~right), np.flatnonzero(~was_right & right)
    if not len(degraded):
        return unknown(evidence)
    worse = _impact_shares(evidence, degraded, model)
    better = _impact_shares(evidence, improved, model) if len(improved) else 0 * worse
    share = (worse / (worse + better)).where(worse != 0, 0.0)
    return share * pd.Series(_distances(evidence, reference))


@localizer("weight_change", reads="weights", needs="reference")
def weight_change(evidence: Evidence) -> pd.Series:
    """‖Δθ_g‖ / ‖θ_g,ref‖: how far the group is from the reference, without unit.

    0 for a group that did not change; NaN for one that did, from weights of zero.
    """
    reference = _reference(evidence, "weight_change")
    change = pd.Series(_distances(evidence, reference))
    size = pd.Series(group_norms({n: p.detach() for n, p in reference.named_parameters()}, evidence.groups))
    return (change / size.where(size > 0)).where(change > 0, 0.0)


def _reference(evidence: Evidence, name: str) -> nn.Module:
    """The healthy reference of a case.

    Raises:
        InvalidArgumentError: there is none, or it is of another architecture.
    """
    reference = evidence.case.reference
    if reference is None:
        raise InvalidArgumentError(f"localizer '{name}' needs a healthy reference; give suture run a --reference")
    own, other = _state(evidence.model), _state(reference)
    for key in own:
        if key not in other or own[key].shape != other[key].shape:
            found = f"shape {tuple(other[key].shape)}" if key in other else "no such tensor"
            raise InvalidArgumentError(
                f"'{key}' has shape {tuple(own[key].shape)} in the model and {found} in the reference; a reference "
                "must be of the same architecture"
            )
    return reference


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are not saved too."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _distances(evidence: Evidence, reference: nn.Module) -> dict[str, float]:
    other = dict(reference.named_parameters())
    change = {n: p.detach().double() - other[n].detach().double() for n, p in evidence.model.named_parameters()}
    return group_norms(change, evidence.groups)


def _impact_shares(evidence: Evidence, positions: Positions, model: nn.Module) -> pd.Series:
    """Mean forward impact of each group's weights, as a share of the sum over groups; NaN without such weights."""
    sizes = {name: i.mean_size.double() for name, i in impacts(evidence, positions, model, slopes=False).items()}
    means = {}
    for group, names in evidence.groups.items():
        own = [sizes[name] for name in names if name in sizes]
        weights = sum(size.numel() for size in own)
        means[group] = sum(float(size.sum()) for size in own) / weights if weights else float("nan")
    shares = pd.Series(means, dtype=float)
    return shares / shares.sum() if shares.sum() > 0 else shares
