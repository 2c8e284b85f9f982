"""CADAM: Adam's scaling of the drift, with linear and cubic damping of the momentum."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from suture.optimizers.base import SplittingOptimizer, Tensors, check_number, one_plus_squares, root_lr


def _plain(
    params: Tensors,
    grads: Tensors,
    momenta: Tensors,
    zetas: Tensors,
    *,
    h: float,
    mu: float,
    c: float,
    keep: float,
    gain: float,
    eps: float,
) -> None:
    for x, g, p, zeta in zip(params, grads, momenta, zetas, strict=True):
        p.add_(g, alpha=-h)
        zeta.mul_(keep)
        zeta.addcmul_(g, g, value=gain)
        x.addcdiv_(p, zeta.sqrt().add_(eps), value=h)
        if c:
            p.mul_(one_plus_squares([p], 2 * c * h)[0].rsqrt_())
        p.mul_(mu)


def _foreach(
    params: Tensors,
    grads: Tensors,
    momenta: Tensors,
    zetas: Tensors,
    *,
    h: float,
    mu: float,
    c: float,
    keep: float,
    gain: float,
    eps: float,
) -> None:
    torch._foreach_add_(momenta, grads, alpha=-h)
    torch._foreach_mul_(zetas, keep)
    torch._foreach_addcmul_(zetas, grads, grads, gain)
    scales = torch._foreach_sqrt(zetas)
    torch._foreach_add_(scales, eps)
    torch._foreach_addcdiv_(params, momenta, scales, h)
    if c:
        factors = one_plus_squares(momenta, 2 * c * h)
        torch._foreach_rsqrt_(factors)
        torch._foreach_mul_(momenta, factors)
    torch._foreach_mul_(momenta, mu)


class CADAM(SplittingOptimizer):
    """Cubically damped Adam.

    With x the parameters, p the momentum and ζ the second moment (both zero at first), g the gradient,
    h = √lr and γ = −ln(μ)/h, elementwise and in this order::

        p ← p − h g
        ζ ← e^{−ah} ζ + ((1 − e^{−ah}) / a) g²
        x ← x + h p / (√ζ + ε)
        p ← p / √(1 + 2 c h p²)
        p ← e^{−γh} p = μ p

    The learning rate is not Adam's. There is no bias correction, so the first step is
    lr |g| / (√ζ + ε) with ζ ≈ √lr g²: about lr^.75 in every coordinate, 0.0056 for the default lr = 1e-3.
    ζ forgets within 1/(a√lr) steps (32 for the default) and then is about g²/a: the steps become those
    of Adam with learning rate lr √a / (1 − μ).

    Weight decay is coupled (L2: it enters g and ζ), as in torch's SGD and Adam, unlike AdamW.

    State per parameter, of its shape: ``momentum_buffer`` (p) and ``zeta`` (ζ).

    Args:
        params: parameters, named parameters or param groups, as for any torch optimizer.
        lr: learning rate, > 0; see above for what it means.
        momentum: μ in [0, 1); schedules may change it between steps.
        c: cubic damping, >= 0, in units of 1 / (p² · √lr).
        friction_decay: a > 0, the rate at which ζ forgets, in units of 1/√lr steps.
        eps: ε > 0, so that a parameter whose gradients were all zero stays where it is.
        weight_decay: factor of the L2 term, >= 0.
        maximize: climb instead of descend.
        foreach: list kernels; None uses them unless a parameter is of a tensor subclass.

    Raises:
        InvalidArgumentError: a setting is out of range, a parameter is complex; at a step, a gradient
            is sparse.

    Source: Karoni, Rajpal, Leimkuhler and Stoltz, arXiv:2602.00334; the paper's section 2 names it.
    """

    buffers: ClassVar[tuple[str, ...]] = ("momentum_buffer", "zeta")
    _plain: ClassVar[Callable[..., None]] = staticmethod(_plain)
    _foreach: ClassVar[Callable[..., None]] = staticmethod(_foreach)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        c: float = 0.1,
        friction_decay: float = 1.0,
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "c": c,
            "friction_decay": friction_decay,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, maximize=maximize, foreach=foreach)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        check_number("c", group["c"], low=0)
        check_number("friction_decay", group["friction_decay"], above=0)
        check_number("eps", group["eps"], above=0)

    def _coefficients(self, group: dict[str, Any]) -> dict[str, float]:
        h, a = root_lr(group), float(group["friction_decay"])
        return {
            "h": h,
            "mu": float(group["momentum"]),
            "c": float(group["c"]),
            "keep": math.exp(-a * h),
            "gain": -math.expm1(-a * h) / a,
            "eps": float(group["eps"]),
        }
