"""Which candidate is kept: judged on examples that no treatment trains on, by a rule that bounds what may break."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from suture.case import Case
from suture.errors import InvalidArgumentError, NonFiniteError
from suture.splits import Split
from suture.stats import Flips, flips, upper_bound
from suture.tasks import batches, forward
from suture.treatments.interpolate import mixed
from suture.treatments.plan import Candidate, Choice

COLUMNS = ["candidate", "weight", "fixed", "broken", "net", "bound", "allowed", "score"]
NONE = "none"


def judge_all(candidates: Mapping[str, Candidate], choice: Choice, judge: "Judge") -> pd.DataFrame:
    """A row per candidate, ``none`` first: what it does to the examples of the judge.

    Columns: candidate, weight; fixed, broken, net; bound, the one-sided exact 95 % upper bound on the regression
    rate; allowed, whether it keeps the choice's bound; score, fixed − cost · broken.
    """
    return table({name: judge.moves(made) for name, made in candidates.items()}, candidates, choice, judge.right)


def table(
    moves: Mapping[str, Flips], candidates: Mapping[str, Candidate], choice: Choice, right: NDArray[np.bool_]
) -> pd.DataFrame:
    """See `judge_all`."""
    nothing = Flips(fixed=0, broken=0, both_right=int(right.sum()), both_wrong=int((~right).sum()))
    rows = []
    for name, each in {NONE: nothing, **moves}.items():
        bound = upper_bound(each.broken, each.right_before)
        allowed = name == NONE or choice.max_regression is None or bound <= choice.max_regression
        weight = candidates[name].weight if name in candidates else 0.0
        score = each.fixed - choice.broken_costs * each.broken
        rows.append([name, weight, each.fixed, each.broken, each.net, bound, allowed, score])
    return pd.DataFrame(rows, columns=COLUMNS)


def best_of(judged: pd.DataFrame) -> str:
    """The allowed candidate with the highest score; ``none`` unless one gains something."""
    allowed = judged[judged["allowed"].astype(bool)]
    best = int(np.argmax(allowed["score"].to_numpy(float)))  # the first of equals, and none comes first
    return str(allowed["candidate"].iloc[best])


class Judge:
    """Knows what the old network does with a split, and says what candidates do differently.

    Args:
        start: what the candidates' weights count from, where that is not the old network.
    """

    def __init__(self, case: Case, split: Split, old: nn.Module, start: nn.Module | None = None) -> None:
        self._case, self._split, self._old, self._start = case, split, old, old if start is None else start
        self._sure: NDArray[np.float64] | None = None
        self.right = self._verdicts(old)

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

    def moves(self, made: Candidate) -> Flips:
        """What it fixed and broke."""
        return flips(self.right, self.verdicts(made))

    def _verdicts(self, model: nn.Module) -> NDArray[np.bool_]:
        return self._case.outcomes(self._split, model).right

    def _confidence(self, model: nn.Module) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Verdicts and largest probabilities, both (n,)."""
        case, task, model = self._case, self._case.task, model.eval()
        if not hasattr(task, "probabilities"):
            raise InvalidArgumentError(f"route needs probabilities, which {type(task).__name__} does not offer")
        right, sure = [], []
        with torch.inference_mode():
            for batch in batches(self._split, task, case.device, case.batch_size):
                outputs = forward(model, batch, task, f"the examples of '{self._split.name}'")
                right.append(task.verdicts(outputs, batch).cpu())
                sure.append(task.probabilities(outputs, batch).double().flatten(1).amax(1).cpu())
        return torch.cat(right).numpy(), torch.cat(sure).numpy()
