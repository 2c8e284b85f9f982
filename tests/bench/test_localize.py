"""The bench of localizers: those that know all, nothing, or one organ only get the scores they deserve."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from suture.bench import localize, oracle, plant
from suture.bench.answers import EXPENSIVE, ask, asked_for, rank_of
from suture.bench.localize import case_of, cell, drop_of
from suture.bench.networks import load_subject
from suture.bench.oracle import consult, gains, judged
from suture.bench.scores import score_table, summary
from suture.errors import GroupError, InvalidArgumentError, UnknownNameError
from suture.localizers import LOCALIZERS, Evidence, Finding, localizer
from suture.patch import base_sha256, canonical_state
from suture.tasks import Classification
from tests.bench.fakes import GROUPS, fault_rows

FAKES = ["perfect", "constant", "broken", "silent", "alarmist"]


@pytest.fixture(autouse=True, scope="module")
def fakes() -> Iterator[None]:
    """Localizers that know everything, one organ, nothing at all, or cannot be asked."""

    @localizer("perfect", reads="weights")
    def perfect(evidence: Evidence) -> pd.Series:
        healthy, own = load_subject("digits").model.state_dict(), evidence.model.state_dict()
        changed = [name for name in own if not torch.equal(own[name], healthy[name])]
        return pd.Series({g: float(any(n.startswith(f"{g}.") for n in changed)) for g in evidence.groups})

    @localizer("constant", reads="network")
    def constant(evidence: Evidence) -> pd.Series:
        return pd.Series({g: float(g == "layer3") for g in evidence.groups})

    @localizer("broken", reads="network")
    def broken(evidence: Evidence) -> pd.Series:
        raise ZeroDivisionError("by\nzero")

    @localizer("silent", reads="network")
    def silent(evidence: Evidence) -> Finding:
        return Finding(pd.Series(0.0, index=list(evidence.groups)), None, 1.0, "nothing stands out")

    @localizer("alarmist", reads="network")
    def alarmist(evidence: Evidence) -> Finding:
        return Finding(pd.Series(0.0, index=list(evidence.groups)), "bn1", 0.5, "surely")

    yield
    for name in FAKES:
        del LOCALIZERS._things[name]


# --- cells -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    """Three planted faults, all fakes asked; with the axes, as a study has them."""
    return [
        {"network": "digits", "record": "none", "kind": "noise", "group": group, "seed": 1}
        | row
        for group in ("layer1", "layer3", "linear")
        for row in cell("digits", group, "noise", 1, localizers=FAKES)
    ]  # fmt: skip


def test_who_knows_all_scores_one_and_who_knows_one_organ_is_shown_up(rows: list[dict[str, object]]) -> None:
    scores = {s.localizer: s for s in score_table(rows) if s.by == "all"}
    perfect, constant = scores["perfect"], scores["constant"]
    assert (perfect.n, perfect.top1, perfect.top2, perfect.rank) == (3, 1.0, 1.0, 1.0)
    assert perfect.favourite_share == pytest.approx(1 / 3)
    assert (constant.top1, constant.favourite, constant.favourite_share) == (pytest.approx(1 / 3), "layer3", 1.0)
    assert perfect.chance == constant.chance == pytest.approx(1 / 7)
    assert (scores["silent"].top1, scores["silent"].alarms, scores["silent"].favourite) == (0.0, 0.0, None)
    assert (scores["silent"].rank, scores["alarmist"].alarms) == (4.0, 1.0)


def test_a_localizer_that_raises_disturbs_no_other(rows: list[dict[str, object]]) -> None:
    told = [row for row in rows if row["localizer"] == "broken"]
    assert [row["error"] for row in told] == 3 * ["ZeroDivisionError: by zero"]
    assert all("hit" not in row and row["named"] is None for row in told)
    score = next(s for s in score_table(rows) if s.localizer == "broken" and s.by == "all")
    assert (score.n, score.errors, score.top1) == (0, 3, None)


def test_the_drop_is_what_was_drawn(rows: list[dict[str, object]]) -> None:
    for row in rows:
        asked = drop_of(1, str(row["group"]), "noise")
        assert 0.05 <= asked <= 0.25
        assert asked / 2 <= row["drop"] <= 2 * asked
        assert row["planted"] == row["group"]
    drawn = [drop_of(seed, "layer1", "noise") for seed in range(400)]
    assert np.mean(drawn) == pytest.approx(0.15, abs=0.01)
    assert len(set(drawn)) == 400


def test_a_cell_is_the_same_each_time(rows: list[dict[str, object]]) -> None:
    axes = {"network", "record", "kind", "group", "seed"}
    first = [{k: v for k, v in row.items() if k not in axes} for row in rows if row["group"] == "layer3"]
    assert cell("digits", "layer3", "noise", 1, localizers=FAKES) == first


def test_a_fault_that_cannot_be_planted_is_one_row_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = cell("digits", "linear", "bnstat", 0, localizers=["constant"])
    assert row == {"planted": "linear", "skipped": "'bnstat' does not apply to 'linear'"}
    monkeypatch.setattr(localize, "DROPS", (0.9, 0.9))
    (row,) = cell("digits", "bn1", "permute", 0, localizers=["constant"])
    assert "a 'permute' fault in 'bn1' cannot lower accuracy by 0.9 (reaches" in row["skipped"]
    assert summary([row]) == {}


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"group": "layer9"}, GroupError, "no group 'layer9'"),
        ({"kind": "nose"}, UnknownNameError, "no fault is called 'nose'"),
        ({"record": "moment"}, InvalidArgumentError, "no record is called 'moment'; did you mean 'moments'"),
        ({"localizers": ["grad_nrom"]}, UnknownNameError, "did you mean 'grad_norm'"),
    ],
)
def test_misspelt_names_fail_the_cell(changed: dict[str, object], error: type[Exception], words: str) -> None:
    asked: dict[str, object] = {"network": "digits", "group": "layer1", "kind": "noise", "seed": 0}
    with pytest.raises(error, match=words):
        cell(**(asked | changed))


def test_false_alarms_on_a_healthy_network_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(localize, "ask", lambda case, names: (seen.append(case), ask(case, names))[1])
    found = cell("digits", "-", "healthy", 0, localizers=["alarmist", "silent", "constant"], draws=3)
    say = [("alarmist", True), ("silent", False)]
    assert [(row["localizer"], row["alarm"]) for row in found] == [*say, ("constant", None), *say, *say]
    assert len({case.splits["diagnose"].fingerprint for case in seen}) == 3
    scores = {s.localizer: s for s in score_table([{"network": "digits", "kind": "healthy"} | row for row in found])}
    assert (scores["alarmist"].by, scores["alarmist"].n, scores["alarmist"].alarms) == ("healthy", 3, 1.0)
    assert (scores["silent"].alarms, scores["silent"].alarms_high) == (0.0, pytest.approx(0.5615, abs=1e-3))
    assert (scores["constant"].alarms, scores["constant"].top1) == (None, None)


@pytest.mark.parametrize("record", ["moments", "reference"])
def test_a_record_reaches_the_case(record: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(localize, "ask", lambda case, names: seen.append((case, names)) or [])
    cell("digits", "layer2", "zero", 0, record=record)
    ((case, names),) = seen
    assert ("swap" in names) == (case.reference is not None) == (record == "reference")
    assert bool(case.moments) == (record == "moments")
    if case.reference is not None:
        healthy = load_subject("digits").model
        assert base_sha256(canonical_state(case.reference)) == base_sha256(canonical_state(healthy))


# --- answers ---------------------------------------------------------------------------------------------------


def test_what_is_asked_for() -> None:
    everything = set(LOCALIZERS)
    assert set(asked_for([], reference=True)) == everything
    assert set(asked_for([], reference=False)) == {n for n in everything if LOCALIZERS[n].needs is None}
    assert set(asked_for(["cheap"], reference=False)) == set(asked_for([], reference=False)) - set(EXPENSIVE)
    assert asked_for(["rms", "rms", "probe"], reference=False) == ["rms", "probe"]
    assert "probe" in asked_for(["cheap", "probe"], reference=False)


@pytest.mark.parametrize(
    ("named", "rank"), [(None, {"a": 2.5, "b": 1, "c": 2.5, "d": 4}), ("d", {"a": 3.5, "b": 2, "c": 3.5, "d": 1})]
)
def test_places_are_shared_and_the_named_group_comes_first(named: str | None, rank: dict[str, float]) -> None:
    scores = pd.Series({"a": 1.0, "b": 2.0, "c": 1.0, "d": np.nan})
    assert {group: rank_of(group, scores, named) for group in rank} == rank


def test_each_pays_for_what_it_reads_whoever_asks_first() -> None:
    subject = load_subject("digits")
    pools = subject.pools(0)
    damaged = plant(subject.model, "layer2", "noise", 1.5, 0)
    case = case_of(damaged, subject, pools["diagnose"], "none", 0)
    names = ["grad_norm", "contrast", "alpha", "rms", "arachne"]
    first = {a.localizer: a for a in ask(case, names)}
    last = {a.localizer: a for a in ask(case, names[::-1])}
    assert all(first[n].passes == pytest.approx(last[n].passes) for n in names)
    with torch.no_grad():
        wrong = float((damaged(pools["diagnose"].inputs).argmax(1) != pools["diagnose"].targets).float().mean())
    few = 0.1  # a measurement tries a few examples first
    assert 2 * wrong <= first["grad_norm"].passes <= 2 * wrong * (1 + few)  # the errors, and as many correct ones
    assert 3 * wrong <= first["contrast"].passes <= 3 * wrong * (1 + few)  # which it compares with others again
    assert first["alpha"].passes == 0
    assert all(first[n].scores.equals(last[n].scores) for n in names)


def test_equals_are_named_by_lot() -> None:
    subject = load_subject("digits")
    named = set()
    for seed in range(12):
        case = case_of(subject.model, subject, subject.pools(0)["diagnose"], "none", seed)
        (answer,) = ask(case, ["perfect"])  # nothing changed: all scores are 0
        named.add(answer.named)
    assert len(named) > 2


# --- the oracle ------------------------------------------------------------------------------------------------


def test_the_oracle_restores_a_damaged_last_layer() -> None:
    subject, task = load_subject("digits"), Classification()
    pools = subject.pools(0)
    damaged = plant(subject.model, "linear", "noise", 1.5, 3)
    before = base_sha256(canonical_state(damaged))
    alone = consult(damaged, pools["oracle_train"], pools["oracle_score"], task, 0)
    assert list(alone.index) == GROUPS
    assert alone["linear"] > 0.03
    assert base_sha256(canonical_state(damaged)) == before
    sets = [["linear"], [], GROUPS]
    one, none, every = gains(damaged, sets, pools["oracle_train"], pools["oracle_score"], task, 0)
    assert (one, none) == (alone["linear"], 0.0)
    assert every > 0


def test_the_oracle_takes_the_steps_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, task = load_subject("digits"), Classification()
    pools = subject.pools(0)
    seen: dict[str, object] = {}
    train = oracle.train

    def watched(model: torch.nn.Module, examples: object, *args: object, **options: object) -> object:
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        run = train(model, examples, *args, **options)
        seen["changed"] = {name for name, p in model.named_parameters() if not torch.equal(start[name], p)}
        seen["steps"] = len(examples) / options["batch_size"]
        seen["each"] = {tuple(x.flatten().tolist()) for x in examples.inputs}
        return run

    monkeypatch.setattr(oracle, "train", watched)
    damaged = plant(subject.model, "layer2", "noise", 1.5, 3)
    gains(damaged, [["layer2", "bn1"]], pools["oracle_train"], pools["oracle_score"], task, 0)
    assert seen["steps"] == 24
    assert len(seen["each"]) == len(pools["oracle_train"])
    assert {name.partition(".")[0] for name in seen["changed"]} == {"layer2", "bn1"}


def test_what_is_held_against_the_oracle() -> None:
    alone = pd.Series({"a": 0.10, "b": 0.02, "c": 0.095})
    assert judged(["a"], 0.10, alone) == {
        "best": "a", "best_gain": 0.10, "gain": 0.10, "gain_share": 1.0, "enough": True,
    }  # fmt: skip
    assert judged(["b"], 0.02, alone)["gain_share"] == pytest.approx(0.2)
    assert judged(["a", "c"], 0.12, alone)["enough"] is True
    assert judged(["a", "b"], 0.12, alone)["enough"] is False
    assert judged([], None, alone)["gain_share"] is None
    nothing = judged(["a"], -0.1, pd.Series({"a": -0.1, "b": 0.0}))
    assert (nothing["best"], nothing["gain_share"], nothing["enough"]) == ("b", None, None)


def test_a_cell_with_the_oracle_has_both_truths_and_what_would_be_treated() -> None:
    found = {row["localizer"]: row for row in cell("digits", "layer2", "noise", 1, localizers=FAKES, oracle=True)}
    assert list(found) == [*FAKES, "flagged"]
    perfect, flagged = found["perfect"], found["flagged"]
    assert perfect["gain"] == perfect["planted_gain"] <= perfect["best_gain"]
    assert perfect["hit_best"] == (perfect["best"] == "layer2")
    assert found["silent"]["gain"] is None
    assert found["broken"]["hit_best"] is None
    assert set(flagged["flagged"].split()) <= set(GROUPS)
    assert "hit" not in flagged


# --- the summary -----------------------------------------------------------------------------------------------


def test_chance_is_what_a_constant_gets_and_intervals_are_wilsons() -> None:
    scores = {(s.by, s.value, s.localizer): s for s in score_table(fault_rows())}
    constant, perfect = scores["all", "", "constant"], scores["all", "", "perfect"]
    assert (constant.top1, constant.chance) == (pytest.approx(1 / 7), pytest.approx(1 / 7))
    assert (constant.favourite_share, perfect.top1, perfect.n) == (1.0, 1.0, 14)
    assert (perfect.low, perfect.high) == (pytest.approx(0.7847, abs=1e-4), 1.0)
    assert scores["kind", "zero", "constant"].n == 7
    assert scores["group", "layer1", "constant"].top1 == 0.0
    assert scores["group", "layer3", "constant"].top1 == 1.0


def test_a_summary_is_one_table_one_chapter_and_one_figure(tmp_path: Path) -> None:
    files = summary(fault_rows())
    assert list(files) == ["summary.csv", "summary.md", "summary.png"]
    (tmp_path / "summary.csv").write_text(files["summary.csv"])
    table = pd.read_csv(tmp_path / "summary.csv")
    assert len(table) == 2 * (1 + 2 + 7)
    assert files["summary.png"].startswith(b"\x89PNG")
    assert "| `perfect` | 14 | 1.00 [0.78, 1.00] | 0.14 |" in files["summary.md"]
    assert "| `constant` | 1/7 | 1/7 |" in files["summary.md"]
    assert files["summary.md"].startswith("network digits, record: none\n")
    assert summary(fault_rows()) == files
    assert summary([]) == {}
    two = str(summary([*fault_rows(), *(row | {"record": "moments"} for row in fault_rows())])["summary.md"])
    assert "| none | `perfect` | 14 |" in two
    assert "| moments | `constant` | 1/7 | 1/7 |" in two
