"""Linear maps over the last axis."""

from torch import Tensor, nn

from suture.gradients.factors import Dense, Factor, Outer
from suture.gradients.rules import Factors, rule


def positions_last(x: Tensor) -> Tensor:
    """(n, *, d) → (n, 1, d, t), t being all positions in between."""
    return x.reshape(len(x), -1, x.shape[-1]).mT[:, None]


@rule(nn.Linear, positions=True)
def linear(module: nn.Linear, x: Tensor, dy: Tensor) -> Factors:
    """x (n, *, i), dy (n, *, o): weight gradient Σ_t dy_t x_tᵀ, bias gradient Σ_t dy_t."""
    delta = positions_last(dy)
    found: dict[str, Factor] = {
        "weight": Outer(delta, lambda: positions_last(x), x.shape[-1], tuple(module.weight.shape))
    }
    if module.bias is not None:
        found["bias"] = Dense(delta.sum((1, 3)))
    return found


@rule("transformers.pytorch_utils.Conv1D", positions=True)
def transposed_linear(module: nn.Module, x: Tensor, dy: Tensor) -> Factors:
    """GPT-2's Conv1D, a Linear that stores (i, o)."""
    delta = positions_last(dy)
    weight = module.get_parameter("weight")
    return {
        "weight": Outer(delta, lambda: positions_last(x), x.shape[-1], tuple(weight.shape), transposed=True),
        "bias": Dense(delta.sum((1, 3))),
    }
