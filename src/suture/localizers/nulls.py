"""Nulls: the same measurement where no error is to be explained."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from suture.patch import base_sha256, canonical_state

RANDOM_INITS = 3  # networks over which the null at random initialisation is averaged
RANDOM_ERRORS = 100  # examples it takes at most: an average over networks needs no more


def matched(correct: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """At most `size` of the correct examples, drawn by seed, in order: as many as there are errors."""
    drawn = np.random.default_rng(seed).permutation(correct)[:size]
    return np.sort(drawn)


def thinned(positions: NDArray[np.int64], most: int = RANDOM_ERRORS) -> NDArray[np.int64]:
    """At most `most` of them, evenly spread."""
    if len(positions) <= most:
        return positions
    return np.asarray(positions[np.linspace(0, len(positions) - 1, most).astype(int)])


def reinitialised(model: nn.Module, seed: int) -> nn.Module:
    """A copy at random initialisation: every module that can is told to ``reset_parameters``."""
    twin = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return twin


def random_twins(
    model: nn.Module, factory: Callable[[], nn.Module] | None, seed: int, n: int = RANDOM_INITS
) -> Iterator[nn.Module]:
    """Networks of the same architecture at random initialisation, in eval mode, one by one.

    A factory draws parameters that no module can reset by itself; one that brings weights, or builds another
    architecture, is of no use here, and copies are initialised anew.
    """
    fresh = factory if factory is not None and _draws(factory, model, seed) else None
    for i in range(n):
        yield (reinitialised(model, seed + i) if fresh is None else _built(fresh, model, seed + i)).eval()


def _draws(factory: Callable[[], nn.Module], model: nn.Module, seed: int) -> bool:
    """Whether a factory gives this architecture, and other weights by other seeds."""
    first, second = (canonical_state(_built(factory, model, s)) for s in (seed, seed + 1))
    own = canonical_state(model)
    same = first.keys() == own.keys() and all(first[name].shape == own[name].shape for name in own)
    return same and base_sha256(first) != base_sha256(second)


def _built(factory: Callable[[], nn.Module], model: nn.Module, seed: int) -> nn.Module:
    some = next(model.parameters())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().to(some.device)
