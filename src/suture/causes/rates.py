"""How often the network is wrong in a part of the data, beside the rest of it."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from suture.stats import wilson

RATES = ["n", "errors", "rate", "low", "high", "rate_outside"]


def error_rates(inside: NDArray[np.bool_], right: NDArray[np.bool_]) -> list[float]:
    """The columns `RATES` of a part (n,) that holds something and not all, with Wilson's 95 % interval of its rate."""
    n, errors = int(inside.sum()), int((~right & inside).sum())
    interval = wilson(errors, n)
    return [n, errors, errors / n, interval.low, interval.high, float((~right[~inside]).mean())]


def p_more_wrong(inside: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    """One-sided p of Fisher's exact test: are there more errors inside than outside?"""
    counts = np.array([[(part & ~right).sum(), (part & right).sum()] for part in (inside, ~inside)])
    return float(fisher_exact(counts, alternative="greater").pvalue)
