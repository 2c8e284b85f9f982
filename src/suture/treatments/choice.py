"""Which candidate is kept: judged on examples that no treatment trains on, by a rule that bounds what may break."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from suture.case import Case
from suture.errors import InvalidArgumentError, NonFiniteError
from suture.splits import Split
from suture.stats import flips, upper_bound
from suture.tasks import batches, forward
from suture.treatments.cost import Cost, forward_flops
from suture.treatments.interpolate import mixed
from suture.treatments.plan import ORIGINAL, Candidate, Choice

COLUMNS = ["candidate", "weight", "fixed", "broken", "net", "bound", "allowed", "score", "ahead"]
NONE = ORIGINAL


def judge_all(candidates: Mapping[str, Candidate], choice: Choice, judge: "Judge") -> pd.DataFrame:
    """A row per candidate, ``none`` first: what it does to the examples of the judge.

    Columns: candidate, weight; fixed, broken, net; bound, the one-sided exact 95 % upper bound on the regression
    rate; allowed, whether it keeps the choice's bound; score, fixed − cost · broken; ahead, by how many standard
    errors of the difference the score exceeds that of the preferred candidate, the first that is allowed and gains.
    """
    return table({name: judge.verdicts(made) for name, made in candidates.items()}, candidates, choice, judge.right)


def table(
    after: Mapping[str, NDArray[np.bool_]],
    candidates: Mapping[str, Candidate],
    choice: Choice,
    right: NDArray[np.bool_],
) -> pd.DataFrame:
    """See `judge_all`.

    Args:
        after, right: (n,) verdicts of every candidate, in order of preference, and of the old network.
    """
    rows, points = [], []
    for name, verdicts in {NONE: right, **after}.items():
        each = flips(right, verdicts)
        bound = upper_bound(each.broken, each.right_before)
        allowed = name == NONE or choice.max_regression is None or bound <= choice.max_regression
        weight = candidates[name].weight if name in candidates else 0.0
        points.append(np.where(right, -choice.broken_costs * ~verdicts, verdicts.astype(float)))
        score = each.fixed - choice.broken_costs * each.broken
        rows.append([name, weight, each.fixed, each.broken, each.net, bound, allowed, score])
    found = pd.DataFrame(rows, columns=COLUMNS[:-1])
    preferred = np.flatnonzero(found["allowed"] & (found["score"] > 0))
    found["ahead"] = [_ahead(each, points[preferred[0]] if len(preferred) else points[0]) for each in points]
    return found


def _ahead(points: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The difference of two sums over the same examples in its standard errors; 0 where no example differs."""
    each = points - others
    spread = float(np.sqrt(len(each)) * each.std())
    return float(each.sum()) / spread if spread else 0.0


def best_of(judged: pd.DataFrame, switch_se: float | None = None) -> str:
    """The allowed candidate with the highest score; ``none`` unless one gains something.

    Args:
        switch_se: of `Choice`: the preferred candidate stays unless another is ahead by more.
    """
    allowed = judged[judged["allowed"].astype(bool)]
    gaining = allowed[allowed["score"] > 0]
    if not len(gaining):
        return NONE
    if switch_se is not None:
        clearly = gaining[gaining["ahead"] > switch_se]
        gaining = clearly if len(clearly) else gaining.iloc[:1]
    return str(gaining["candidate"].iloc[int(np.argmax(gaining["score"].to_numpy(float)))])  # the first of equals


class Judge:
    """Knows what the old network does with a split, and says what candidates do differently.

    Args:
        start: what the candidates' weights count from, where that is not the old network.
    """

    def __init__(self, case: Case, split: Split, old: nn.Module, start: nn.Module | None = None) -> None:
        self._case, self._split, self._old, self._start = case, split, old, old if start is None else start
        self._sure: NDArray[np.float64] | None = None
        self._passes, self._seconds = 0, 0.0
        self.right = self._verdicts(old)

    @property
    def cost(self) -> Cost:
        """What judging took so far."""
        flops = self._passes * forward_flops(self._case, self._split) if self._passes else 0.0
        return Cost(judging_seconds=self._seconds, judging_flops=flops)

    def verdicts(self, made: Candidate) -> NDArray[np.bool_]:
        """(n,) verdicts of a candidate; all wrong for one whose losses are not finite."""
        model = mixed(self._start, made.model, made.weight)
        if made.margin is None:
            try:
                return self._verdicts(model)
            except NonFiniteError:
                return np.zeros_like(self.right)
        if self._sure is None:
            self._sure = self._confidence(self._old)[1]
        right, sure = self._confidence(model)
        return np.where(sure - self._sure > made.margin, right, self.right)

    def _verdicts(self, model: nn.Module) -> NDArray[np.bool_]:
        with self._counted():
            return self._case.outcomes(self._split, model).right

    def _confidence(self, model: nn.Module) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Verdicts and largest probabilities, both (n,)."""
        case, task, model = self._case, self._case.task, model.eval()
        if not hasattr(task, "probabilities"):
            raise InvalidArgumentError(f"route needs probabilities, which {type(task).__name__} does not offer")
        right, sure = [], []
        with self._counted(), torch.inference_mode():
            for batch in batches(self._split, task, case.device, case.batch_size):
                outputs = forward(model, batch, task, f"the examples of '{self._split.name}'")
                right.append(task.verdicts(outputs, batch).cpu())
                sure.append(task.probabilities(outputs, batch).double().flatten(1).amax(1).cpu())
        return torch.cat(right).numpy(), torch.cat(sure).numpy()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        begun = perf_counter()
        try:
            yield
        finally:
            self._passes, self._seconds = self._passes + 1, self._seconds + perf_counter() - begun
