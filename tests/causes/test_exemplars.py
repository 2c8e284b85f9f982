"""Exemplars: the ordinary errors and the extreme ones, with and without features."""

import numpy as np
import pytest
import torch
from torch import nn

from suture.case import Case
from suture.causes.exemplars import exemplars, margins_of
from suture.causes.features import penultimate
from suture.causes.margins import Pair
from tests import toys


class Shows(nn.Module):
    """Features are the inputs, and the scores of three classes too."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def case(scores: list[tuple[float, float, float]], task: object = "classification") -> Case:
    return Case(Shows(), diagnose=[(torch.tensor(row), 0) for row in scores], task=task, device="cpu")  # type: ignore[arg-type]


SCORES = [(0.0, float(margin), 0.0) for margin in (1, 2, 3, 4, 5, 6, 20)]


def test_first_those_nearest_to_the_centre_then_those_furthest_over_the_border() -> None:
    found = exemplars(case(SCORES), range(7), Pair(0, 1), each=2)
    # The centre is at 41 / 7 = 5.9: 6 and 5 lie nearest; of the rest, 20 and 4 are the surest errors.
    assert found["kind"].tolist() == ["typical"] * 2 + ["extreme"] * 2
    assert found["margin"].tolist() == [-6, -5, -20, -4]
    assert found["position"].tolist() == [5, 4, 6, 3]


def test_no_error_is_shown_twice_and_few_are_all_shown() -> None:
    found = exemplars(case(SCORES[:3]), range(3), Pair(0, 1))
    assert sorted(found["position"]) == [0, 1, 2]
    assert exemplars(case(SCORES), [6], Pair(0, 1))["position"].tolist() == [6]


def test_a_task_without_scores_of_classes_has_typical_ones_alone_in_their_order() -> None:
    speaker = toys.sequence_case()
    assert np.isnan(margins_of(speaker, [0, 1], Pair(0, 1))).all()
    found = exemplars(speaker, [0, 1], Pair(0, 1))
    assert sorted(found["position"]) == [0, 1]


def test_features_are_the_inputs_of_the_last_linear_layer_or_the_tasks_own() -> None:
    split = case(SCORES).splits["diagnose"]
    assert penultimate(case(SCORES), split) == pytest.approx(np.array(SCORES))

    class Own:
        def outputs(self, model: nn.Module, batch: object) -> torch.Tensor:
            return model(batch[0])  # type: ignore[index,no-any-return]

        def losses(self, outputs: torch.Tensor, batch: object) -> torch.Tensor:
            return outputs.sum(1)

        def verdicts(self, outputs: torch.Tensor, batch: object) -> torch.Tensor:
            return outputs[:, 0] > 0

        def features(self, model: nn.Module, batch: object) -> torch.Tensor:
            return 2 * batch[0]  # type: ignore[index,no-any-return]

    own = case(SCORES, Own())
    assert penultimate(own, own.splits["diagnose"]) == pytest.approx(2 * np.array(SCORES))


def test_a_network_without_a_linear_layer_has_no_features() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten())
    without = Case(model, diagnose=[(torch.randn(1, 4), i % 2) for i in range(6)], device="cpu")
    assert penultimate(without, without.splits["diagnose"]) is None
    shown = exemplars(without, [0, 2, 4], Pair(0, 1))
    assert shown["kind"].unique().tolist() == ["extreme"]
    assert shown["margin"].is_monotonic_increasing


def test_a_last_layer_may_be_called_by_keyword() -> None:
    class Named(Shows):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(input=x)

    named = Case(Named(), diagnose=[(torch.tensor(row), 0) for row in SCORES], device="cpu")
    assert penultimate(named, named.splits["diagnose"]) == pytest.approx(np.array(SCORES))
