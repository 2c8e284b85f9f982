"""`torch.nn.MultiheadAttention`, which calls no module for its projections: its forward, with these in sight."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.gradients.factors import Dense, Outer
from suture.gradients.linear import positions_last
from suture.gradients.rules import Factors, Rule

See = Callable[[nn.Module, Rule | None, Tensor, Tensor], Tensor]
"""Told of a projection (whose parameters, its rule or None for the module's own, input, output); gives the output."""


def supported(module: nn.MultiheadAttention) -> bool:
    """Whether `forward` stands in for the module's own: one width, no learnt keys and values, nothing replaced."""
    return (
        type(module).forward is nn.MultiheadAttention.forward
        and "forward" not in module.__dict__
        and module._parameters.get("in_proj_weight") is not None
        and module.bias_k is None
        and not module.add_zero_attn
        and type(module.out_proj).forward is nn.Linear.forward
    )


def forward(
    module: nn.MultiheadAttention,
    see: See,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The module's forward in eval mode; `see` meets every projection between input and output.

    Arguments and outputs are those of `torch.nn.MultiheadAttention.forward`: (n, t, width), or (t, n, width)
    without ``batch_first``. ``is_causal`` is a hint about ``attn_mask`` and changes nothing.
    """
    if query.dim() != 3 or query.is_nested:
        return nn.MultiheadAttention.forward(
            module, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
    sources = [query, key, value]
    if not module.batch_first:
        turned = {id(x): x.transpose(0, 1) for x in sources}
        sources = [turned[id(x)] for x in sources]
    heads = module.num_heads
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in _projected(module, see, sources))
    mask = _mask(attn_mask, key_padding_mask, heads, q)
    weights = None
    if need_weights:
        scores = q @ k.mT * q.shape[-1] ** -0.5
        weights = (scores if mask is None else scores + mask).softmax(-1)
        mixed = weights @ v
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    mixed = mixed.transpose(1, 2).flatten(2)
    out = see(module.out_proj, None, mixed, F.linear(mixed, module.out_proj.weight, module.out_proj.bias))
    return (out if module.batch_first else out.transpose(0, 1)), weights


def _projected(module: nn.MultiheadAttention, see: See, sources: list[Tensor]) -> list[Tensor]:
    """Queries, keys and values, each (n, t, width); in one product when they come from the same tensor."""
    weight, bias = module.in_proj_weight, module.in_proj_bias
    if sources[0] is sources[1] is sources[2]:
        packed = see(module, in_projection, sources[0], F.linear(sources[0], weight, bias))
        return list(packed.chunk(3, -1))
    width = module.embed_dim
    found = []
    for place, x in enumerate(sources):
        rows = slice(place * width, (place + 1) * width)
        y = F.linear(x, weight[rows], None if bias is None else bias[rows])
        found.append(see(module, partial(in_projection, start=rows.start), x, y))
    return found


def in_projection(module: nn.MultiheadAttention, x: Tensor, dy: Tensor, start: int = 0) -> Factors:
    """x (n, *, width), dy (n, *, rows): the gradients of some rows of the three stacked weights, zero elsewhere."""
    delta = positions_last(dy)
    missing = 3 * module.embed_dim - delta.shape[2]
    if missing:
        delta = F.pad(delta, (0, 0, start, missing - start))
    found: dict[str, Any] = {
        "in_proj_weight": Outer(delta, lambda: positions_last(x), x.shape[-1], tuple(module.in_proj_weight.shape))
    }
    if module.in_proj_bias is not None:
        found["in_proj_bias"] = Dense(delta.sum((1, 3)))
    return found


def _mask(attn: Tensor | None, padding: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """What is added to the scores: minus infinity where a mask of truth values forbids."""

    def added(mask: Tensor) -> Tensor:
        if mask.dtype == torch.bool:
            return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
        return mask.to(like.dtype)

    total = None if attn is None else added(attn if attn.dim() == 2 else attn.reshape(-1, heads, *attn.shape[1:]))
    if padding is not None:
        keys = added(padding)[:, None, None, :]
        total = keys if total is None else total + keys
    return total
