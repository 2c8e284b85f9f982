"""Embeddings: a gradient that touches a few rows."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.gradients.factors import Rows
from suture.gradients.rules import Factors, rule, rule_where


def _is_plain(module: nn.Embedding) -> bool:
    return module.max_norm is None and not module.scale_grad_by_freq


@rule(nn.Embedding, when=_is_plain, positions=True)
def embedding(module: nn.Embedding, x: Tensor, dy: Tensor) -> Factors:
    """x (n, *) row numbers, dy (n, *, d)."""
    index = x.reshape(len(x), -1)
    values = dy.reshape(len(x), -1, dy.shape[-1])
    if module.padding_idx is not None:
        values = values * (index != module.padding_idx)[:, :, None]
    return {"weight": Rows(values, index, tuple(module.weight.shape))}


def _factor(module: nn.Module) -> float | None:
    """By what an embedding of somebody's own multiplies its rows, as some language models do; None if it does not."""
    if not isinstance(module, nn.Embedding) or not _is_plain(module) or module.weight.is_meta:
        return None
    if [name for name, _ in module.named_parameters()] != ["weight"]:
        return None
    tokens = torch.arange(min(module.num_embeddings, 4), device=module.weight.device)[None]
    with torch.no_grad():
        rows = F.embedding(tokens, module.weight)
        try:
            given = module(tokens)
        except Exception:  # whatever a module says that takes something else
            return None
        if not isinstance(given, Tensor) or given.shape != rows.shape or not rows.any():
            return None
        given, rows = given.double(), rows.double()
        factor = float((given * rows).sum() / rows.square().sum())
        close = torch.allclose(given, factor * rows, rtol=0.02, atol=1e-6 * float(given.abs().max()))
    return factor if close else None


@rule_where(lambda module: _factor(module) is not None, positions=True)
def scaled_embedding(module: nn.Embedding, x: Tensor, dy: Tensor) -> Factors:
    """x (n, *) row numbers, dy (n, *, d)."""
    return embedding(module, x, dy * (_factor(module) or 0.0))
