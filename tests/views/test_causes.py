"""What Diagnose says of confusions and their causes: of which it was asked, beside what chance, and in what words."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from suture.stages.diagnose import Diagnosis
from suture.views import causes, diagnose
from tests.views.results import diagnosed
from tests.views.test_page import Page
from tests.views.test_slices import said
from tests.views.test_views import printed


def found(**changes: Any) -> Diagnosis:
    return replace(diagnosed(), **changes)


def confused(rows: list[tuple[str, str, int, float, float]]) -> dict[str, Any]:
    """Fields of a diagnosis that saw these pairs: true, predicted, count, by chance, p of as many by chance."""
    table = pd.DataFrame(rows, columns=["true", "predicted", "count", "expected", "p_chance"])
    return {"confusion": table.assign(share=0.1), "n_errors": int(table["count"].sum())}


# Of which pairs causes were asked


def test_a_pair_that_nobody_asked_about_is_told_from_one_without_a_cause() -> None:
    shown = printed(diagnosed().table(), 200)
    rows = {line.split("│")[1].strip(): line.split("│")[4].strip() for line in shown.splitlines() if "│" in line}
    assert rows == {"cat → dog": "texture", "dog → ship": "undetermined", "ship → cat": "not asked"}
    assert [row[-1] for row in diagnose.grid(diagnosed()).rows] == ["texture", "undetermined", "not asked"]
    page = Page(str(diagnose.section(diagnosed()))).text
    for caption in ("cause: texture", "cause: undetermined", "cause: not asked"):
        assert caption in page


@pytest.mark.parametrize(
    ("counts", "asked", "sentence"),
    [
        ([9, 4, 3], 1, "Asked of 1 of 3 pairs; the others have fewer than 5 errors."),
        ([9, 4], 1, "Asked of 1 of 2 pairs; the other has fewer than 5 errors."),
        (
            [9, 8, 3], 1,
            "Asked of 1 of 3 pairs; 1 was not asked for (--causes asks of more), 1 has fewer than 5 errors.",
        ),
    ],
)  # fmt: skip
def test_of_how_many_pairs_it_was_asked(counts: list[int], asked: int, sentence: str) -> None:
    whole = diagnosed(["a", "b", "c"][: max(len(counts), 2)])
    pairs = whole.pairs.head(len(counts)).assign(count=counts)
    assert causes.sentences(replace(whole, pairs=pairs, causes=whole.causes.head(asked)))[-1] == sentence


def test_where_all_were_asked_nothing_is_said_of_it() -> None:
    whole = diagnosed()
    assert "Asked" not in " ".join(causes.sentences(replace(whole, pairs=whole.pairs.head(2))))


def test_errors_outside_the_listed_pairs_are_counted() -> None:
    whole = diagnosed()  # 5, 4 and 3 errors
    assert diagnose.elsewhere(whole) == ""
    rare = replace(whole, confusion=whole.confusion.assign(count=[5, 4, 2]), pairs=whole.pairs.head(2), n_errors=11)
    assert diagnose.elsewhere(rare) == "2 of 11 errors are in pairs with fewer than 3."
    assert "2 of 11 errors are" in printed(rare.table(), 200)
    assert "2 of 11 errors are" in Page(str(diagnose.section(rare))).text
    cut = replace(whole, pairs=whole.pairs.head(2))
    assert diagnose.elsewhere(cut) == "3 of 12 errors are in other pairs."


# The group that carries a cause, and what named it


def test_two_columns_of_groups_have_two_names() -> None:
    pairs, of_causes = ({name for name, _ in grid.columns} for grid in (diagnose.grid(found()), causes.grid(found())))
    assert "Pulls most on" in pairs
    assert "Acts through" in of_causes
    assert "Group" not in pairs | of_causes


def test_where_intervals_overlap_no_group_is_named() -> None:
    whole = diagnosed()
    without = found(causes=whole.causes.assign(group=None, carried=None, beyond=None))
    assert causes.grid(without).rows[0][-1] == "no group more than another"
    assert causes.grid(without).rows[1][-1] == "–", "an undetermined cause goes through none"
    assert "no group more than of another" in causes.sentences(without)[0]
    assert "most specific to the outputs of fc." in causes.sentences(whole)[0]


def test_beside_the_numbers_of_a_swap_stands_no_probe() -> None:
    whole = diagnosed()
    assert [row[2] for row in causes.grid(whole).rows] == ["texture (swap)", "undetermined (probe blur)"]
    by_probe = found(causes=whole.causes.assign(by="probe"))
    assert causes.grid(by_probe).rows[0][2] == "texture (probe blur)"


def test_a_way_says_where_it_leads() -> None:
    sentence = said(causes.sentences(found())[0])
    assert "go 70 % of the way to the border between both, beyond chance" in sentence
    assert "beyond 100 % the answer is right" in said(causes.grid(found()).note)
    assert "A swap" in causes.grid(found()).note


# The first sentence


def test_the_diagnosis_is_the_first_line_of_a_terminal() -> None:
    assert printed(diagnosed().table(), 80).splitlines()[0].strip() == "cat taken for dog: texture"


def test_the_pair_that_is_surest_to_be_beyond_chance_goes_first() -> None:
    rows = [("1", "8", 18, 15.0, 0.9), ("2", "7", 12, 2.0, 0.001), ("3", "5", 4, 4.0, 1.0)]
    assert diagnose.opening(found(**confused(rows))).startswith(
        "Most clearly beyond chance, 2 is taken for 7: 12 of 34 errors, where chance alone would give 2.0 (p = 0.001)."
    )


def test_where_chance_explains_every_pair_that_is_said() -> None:
    rows = [("1", "8", 18, 15.0, 0.9), ("2", "7", 12, 11.0, 1.0)]
    assert diagnose.opening(found(**confused(rows))).startswith(
        "Most often 1 is taken for 8: 18 of 30 errors, where chance alone would give 15; no pair is clearly more "
        "frequent than chance."
    )
    older = found(**confused(rows))
    older = replace(older, confusion=older.confusion.drop(columns="p_chance"))
    assert "no pair" not in diagnose.opening(older)


def test_one_answer_to_everything_is_said_first() -> None:
    rows = [("1", "8", 100, 100.0, 1.0), ("2", "8", 98, 98.0, 1.0), ("8", "1", 1, 1.0, 1.0)]
    assert diagnose.opening(found(**confused(rows))).startswith("198 of 199 errors are taken for 8. Most often 1 is")
    assert "errors are taken for" not in diagnose.opening(found(**confused(rows[::2]))), "two classes have no choice"
