"""Who gets what wrong, against counting by hand."""

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import suture
from suture.errors import InvalidArgumentError
from suture.stats import holm, mcnemar


class Says(nn.Module):
    """A model whose answers are written down: input i gets label answers[i]."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__()
        self.table = nn.Parameter(nn.functional.one_hot(torch.tensor(answers), 3).float())

    def forward(self, x: Tensor) -> Tensor:
        return self.table[x.long()]


def data(n: int) -> list[tuple[Tensor, int]]:
    return [(torch.tensor(i), 0) for i in range(n)]


verdicts = st.integers(2, 4).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 2), min_size=k, max_size=k), min_size=1, max_size=40)
)


@given(verdicts)
def test_categories_patterns_and_pairs_are_counts(rows: list[list[int]]) -> None:
    names = ["a", "b", "c", "d"][: len(rows[0])]
    answers = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    found = suture.compare({name: Says(said) for name, said in answers.items()}, data(len(rows)))
    wrong = {name: [a != 0 for a in said] for name, said in answers.items()}
    counts = dict(zip(found.categories["category"], found.categories["count"], strict=True))
    assert counts["all wrong"] == sum(all(wrong[n][i] for n in names) for i in range(len(rows)))
    assert counts["all right"] == sum(not any(wrong[n][i] for n in names) for i in range(len(rows)))
    for x in names:
        others = [n for n in names if n != x]
        alone = [wrong[x][i] and not any(wrong[n][i] for n in others) for i in range(len(rows))]
        assert counts[f"only {x} wrong"] == sum(alone)
    for x, y in permutations(names, 2):
        assert counts[f"{x} right, {y} wrong"] == sum(b and not a for a, b in zip(wrong[x], wrong[y], strict=True))
    assert found.patterns["count"].sum() == found.n == len(rows)
    for pair in found.pairs.itertuples():
        assert pair.both_wrong == sum(a and b for a, b in zip(wrong[pair.a], wrong[pair.b], strict=True))
        assert pair.p_value == pytest.approx(mcnemar(pair.only_a_wrong, pair.only_b_wrong))
        assert pair.disagreement == pytest.approx(np.mean(np.array(answers[pair.a]) != np.array(answers[pair.b])))


def test_overlap_is_measured_against_chance() -> None:
    same = [1] * 20 + [0] * 80
    apart = [0] * 50 + [1] * 20 + [0] * 30
    found = suture.compare({"a": Says(same), "b": Says(same), "c": Says(apart)}, data(100)).pairs.set_index(["a", "b"])
    assert found.loc[("a", "b"), "both_expected"] == pytest.approx(4)
    assert found.loc[("a", "b"), "overlap"] == pytest.approx(5)
    assert found.loc[("a", "b"), "p_overlap"] < 1e-15
    assert found.loc[("a", "c"), "overlap"] == 0
    assert found.loc[("a", "c"), "p_overlap"] == pytest.approx(1)


def test_independent_errors_overlap_as_chance_says() -> None:
    # Level 5 %: 200 pairs of independent models; more than 18 alarms in fewer than one run of 100.
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        a, b = (Says(list((rng.random(60) < 0.3).astype(int))) for _ in range(2))
        alarms += float(suture.compare({"a": a, "b": b}, data(60)).pairs["p_overlap"][0]) < 0.05
    assert alarms <= 18


def test_models_that_are_never_wrong_and_models_alone() -> None:
    found = suture.compare({"a": Says([0] * 5), "b": Says([0] * 5)}, data(5))
    assert np.isnan(found.pairs["overlap"][0])
    assert found.pairs["p_value"][0] == 1
    assert found.plot().get_figure() is not None
    with pytest.raises(InvalidArgumentError, match="two models or more"):
        suture.compare({"a": Says([0])}, data(1))


def test_a_comparison_survives_the_disk_and_can_be_shown(tmp_path: Path) -> None:
    found = suture.compare({"a": Says([0, 1, 2]), "<b>": Says([1, 0, 2])}, data(3))
    found.save(tmp_path)
    assert suture.Comparison.load(tmp_path).to_dict() == found.to_dict()
    assert "<b>" not in found._repr_html_()
    assert found.table().row_count == 4


def permuted(values: list[float]) -> Iterator[tuple[list[float], list[int]]]:
    for order in permutations(range(len(values))):
        yield [values[i] for i in order], list(order)


def test_holm_does_not_depend_on_order_and_rejects_step_by_step() -> None:
    values, adjusted = [0.01, 0.04, 0.03], [0.03, 0.06, 0.06]
    for shuffled, order in permuted(values):
        assert holm(np.array(shuffled)) == pytest.approx([adjusted[i] for i in order])
