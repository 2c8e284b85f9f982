"""CubicDamping: SGD with momentum whose friction grows with the square of the momentum."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from suture.optimizers.base import SplittingOptimizer, Tensors, check_number, one_plus_squares, root_lr


def _plain(params: Tensors, grads: Tensors, momenta: Tensors, *, h: float, mu: float, c: float) -> None:
    for x, g, p in zip(params, grads, momenta, strict=True):
        p.add_(g, alpha=-h)
        x.add_(p, alpha=h)
        if c:
            p.mul_(one_plus_squares([p], 2 * c * h)[0].rsqrt_())
        p.mul_(mu)


def _foreach(params: Tensors, grads: Tensors, momenta: Tensors, *, h: float, mu: float, c: float) -> None:
    torch._foreach_add_(momenta, grads, alpha=-h)
    torch._foreach_add_(params, momenta, alpha=h)
    if c:
        factors = one_plus_squares(momenta, 2 * c * h)
        torch._foreach_rsqrt_(factors)
        torch._foreach_mul_(momenta, factors)
    torch._foreach_mul_(momenta, mu)


class CubicDamping(SplittingOptimizer):
    """SGD with momentum and cubic damping.

    With x the parameters, p the momentum (zero at first), g the gradient, h = √lr and γ = −ln(μ)/h,
    elementwise and in this order::

        p ← p − h g
        x ← x + h p
        p ← p / √(1 + 2 c h p²)          flow of ṗ = −c p³ over time h
        p ← e^{−γh} p = μ p

    With c = 0 this is ``torch.optim.SGD(params, lr, momentum)`` at constant lr; under a changing lr the
    two are different methods. Weight decay is coupled (L2: it enters g), as in torch's SGD.

    State per parameter, of its shape: ``momentum_buffer`` (p).

    Args:
        params: parameters, named parameters or param groups, as for any torch optimizer.
        lr: learning rate, > 0.
        momentum: μ in [0, 1); schedules may change it between steps.
        c: cubic damping, >= 0, in units of 1 / (p² · √lr).
        weight_decay: factor of the L2 term, >= 0.
        maximize: climb instead of descend.
        foreach: list kernels; None uses them unless a parameter is of a tensor subclass.

    Raises:
        InvalidArgumentError: a setting is out of range, a parameter is complex; at a step, a gradient
            is sparse.

    Source: Karoni, Rajpal, Leimkuhler and Stoltz, arXiv:2602.00334; the paper's CD (section 6.1) has c = 0.1.
    """

    _plain: ClassVar[Callable[..., None]] = staticmethod(_plain)
    _foreach: ClassVar[Callable[..., None]] = staticmethod(_foreach)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        c: float = 0.1,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "c": c, "weight_decay": weight_decay}
        super().__init__(params, defaults, maximize=maximize, foreach=foreach)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        check_number("c", group["c"], low=0)

    def _coefficients(self, group: dict[str, Any]) -> dict[str, float]:
        return {"h": root_lr(group), "mu": float(group["momentum"]), "c": float(group["c"])}
