"""Slices and doubtful labels on the page and in a terminal: what was found, or one sentence on why nothing was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from suture.stages.diagnose import Diagnosis
from suture.views import diagnose, slices, subgroups, suspects
from suture.views.opening import where
from suture.views.page import report
from tests.views.results import HOSTILE, SCRIPT, diagnosed, diagnosed_without_classes, localized, noise, write_run
from tests.views.test_page import Page, read
from tests.views.test_views import printed

NOTHING = pd.DataFrame(columns=[])
BARE = {
    "subgroups": NOTHING, "values_tested": 0, "slices": NOTHING, "slice_traits": NOTHING, "slice_probes": NOTHING,
    "suspects": NOTHING, "n_suspects": {},
}  # fmt: skip


def page(result: Diagnosis) -> Page:
    return Page(str(diagnose.section(result)))


def said(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_slice_is_one_plain_sentence() -> None:
    found = diagnosed()
    sentences = [said(item["sentence"]) for item in slices.shown(found)]
    region = "A region in which 41 of 89 examples are wrong (46 %), against 18 % elsewhere"
    assert sentences == [
        f"{region}; among these errors cat → dog (12); "
        "38 of 89 have cat = ship, against 9 % elsewhere; brightness changes the loss by −0.90, on other errors by "
        "−0.20.",
        f"{region}; among these errors dog → ship (12).",
        f"{region}.",
    ]


def test_a_change_that_may_help_nobody_is_left_to_the_table() -> None:
    assert "blur" not in said(slices.shown(diagnosed())[1]["sentence"])
    assert ["slice 2", "texture: blur", "−0.10 [−0.30, +0.10]", "–"] in slices.probes(diagnosed()).rows


def test_the_page_shows_both_with_pictures() -> None:
    shown = page(diagnosed())
    text = said(shown.text)
    assert text.index("What causes it") < text.index("Slices") < text.index("Doubtful labels")
    assert "Labels in doubt: 3 of 220 in diagnose and 1,200 of 3,000 in repair." in text
    assert "right labels are suspected" in text
    assert "--exclude-suspects" in text
    alts = [str(attributes["alt"]) for attributes in shown.all("img")]
    assert alts.count("An error at the centre of slice 1") == 2
    assert "cat.png: cat → dog" in alts


def test_how_to_leave_out_is_said_only_where_a_treatment_could() -> None:
    text = page(replace(diagnosed(), n_suspects={"diagnose": 3, "repair": 0})).text
    assert "Labels in doubt: 3 of 220 in diagnose." in text
    assert "--exclude-suspects" not in text


@pytest.mark.parametrize("make", [diagnosed, diagnosed_without_classes], ids=["classes", "none"])
def test_where_nobody_looked_nothing_is_shown(make: object) -> None:
    text = page(replace(make(), **BARE)).text  # type: ignore[operator]
    assert "Slices" not in text
    assert "Doubtful labels" not in text


def test_where_there_is_nothing_one_sentence_says_why() -> None:
    found = replace(diagnosed(), **BARE, why_no_slices=f"of {SCRIPT} none held", why_no_suspects="no cleanlab")
    shown = page(found)
    assert (
        f"Slices No slices: of {SCRIPT} none held. Doubtful labels Labels could not be judged: no cleanlab."
        in shown.text
    )
    assert not shown.all("script")
    assert "Labels that are" not in printed(found.table())
    clean = replace(found, n_suspects={"diagnose": 0, "repair": 0}, why_no_suspects="")
    assert "Doubtful labels No label of diagnose and repair is suspected to be wrong." in page(clean).text


def test_a_split_that_could_not_be_judged_does_not_hide_the_others() -> None:
    found = replace(diagnosed(), n_suspects={"diagnose": 3}, why_no_suspects="no examples")
    assert suspects.sentence(found).endswith("3 of 220 in diagnose. Labels could not be judged: no examples.")


def test_a_task_without_classes_has_slices_too() -> None:
    found = diagnosed()
    without = replace(diagnosed_without_classes(), slices=found.slices.assign(classes=""))
    assert "A region in which" in page(without).text
    assert "among these errors" not in page(without).text
    assert "3 slices; in the worst" in printed(without.table())


def test_a_terminal_has_a_line_of_each() -> None:
    with_both, without = (printed(found.table(), 400) for found in (diagnosed(), replace(diagnosed(), **BARE)))
    assert with_both.count("\n") - without.count("\n") == 3
    worst = "3 slices; in the worst 41 of 89 examples are wrong (46 %), against 18 % elsewhere; among these errors cat"
    assert worst in said(with_both)
    assert "right labels are suspected" in " ".join(with_both.split())
    assert "Labels in doubt: 3 of 220 in diagnose and 1,200 of 3,000 in repair." in with_both


def test_values_of_the_metadata_are_said_and_counted() -> None:
    found = diagnosed()
    first = "More is wrong under cat = ship: 39 of 46 examples (85 %), against 6 % elsewhere; dog = dog: 39 of 46"
    assert said(subgroups.sentence(found)).startswith(first)
    shown = said(page(found).text)
    assert shown.index("What causes it") < shown.index("Subgroups " + first) < shown.index("Slices")
    assert "corrected for 12 values tested" in shown
    assert first in " ".join(said(printed(found.table(), 400)).split())
    none = replace(found, subgroups=NOTHING)
    assert "Of 12 values of the metadata none has more errors than the rest." in said(page(none).text)
    many = replace(found, subgroups=pd.concat([found.subgroups] * 3))
    assert said(subgroups.brief(many)).endswith("(85 %), against 6 % elsewhere; 8 more")
    assert dict(where(None, None, many))["More is wrong under"] == subgroups.brief(many)
    assert not subgroups.brief(none)
    assert subgroups.sentence(many).endswith("; 6 more.")


def test_hostile_names_of_slices_traits_and_files_are_text() -> None:
    shown = page(diagnosed(HOSTILE, HOSTILE))
    assert f"slice 1 {SCRIPT}" in shown.text
    assert f"{SCRIPT}.png" in shown.text
    assert not shown.all("script")
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)


def test_many_slices_and_large_pictures_stay_small(tmp_path: Path) -> None:
    many = diagnosed([f"class {i}" for i in range(40)])
    pictures = {name: noise(6, 256, 256, 3) for name in many.slices["slice"]} | {"suspects": noise(40, 256, 256, 3)}
    path = report(write_run(tmp_path, localized(), replace(many, pictures=pictures)))
    assert path.stat().st_size < 2_000_000
    alts = [str(attributes["alt"]) for attributes in read(path).all("img")]
    assert sum(alt.startswith("An error at the centre") for alt in alts) == 6 * slices.SHOWN
    assert sum(".png" in alt for alt in alts) == suspects.SHOWN


def test_without_pictures_tables_and_sentences_remain() -> None:
    shown = page(diagnosed(pictures=False))
    assert "The least credible labels" in shown.text
    assert all("slice" not in str(attributes["alt"]) for attributes in shown.all("img"))
    assert np.all([not item["thumbnails"] for item in slices.shown(diagnosed(pictures=False))])


def test_where_there_is_no_slice_a_terminal_says_why_too() -> None:
    assert "No slices: few errors." in printed(replace(diagnosed(), **BARE, why_no_slices="few errors").table(), 200)


def test_a_small_probability_is_no_zero_and_counts_have_their_n() -> None:
    table = diagnosed().suspects.assign(confidence=1e-7, suggested_confidence=0.993)
    grid = suspects.grid(replace(diagnosed(), suspects=table))
    assert [name for name, _ in grid.columns][-2:] == ["Probability of the label", "Of the suggested"]
    assert [said(cell) for cell in grid.rows[0][-2:]] == ["< 0.1 %", "99.3 %"]
    older = replace(diagnosed(), suspects=table.drop(columns="suggested_confidence"), n_judged={})
    assert len(suspects.grid(older).columns) == 4
    assert suspects.sentence(older).startswith("Labels in doubt: 3 in diagnose and 1,200 in repair.")
