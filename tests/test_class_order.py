"""Labels that are not the network's: said, where they are, and not of networks that are merely bad."""

from dataclasses import replace

import numpy as np
import pytest

from suture.case import Case
from suture.class_order import doubts, permuted
from suture.stages.localize import localize
from suture.tasks import Outcomes
from suture.views.localize_tables import warnings
from tests import toys


def outcomes(confusion: list[list[int]]) -> Outcomes:
    """Of a confusion matrix, true × predicted."""
    pairs = [(t, p) for t, row in enumerate(confusion) for p, n in enumerate(row) for _ in range(n)]
    targets, predictions = np.array(pairs).T
    right = targets == predictions
    return replace(
        toys.case().outcomes("verify"), right=right, losses=1.0 - right, targets=targets, predictions=predictions
    )


@pytest.fixture(scope="module")
def named() -> Case:
    return toys.case(classes=["1", "10", "2"])


@pytest.mark.parametrize(
    ("confusion", "word"),
    [
        (
            [[0, 9, 1], [9, 1, 0], [0, 1, 9]],
            "2 classes are taken for one other class each ('1' for '10', '10' ",
        ),
        ([[1, 9, 0], [0, 1, 9], [9, 0, 1]], "3 classes are taken for one other class each"),
        ([[9, 1, 0], [1, 9, 0], [0, 1, 9]], None),
        ([[9, 1, 0], [9, 1, 0], [9, 0, 1]], None),  # it always says the same
        ([[0, 9, 1], [0, 9, 1], [0, 1, 9]], None),  # one class is taken for another
        ([[4, 3, 3], [3, 4, 3], [3, 3, 4]], None),
        ([[1, 5, 4], [5, 1, 4], [0, 1, 9]], None),  # no more than half
        ([[0, 9, 0, 0, 0, 0], [0, 0, 9, 0, 0, 0], *[[2, 2, 2, 2, 2, 2]] * 4], None),  # two of six, in no circle
    ],
    ids=["swapped", "turned", "right", "stuck", "one confusion", "guessing", "half", "few"],
)
def test_permuted_labels(named: Case, confusion: list[list[int]], word: str | None) -> None:
    found = permuted(named, outcomes(confusion))
    assert len(found) == (word is not None)
    if word:
        assert word in found[0]
        assert found[0].endswith("(folders are sorted by name: 1, 10, 2, …; --classes gives the network's order)")


def test_random_networks_are_not_said_to_have_permuted_labels() -> None:
    """Ten classes at chance: fewer than 1 false alarm in 500."""
    generator = np.random.default_rng(0)
    case = toys.case()
    for _ in range(500):
        assert permuted(case, outcomes(generator.multinomial(10, np.full(10, 0.1), size=10).tolist())) == []


def test_every_stage_says_so_before_anything_else() -> None:
    turned = [(x, (y + 1) % 3) for x, y in toys.data()]
    case = Case(toys.network(), turned)
    localization = localize(case)
    assert ["permuted" in text for text in localization.warnings] == [True]
    assert warnings(localization)[0].startswith("The labels look permuted")
    assert not any("--mean" in text for text in warnings(localization))
    assert doubts(toys.case(), "verify", toys.case().outcomes("verify")) == []
