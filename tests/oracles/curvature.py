"""Hessian and GGN in full, entry by entry from torch.autograd.functional, for networks of a few hundred parameters."""

from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def _flat(model: nn.Module, names: list[str]) -> tuple[Tensor, list[torch.Size]]:
    known = dict(model.named_parameters())
    return torch.cat([known[name].detach().reshape(-1) for name in names]), [known[name].shape for name in names]


def _logits(model: nn.Module, names: list[str], shapes: list[torch.Size], x: Tensor, flat: Tensor) -> Tensor:
    pieces = flat.split([shape.numel() for shape in shapes])
    values = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
    # The fused weight norm has a wrong second derivative.
    with sdpa_kernel(SDPBackend.MATH), mock.patch.object(torch, "_weight_norm", _weight_norm):
        return functional_call(model, values, (x,), tie_weights=True)


def _weight_norm(v: Tensor, g: Tensor, dim: int) -> Tensor:
    rows = v.movedim(dim, 0)
    lengths = rows.flatten(1).square().sum(1).sqrt().view(-1, *[1] * (v.dim() - 1))
    return (rows / lengths * g.movedim(dim, 0)).movedim(0, dim)


def hessian(model: nn.Module, x: Tensor, y: Tensor, names: list[str]) -> Tensor:
    """Hessian of the mean cross-entropy with respect to some parameters, (n, n)."""
    flat, shapes = _flat(model, names)
    return torch.autograd.functional.hessian(
        lambda theta: F.cross_entropy(_logits(model, names, shapes, x, theta), y), flat
    )


def ggn(model: nn.Module, x: Tensor, y: Tensor, names: list[str]) -> Tensor:
    """Mean of Jᵀ(diag(p) − ppᵀ)J over the examples, (n, n): the GGN of cross-entropy by its formula."""
    flat, shapes = _flat(model, names)
    jacobian = torch.autograd.functional.jacobian(lambda theta: _logits(model, names, shapes, x, theta), flat)
    p = _logits(model, names, shapes, x, flat).detach().softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nci,ncd,ndj->ij", jacobian, inner, jacobian) / len(x)
