"""Treat as seen: candidates in order, the bound, what was tried on the way, routes, and both pictures."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from suture.stats import upper_bound
from suture.treatments import PRESETS, Cost
from suture.treatments.choice import NONE
from suture.views import treat
from suture.views.export import markdown
from suture.views.screen import screen
from suture.views.treat_figures import comparable, curves, most_allowed, tradeoff, trainings_of
from suture.views.treat_tables import IN_TERMINAL, ON_PAGE, SHOWN, cost, findings, plan, took, tried, who_answers
from tests.views.results import HOSTILE, SCRIPT, cycled, routed, searched, treated, untreated, write_run


def printed(result: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(result.table(), highlight=False)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def names(result: Any, most: int | None = None) -> list[str]:
    return [row[0] for row in tried(result, most).rows]


def test_treat_shows_cost_beside_the_papers_formula() -> None:
    shown = printed(treated())
    for part in ("4.00 GFLOP", "40.0\xa0%", "the paper's formula", "33.3\xa0%", "3 epochs in 3.0 s", "kept"):
        assert part in shown
    assert "No group was flagged" in printed(untreated())


def test_treat_says_how_to_apply_and_revert_only_where_there_is_a_patch() -> None:
    shown = str(treat.section(treated(), "w.pt"))
    assert "suture apply treat/patch.safetensors --weights WEIGHTS --out" in shown
    assert "with the path of <code>w.pt</code> in\nplace of WEIGHTS" in shown
    assert "suture apply" not in str(treat.section(untreated()))


def test_candidates_stand_in_the_order_of_their_scores_and_the_kept_one_is_marked() -> None:
    grid = tried(searched())
    assert names(searched()) == ["early", "full", "early x 0.5", "full x 0.5", "none"]
    assert [grid.rows[i][0] for i in grid.marked] == ["early x 0.5"]
    assert [row[-1] for row in grid.rows] == ["over bound", "over bound", "kept", "", ""]
    assert "the plan allows 5.0\xa0%. What is over it is not kept." in grid.note
    assert "Score: fixed − 2 × broken." in grid.note


def test_a_column_stands_where_it_says_something() -> None:
    assert [name for name, _ in tried(searched()).columns] == [
        "Candidate", "Fixed", "Broken", "Net", "May break", "Score", "",
    ]  # fmt: skip
    assert [name for name, _ in tried(treated()).columns] == ["Candidate", "Fixed", "Broken", "Net", ""]
    assert not tried(untreated())


def test_nothing_can_break_by_leaving_everything_as_it_is() -> None:
    assert tried(searched()).rows[-1][4] == "–"


@pytest.mark.parametrize("most", [SHOWN, ON_PAGE, 3])
def test_of_many_the_best_stand_there_and_the_kept_one_and_none(most: int) -> None:
    many = searched([f"p{i}" for i in range(30)], kept="p19 x 0.5")
    shown = names(many, most)
    assert len(shown) == most
    assert {"none", "p19 x 0.5"} <= set(shown)
    assert shown[: most - 2] == names(many)[: most - 2]
    assert tried(many, most).note.startswith(f"{59 - most} more candidates in treat/tried.csv.")


def test_the_terminal_has_one_screen_of_80_letters() -> None:
    shown = printed(searched([f"group{i}.of.a.network" for i in range(20)]))
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) < 35
    assert shown.count("│ group") == IN_TERMINAL - 1
    words = " ".join(shown.split())
    assert "Warning: 3 examples of 'repair' have a twin with another label; check those labels." in words


def test_remarks_are_sentences_and_names_keep_their_letters() -> None:
    assert findings(searched()) == [
        "early x 0.5 fixed 15 and broke 0 of the 100 examples of 'select' and was kept.",
        "After a quarter of the epochs bn_affine was given up.",
        "bn_affine: no epoch was completed.",
    ]
    assert findings(treated(note="", account=["", "x", "Done!"])) == [".", ".", "X.", "Done!"]


def test_cost_counts_all_trainings_in_full_fine_tunings() -> None:
    known = replace(searched().cost, one_full_flops=8e9)
    assert took(searched(cost=known)) == (
        "18 epochs in 4.0 s, as much computing as 2.0 full fine-tunings of 8 epochs; and 0.25 of one, 1.5 s, to judge "
        "4 candidates."
    )
    console = Console(width=200, file=io.StringIO())
    console.print(screen({"treat": searched(cost=known)}), highlight=False)
    assert took(searched(cost=known)) in console.file.getvalue()  # type: ignore[attr-defined]
    assert took(treated()) == "3 epochs in 3.0 s."
    assert "all trainings" in [name for name, _ in cost(searched()).columns]


def test_a_result_of_an_earlier_version_says_nothing_in_a_unit_that_it_does_not_know(tmp_path: Path) -> None:
    searched().save(tmp_path)
    file = tmp_path / "result.json"
    written = json.loads(file.read_text())
    del written["cost"]["one_full_flops"]
    del written["cost"]["full_seconds"]
    file.write_text(json.dumps(written))
    found = type(searched()).load(tmp_path)
    assert took(found) == "18 epochs in 4.0 s."
    assert [row[0] for row in cost(found).rows] == ["parameters trained", "compute, measured", "the paper's formula"]


def test_time_stands_beside_that_of_full_fine_tuning(tmp_path: Path) -> None:
    timed = treated(cost=replace(treated().cost, full_seconds=4.0))
    timed.save(tmp_path)
    grid = cost(type(timed).load(tmp_path))
    assert ["time", "3.0 s", "about 4.0 s", "75.0\xa0%"] in grid.rows
    assert "Its time is an estimate from a few such steps." in grid.note
    for shown in (printed(timed), str(treat.section(timed))):
        assert "about 4.0 s" in shown
        assert "75.0" in shown
    assert "estimate" not in cost(treated()).note


def test_an_epoch_that_was_broken_off_is_said() -> None:
    broken = replace(untreated(), cost=Cost(seconds=0.5, flops=1e9, full_flops=1e9))
    assert "An epoch that was broken off, in 0.5 s." in cost(broken).note
    assert took(untreated()) == ""


def test_what_was_not_measured_has_no_row() -> None:
    unmeasured = treated(cost=Cost(seconds=0.5, epochs=1))
    assert not cost(unmeasured)
    assert "1 epoch in 0.5 s." in printed(unmeasured)
    assert "1 epoch in 0.5 s." in str(treat.section(unmeasured))


def test_a_route_says_who_answers_and_how_to_load_it() -> None:
    section = str(treat.section(routed(), "w.pt"))
    assert "two forward passes" in section
    assert "suture.patched(model, load_patch(" in section
    assert "suture apply treat" not in section
    assert "strict=False" not in section
    assert "It takes two forward passes." in printed(routed())
    assert "churn is chance" in section


@pytest.mark.parametrize(
    ("margin", "said"),
    [
        (-0.2, "the treated one answers, unless the original is surer by 0.2 or more in probability."),
        (0.0, "the original answers, unless the treated one is surer at all."),
        (0.1, "the original answers, unless the treated one is surer by more than 0.1 in probability."),
    ],
)
def test_who_answers(margin: float, said: str) -> None:
    assert who_answers(margin) == said


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_read_field_by_field(name: str) -> None:
    grid = plan(treated(plan=PRESETS[name]))
    assert grid.rows[0] == ["name", name]
    assert all(len(value) < 240 and "{" not in value and "=" not in value for _, value in grid.rows)


def test_plans_within_a_plan_take_a_line_each() -> None:
    rows = dict(plan(treated(plan=PRESETS["auto"])).rows)  # type: ignore[arg-type]
    assert rows["how.plans: full"] == "where everything; how finetune"
    assert rows["how.plans: bn_affine"] == "where norms; how finetune (recipe.lr 0.0100, recipe.lr_min 0.000100)"
    assert dict(plan(treated(plan=PRESETS["ewc"])).rows)["guards: ewc"] == "ewc"  # type: ignore[arg-type]


def test_markdown_has_the_sentences_and_the_candidates(tmp_path: Any) -> None:
    text = markdown(write_run(tmp_path, searched(HOSTILE, warnings=[SCRIPT])))
    chapter = text[text.index("## Treat") :]
    assert "Warning: " in chapter
    assert "<script" not in chapter
    assert "May break" in chapter


def test_trainings_are_told_apart_by_plan_and_by_cycle() -> None:
    assert {name: len(rows) for name, rows in trainings_of(searched()).items()} == {
        "early": 8, "full": 8, "bn_affine": 2,
    }  # fmt: skip
    assert {name: len(rows) for name, rows in trainings_of(cycled()).items()} == {
        "iterative": 3, "iterative, cycle 2": 3,
    }  # fmt: skip


def test_every_training_has_a_line_and_its_name() -> None:
    ax = searched().plot()
    assert [len(line.get_xdata()) for line in ax.lines] == [8, 8, 2]
    assert {text.get_text() for text in ax.texts} == {"early", "full", "bn_affine"}
    many = searched([f"p{i}" for i in range(40)]).plot()
    assert len(many.lines) == 40
    assert len(many.texts) == 6


def test_steps_of_a_solver_are_no_epochs() -> None:
    steps = pd.DataFrame({"step": range(1, 31), "loss": np.geomspace(1, 0.1, 30)})
    alone = treated(history=steps)
    panel = curves(alone)
    assert (panel.get_title(loc="left"), panel.get_xlabel()) == ("Training loss per step", "step")
    assert "over 30 steps of treatment" in str(treat.section(alone))
    both = pd.concat([searched().history, steps.assign(plan="last_layer")], ignore_index=True)
    assert [len(line.get_xdata()) for line in curves(searched(history=both)).lines] == [8, 8, 2]


def test_the_bound_lies_where_the_rule_has_it() -> None:
    for right in (10, 59, 80, 93, 400, 1999):
        nothing = searched().tried.head(1).assign(bound=upper_bound(0, right))
        allowed = most_allowed(searched(tried=nothing))
        assert allowed is not None
        assert allowed == -1 or upper_bound(allowed, right) <= 0.05
        assert upper_bound(allowed + 1, right) > 0.05
    assert most_allowed(treated()) is None


def test_fixed_against_broken_joins_the_weights_of_a_plan() -> None:
    ax = tradeoff(searched())
    lines = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 2
    assert [float(y) for y in lines[0].get_ydata()] == [0, 15, 30]  # from the original over half way to all the way
    assert "kept" in {text.get_text() for text in ax.texts}
    assert any("over the bound of 5" in text.get_text() for text in ax.texts)


def test_a_bound_far_out_is_told_and_not_drawn() -> None:
    table = searched().tried.assign(
        bound=lambda rows: [upper_bound(int(b), 4000) for b in rows["broken"]], allowed=True
    )
    ax = tradeoff(searched(tried=table))
    assert re.search(r"the bound of 5\s% allows 1\d\d", ax.get_xlabel())


def test_a_route_is_one_line_from_cautious_to_bold() -> None:
    line = next(line for line in tradeoff(routed()).lines if len(line.get_xdata()) == 4)
    assert [float(y) for y in line.get_ydata()] == [0, 6, 9, 12]


def test_cycles_start_from_the_one_before_and_not_from_the_original() -> None:
    assert all(len(line.get_xdata()) == 1 for line in tradeoff(cycled()).lines)


@pytest.mark.parametrize("kept", [NONE, "early", "early x 0.5"])
def test_the_kept_one_is_named_once(kept: str) -> None:
    said = [text.get_text() for text in tradeoff(searched(kept=kept)).texts]
    assert sum("kept" in text for text in said) == 1


def test_there_is_a_picture_of_candidates_only_where_there_are_several() -> None:
    assert comparable(searched())
    assert not comparable(treated())
    assert not comparable(untreated())
    assert str(treat.section(searched())).count("<img") == 2
    assert str(treat.section(treated())).count("<img") == 1
    assert not tradeoff(treated()).axison


def test_odd_numbers_do_no_harm() -> None:
    odd = searched().tried.assign(score=[np.nan, 1.5, np.inf, 0.0, -3.0])
    assert "1.50" in printed(searched(tried=odd), 120)
    assert str(treat.section(searched(tried=odd)))
    flat = pd.concat([searched().tried.assign(fixed=0, broken=0)])
    assert str(treat.section(searched(tried=flat)))


def test_a_sentence_that_begins_like_a_list_is_none(tmp_path: Any) -> None:
    text = markdown(write_run(tmp_path, treated(note="+ fixed 9 and broke 2", account=["1. of them", "plain"])))
    chapter = text[text.index("## Treat") :]
    assert r"\+ fixed 9 and broke 2" in chapter
    assert r"1\. of them" in chapter
