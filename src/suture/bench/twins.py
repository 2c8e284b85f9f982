"""Do SGD and Adam pick "the same three layers"? Their overlap, beside that of networks that know nothing.

The paper finds the same three of seven groups on top for both optimizers (section 5.3, Table 8) and reads a property
of the task in it. If networks at random initialisation agree as well, it is one of the architecture.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import nn

from suture.bench.examples import Pairs
from suture.bench.localize import Row
from suture.bench.natural import SHIFTS
from suture.bench.networks import DIGITS, all_digits, digits_network, taught
from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers import LOCALIZERS, Evidence, gather
from suture.localizers.nulls import reinitialised
from suture.registry import suggest
from suture.tasks import evaluate
from suture.training import Augment

TOP = 3
EPOCHS = 16
ADAM_LR, SGD_LR = 0.003, 0.1  # the highest of the cycle

PAIRS: dict[str, tuple[tuple[str, int, str], tuple[str, int, str]]] = {
    # (how it was trained, which twin, on what it is looked at); twins differ in initialisation and order
    "sgd, adam": (("sgd", 0, "errors"), ("adam", 0, "errors")),
    "sgd, sgd": (("sgd", 0, "errors"), ("sgd", 1, "errors")),
    "sgd, adam, other seeds": (("sgd", 0, "errors"), ("adam", 1, "errors")),
    "errors, correct": (("sgd", 0, "errors"), ("sgd", 0, "correct")),
    "sgd, random": (("sgd", 0, "errors"), ("random", 1, "errors")),
    "adam, random": (("adam", 0, "errors"), ("random", 1, "errors")),
    "random, random": (("random", 0, "errors"), ("random", 1, "errors")),
}


def cell(
    pair: str, seed: int, localizers: Sequence[str] = ("grad_norm",), shift: str = "camera", epochs: int = EPOCHS
) -> list[Row]:
    """How alike two networks are ranked; a row per localizer.

    Both are the bench's residual network of seven groups on digits, looked at on the same shifted digits.

    Args:
        pair: a name in `PAIRS`.
        seed: of initialisation and order of the first network; a second twin has another.
        localizers: names of the registry that need neither a record nor a reference.
        shift: a name in `suture.bench.natural.SHIFTS`, so that trained networks have errors.
        epochs: of the trainings.

    Returns:
        `overlap`: how many of the three first groups are the same; `expected`: of so many by chance, 9/7 for seven
        groups; `same`: whether all three are, `chance`: how often that happens blindly, 1/35; `rank_correlation`:
        Spearman's, over all groups; `left`, `right`: the three groups of each.
    """
    if pair not in PAIRS:
        raise InvalidArgumentError(f"no pair of twins is called '{pair}'; {suggest(pair, list(PAIRS))}")
    left, right = (_evidence(how, seed + 1000 * twin, on, shift, epochs) for how, twin, on in PAIRS[pair])
    return [{"localizer": name, **compared(LOCALIZERS[name](left), LOCALIZERS[name](right))} for name in localizers]


def compared(left: pd.Series, right: pd.Series, top: int = TOP) -> dict[str, Any]:
    """Two rankings of the same groups held against each other; see `cell` for the columns.

    Raises:
        InvalidArgumentError: a ranking has fewer scores than that.
    """
    n = len(left)
    firsts = []
    for scores in (left, right):
        best = scores.dropna().sort_values(ascending=False, kind="stable").index[:top]
        if len(best) < top:
            raise InvalidArgumentError(f"only {len(best)} groups have a score; it takes {top}")
        firsts.append([str(group) for group in best])
    overlap = len({*firsts[0]} & {*firsts[1]})
    correlation = float(stats.spearmanr(left, right, nan_policy="omit").statistic)
    return {
        "overlap": overlap,
        "expected": top * top / n,
        "same": overlap == top,
        "chance": 1 / math.comb(n, top),
        "rank_correlation": correlation,
        "left": " ".join(firsts[0]),
        "right": " ".join(firsts[1]),
    }


@cache
def _trained(how: str, seed: int, epochs: int) -> nn.Module:
    """A network of the twins; kept, since pairs share them."""
    lessons, _ = all_digits()
    optimizers: dict[str, tuple[Callable[[nn.Module], torch.optim.Optimizer] | None, float]] = {
        "sgd": (None, SGD_LR),
        "adam": (lambda model: torch.optim.Adam(model.parameters(), lr=ADAM_LR), ADAM_LR),
    }
    if how == "random":
        with torch.random.fork_rng():
            return reinitialised(digits_network(), seed).eval()
    optimizer, lr = optimizers[how]
    return taught(
        digits_network, lessons, epochs=epochs, seed=seed, optimizer=optimizer, max_lr=lr,
        augment=Augment(pad=1, flip=False), image=DIGITS,
    )  # fmt: skip


def _evidence(how: str, seed: int, on: str, shift: str, epochs: int) -> Evidence:
    """Evidence of one network on the errors it makes, or on as many correct examples."""
    model = _trained(how, seed, epochs)
    case = Case(model, diagnose=_examples(shift), seed=0, device="cpu")
    right = evaluate(case.model, case.splits["diagnose"], case.task, device=case.device, name="the digits").right
    errors, correct = gather(case, right)
    return errors if on == "errors" else correct


@cache
def _examples(shift: str) -> Pairs:
    """Five hundred digits that no twin learnt from, the same for all."""
    _, held_out = all_digits()
    inputs, targets = held_out.read_batch(list(range(500)))
    mean, std = DIGITS.mean[0], DIGITS.std[0]
    shifted = SHIFTS[shift](inputs * std + mean, torch.Generator().manual_seed(0)).clamp(0, 1)
    return Pairs((shifted - mean) / std, targets)
