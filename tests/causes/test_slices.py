"""Slices: none where there are none, the planted one where there is one, and a reason wherever nothing is found."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from suture.case import Case
from suture.causes import slices
from suture.causes.metadata import over_represented, subgroups
from suture.causes.probes import chosen
from suture.causes.slice_probes import loss_changes, probe_response
from suture.causes.slices import COLUMNS, CONFUSIONS, LEAST_ERRORS, Slices, find_slices, slices_of
from suture.errors import DataError, NonFiniteError
from suture.tasks import Outcomes
from tests import toys
from tests.causes import scenes

CLASSES, WIDTH = 5, 32
CENTRES = 2 * np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
DARKER = np.random.default_rng(98).normal(size=WIDTH)


def drawn(
    seed: int, n: int = 600, *, rate: float = 0.12, planted: float = 0.0
) -> tuple[NDArray[np.float64], Outcomes, NDArray[np.bool_]]:
    """Features of five classes, and who is wrong; a tenth of all is dark.

    Args:
        rate: of errors.
        planted: how far dark examples lie from the others; if at all, six of ten of them are wrong.
    """
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, CLASSES, n)
    features = CENTRES[targets] + rng.normal(size=(n, WIDTH))
    dark = rng.random(n) < 0.1
    features[dark] += planted * DARKER
    wrong = rng.random(n) < np.where(dark & (planted > 0), 0.6, rate)
    predictions = np.where(wrong, (targets + rng.integers(1, CLASSES, n)) % CLASSES, targets)
    return features, Outcomes(~wrong, np.ones(n), predictions, targets), dark


def outcomes(right: NDArray[np.bool_]) -> Outcomes:
    return Outcomes(right, np.ones(len(right)), None, None)


def every_member(found: Slices) -> list[int]:
    return sorted(i for members in found.members.values() for i in members)


def test_without_structure_a_slice_is_found_in_at_most_one_case_of_twenty() -> None:
    """Errors fall anywhere; at a true rate of 5 % or less."""
    found = [len(find_slices(*drawn(seed)[:2], seed=seed).table) > 0 for seed in range(200)]
    assert np.mean(found) <= 0.05


def test_a_planted_slice_is_found_and_holds_little_else() -> None:
    hits, share, of_all = 0, [], []
    for seed in range(10):
        features, what, dark = drawn(seed, 1000, planted=3.0)
        found = find_slices(features, what, seed=seed)
        members = every_member(found)
        hits += len(found.table) > 0
        if members:
            share.append(dark[members].mean())
            of_all.append(dark[members].sum() / dark.sum())
    assert hits >= 8  # measured 19 of 20
    assert np.mean(share) >= 0.9
    assert np.mean(of_all) >= 0.4


@pytest.fixture(scope="module")
def planted() -> tuple[Slices, Outcomes, NDArray[np.bool_]]:
    features, what, dark = drawn(3, 2000, planted=3.0)
    light = ["dark" if each else "light" for each in dark]
    columns = {"light": light, "camera": ["a", "b"] * 1000, "file": [f"{i}.png" for i in range(2000)]}
    return find_slices(features, what, metadata=columns, class_name="abcde".__getitem__), what, dark


def test_a_slice_is_described_on_the_half_that_confirmed_it(planted: Any) -> None:
    found, what, dark = planted
    assert not found.why_not
    assert list(found.table.columns) == COLUMNS
    assert found.n_errors == (~what.right).sum()
    assert found.tried >= len(found.table)
    for row in found.table.to_dict("records"):
        members, errors = found.members[row["slice"]], found.errors[row["slice"]]
        assert set(errors) == {i for i in members if not what.right[i]}
        assert set(found.exemplars[row["slice"]]) <= set(errors)
        assert 0 < row["n"] < len(members)
        assert 0 < row["errors"] < len(errors)
        assert row["low"] <= row["rate"] == row["errors"] / row["n"] <= row["high"]
        assert row["rate"] > row["rate_outside"]
        assert row["p"] < 0.05
        assert dark[members].mean() > 0.8
        own = found.confusions[found.confusions["slice"] == row["slice"]]
        assert own["count"].sum() == row["errors"]
        first = own.iloc[0]
        assert row["classes"].startswith(f"{first['true']} → {first['predicted']} ({first['count']})")
    assert list(found.confusions.columns) == CONFUSIONS
    assert found.table["errors"].is_monotonic_decreasing


def test_members_of_two_slices_are_different(planted: Any) -> None:
    every = every_member(planted[0])
    assert len(every) == len(set(every))


def test_what_sets_a_slice_apart_is_named_and_nothing_else(planted: Any) -> None:
    found = planted[0]
    assert set(found.metadata["column"]) == {"light"}
    assert set(found.metadata["value"]) == {"dark"}
    assert set(found.metadata["slice"]) == set(found.table["slice"])
    row = found.metadata.iloc[0]
    assert row["text"].startswith(f"{row['count']} of {row['n']} have light = dark, against ")
    assert row["text"].endswith("% elsewhere")


def test_the_same_seed_finds_the_same() -> None:
    features, what, _ = drawn(1, 1000, planted=3.0)
    one, other = (find_slices(features, what, seed=7) for _ in range(2))
    assert one.members == other.members
    pd.testing.assert_frame_equal(one.table, other.table)


def test_copies_confirm_nothing() -> None:
    """Two pictures that are wrong, each there twenty times: spread over both halves they look like slices."""
    features, what, _ = drawn(0, 600, rate=0.05)
    copied = np.repeat(np.random.default_rng(0).normal(size=(2, WIDTH)) * 4, 20, axis=0)
    every, right = np.concatenate([features, copied]), np.concatenate([what.right, np.zeros(40, bool)])
    hashes = [str(i) for i in range(600)] + [f"copy {i // 20}" for i in range(40)]
    assert max(every_member(find_slices(every, outcomes(right)))) >= 600
    assert max(every_member(find_slices(every, outcomes(right), hashes=hashes)), default=0) < 600


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (np.ones(200, bool), f"no errors on 'diagnose', and {LEAST_ERRORS} are the fewest"),
        (np.arange(200) >= 1, "1 error on"),
        (np.arange(200) >= LEAST_ERRORS - 1, "19 errors on"),
        (np.zeros(200, bool), "wrong on all of 'diagnose'"),
    ],
    ids=["all right", "one wrong", "few wrong", "all wrong"],
)
def test_with_nothing_to_compare_it_says_why(right: NDArray[np.bool_], said: str) -> None:
    found = find_slices(np.random.default_rng(0).normal(size=(200, 4)), outcomes(right))
    assert said in found.why_not
    assert list(found.table.columns) == COLUMNS
    assert found.table.empty
    assert found.confusions.empty
    assert found.metadata.empty
    assert found.members == found.exemplars == found.errors == {}


@pytest.mark.parametrize(
    "features",
    [np.zeros((400, 6)), np.ones((400, 1)), np.zeros((400, 0)), np.arange(400.0)[:, None], np.full((400, 3), 1e38)],
    ids=["all alike", "one constant", "none", "a line", "huge"],
)
def test_odd_features_are_no_reason_to_fail(features: NDArray[np.float64]) -> None:
    right = np.random.default_rng(2).random(400) > 0.2
    found = find_slices(features, outcomes(right))
    assert found.table.empty
    assert found.why_not


def test_a_thousand_classes() -> None:
    rng = np.random.default_rng(0)
    targets = np.tile(np.arange(1000), 2)
    right = rng.random(2000) > 0.1
    what = Outcomes(right, np.ones(2000), np.where(right, targets, (targets + 1) % 1000), targets)
    found = find_slices(rng.normal(size=(2000, 64)), what)
    assert found.n_errors == (~right).sum()


def test_features_that_are_not_finite_are_refused() -> None:
    features = np.zeros((50, 3))
    features[7, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"features of 1 of 50 .* \(the first is example 7\)"):
        find_slices(features, outcomes(np.arange(50) > 25))
    with pytest.raises(DataError, match=r"\(50, 3\) do not go with 40 examples"):
        find_slices(np.zeros((50, 3)), outcomes(np.arange(40) > 25))


def test_a_case_gives_features_and_metadata_by_itself() -> None:
    found = slices_of(toys.case())
    assert found.n_errors == len(toys.case().outcomes("diagnose").errors)
    assert found.why_not or len(found.table)


def test_a_task_without_labels_has_slices_too() -> None:
    found = slices_of(toys.sequence_case())
    assert found.confusions.empty
    assert (found.table["classes"] == "").all()


def test_a_network_without_features_says_so() -> None:
    convolutions = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 1), torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten())
    data = [(torch.randn(1, 4, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(300)]
    found = slices_of(Case(convolutions, data))
    assert "no last linear layer" in found.why_not


def test_numbers_are_cut_into_quarters_and_gaps_have_a_name() -> None:
    inside = {"slice 1": np.arange(200) >= 150}
    found = over_represented({"light": np.arange(200.0), "iso": [100] * 150 + [None] * 50, "id": range(200)}, inside)
    assert found[found["column"] == "light"]["value"].tolist() == ["149.25 to 199"]
    assert found[found["column"] == "iso"]["value"].tolist() == ["missing"]
    row = found[found["column"] == "iso"].iloc[0]
    assert (row["count"], row["n"], row["share_outside"]) == (50, 50, 0.0)
    assert row["text"] == "50 of 50 have iso = missing, against 0 % elsewhere"
    p = fisher_exact([[50, 0], [0, 150]], alternative="greater").pvalue
    assert p <= row["p"] <= 200 * p


def test_values_that_nobody_or_everybody_has_are_not_counted() -> None:
    inside = {"slice 1": np.arange(60) < 20}
    assert over_represented({"same": ["x"] * 60, "each": list(map(str, range(60))), "none": [None] * 60}, inside).empty
    assert over_represented({}, inside).empty


def test_a_value_is_named_where_more_is_wrong_beyond_chance() -> None:
    right = np.ones(200, bool)
    right[:30] = right[195:] = False
    columns = {"camera": ["old"] * 40 + ["new"] * 160, "site": ["north", "south"] * 100, "light": np.arange(200.0)}
    found, tested = subgroups(columns, right)
    assert tested == 2 + 2 + 4
    assert [(row["column"], row["value"]) for row in found.to_dict("records")] == [
        ("camera", "old"), ("light", "-0.001 to 49.75"),
    ]  # fmt: skip
    row = found.iloc[0]
    assert (row["n"], row["errors"], row["rate"], row["rate_outside"]) == (40, 30, 0.75, 5 / 160)
    p = fisher_exact([[30, 10], [5, 155]], alternative="greater").pvalue
    assert row["p"] == pytest.approx(tested * p)
    assert subgroups(columns, np.ones(200, bool))[0].empty
    assert subgroups({}, right)[1] == 0


def test_errors_that_fall_anywhere_make_no_subgroup_in_more_than_one_case_of_twenty() -> None:
    """At a true rate of 5 % or less; Fisher's test is discrete and stays below it."""
    rng = np.random.default_rng(0)
    columns = {"camera": rng.integers(0, 8, 300).tolist(), "light": rng.random(300).tolist()}
    found = [not subgroups(columns, rng.random(300) < 0.8)[0].empty for _ in range(300)]
    assert np.mean(found) <= 0.05


