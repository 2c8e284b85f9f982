"""Swaps on networks that read one feature: that feature stands out, and nothing does where nothing differs."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suture.bench.scenes import FAMILIES, FORMAT, World, render
from suture.case import Case
from suture.causes import find_causes
from suture.causes.margins import Pair
from suture.causes.swaps import COLUMNS, DONORS, swap_features
from tests.causes import scenes

WORLD = World(
    shape=("disc", "bar"), texture=("plain", "checks"), colour=(0.0, 3.1), background=("night", "fog"), period=4.0,
    contrast=0.22,
)  # fmt: skip
N = 40


class Nearest(nn.Module):
    """Says which of two sets of examples a summary of a picture is nearer to; what the summary sees is known."""

    def __init__(self, family: str) -> None:
        super().__init__()
        self.family = family
        self.weight = nn.Parameter(torch.ones(1))
        kinds = torch.zeros(2 * N, 4, dtype=torch.long)
        kinds[N:] = 1
        seen = self.summary(render(WORLD, kinds, 77))
        self.centre = (seen[:N].mean(0) + seen[N:].mean(0)) / 2
        self.axis = seen[N:].mean(0) - seen[:N].mean(0)

    def summary(self, pictures: Tensor) -> Tensor:
        middle = pictures[:, :, 12:20, 12:20]
        if self.family == "colour":
            return (middle[:, 0] - middle[:, 2]).mean((1, 2))[:, None]
        if self.family == "background":
            return pictures[:, :, :3].mean((1, 2, 3))[:, None]
        if self.family == "texture":
            return middle.mean(1).std((1, 2))[:, None]
        return scenes.uprightness(pictures)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        seen = self.summary(x * 0.25 + 0.5)
        score = 10 * ((seen - self.centre) * self.axis).sum(1) / self.axis.square().sum()
        return self.weight * torch.stack([-score, score], 1)


def case_of(family: str, seed: int = 0) -> tuple[Case, list[int]]:
    """Right pictures of two classes, then twenty of the first that have one feature of the second."""
    labels = torch.tensor([0] * N + [1] * N + [0] * 20)
    kinds = torch.randint(2, (len(labels), 4), generator=torch.Generator().manual_seed(seed))
    column = FAMILIES.index(family)
    kinds[:, column] = labels
    kinds[2 * N :, column] = 1
    inputs = (render(WORLD, kinds, seed) - 0.5) / 0.25
    case = Case(
        Nearest(family), diagnose=list(zip(inputs, labels.tolist(), strict=True)), image=FORMAT, device="cpu", seed=seed
    )
    right = case.outcomes("diagnose").right
    return case, [i for i in range(2 * N, len(labels)) if not right[i]]


@pytest.mark.parametrize("family", ["texture", "colour", "background"])
def test_the_feature_that_the_network_reads_stands_out_alone(family: str) -> None:
    case, errors = case_of(family)
    assert len(errors) >= 10
    found = find_causes(case, errors, 0, 1)
    assert found.family == family, found.swaps
    assert found.swaps.index[found.swaps["stands_out"].astype(bool)].tolist() == [family]
    row = found.swaps.loc[family]
    assert 0 < row["low"] < row["excess"] < row["high"]
    assert row["excess"] == pytest.approx(row["change"] - row["chance"])
    assert row["share"] > 0.5
    assert row["n_true"] <= DONORS
    assert found.probes.loc[found.cause, "family"] == family


def test_right_pictures_by_lot_have_no_cause() -> None:
    # 30 draws; with alarms in 2.5 % of them, four or more have p = 0.006.
    case, _ = case_of("colour")
    members = [i for i in range(N) if case.outcomes("diagnose").right[i]]
    alarms = 0
    for seed in range(30):
        order = np.random.default_rng(seed).permutation(members)
        found = swap_features(case, order[:15], order[15:], Pair(0, 1))
        assert list(found.columns) == COLUMNS
        alarms += bool(found["stands_out"].any())
    assert alarms <= 3


def test_only_families_that_were_asked_for_are_swapped() -> None:
    case, errors = case_of("colour")
    found = swap_features(case, errors, range(N), Pair(0, 1), families={"shape", "background"})
    assert list(found.index) == ["shape", "background"]
    assert list(find_causes(case, errors, 0, 1, probes=["blur"]).swaps.index) == ["texture"]


def test_pictures_without_objects_are_left_to_the_probes() -> None:
    case, errors = scenes.case(*scenes.SCENES["texture"], seed=5, errors=10)
    found = find_causes(case, errors, 0, 1)
    assert found.swaps.empty
    assert list(found.swaps.columns) == COLUMNS
    assert found.family == "texture"


def test_donors_are_the_sample_as_an_oracle_counts_them() -> None:
    from scipy import stats

    from suture.causes.swaps import _row

    rng = np.random.default_rng(0)
    true, errors = rng.normal(2, 1, 9), rng.normal(0, 2, 6)
    row = dict(zip(COLUMNS, _row(true, errors, 4.0), strict=False))
    welch = stats.ttest_ind(true, errors, equal_var=False)
    assert row["excess"] == pytest.approx(true.mean() - errors.mean())
    assert row["p"] == pytest.approx(2 * stats.t.sf(welch.statistic, 5))
    assert row["share"] == pytest.approx(row["excess"] / 4)
    same = dict(zip(COLUMNS, _row(np.ones(3), np.ones(3), 4.0), strict=False))
    assert (same["p"], same["excess"]) == (1, 0)
