"""Where treating pays: what a brief treatment of each group alone gains on examples it did not train on.

Treating every group in full is the true answer and costs a training each (``suture study bench/natural`` does so).
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.localizers.brief import treat_briefly
from suture.localizers.evidence import Evidence
from suture.localizers.network import judged_at, trainable, twin

GAIN = ["gain", "low", "high"]
STEPS = 5  # of 50 examples: twice as many tell the groups apart no better, for twice the price
RESAMPLES = 1000


def estimate(evidence: Evidence) -> pd.DataFrame:
    """How much a brief treatment of each group alone lowers held-out loss.

    Trained on one half of `diagnose`, everything in eval mode, Adam at 0.7 % of a tensor's rms per step; judged on
    the other half. A gain is the fall of the mean of log(1 + loss): the logarithm keeps a few confident errors, which
    a network that is merely less sure loses less on, from deciding. Intervals are bootstrap intervals over the
    held-out examples.

    Cost: for every group 250 examples forward and backward, and half of `diagnose` forward.

    Returns:
        Index group (model order); columns gain, low, high (95 %); NaN where there is nothing to train or judge on,
        training broke down, or losses have no logarithm.
    """
    groups, held_out = list(evidence.groups), evidence.halves[1]
    if not len(evidence.halves[0]) or not len(held_out) or not trainable(twin(evidence)):
        return pd.DataFrame(np.nan, index=groups, columns=GAIN)
    before = judged_at(evidence, held_out, twin(evidence))
    treated = [treat_briefly(evidence, group, steps=STEPS, before=before) for group in groups]
    rows = [
        (np.nan,) * 3 if each.stopped else fall(before.losses, each.after.losses, evidence.case.seed)
        for each in treated
    ]
    return pd.DataFrame(rows, index=groups, columns=GAIN)


def fall(before: NDArray[np.float64], after: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """Mean fall of log(1 + loss) over (k,) examples, and the ends of its 95 % bootstrap interval."""
    with np.errstate(divide="ignore", invalid="ignore"):  # losses of one's own may be below -1
        each = np.log1p(before) - np.log1p(after)
    if not len(each) or not np.isfinite(each).all():
        return float("nan"), float("nan"), float("nan")
    sample = np.random.default_rng(seed).integers(len(each), size=(RESAMPLES, len(each)))
    low, high = np.quantile(each[sample].mean(1), [0.025, 0.975])
    return float(each.mean()), float(low), float(high)
