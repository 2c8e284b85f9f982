"""Examples that a treatment does without: by position, by name, or because their labels are suspected."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import Tensor

import suture
from suture.causes.label_errors import suspects_of
from suture.errors import DataError, InvalidArgumentError
from suture.pipeline import Run, run
from suture.rundir import fingerprint
from suture.stages import treat as stage
from suture.treatments import Groups, Job, Plan
from tests import toys

pytestmark = pytest.mark.skipif(find_spec("cleanlab") is None, reason="suspects need cleanlab, the extra 'labels'")
GROUPS = ["second", "last"]


def mislabelled(share: float = 0.05) -> list[tuple[Tensor, int]]:
    """600 points as the network learnt them, every so many with another label."""
    data, step = toys.points(600, seed=2), round(1 / share)
    return [(x, (y + 1) % 3 if i % step == 0 else y) for i, (x, y) in enumerate(data)]


class Stop(Exception):
    pass


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What would be carried out; nothing is."""
    seen: list[Job] = []

    def follow(plan: Plan, job: Job, **_: Any) -> None:
        seen.append(job)
        raise Stop

    monkeypatch.setattr(stage, "follow", follow)
    return seen


def indices(case: suture.Case) -> dict[str, list[int]]:
    return {name: split.indices for name, split in case.splits.items()}


def test_positions_and_names_are_left_out_of_training_and_choice(toy_case: suture.Case, jobs: list[Job]) -> None:
    before, fingerprints = indices(toy_case), toy_case.fingerprint
    chosen = toy_case.splits["select"].label(4)
    with pytest.raises(Stop):
        suture.treat(toy_case, GROUPS, toys.PLAN, exclude=[0, 7, 7, chosen])
    used = indices(jobs[0].case)
    assert used["repair"] == [x for i, x in enumerate(before["repair"]) if i not in (0, 7)]
    assert used["select"] == [x for i, x in enumerate(before["select"]) if i != 4]
    assert used["diagnose"] == before["diagnose"]
    assert used["verify"] == before["verify"]
    assert [x for x, _ in jobs[0].examples] == [toy_case.splits["repair"][i][0] for i in range(1, 180) if i != 7]
    assert (indices(toy_case), toy_case.fingerprint) == (before, fingerprints)


def test_a_column_of_positions_will_do(toy_case: suture.Case, jobs: list[Job]) -> None:
    with pytest.raises(Stop):
        suture.treat(toy_case, GROUPS, toys.PLAN, exclude=pd.Series([1, 2]))  # type: ignore[arg-type]
    assert len(jobs[0].examples) == len(toy_case.splits["repair"]) - 2


def test_suspects_are_left_out_of_both_parts(jobs: list[Job]) -> None:
    case = suture.Case(toys.network(), mislabelled())
    with pytest.raises(Stop):
        suture.treat(case, GROUPS, toys.PLAN, exclude="suspects")
    for name in ("repair", "select"):
        out = set(case.splits[name].indices) - set(jobs[0].case.splits[name].indices)
        assert out == {case.splits[name].indices[i] for i in suspects_of(case, name)["position"]}
        wrong = {index for index in case.splits[name].indices if index % 20 == 0}
        assert len(out & wrong) >= 0.7 * len(wrong)


def test_a_treatment_says_what_it_did_without(tmp_path: Path) -> None:
    case = suture.Case(toys.network(), mislabelled())
    made = suture.treat(case, GROUPS, toys.PLAN, exclude="suspects")
    n = [len(suspects_of(case, name)) for name in ("repair", "select")]
    assert made.excluded == sum(n) > 5
    assert made.account[0] == (
        f"left out because their labels are suspected to be wrong: {n[0]} of 180 examples of 'repair' and {n[1]} of 60 "
        "examples of 'select'"
    )
    assert any(said.startswith(f"the {sum(n)} examples left out are ") for said in made.warnings)
    made.save(tmp_path)
    assert suture.Treatment.load(tmp_path).excluded == made.excluded


def test_named_examples_are_counted_without_a_warning(toy_case: suture.Case) -> None:
    made = suture.treat(toy_case, GROUPS, toys.PLAN, exclude=[3, 4, 5])
    plain = suture.treat(toy_case, GROUPS, toys.PLAN)
    assert (made.excluded, plain.excluded) == (3, 0)
    assert made.account == ["left out as asked: 3 of 180 examples of 'repair' and 0 of 60 examples of 'select'"]
    assert made.warnings == plain.warnings
    assert made.patch.result != plain.patch.result


def test_nothing_to_exclude_changes_nothing(toy_case: suture.Case) -> None:
    made = suture.treat(toy_case, GROUPS, toys.PLAN, exclude=[])
    assert made.patch.result == suture.treat(toy_case, GROUPS, toys.PLAN).patch.result
    assert made.excluded == 0


@pytest.mark.parametrize(
    ("exclude", "kind", "said"),
    [
        ("suspect", InvalidArgumentError, "exclude takes 'suspects' or a list of examples, not 'suspect'"),
        ([180], DataError, "no example of 'repair' has position 180"),
        ([-1], DataError, "no example of 'repair' has position -1"),
        (["example 9999"], DataError, "no example is called 'example 9999'; give positions in 'repair' or names such"),
        (list(range(180)), DataError, "no example of 'repair' would be left"),
    ],
    ids=["a word", "too far", "below zero", "unknown", "all"],
)
def test_nonsense_is_refused(toy_case: suture.Case, exclude: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        suture.treat(toy_case, GROUPS, toys.PLAN, exclude=exclude)


def test_examples_of_other_splits_are_none_that_treatment_uses(toy_case: suture.Case) -> None:
    with pytest.raises(DataError, match="no example is called"):
        suture.treat(toy_case, GROUPS, toys.PLAN, exclude=[toy_case.splits["verify"].label(0)])


def test_a_run_treats_again_only_when_something_else_is_left_out(tmp_path: Path, toy_case: suture.Case) -> None:
    plan = toys.PLAN.model_copy(update={"where": Groups(names=("second", "last"))})
    said: list[str] = []
    this = Run(toy_case, tmp_path / "run", say=said.append)
    with this.claimed():
        this.localize(("grad_norm",), rule="first")
        keys = []
        for exclude in (None, "suspects", "suspects", [1, 2], None):
            made = this.treat(plan, exclude=exclude)
            keys.append(this.directory.key("treat"))
            assert (made.excluded > 2) == (exclude == "suspects")
    assert said.count("treat …") == 4  # and not once more for the same suspects
    assert keys[0] == keys[4] == fingerprint("treat", this.directory.key("localize"), plan.model_dump(mode="json"))
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


def test_without_cleanlab_nothing_is_begun(
    tmp_path: Path, toy_case: suture.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(InvalidArgumentError, match=r"pip install 'suture\[labels\]'"):
        run(toy_case, tmp_path / "run", exclude_suspects=True)
    assert not (tmp_path / "run").exists()
