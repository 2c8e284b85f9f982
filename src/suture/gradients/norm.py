"""Normalisations: an elementwise scale and shift of something normalised."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from suture.gradients.factors import Dense
from suture.gradients.rules import Factors, rule, rule_where


@rule(nn.BatchNorm1d)
@rule(nn.BatchNorm2d)
@rule(nn.BatchNorm3d)
def batch_norm(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x, dy (n, c, *): in eval mode, with stored statistics, examples do not meet."""
    n, c = x.shape[:2]
    # To torch's own kernel, which sums for each channel without a copy, every example's channels are channels.
    one, two = (t.reshape(1, n * c, -1) for t in (dy, x))
    mean, variance = (stored.to(x.dtype).repeat(n) for stored in (module.running_mean, module.running_var))
    _, weight, bias = torch.ops.aten.native_batch_norm_backward(
        one, two, None, mean, variance, None, None, False, module.eps, [False, True, True]
    )
    return {"weight": Dense(weight.view(n, c)), "bias": Dense(bias.view(n, c))}


@rule(nn.LayerNorm, positions=True)
def layer_norm(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x, dy (n, *, *normalized_shape)."""
    return _affine(F.layer_norm(x, module.normalized_shape, eps=module.eps), dy, len(module.normalized_shape))


@rule(nn.RMSNorm, positions=True)
def rms_norm(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x, dy (n, *, *normalized_shape)."""
    return _affine(F.rms_norm(x, module.normalized_shape, eps=module.eps), dy, len(module.normalized_shape))


def _is_rms_norm(module: nn.Module) -> bool:
    """Whether a module of a language model, as each defines its own, does to its weight what RMSNorm does to it.

    Tried out: where its weight (some store what is added to 1) grows by 1, its output grows by the normalised input.
    """
    if not type(module).__name__.endswith("RMSNorm"):
        return False
    parameters, eps = dict(module.named_parameters()), _eps(module)
    weight = parameters.get("weight")
    if len(parameters) != 1 or weight is None or eps is None:
        return False
    if weight.dim() != 1 or weight.is_meta:
        return False
    x = torch.linspace(-1, 2, 2 * len(weight), device=weight.device).view(2, -1).to(weight.dtype)
    with torch.no_grad():
        try:
            outputs = [functional_call(module, {"weight": weight + more}, (x,)) for more in (0, 1)]
        except Exception:  # whatever a module says that takes something else
            return False
    grown, normal = outputs[1] - outputs[0], F.rms_norm(x, weight.shape, eps=eps)
    return grown.shape == normal.shape and torch.allclose(grown, normal, rtol=0.02, atol=0.02)


def _eps(module: nn.Module) -> float | None:
    found = [getattr(module, name, None) for name in ("variance_epsilon", "eps")]
    return next((value for value in found if isinstance(value, float)), None)


@rule_where(_is_rms_norm, positions=True)
def rms_norm_alike(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x, dy (n, *, d)."""
    return _affine(F.rms_norm(x, module.weight.shape, eps=_eps(module)), dy, 1)


@rule(nn.GroupNorm)
def group_norm(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x, dy (n, c, *)."""
    return _channels(F.group_norm(x, module.num_groups, eps=module.eps), dy)


@rule(nn.InstanceNorm1d)
@rule(nn.InstanceNorm2d)
@rule(nn.InstanceNorm3d)
def instance_norm(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x, dy (n, c, *)."""
    use_input = not module.track_running_stats
    normal = F.instance_norm(x, module.running_mean, module.running_var, None, None, use_input, eps=module.eps)
    return _channels(normal, dy)


def _affine(normal: Tensor, dy: Tensor, axes: int) -> Factors:
    between = tuple(range(1, dy.dim() - axes))
    weight, bias = dy * normal, dy
    return {
        "weight": Dense(weight.sum(between) if between else weight),
        "bias": Dense(bias.sum(between) if between else bias),
    }


def _channels(normal: Tensor, dy: Tensor) -> Factors:
    weight, bias = dy * normal, dy
    if dy.dim() > 2:
        weight, bias = weight.flatten(2).sum(2), bias.flatten(2).sum(2)
    return {"weight": Dense(weight), "bias": Dense(bias)}
