"""Gradients of a set of examples, kept in a few blocks so that the set can be drawn again (bootstrap)."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from suture.errors import DataError
from suture.gradients import Meter
from suture.tasks import Examples, Task, batches

BLOCKS = 10  # the bootstrap draws blocks
ENOUGH = 8  # fewer make intervals too narrow
MEMORY = 512 * 1024**2  # bytes for the blocks' gradient sums; larger models get fewer blocks
FEWEST = 4


@dataclass(frozen=True, eq=False)
class Sample:
    """Gradients of n examples, from one forward and backward pass.

    Examples lie in K blocks; a bootstrap replicate is the same sample with other `draws`, and every property
    follows them.

    Attributes:
        groups: group → parameter names, in model order.
        names: the P parameters that have gradients.
        squares: (n, P), squared norm of each example's gradient.
        block: (n,), the block of each example.
        sums: per block, parameter → sum of its examples' gradients, of the parameter's shape.
        gram: (P, K, K), inner products of the blocks' sums.
        draws: (K,), how many times each block counts; ones unless drawn again.
    """

    groups: Mapping[str, Sequence[str]]
    names: Sequence[str]
    squares: NDArray[np.float64]
    block: NDArray[np.int64]
    sums: Sequence[Mapping[str, Tensor]]
    gram: NDArray[np.float64]
    draws: NDArray[np.float64]

    @property
    def weights(self) -> NDArray[np.float64]:
        """(n,), how many times each example counts."""
        return self.draws[self.block]

    @property
    def n(self) -> int:
        """How many examples, counted as drawn."""
        return int(self.weights.sum())

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """(n, groups): norm of each example's gradient."""
        columns = [self.squares[:, self._places(names)].sum(1) for names in self.groups.values()]
        return np.asarray(np.sqrt(np.stack(columns, 1)))

    @cached_property
    def norm_of_mean(self) -> pd.Series:
        """‖mean_i ∇_g ℓ_i‖ per group."""
        return self._by_group(np.sqrt(np.maximum(self._squared_means, 0)), squares=True)

    @cached_property
    def tensor_norm_of_mean(self) -> pd.Series:
        """‖mean_i ∇ ℓ_i‖ per parameter."""
        return pd.Series(np.sqrt(np.maximum(self._squared_means, 0)), index=list(self.names))

    @cached_property
    def mean_norm(self) -> pd.Series:
        """mean_i ‖∇_g ℓ_i‖ per group."""
        return pd.Series(self.weights @ self.norms / self.weights.sum(), index=list(self.groups))

    @cached_property
    def mean_square(self) -> pd.Series:
        """mean_i ‖∇_g ℓ_i‖² per group."""
        return pd.Series(self.weights @ self.norms**2 / self.weights.sum(), index=list(self.groups))

    @cached_property
    def mean_gradient(self) -> dict[str, Tensor]:
        """Parameter → gradient of the mean loss."""
        return self.mean_of(range(len(self.draws)))

    def mean_of(self, blocks: Sequence[int]) -> dict[str, Tensor]:
        """Parameter → gradient of the mean loss over some blocks."""
        count = sum(self.draws[k] * (self.block == k).sum() for k in blocks)
        zero = {name: torch.zeros_like(tensor) for name, tensor in self.sums[0].items()}
        for k in blocks:
            for name, total in self.sums[k].items():
                zero[name] += float(self.draws[k] / count) * total
        return zero

    def resampled(self, generator: np.random.Generator) -> "Sample":
        """A bootstrap replicate: as many blocks, drawn with replacement."""
        k = len(self.draws)
        return replace(self, draws=generator.multinomial(k, np.full(k, 1 / k)).astype(float))

    @cached_property
    def _squared_means(self) -> NDArray[np.float64]:
        products = np.einsum("k,pkl,l->p", self.draws, self.gram, self.draws)
        return np.asarray(products / self.weights.sum() ** 2)

    def _places(self, names: Sequence[str]) -> list[int]:
        place = {name: i for i, name in enumerate(self.names)}
        return [place[name] for name in names if name in place]

    def _by_group(self, values: NDArray[np.float64], *, squares: bool) -> pd.Series:
        power = 2 if squares else 1
        return pd.Series(
            {g: (values[self._places(names)] ** power).sum() ** (1 / power) for g, names in self.groups.items()}
        )


def measure(
    model: nn.Module,
    examples: Examples,
    task: Task,
    groups: Mapping[str, Sequence[str]],
    *,
    device: torch.device,
    batch_size: int = 128,
    max_memory: int | None = None,
    description: str | None = None,
) -> Sample:
    """Measure the gradients of n examples in eval mode, one forward and one backward pass.

    Args:
        max_memory: bytes for the factors of a layer and for the blocks' sums; see `suture.gradients.Meter`.

    Raises:
        DataError: there are no examples.
        NonFiniteError: a gradient is NaN or infinite; the parameter is named.
        InvalidArgumentError: the model mixes the examples of a batch, or is not deterministic.
    """
    if not len(examples):
        raise DataError("there are no examples to take gradients of")
    meter = Meter(model, task, max_memory=max_memory)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    blocks = max(FEWEST, min(BLOCKS, (max_memory or MEMORY) // max(size, 1)))
    if blocks < ENOUGH <= len(examples):
        warnings.warn(
            f"the gradients of so large a model are kept in {blocks} blocks, which makes intervals too narrow; give "
            f"{ENOUGH * size // 10**6 + 1} MB of memory (--max-memory) for {ENOUGH} blocks",
            stacklevel=2,
        )
    step = min(batch_size, -(-len(examples) // blocks))
    squares: list[Tensor] = []
    block: list[int] = []
    sums: list[dict[str, Tensor]] = []
    for j, batch in enumerate(batches(examples, task, device, step, description)):
        found = meter.measure(batch, sets=lambda verdicts: torch.ones(1, len(verdicts)))
        squares.append(found.squares.double().cpu())
        block += [j % blocks] * len(found.losses)
        if j < blocks:
            sums.append(found.sums[0])
        else:
            for name, total in found.sums[0].items():
                sums[j % blocks][name] += total
    return Sample(
        groups=groups,
        names=meter.names,
        squares=torch.cat(squares).numpy(),
        block=np.array(block),
        sums=sums,
        gram=_gram(sums, meter.names),
        draws=np.ones(len(sums)),
    )


def _gram(sums: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> NDArray[np.float64]:
    found = []
    for name in names:
        rows = torch.stack([total[name].flatten() for total in sums]).float()
        found.append((rows @ rows.T).double().cpu().numpy())
    return np.stack(found) if found else np.zeros((0, len(sums), len(sums)))
