"""Where treating pays: what each group's own part of a brief training gains on examples it did not train on.

Treating every group on its own and in full is the true answer and costs a training each (the localizer ``probe`` is a
short form of it). Here all groups are trained together, briefly, and each group's change is then tried alone.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from suture.localizers.brief import depends, train_briefly
from suture.localizers.evidence import Evidence
from suture.localizers.network import losses_at, trainable, twin

GAIN = ["gain", "low", "high"]
LR = 0.003  # of a tensor's rms per step; all groups move at once, so less than when one does
JUDGED = 300  # held-out examples
RESAMPLES = 1000


def estimate(evidence: Evidence) -> pd.DataFrame:
    """How much each group's part of a brief training lowers held-out loss.

    Trained on one half of `diagnose`, everything in eval mode, Adam at 0.3 % of a tensor's rms per step; judged on
    at most 300 examples of the other half. A gain is the fall of the mean of log(1 + loss): the logarithm keeps a
    few confident errors, which a network that is merely less sure loses less on, from deciding. Intervals are
    bootstrap intervals over the held-out examples.

    Cost: 500 examples forward and backward, and 300 forward for every group.

    Returns:
        Index group (model order); columns gain, low, high (95 %); NaN where there is nothing to train or judge on,
        training broke down, or losses have no logarithm.
    """
    trained, held_out = evidence.halves[0], evidence.halves[1][:JUDGED]
    groups = list(evidence.groups)
    unknown = pd.DataFrame(np.nan, index=groups, columns=GAIN)
    model = twin(evidence)
    parameters = trainable(model)
    if not len(trained) or not len(held_out) or not parameters or not depends(evidence, model, trained):
        return unknown
    before = losses_at(evidence, held_out, model)
    if train_briefly(evidence, model, parameters, trained, lr=LR, description="where treating pays"):
        return unknown
    changed = {name: p.detach() for name, p in model.named_parameters()}
    rows = [fall(before, _alone(evidence, changed, group, held_out), evidence.case.seed) for group in groups]
    return pd.DataFrame(rows, index=groups, columns=GAIN)


def _alone(
    evidence: Evidence, changed: dict[str, torch.Tensor], group: str, held_out: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Losses when only one group has its trained values."""
    model = twin(evidence)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in evidence.groups[group]:
            parameters[name].copy_(changed[name])
    return losses_at(evidence, held_out, model)


def fall(before: NDArray[np.float64], after: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """Mean fall of log(1 + loss) over (k,) examples, and the ends of its 95 % bootstrap interval."""
    with np.errstate(divide="ignore", invalid="ignore"):  # losses of one's own may be below -1
        each = np.log1p(before) - np.log1p(after)
    if not len(each) or not np.isfinite(each).all():
        return float("nan"), float("nan"), float("nan")
    sample = np.random.default_rng(seed).integers(len(each), size=(RESAMPLES, len(each)))
    low, high = np.quantile(each[sample].mean(1), [0.025, 0.975])
    return float(each.mean()), float(low), float(high)
