"""Convolutions in one, two and three dimensions: a linear map over patches."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from suture.gradients.factors import Dense, Outer
from suture.gradients.rules import Factors, rule


@rule(nn.Conv1d)
@rule(nn.Conv2d)
@rule(nn.Conv3d)
def convolution(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x (n, c, *space), dy (n, o, *space): weight gradient Σ_t dy_t patch_tᵀ, bias gradient Σ_t dy_t."""
    n, groups = len(x), module.groups
    delta = dy.reshape(n, groups, module.out_channels // groups, -1)
    patches = unfolded(module, x).reshape(n, groups, -1, delta.shape[3])
    return {
        "weight": Outer(delta, patches, tuple(module.weight.shape)),
        "bias": Dense(dy.flatten(2).sum(2)),
    }


def unfolded(module: Any, x: Tensor) -> Tensor:
    """Patches (n, c · kernel, positions) that the kernel meets, padded as the module pads."""
    padding = module.padding
    if module.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(module.kernel_size)
    if math.prod(module.kernel_size) == 1 and not any(padding):
        steps = tuple(slice(None, None, s) for s in module.stride)
        return x[(slice(None), slice(None), *steps)].flatten(2)
    return _windows(x, module.kernel_size, module.dilation, padding, module.stride)


def _windows(
    x: Tensor, kernel: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """Patches of any number of dimensions, as a strided view that is copied once.

    Copying whole rows is several times quicker on a CPU than torch's own unfold, which goes number by number.
    """
    x = F.pad(x, [side for p in reversed(padding) for side in (p, p)]).contiguous()
    n, channels, *space = x.shape
    out = [(s - d * (k - 1) - 1) // st + 1 for s, k, d, st in zip(space, kernel, dilation, stride, strict=True)]
    steps = x.stride()[2:]
    strides = (
        *x.stride()[:2],
        *(s * d for s, d in zip(steps, dilation, strict=True)),
        *(s * st for s, st in zip(steps, stride, strict=True)),
    )
    view = x.as_strided((n, channels, *kernel, *out), strides)
    return view.reshape(n, channels * math.prod(kernel), math.prod(out))
