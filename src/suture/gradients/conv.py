"""Convolutions in one, two and three dimensions: a linear map over patches."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.gradients.factors import Dense, Factor, Outer
from suture.gradients.rules import Factors, rule


@rule(nn.Conv1d)
@rule(nn.Conv2d)
@rule(nn.Conv3d)
def convolution(module: Any, x: Tensor, dy: Tensor) -> Factors:
    """x (n, c, *space), dy (n, o, *space): weight gradient Σ_t dy_t patch_tᵀ, bias gradient Σ_t dy_t."""
    n, groups = len(x), module.groups
    delta = dy.reshape(n, groups, module.out_channels // groups, -1)
    inputs = module.in_channels // groups * math.prod(module.kernel_size)
    found: dict[str, Factor] = {
        "weight": Outer(
            delta,
            lambda: unfolded(module, x).reshape(n, groups, inputs, -1),
            inputs,
            tuple(module.weight.shape),
            form=lambda: _gradients(module, x, dy),
            weigh=lambda weights: _weighted(module, x, dy, weights),
        )
    }
    if module.bias is not None:
        found["bias"] = Dense(dy.flatten(2).sum(2))
    return found


def _gradients(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    """Weight gradients (n, *weight): one grouped convolution whose groups are the examples.

    The identity is that of Rochette, Manoel and Tramel 2019; the backward kernels of torch do the work, so no
    patch is ever copied.
    """
    n, shape = len(x), module.weight.shape
    x, padding = _padded(module, x)
    one = _weight_gradient(
        module, x.reshape(1, -1, *x.shape[2:]), dy.reshape(1, -1, *dy.shape[2:]), (n * shape[0], *shape[1:]), padding,
        n * module.groups,
    )  # fmt: skip
    return one.reshape(n, *shape)


def _weighted(module: Any, x: Tensor, dy: Tensor, weights: Tensor) -> Tensor:
    """Σ_n weights[n] · gradient n, by the same kernel as an ordinary backward pass."""
    rows = weights.nonzero().squeeze(1)
    if not len(rows):
        return torch.zeros_like(module.weight)
    x, padding = _padded(module, x[rows])
    dy = dy[rows] * weights[rows].reshape(-1, *(1,) * (dy.dim() - 1))
    return _weight_gradient(module, x, dy, tuple(module.weight.shape), padding, module.groups)


def _weight_gradient(
    module: Any, x: Tensor, dy: Tensor, shape: tuple[int, ...], padding: tuple[int, ...], groups: int
) -> Tensor:
    empty = x.new_empty(shape)
    zeros = [0] * len(module.kernel_size)
    found: Tensor = torch.ops.aten.convolution_backward(
        dy.contiguous(), x.contiguous(), empty, None, list(module.stride), list(padding), list(module.dilation), False,
        zeros, groups, [False, True, False],
    )[1]  # fmt: skip
    return found


def _padded(module: Any, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input with its padding, where a kernel cannot pad so itself, and what is left to pad with zeros."""
    if module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return x, module.padding
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, module._reversed_padding_repeated_twice, mode=mode), (0,) * len(module.kernel_size)


def unfolded(module: Any, x: Tensor) -> Tensor:
    """Patches (n, c · kernel, positions) that the kernel meets, padded as the module pads."""
    x, padding = _padded(module, x)
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
