"""The oracle: what treating a group gains, found by treating it, on examples that nothing else sees."""

import copy
from collections.abc import Iterable

import numpy as np
import pandas as pd
from torch import nn

from suture.bench.examples import Pairs
from suture.groups import GroupSpec, resolve
from suture.tasks import Task, evaluate
from suture.training import Recipe, train
from suture.treatments import STANDARD
from suture.treatments.cost import freeze_all_but

STEPS, BATCH, CLIP = 24, 64, 1.0
BRIEF = Recipe(epochs=1, batch_size=BATCH, lr=0.003, momentum=0.9, weight_decay=0.0)
SURE = 0.9  # share of the best group's gain from which a group counts as well chosen


def gains(
    model: nn.Module,
    chosen: Iterable[Iterable[str]],
    learn: Pairs,
    score: Pairs,
    task: Task,
    seed: int,
    *,
    groups: GroupSpec = "top",
    in_full: bool = False,
) -> list[float]:
    """Accuracy gained on `score`, as a fraction, by a short fine-tuning of some groups on `learn`, for each choice.

    24 steps of 64 examples of SGD, learning rate 0.003, momentum 0.9, gradients clipped to norm 1, all BatchNorms
    in eval mode. Fixed minus broken examples over n, so below 0 where it breaks more than it fixes.

    Args:
        model: never modified.
        chosen: each choice is some names of groups, treated together; none of them gains nothing.
        seed: of the order of the examples.
        in_full: the standard recipe of treatments in place of the 24 steps: 8 epochs, the learning rate on a cosine.
    """
    resolved = resolve(model, groups)
    device = next(model.parameters()).device
    before = evaluate(model, score, task, device=device, name="the oracle's examples").accuracy
    lessons = learn if in_full else Pairs(*learn.read_batch(_order(len(learn), seed).tolist()))
    found = []
    for names in chosen:
        trained = {parameter for name in names for parameter in resolved[name]}
        if not trained:
            found.append(0.0)
            continue
        twin = copy.deepcopy(model)
        freeze_all_but(twin, trained)
        parameters = [parameter for parameter in twin.parameters() if parameter.requires_grad]
        optimizer, schedules = (STANDARD if in_full else BRIEF).build(parameters)
        train(
            twin, lessons, task, optimizer, schedules, epochs=STANDARD.epochs if in_full else 1, batch_size=BATCH,
            seed=seed, device=device, mode=nn.Module.eval, clip=CLIP, description="the oracle",
        )  # fmt: skip
        found.append(evaluate(twin, score, task, device=device, name="the oracle's examples").accuracy - before)
    return found


def consult(model: nn.Module, learn: Pairs, score: Pairs, task: Task, seed: int, *, in_full: bool = False) -> pd.Series:
    """Index group, in model order: what treating each group alone gains."""
    names = list(resolve(model, "top"))
    alone = gains(model, [[name] for name in names], learn, score, task, seed, in_full=in_full)
    return pd.Series(alone, index=names)


def judged(named: Iterable[str], gained: float | None, alone: pd.Series) -> dict[str, float | str | bool | None]:
    """Columns that hold a choice against the oracle.

    `best` is the group with the highest gain, `best_gain` that gain; `gain` is what the choice gains and
    `gain_share` the one over the other, 1 where nothing was lost by the choice and None where no group gains;
    `enough` says whether every group of the choice gains at least 90 % of the best one's, alone.
    """
    names = list(named)
    best = str(alone.idxmax())
    most = float(alone[best])
    gain = None if gained is None or not names else float(gained)
    shares = [float(alone[name]) >= SURE * most for name in names]
    return {
        "best": best,
        "best_gain": most,
        "gain": gain,
        "gain_share": gain / most if most > 0 and gain is not None else None,
        "enough": all(shares) if names and most > 0 else None,
    }


def _order(n: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions of the lessons: each example once before any of them again."""
    generator = np.random.default_rng(seed)
    rounds = [generator.permutation(n) for _ in range(-(-STEPS * BATCH // n))]
    return np.concatenate(rounds)[: STEPS * BATCH]
