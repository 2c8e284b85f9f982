"""Evidence: what localizers read. Everything in it is measured when it is first asked for, and once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from suture.case import Case
from suture.gradients import group_norms
from suture.localizers.nulls import matched
from suture.localizers.sample import Sample, measure
from suture.splits import Split


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about a model's errors on `diagnose`.

    Attributes:
        case: data, task, groups, and a healthy reference where there is one.
        model: the one that is looked at: the case's, or a twin of it for a null.
        right: (n,) verdicts of the case's model on `diagnose`.
        wrong_at: positions of the examples that are taken for errors: the errors, or correct ones for a null.
        correct_at: positions of as many correct examples, none of them in `wrong_at`.
        max_memory: bytes; see `suture.localizers.measure`.
    """

    case: Case
    model: nn.Module
    right: NDArray[np.bool_]
    wrong_at: NDArray[np.int64]
    correct_at: NDArray[np.int64]
    max_memory: int | None = None
    _samples: dict[bytes, Sample] = field(default_factory=dict, repr=False)  # by positions; shared with the null

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Group → parameter names, in model order."""
        return self.case.groups

    @property
    def examples(self) -> Split:
        """All n examples of `diagnose`."""
        return self.case.splits["diagnose"]

    @cached_property
    def errors(self) -> Sample:
        """Gradients of the errors."""
        return self._measured(self.wrong_at, "gradients of the errors")

    @cached_property
    def correct(self) -> Sample:
        """Gradients of as many correct examples."""
        return self._measured(self.correct_at, "gradients of correct examples")

    @cached_property
    def weight_norm(self) -> pd.Series:
        """‖θ_g‖ per group."""
        return pd.Series(group_norms({n: p.detach() for n, p in self.model.named_parameters()}, self.groups))

    @cached_property
    def size(self) -> pd.Series:
        """How many parameters each group has."""
        numel = {name: p.numel() for name, p in self.model.named_parameters()}
        return pd.Series({group: sum(numel[n] for n in names) for group, names in self.groups.items()})

    @cached_property
    def halves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of two halves of `diagnose`, drawn by the case's seed with as many errors in each, in no order.

        What is chosen on one half is judged on the other.
        """
        generator = np.random.default_rng(self.case.seed)
        first, second = [], []
        for members in (np.flatnonzero(~self.right), np.flatnonzero(self.right)):
            drawn = generator.permutation(members)
            first.append(drawn[: -(-len(drawn) // 2)])
            second.append(drawn[-(-len(drawn) // 2) :])
        return generator.permutation(np.concatenate(first)), generator.permutation(np.concatenate(second))

    def of(self, model: nn.Module) -> "Evidence":
        """The same examples, another model: for the nulls."""
        return replace(self, model=model, _samples={})

    def resampled(self, generator: np.random.Generator) -> "Evidence":
        """A bootstrap replicate of the gradients; what else was measured is shared."""
        twin = replace(self)
        twin.__dict__.update(self.__dict__)  # what a cached_property has measured
        twin.__dict__["errors"] = self.errors.resampled(generator)
        if "correct" in self.__dict__:
            twin.__dict__["correct"] = self.correct.resampled(generator)
        return twin

    def _only(self, positions: NDArray[np.int64]) -> Split:
        return self.examples.only(positions.tolist())

    def _measured(self, positions: NDArray[np.int64], what: str) -> Sample:
        key = positions.tobytes()
        if key not in self._samples:
            self._samples[key] = measure(
                self.model,
                self._only(positions),
                self.case.task,
                self.groups,
                device=self.case.device,
                batch_size=self.case.batch_size,
                max_memory=self.max_memory,
                description=what,
            )
        return self._samples[key]


def gather(case: Case, right: NDArray[np.bool_], max_memory: int | None = None) -> tuple[Evidence, Evidence]:
    """Evidence on the errors of a case, and its null: correct examples in the place of the errors.

    The null is compared with other correct examples, so that nothing but chance sets its two sides apart. Where
    there are fewer correct examples than that takes, both get what there is.

    Args:
        right: (n,) verdicts on `diagnose`.
    """
    wrong, correct = np.flatnonzero(~right), np.flatnonzero(right)
    drawn = matched(correct, min(2 * len(wrong), len(correct)), case.seed)
    drawn = np.random.default_rng(case.seed).permutation(drawn)
    half = min(len(wrong), -(-len(drawn) // 2))
    first, second = np.sort(drawn[:half]), np.sort(drawn[half:])
    errors = Evidence(case, case.model, right, wrong, first, max_memory)
    return errors, replace(errors, wrong_at=first, correct_at=second)
