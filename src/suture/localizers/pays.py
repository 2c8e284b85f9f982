"""Where treating pays: what a short treatment of each group alone gains on examples it did not train on."""

import pandas as pd

from suture.localizers.evidence import Evidence

GAIN = ["gain", "low", "high"]


def estimate(evidence: Evidence) -> pd.DataFrame:
    """Index group; columns gain, low, high: the held-out gain of treating it, with a 95 % interval."""
    return pd.DataFrame(float("nan"), index=list(evidence.groups), columns=GAIN)
