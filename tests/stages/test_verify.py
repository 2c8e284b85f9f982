"""Verify beyond the count of flips: floors, slices, drift, examples to keep, and results of an older suture."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import suture
from suture.errors import BaseMismatchError, DataError, InvalidArgumentError, MissingFileError
from suture.patch import Patch, patched
from suture.stages.drift import untouched_examples
from suture.stages.must_keep import read_must_keep
from suture.stages.subsets import pair_table, slices_of
from suture.stats import Verdict, flips, mcnemar
from suture.tasks import Outcomes
from suture.views.verify_tables import caveats
from tests import toys

Pairs = Sequence[Any]


class Table(list[Any]):
    """Pairs with what a data set may say about them beside."""

    def __init__(self, pairs: Pairs, **attributes: Any) -> None:
        super().__init__(pairs)
        vars(self).update(attributes)


@pytest.fixture(scope="module")
def case() -> suture.Case:
    return toys.case()


@pytest.fixture(scope="module")
def treatment(case: suture.Case) -> suture.Treatment:
    return suture.treat(case, ["last"], toys.PLAN)


def outputs(model: torch.nn.Module, pairs: Pairs) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.stack([x for x, _ in pairs]))


def halfway(patch: Patch, case: suture.Case) -> Patch:
    """Another patch for the same weights."""
    old = case.model.state_dict()
    return replace(patch, tensors={k: (v + old[k]) / 2 for k, v in patch.tensors.items()}, result="")


# The numbers of the verdict


def test_the_ratio_has_an_interval_that_json_can_hold(
    case: suture.Case, treatment: suture.Treatment, tmp_path: Path
) -> None:
    found = suture.verify(case, treatment)
    assert found.broken == 0 < found.fixed
    assert found.ratio_interval is not None
    assert found.ratio_interval.high == np.inf
    found.save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["ratio_interval"]["high"] is None
    assert suture.Verification.load(tmp_path).ratio_interval == found.ratio_interval


def test_a_class_that_is_missing_from_the_folders_is_said_beside_the_verdict() -> None:
    pairs = [(x, y) for x, y in toys.points(90, seed=2) if y < 2]
    case = suture.Case(toys.network(), verify=pairs, classes=["cat", "owl"])
    found = suture.verify(case, Patch({}, case.weights_sha256, case.weights_sha256))
    (said,) = found.warnings
    assert said.startswith("the network tells 3 classes and the data has 2: labels are numbered by the names")
    assert any("The network tells 3 classes" in line for line in caveats(found))
    assert suture.verify(toys.case(), Patch({}, toys.case().weights_sha256, toys.case().weights_sha256)).warnings == []


def test_an_empty_patch_can_break_nothing_however_few_examples_there_are() -> None:
    case = suture.Case(toys.network(), verify=toys.points(6, seed=2))
    found = suture.verify(case, Patch({}, case.weights_sha256, case.weights_sha256))
    assert found.regression_bound == 0
    assert found.right_before == 6


def test_the_churn_floor_is_the_churn_between_two_treatments(case: suture.Case, treatment: suture.Treatment) -> None:
    assert suture.verify(case, treatment).churn_floor is None
    assert suture.verify(case, treatment, twin=treatment.patch).churn_floor == 0
    twin = halfway(treatment.patch, case)
    found = suture.verify(case, treatment.patch, twin=twin)
    verify = case.splits["verify"]
    one, other = (outputs(patched(case.model, patch), verify).argmax(1) for patch in (treatment.patch, twin))
    assert found.churn_floor == pytest.approx(float((one != other).double().mean()))
    assert found.churn_floor > 0


def test_a_treatment_may_bring_its_twin(case: suture.Case, treatment: suture.Treatment) -> None:
    assert suture.verify(case, replace(treatment, twin=treatment.patch)).churn_floor == 0


def test_a_twin_for_other_weights_is_refused(case: suture.Case, treatment: suture.Treatment) -> None:
    with pytest.raises(BaseMismatchError):
        suture.verify(case, treatment, twin=replace(treatment.patch, base="0" * 64))


def test_results_of_an_older_suture_load_and_are_shown(
    case: suture.Case, treatment: suture.Treatment, tmp_path: Path
) -> None:
    suture.verify(case, treatment).save(tmp_path)
    path = tmp_path / "result.json"
    data = json.loads(path.read_text())
    for name in ("ratio_interval", "churn_floor", "per_slice", "slices_left_out", "drift", "must_keep",
                 "wrong_must_keep", "broken_must_keep"):  # fmt: skip
        del data[name]
    for name, columns in (("per_class", 6), ("pairs", 5)):
        data[name] = {"columns": data[name]["columns"][:columns], "rows": [r[:columns] for r in data[name]["rows"]]}
    path.write_text(json.dumps(data))
    old = suture.Verification.load(tmp_path)
    assert (old.ratio_interval, old.churn_floor, old.drift, old.must_keep) == (None,) * 4
    assert old.table().row_count
    assert old.plot() is not None
    assert "Per class" in old._repr_html_()


# Classes, confusions, slices


def test_rows_hold_what_their_examples_did(case: suture.Case, treatment: suture.Treatment) -> None:
    found = suture.verify(case, treatment, slices={"even": range(0, 240, 2), "all": np.ones(240, bool)})
    verify = case.splits["verify"]
    right = [
        outputs(m, verify).argmax(1).numpy() == verify.strata
        for m in (case.model, patched(case.model, treatment.patch))
    ]
    even = flips(right[0][::2], right[1][::2])
    first, whole = found.per_slice.to_dict("records")
    assert (first["n"], first["fixed"], first["broken"]) == (120, even.fixed, even.broken)
    assert first["before"] == pytest.approx(right[0][::2].mean())
    assert first["p"] == pytest.approx(mcnemar(even.fixed, even.broken))
    assert (whole["fixed"], whole["broken"], whole["p"]) == (found.fixed, found.broken, pytest.approx(found.p_value))
    assert (found.per_class["adjusted"] >= found.per_class["p"]).all()
    words = found.per_class[found.per_class["adjusted"] < 0.05]["word"]
    assert set(words) == {"better"}
    assert (found.per_class["word"] == "").sum() == len(found.per_class) - len(words)


def test_a_confusion_is_tested_by_who_left_and_who_joined(case: suture.Case) -> None:
    # Class 0 is taken for 1 ten times before; nine of these are right then, one is taken for 2, two join.
    target = np.zeros(20, int)
    before = np.array([1] * 10 + [0] * 10)
    after = np.array([0] * 9 + [2] + [1] * 2 + [0] * 8)
    one, other = (Outcomes(p == target, np.zeros(20), p, target) for p in (before, after))
    first, second = pair_table(case, one, other).to_dict("records")
    assert [first[k] for k in ("true", "predicted", "before", "after", "change", "left", "joined")] == [
        "0", "1", 10, 2, -8, 10, 2
    ]  # fmt: skip
    assert first["p"] == pytest.approx(mcnemar(10, 2))
    assert first["word"] == "better"
    assert [second[k] for k in ("predicted", "before", "after", "left", "joined", "word")] == ["2", 0, 1, 0, 1, ""]


def test_a_confusion_that_became_more_frequent_is_worse(case: suture.Case) -> None:
    target, before, after = np.zeros(9, int), np.zeros(9, int), np.ones(9, int)
    one, other = (Outcomes(p == target, np.zeros(9), p, target) for p in (before, after))
    assert pair_table(case, one, other)["word"].tolist() == ["worse"]


def test_metadata_columns_become_slices() -> None:
    n = 600
    metadata = {
        "night": [i % 2 == 0 for i in range(n)],
        "camera": ["left", "right", None] * 200,
        "angle": np.linspace(0, 90, n),
        "file": [f"{i}.png" for i in range(n)],
        "city": ["Bern"] * n,
    }
    case = suture.Case(toys.network(), Table(toys.data(), metadata=metadata))
    found = suture.verify(case, suture.treat(case, ["last"], toys.PLAN))
    names = found.per_slice["slice"].tolist()
    assert names[:4] == ["night = False", "night = True", "camera = left", "camera = right"]
    assert len(names) == 8
    assert names[4].startswith("angle 0")
    assert found.slices_left_out == ["file", "city"]
    sizes = dict(zip(names, found.per_slice["n"], strict=True))
    assert sizes["night = False"] + sizes["night = True"] == found.n
    assert sum(sizes[name] for name in names[4:]) == found.n
    assert sizes["camera = left"] + sizes["camera = right"] < found.n


def test_metadata_may_be_a_table_and_numbers_may_be_missing() -> None:
    odd = [np.nan, np.inf, *range(598)]
    case = suture.Case(toys.network(), Table(toys.data(), metadata=pd.DataFrame({"x": odd, "y": range(600)})))
    masks, left_out = slices_of(case.splits["verify"])
    assert len(masks) == 8
    assert left_out == []
    assert all(mask.any() for mask in masks.values())


def test_metadata_of_another_length_is_refused() -> None:
    with pytest.raises(DataError, match="'night' has 1 values for 600 examples"):
        suture.Case(toys.network(), Table(toys.data(), metadata={"night": [True]}))


@pytest.mark.parametrize(
    ("which", "part"),
    [
        ([], "is empty"),
        (np.zeros(240, bool), "is empty"),
        ([True, False], "one value for each of 240"),
        ([240], "position 240; there are 240 examples"),
        ([-1], "position -1"),
        ([0.5], "a bool mask or a list of positions"),
        ("night", "a bool mask or a list of positions"),
        ([[1, 2]], "a bool mask or a list of positions"),
    ],
)
def test_slices_that_are_none(case: suture.Case, treatment: suture.Treatment, which: Any, part: str) -> None:
    with pytest.raises(InvalidArgumentError, match=part):
        suture.verify(case, treatment, slices={"odd": which})


# Drift


def test_drift_is_what_the_two_models_say_of_other_data(case: suture.Case, treatment: suture.Treatment) -> None:
    others = toys.points(300, seed=5)
    drift = suture.verify(case, treatment, untouched=others).drift
    assert drift is not None
    old, new = (outputs(m, others) for m in (case.model, patched(case.model, treatment.patch)))
    kl = F.kl_div(new.log_softmax(1), old.log_softmax(1), reduction="batchmean", log_target=True)
    assert drift.kl == pytest.approx(float(kl), rel=1e-4)
    assert drift.kl_interval is not None
    assert drift.kl_interval.low < drift.kl < drift.kl_interval.high
    assert drift.changed == pytest.approx(float((old.argmax(1) != new.argmax(1)).double().mean()))
    labels = torch.tensor([y for _, y in others])
    assert drift.accuracy_before == pytest.approx(float((old.argmax(1) == labels).double().mean()))
    assert drift.accuracy_after == pytest.approx(float((new.argmax(1) == labels).double().mean()))
    assert drift.fixed is not None
    assert drift.broken is not None
    assert drift.fixed - drift.broken == round(300 * (drift.accuracy_after - drift.accuracy_before))


def test_an_empty_patch_drifts_nowhere(case: suture.Case) -> None:
    nothing = suture.treat(case, "last", "none")
    drift = suture.verify(case, nothing, untouched=toys.points(60, seed=5)).drift
    assert drift is not None
    assert (drift.kl, drift.changed, drift.fixed, drift.broken) == (0, 0, 0, 0)


def test_drift_without_labels(case: suture.Case, treatment: suture.Treatment) -> None:
    others = toys.points(90, seed=5)
    labelled = suture.verify(case, treatment, untouched=others).drift
    bare = suture.verify(case, treatment, untouched=[(x, None) for x, _ in others]).drift
    assert labelled is not None
    assert bare == replace(
        labelled, accuracy_before=None, accuracy_after=None, interval_before=None, interval_after=None, fixed=None,
        broken=None, p_value=None,
    )  # fmt: skip


def test_classes_of_untouched_data_are_matched_by_name(treatment: suture.Treatment) -> None:
    case = suture.Case(toys.network(), toys.data(), classes=["a", "b", "c"])
    others = toys.points(90, seed=5)
    same = suture.verify(case, treatment, untouched=others).drift
    turned = Table([(x, 2 - y) for x, y in others], classes=["c", "b", "a"])
    assert suture.verify(case, treatment, untouched=turned).drift == same
    strange = suture.verify(case, treatment, untouched=Table(turned, classes=["x", "y", "z"])).drift
    assert strange is not None
    assert same is not None
    assert (strange.kl, strange.accuracy_before) == (same.kl, None)


def test_untouched_data_that_cannot_be_used(case: suture.Case, treatment: suture.Treatment) -> None:
    others = toys.points(6, seed=5)
    with pytest.raises(DataError, match=r"1 of 6 untouched examples have no label"):
        suture.verify(case, treatment, untouched=[(others[0][0], None), *others[1:]])
    with pytest.raises(DataError, match=r"1 untouched examples also stand in 'verify'.*there example \d+"):
        suture.verify(case, treatment, untouched=[*others, case.splits["verify"][3]])
    with pytest.raises(DataError, match="the data for untouched is empty"):
        suture.verify(case, treatment, untouched=[])
    with pytest.raises(DataError, match="one data set"):
        suture.verify(case, treatment, untouched={"verify": others})
    with pytest.raises(DataError, match="not finite"):
        suture.verify(case, treatment, untouched=[(torch.full((2,), float("nan")), 0)])
    examples = untouched_examples(case, others)
    assert untouched_examples(case, examples) is examples


def test_a_task_with_verdicts_alone_has_only_accuracies() -> None:
    case = toys.sequence_case()
    nothing = suture.treat(case, ["speak"], "none")
    others = [pair for pair in toys.sentences(60, seed=9, words=12) if len(pair[0]) > 4]  # short ones may be known
    drift = suture.verify(case, nothing, untouched=others).drift
    assert drift is not None
    assert (drift.kl, drift.changed) == (None, None)
    assert drift.accuracy_before == drift.accuracy_after


# Must keep


def test_examples_to_keep_are_found_in_every_split_and_named_when_they_break(
    case: suture.Case, treatment: suture.Treatment
) -> None:
    back = Patch(treatment.undo.tensors, treatment.undo.base, treatment.undo.result)
    repaired = suture.Case(patched(case.model, treatment.patch), toys.data())  # undoing the repair breaks what it fixed
    right = [
        outputs(m, toys.data()).argmax(1).numpy() == [y for _, y in toys.data()] for m in (repaired.model, case.model)
    ]
    broken = np.flatnonzero(right[0] & ~right[1])
    kept, wrong = np.flatnonzero(right[0] & right[1])[:3], np.flatnonzero(~right[0])[:1]
    names = [*map(int, broken), *(f"example {i}" for i in kept), *map(str, wrong)]
    found = suture.verify(repaired, back, must_keep=names)
    assert sorted(found.broken_must_keep) == sorted(f"example {i}" for i in broken)
    assert found.wrong_must_keep == [f"example {i}" for i in wrong]
    assert found.must_keep == len(names)
    assert found.verdict is Verdict.WORSE


def test_names_of_files_are_names_too(case: suture.Case, treatment: suture.Treatment) -> None:
    named = suture.Case(toys.network(), Table(toys.data(), names=[f"a/{i}.png" for i in range(600)]))
    found = suture.verify(named, treatment, must_keep=["a/3.png", "./a/4.png", "5", "a/3.png"])
    assert (found.must_keep, found.broken_must_keep) == (3, [])
    with pytest.raises(DataError, match=r"no example is called 'a/600.png'; .* such as 'a/\d+.png'"):
        suture.verify(named, treatment, must_keep=["a/3.png", "a/600.png", "b"])


def test_under_the_papers_protocol_every_example_counts_once(treatment: suture.Treatment) -> None:
    paper = toys.case(protocol="paper")
    found = suture.verify(paper, treatment, must_keep=list(range(600)))
    assert found.must_keep == 600


def test_the_file_of_examples_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "keep.txt"
    path.write_bytes(b"\xef\xbb\xbfa/1.png\r\n\r\n  b/#2 x.png \nc/\xff.png")
    assert read_must_keep(path) == ["a/1.png", "b/#2 x.png", "c/?.png"]
    path.write_text("\n \n")
    with pytest.raises(DataError, match="names no example"):
        read_must_keep(path)
    with pytest.raises(MissingFileError, match="one a line"):
        read_must_keep(tmp_path / "absent.txt")
