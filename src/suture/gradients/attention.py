"""`torch.nn.MultiheadAttention`, which calls no module for its projections."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.gradients.factors import Dense, Factor, Outer

ARGUMENTS = (
    "query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal",
)  # fmt: skip
CLAIMED = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")


def supported(module: nn.MultiheadAttention) -> bool:
    """Whether the rule holds: one width, and no learnt keys and values."""
    return module._qkv_same_embed_dim and module.bias_k is None and not module.add_zero_attn


def attention(
    module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any], dy: Tensor, chunk: slice
) -> dict[str, Factor]:
    """Factors of the projections, from queries, keys and values and the gradient of the output.

    The attention is run again between the projections, so that the gradient of what they give is known;
    shapes are (n, t, width), or (t, n, width) without ``batch_first``. Only the examples of a chunk are taken.
    """
    given = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
    parts = [dy, *(given[name].detach() for name in ("query", "key", "value"))]
    dy, *inputs = [(part if module.batch_first else part.transpose(0, 1))[chunk] for part in parts]
    weights = module.in_proj_weight.chunk(3)
    biases = module.in_proj_bias.chunk(3) if module.in_proj_bias is not None else (None,) * 3
    projected = [F.linear(x, w, b).detach().requires_grad_() for x, w, b in zip(inputs, weights, biases, strict=True)]
    with torch.enable_grad():
        mixed = _attend(module, projected, given, chunk)
        grads = torch.autograd.grad(mixed, projected, dy @ module.out_proj.weight)
    longest = max(x.shape[1] for x in inputs)
    deltas, sources = (
        torch.stack([F.pad(part.mT, (0, longest - part.shape[1])) for part in parts], 1) for parts in (grads, inputs)
    )  # (n, 3, width, t)
    return {
        "in_proj_weight": Outer(deltas, lambda: sources, sources.shape[2], tuple(module.in_proj_weight.shape)),
        "in_proj_bias": Dense(deltas.sum(3).flatten(1)),
        "out_proj.weight": Outer(
            dy.mT[:, None], lambda: mixed.detach().mT[:, None], mixed.shape[2], tuple(module.out_proj.weight.shape)
        ),
        "out_proj.bias": Dense(dy.sum(1)),
    }


def _attend(module: nn.MultiheadAttention, projected: list[Tensor], given: dict[str, Any], chunk: slice) -> Tensor:
    n, length, width = projected[0].shape
    heads = module.num_heads
    q, k, v = (part.reshape(n, -1, heads, width // heads).transpose(1, 2) for part in projected)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=_mask(given, heads, q, chunk))
    return mixed.transpose(1, 2).reshape(n, length, width)


def _mask(given: dict[str, Any], heads: int, like: Tensor, chunk: slice) -> Tensor | None:
    """What is added to the scores: minus infinity where a mask of truth values forbids."""

    def added(mask: Tensor) -> Tensor:
        if mask.dtype == torch.bool:
            return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
        return mask.to(like.dtype)

    attn, padding = given.get("attn_mask"), given.get("key_padding_mask")
    total = (
        None if attn is None else added(attn if attn.dim() == 2 else attn.reshape(-1, heads, *attn.shape[1:])[chunk])
    )
    if padding is not None:
        keys = added(padding)[chunk, None, None, :]
        total = keys if total is None else total + keys
    return total
