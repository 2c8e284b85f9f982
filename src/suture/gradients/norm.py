"""Normalisations: an elementwise scale and shift of something normalised."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.gradients.factors import Dense
from suture.gradients.rules import Factors, rule


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
