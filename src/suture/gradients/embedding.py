"""Embeddings: a gradient that touches a few rows."""

from torch import Tensor, nn

from suture.gradients.factors import Rows
from suture.gradients.rules import Factors, rule


@rule(nn.Embedding, when=lambda module: module.max_norm is None and not module.scale_grad_by_freq, positions=True)
def embedding(module: nn.Embedding, x: Tensor, dy: Tensor) -> Factors:
    """x (n, *) row numbers, dy (n, *, d)."""
    index = x.reshape(len(x), -1)
    values = dy.reshape(len(x), -1, dy.shape[-1])
    if module.padding_idx is not None:
        values = values * (index != module.padding_idx)[:, :, None]
    return {"weight": Rows(values, index, tuple(module.weight.shape))}