def test_the_answer_of_a_slice_to_probes() -> None:
    case, errors = scenes.case(*scenes.SCENES["colour"])
    made = Slices(
        table=pd.DataFrame(), confusions=pd.DataFrame(), metadata=pd.DataFrame(), members={"slice 1": errors[:8]},
        errors={"slice 1": errors[:8]}, exemplars={}, n_errors=len(errors), tried=1,
    )  # fmt: skip
    found = probe_response(case, made, "slice 1", others=errors, probes=("gray", "blur"))
    assert found.index[0] == "gray"
    assert found.loc["gray", "high"] < -1 < found.loc["blur", "change"]
    assert found.loc["gray", "elsewhere"] == pytest.approx(found.loc["gray", "change"], rel=0.5)
    assert (found["low"] <= found["change"]).all()
    assert loss_changes(case, [], chosen(("gray",)), "standing_out").shape == (0, 1)


@pytest.mark.parametrize(("n", "said"), [(1, "the only cluster of errors on"), (2, "of 2 clusters of errors on")])
def test_clusters_that_did_not_hold_are_counted(n: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    far_away = slices.Region(np.full((5, 4), 1e6), 1e-9)
    monkeypatch.setattr(slices, "regions", lambda *_: [far_away] * n)
    features = np.random.default_rng(0).normal(size=(400, 4))
    found = find_slices(features, outcomes(np.arange(400) % 8 > 0))
    assert found.why_not.startswith(said)
    assert found.tried == n
