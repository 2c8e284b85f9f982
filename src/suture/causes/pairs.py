"""Confusion pairs: which class is taken for which, and how often chance alone would do so."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROUNDS = 200  # of proportional fitting, which halves its error in each or stops early
CLOSE = 1e-9  # relative


def confusion_pairs(
    targets: NDArray[np.int64], predictions: NDArray[np.int64], right: NDArray[np.bool_]
) -> pd.DataFrame:
    """Errors counted by (target, prediction), most frequent first, ties in label order.

    Args:
        targets, predictions: (n,) labels.
        right: (n,) verdicts.

    Returns:
        Columns target, predicted, count, share (of all errors), expected (`expected_counts`).
    """
    wrong = pd.DataFrame({"target": targets[~right], "predicted": predictions[~right]})
    wrong = wrong[wrong["target"] != wrong["predicted"]]  # a verdict may ask for more than the right class
    counts = wrong.groupby(["target", "predicted"]).size().rename("count").reset_index()
    counts["share"] = counts["count"] / max(len(wrong), 1)
    counts["expected"] = expected_counts(counts)
    order = ["count", "target", "predicted"]
    return counts.sort_values(order, ascending=[False, True, True], ignore_index=True)


def expected_counts(counts: pd.DataFrame) -> NDArray[np.float64]:
    """How often each pair would occur if what an error is taken for did not depend on what it is.

    Quasi-independence (Goodman 1968): as many errors of each class and as many false answers of each as there
    are, and none on the diagonal; fitted by iterative proportional scaling.

    Args:
        counts: columns target, predicted, count; a row per pair that occurs.

    Returns:
        (rows,) expected counts.
    """
    if not len(counts):
        return np.zeros(0)
    labels = np.unique(counts[["target", "predicted"]].to_numpy())
    rows, columns = (np.searchsorted(labels, counts[name].to_numpy()) for name in ("target", "predicted"))
    observed = np.zeros((len(labels), len(labels)))
    np.add.at(observed, (rows, columns), counts["count"].to_numpy(float))
    of_target, of_prediction = observed.sum(1), observed.sum(0)
    fitted = 1.0 - np.eye(len(labels))
    for _ in range(ROUNDS):
        before = fitted
        fitted = fitted * _over(of_target, fitted.sum(1))[:, None]
        fitted = fitted * _over(of_prediction, fitted.sum(0))[None, :]
        if np.allclose(before, fitted, rtol=CLOSE, atol=0):
            break
    return np.asarray(fitted[rows, columns])


def _over(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 0)
