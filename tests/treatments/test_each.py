"""Each block on its own: as many candidates as blocks, each of which changes its block alone."""

from pathlib import Path

import suture
from suture.training import Checkpoints
from suture.treatments import Choice, Plan
from suture.treatments.each import EachBlock
from suture.treatments.interpolate import histories
from tests import toys
from tests.treatments import jobs

HOW = EachBlock(how=jobs.short())


def test_every_block_of_the_flagged_groups_is_treated_alone() -> None:
    case = jobs.zoo_case("convolutions")
    treated = HOW.treat(jobs.job(case, flagged=("layer1", "head")))
    assert list(treated.candidates) == ["head", "layer1.0", "layer1.1"] or list(treated.candidates) == [
        "layer1.0", "layer1.1", "head",
    ]  # fmt: skip
    for name, made in treated.candidates.items():
        changed = jobs.differing(jobs.state(made.model), jobs.state(case.model))
        assert changed == {n for n, _ in case.model.named_parameters() if n.startswith(f"{name}.")}
    assert treated.history.groupby("plan").size().to_dict() == {"layer1.0": 2, "layer1.1": 2, "head": 2}
    assert treated.cost.epochs == 6
    assert treated.stopped is None


def test_each_block_resumes_from_its_own_checkpoint(tmp_path: Path) -> None:
    case = jobs.zoo_case("convolutions")
    job = jobs.job(case, flagged=("layer2",), checkpoints=Checkpoints(tmp_path, "key"))
    first, second = (HOW.treat(job) for _ in range(2))
    assert len(list(tmp_path.rglob("checkpoint-*.safetensors"))) == 2
    assert all(jobs.identical(made.model, second.candidates[n].model) for n, made in first.candidates.items())
    assert not jobs.identical(first.candidates["layer2.0"].model, first.candidates["layer2.1"].model)


def test_the_best_block_is_kept_and_named() -> None:
    case = toys.case()
    plan = Plan(name="each", how=HOW, choose=Choice())
    found = suture.treat(case, ["second", "last"], plan)
    assert found.tried["candidate"].tolist() == ["none", "second", "last"]
    best = found.tried.sort_values("score", ascending=False, kind="stable").iloc[0]
    assert found.kept == best["candidate"]
    assert found.groups == [found.kept]


def test_without_a_flagged_group_there_is_no_block() -> None:
    treated = HOW.treat(jobs.job(toys.case()))
    assert treated.candidates == {}
    assert treated.stopped == "there is no block in the flagged groups"
    assert len(histories({"a": treated})) == 0


def test_the_estimate_is_the_sum_over_blocks() -> None:
    case = jobs.zoo_case("convolutions")
    whole = HOW.estimate(jobs.job(case, flagged=("layer1", "layer2")))
    parts = [HOW.estimate(jobs.job(case, flagged=(group,))) for group in ("layer1", "layer2")]
    assert whole.flops == sum(part.flops for part in parts) > 0
