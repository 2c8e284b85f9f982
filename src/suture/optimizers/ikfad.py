"""IKFAD: SGD with momentum whose friction follows the kinetic energy of each parameter."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from suture.errors import GroupError, UnknownNameError
from suture.optimizers.base import SplittingOptimizer, Tensors, check_number, root_lr, state_dtype
from suture.registry import suggest


def _plain(
    params: Tensors,
    grads: Tensors,
    momenta: Tensors,
    xis: Tensors,
    frictions: Tensors,
    *,
    h: float,
    mu: float,
    keep: float,
    gain: float,
) -> None:
    for x, g, p, xi, friction in zip(params, grads, momenta, xis, frictions, strict=True):
        p.add_(g, alpha=-h)
        x.add_(p, alpha=h)
        p.mul_(xi.mul(-h / 2).exp_())
        xi.mul_(keep)
        xi.addcmul_(p, p, value=gain)
        p.mul_(xi.mul(-h / 2).exp_())
        p.mul_(mu)
        friction.add_(xi, alpha=h)


def _foreach(
    params: Tensors,
    grads: Tensors,
    momenta: Tensors,
    xis: Tensors,
    frictions: Tensors,
    *,
    h: float,
    mu: float,
    keep: float,
    gain: float,
) -> None:
    torch._foreach_add_(momenta, grads, alpha=-h)
    torch._foreach_add_(params, momenta, alpha=h)
    factors = torch._foreach_mul(xis, -h / 2)
    torch._foreach_exp_(factors)
    torch._foreach_mul_(momenta, factors)
    torch._foreach_mul_(xis, keep)
    torch._foreach_addcmul_(xis, momenta, momenta, gain)
    factors = torch._foreach_mul(xis, -h / 2)
    torch._foreach_exp_(factors)
    torch._foreach_mul_(momenta, factors)
    torch._foreach_mul_(momenta, mu)
    torch._foreach_add_(frictions, xis, alpha=h)


class IKFAD(SplittingOptimizer):
    """SGD with momentum and a friction ξ per parameter that follows its kinetic energy.

    With x the parameters, p the momentum and ξ the friction (both zero at first), g the gradient,
    h = √lr and γ = −ln(μ)/h, elementwise and in this order::

        p ← p − h g
        x ← x + h p
        p ← e^{−hξ/2} p
        ξ ← e^{−ah} ξ + (1 − e^{−ah}) p² / (m a)
        p ← e^{−hξ/2} p
        p ← e^{−γh} p = μ p
        friction ← friction + h ξ

    With mass = inf, ξ stays 0 and this is ``torch.optim.SGD(params, lr, momentum)`` at constant lr; under
    a changing lr the two are different methods. Weight decay is coupled (L2: it enters g).

    ξ forgets within 1/(a√lr) steps and tends to 0 at convergence, so the friction that a parameter
    accumulated is the running integral Σ hξ, kept as ``friction``; :meth:`friction` and
    :meth:`group_friction` read either.

    State per parameter, of its shape: ``momentum_buffer`` (p), ``xi`` (ξ) and ``friction`` (Σ hξ).

    Args:
        params: parameters, named parameters or param groups, as for any torch optimizer.
        lr: learning rate, > 0.
        momentum: μ in [0, 1); schedules may change it between steps.
        friction_decay: a > 0, the rate at which ξ forgets, in units of 1/√lr steps.
        mass: m > 0, the thermal mass: the larger, the less friction; may be infinite.
        weight_decay: factor of the L2 term, >= 0.
        maximize: climb instead of descend.
        foreach: list kernels; None uses them unless a parameter is of a tensor subclass.

    Raises:
        InvalidArgumentError: a setting is out of range, a parameter is complex; at a step, a gradient
            is sparse.

    Source: Karoni, Rajpal, Leimkuhler and Stoltz, arXiv:2602.00334; the paper's iKFAD (section 6.1).
    """

    buffers: ClassVar[tuple[str, ...]] = ("momentum_buffer", "xi", "friction")
    _plain: ClassVar[Callable[..., None]] = staticmethod(_plain)
    _foreach: ClassVar[Callable[..., None]] = staticmethod(_foreach)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        friction_decay: float = 1.0,
        mass: float = 1.0,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "friction_decay": friction_decay,
            "mass": mass,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, maximize=maximize, foreach=foreach)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        check_number("friction_decay", group["friction_decay"], above=0)
        check_number("mass", group["mass"], above=0, finite=False)

    def _coefficients(self, group: dict[str, Any]) -> dict[str, float]:
        h, a = root_lr(group), float(group["friction_decay"])
        return {
            "h": h,
            "mu": float(group["momentum"]),
            "keep": math.exp(-a * h),
            "gain": -math.expm1(-a * h) / (float(group["mass"]) * a),
        }

    def friction(
        self,
        named_parameters: nn.Module | Iterable[tuple[str, Tensor]],
        which: Literal["friction", "xi"] = "friction",
    ) -> dict[str, Tensor]:
        """Accumulated friction of each entry of each parameter.

        Args:
            named_parameters: the model, or pairs of name and parameter.
            which: ``"friction"`` for the running integral Σ hξ, ``"xi"`` for ξ as it is now.

        Returns:
            Name → tensor of the parameter's shape, a copy; zeros for a parameter that never had a
            gradient or is not this optimizer's. Without unit.

        Raises:
            UnknownNameError: ``which`` is neither.
        """
        if which not in ("friction", "xi"):
            raise UnknownNameError(f"no friction is called '{which}'; {suggest(which, ['friction', 'xi'])}")
        named = named_parameters.named_parameters() if isinstance(named_parameters, nn.Module) else named_parameters
        values = {}
        for name, p in named:
            kept = self.state[p].get(which) if p in self.state else None
            values[name] = torch.zeros_like(p, dtype=state_dtype(p)) if kept is None else kept.clone()
        return values

    def group_friction(
        self,
        named_parameters: nn.Module | Iterable[tuple[str, Tensor]],
        groups: Mapping[str, Iterable[str]],
        which: Literal["friction", "xi"] = "friction",
    ) -> dict[str, float]:
        """Mean friction over all entries of a group's parameters, so that large groups do not win by size.

        Args:
            named_parameters: the model, or pairs of name and parameter.
            groups: group → names of its parameters, as ``suture.groups.resolve`` gives.
            which: as in :meth:`friction`.

        Returns:
            Group → mean, in the order of ``groups``.

        Raises:
            GroupError: a group is empty.
            UnknownNameError: a group names a parameter that is not among ``named_parameters``.

        Source: the paper ranks layers by accumulated friction (section 6.1, Method B).
        """
        values = self.friction(named_parameters, which)
        means = {}
        for group, names in groups.items():
            names = list(names)
            if not names:
                raise GroupError(f"group '{group}' holds no parameters; leave it out")
            for name in names:
                if name not in values:
                    raise UnknownNameError(f"no parameter is called '{name}'; {suggest(name, list(values))}")
            total = sum(float(values[name].double().sum()) for name in names)
            count = sum(values[name].numel() for name in names)
            means[group] = total / count if count else float("nan")
        return means
