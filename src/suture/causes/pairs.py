"""Confusion pairs: which class is taken for which."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def confusion_pairs(
    targets: NDArray[np.int64], predictions: NDArray[np.int64], right: NDArray[np.bool_]
) -> pd.DataFrame:
    """Errors counted by (target, prediction), most frequent first, ties in label order.

    Args:
        targets, predictions: (n,) labels.
        right: (n,) verdicts.

    Returns:
        Columns target, predicted, count, share (of all errors).
    """
    wrong = pd.DataFrame({"target": targets[~right], "predicted": predictions[~right]})
    counts = wrong.groupby(["target", "predicted"]).size().rename("count").reset_index()
    counts["share"] = counts["count"] / max(len(wrong), 1)
    order = ["count", "target", "predicted"]
    return counts.sort_values(order, ascending=[False, True, True], ignore_index=True)
