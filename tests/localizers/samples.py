"""Evidence made of random gradients, without a network: for what only chance should decide."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from suture.localizers import Evidence, Sample
from suture.localizers.sample import BLOCKS

GROUPS = [f"g{i}" for i in range(7)]


def gradients(generator: np.random.Generator, n: int, mean: float = 0.3, size: int = 20) -> list[np.ndarray]:
    """(n, size) per group: a common direction, scatter, and lengths that differ by example, group and both."""
    length = np.exp(generator.standard_normal(n))
    found = []
    for i in range(len(GROUPS)):
        own = np.exp(0.5 * generator.standard_normal(n))
        direction = mean / size**0.5 + generator.standard_normal((n, size)) / size**0.5
        found.append(direction * (length * own)[:, None] * (1 + i))
    return found


def sample(parts: list[np.ndarray], blocks: int = BLOCKS) -> Sample:
    """The gradients of n examples in blocks, a tensor per group."""
    n = len(parts[0])
    block = (np.arange(n) * blocks) // n
    names = [f"{group}.weight" for group in GROUPS[: len(parts)]]
    totals = [np.stack([part[block == k].sum(0) for k in range(blocks)]) for part in parts]
    return Sample(
        groups={group: [name] for group, name in zip(GROUPS, names, strict=False)},
        names=names,
        squares=np.stack([(part**2).sum(1) for part in parts], 1),
        block=block,
        sums=[{name: torch.tensor(total[k]) for name, total in zip(names, totals, strict=True)} for k in range(blocks)],
        gram=np.stack([total @ total.T for total in totals]),
        draws=np.ones(blocks),
    )


def evidence(parts: list[np.ndarray], blocks: int = BLOCKS) -> Evidence:
    """These gradients as those of the errors; there are no correct examples."""
    errors, n = sample(parts, blocks), len(parts[0])
    case: Any = SimpleNamespace(groups=errors.groups, seed=0)
    found = Evidence(case, torch.nn.Identity(), np.zeros(n, bool), np.arange(n), np.arange(0))
    vars(found)["errors"] = errors
    return found
