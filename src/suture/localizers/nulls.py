"""Nulls: the same measurement where no error is to be explained."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def matched(correct: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """At most `size` of the correct examples, drawn by seed, in order: as many as there are errors."""
    drawn = np.random.default_rng(seed).permutation(correct)[:size]
    return np.sort(drawn)


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
