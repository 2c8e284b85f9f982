"""Confusion pairs: which class is taken for which, and how often chance alone would do so."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom

from suture.stats import holm

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
        Columns target, predicted, count, share (of all errors), expected (`expected_counts`), p_chance
        (`more_than_expected`).
    """
    wrong = pd.DataFrame({"target": targets[~right], "predicted": predictions[~right]})
    wrong = wrong[wrong["target"] != wrong["predicted"]]  # a verdict may ask for more than the right class
    counts = wrong.groupby(["target", "predicted"]).size().rename("count").reset_index()
    counts["share"] = counts["count"] / max(len(wrong), 1)
    counts["expected"] = expected_counts(counts)
    counts["p_chance"] = more_than_expected(counts)
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


def more_than_expected(counts: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of as many or more errors of a pair by chance, corrected by Holm over all pairs of these classes.

    The errors of a class are taken to fall on a pair independently, with the probability that its expected count
    gives (binomial). In truth the false answers of each class are given too, which leaves chance less room: p is
    rather too large.

    Args:
        counts: columns target, predicted, count, expected; a row per pair that occurs.

    Returns:
        (rows,) corrected p.
    """
    if not len(counts):
        return np.zeros(0)
    of_class = counts.groupby("target")["count"].transform("sum").to_numpy(float)
    chance = np.clip(counts["expected"].to_numpy(float) / of_class, 0, 1)
    p: NDArray[np.float64] = np.asarray(binom.sf(counts["count"].to_numpy(float) - 1, of_class, chance))
    cells = len(set(counts["target"])) * len(set(counts["predicted"]))  # those that do not occur are looks too
    return holm(np.concatenate([p, np.ones(max(cells - len(p), 0))]))[: len(p)]


def _over(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 0)
