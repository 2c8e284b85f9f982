"""What Localize shows of every localizer that was asked for, and the words it has for marks and counts."""

import io
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from suture.localizers import LOCALIZERS
from suture.stages.localize import Localization
from suture.views import localize, localize_tables
from suture.views.localize_tables import OTHERS
from tests.views.results import HOSTILE, localized, localized_without_errors

GROUPS = ["conv1", "layer1", "fc"]


def asked(names: list[str], groups: list[str] | None = None, *, nulls: list[str] | None = None) -> Localization:
    """The localizers of these names, the k-th with scores k + 0.1, k + 0.2, …; nulls half of that where there are."""
    groups = groups or GROUPS
    steps = np.arange(1, len(groups) + 1) / 10
    scores = pd.DataFrame({name: k + steps for k, name in enumerate(names, 1)}, index=groups)
    correct = (scores / 2)[names if nulls is None else nulls].reindex(columns=names)
    nothing = scores * float("nan")
    return localized(
        groups, scores=scores, null_correct=correct, null_random=nothing, low=nothing, high=nothing,
        first_share=nothing,
    )  # fmt: skip


def printed(result: Localization, width: int = 80) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(result.table())
    return text.getvalue()


def chapter(result: Localization) -> list[str]:
    """The lines of a terminal from the heading of the other localizers on."""
    lines = printed(result).splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.startswith(OTHERS)]
    return lines[start:]


def headings(result: Localization, *, narrow: bool = True) -> list[str]:
    return [name for name, _ in localize_tables.others(result, narrow=narrow).columns]


def test_the_terminal_shows_the_second_localizer_beside_its_null() -> None:
    result = asked(["grad_norm", "relative"])
    assert headings(result) == ["Group", "relative", "relative, correct"]
    (row,) = [line for line in chapter(result) if line.startswith("│ fc ")]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["fc", "2.30", "1.15"]
    assert OTHERS not in printed(asked(["grad_norm"]))


def test_nulls_that_were_not_measured_have_no_column() -> None:
    result = asked(["grad_norm", "relative", "friction"], nulls=["grad_norm", "relative"])
    for narrow in (True, False):
        assert headings(result, narrow=narrow) == ["Group", "relative", "relative, correct", "friction"]


def test_scores_stand_alone_where_nulls_do_not_fit() -> None:
    names = ["relative", "rms", "friction", "coherence"]
    result = asked(["grad_norm", *names])
    assert headings(result) == ["Group", *names]
    assert headings(result, narrow=False) == ["Group", *(each for n in names for each in (n, f"{n}, correct"))]
    (row,) = [line for line in chapter(result) if line.startswith("│ fc ")]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["fc", "2.30", "3.30", "4.30", "5.30"]


def test_of_many_localizers_the_terminal_shows_the_highest_groups_of_each() -> None:
    names = list(LOCALIZERS)
    result = asked(names)
    grid = localize_tables.others(result, narrow=True)
    assert [row[0] for row in grid.rows] == names[1:]
    assert grid.rows[3] == [names[4], "fc", "5.30", "layer1", "5.20"]
    lines = chapter(result)
    assert max(map(len, lines)) <= 80
    rows = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert rows[: len(names) - 1] == names[1:]  # a line each: nothing is folded
    assert localize_tables.ALL_SCORES in " ".join(lines)
    assert len(headings(result, narrow=False)) == 2 * len(names) - 1  # the page scrolls


def test_a_localizer_that_knows_few_groups_is_shown_with_those() -> None:
    result = asked([f"localizer_number_{i}" for i in range(9)])
    result.scores.iloc[:, 1] = [float("nan"), 1.5, float("inf")]
    result.scores.iloc[:, 2] = float("nan")
    rows = localize_tables.others(result, narrow=True).rows
    assert rows[0] == ["localizer_number_1", "layer1", "1.50", "–", "–"]
    assert rows[1] == ["localizer_number_2", "–", "–", "–", "–"]


def test_localizers_that_know_nothing_have_no_table() -> None:
    assert not localize_tables.others(localized_without_errors(), narrow=True)
    assert OTHERS not in printed(localized_without_errors())


@pytest.mark.parametrize("n", [2, 5, 21])
@pytest.mark.parametrize("groups", [[f"model.layers.{i}.self_attention.output.dense" for i in range(4)], HOSTILE])
def test_the_other_localizers_fit_the_terminal_whatever_the_groups_are_called(n: int, groups: list[str]) -> None:
    lines = printed(asked([f"localizer_{i}" for i in range(n)], groups)).splitlines()
    assert any(line.startswith(OTHERS) for line in lines)
    assert max(map(len, lines)) <= 80
    assert "localizer_1" in " ".join(lines)


def test_the_page_and_the_terminal_say_the_same_of_the_other_localizers() -> None:
    result = asked(["grad_norm", "relative"])
    whole = localize_tables.others(result)
    assert whole == localize_tables.others(result, narrow=True)
    assert str(whole.html()) in str(localize.section(result))


@pytest.mark.parametrize(
    ("changes", "marks"),
    [
        ({}, "; ┃ on correct examples, ○ at random weights"),
        ({"null_random": pd.DataFrame()}, "; ┃ on correct examples"),
        ({"null_correct": pd.DataFrame()}, "; ○ at random weights"),
        ({"null_correct": pd.DataFrame(), "null_random": pd.DataFrame()}, ""),
    ],
)
def test_the_bars_name_the_marks_that_are_drawn_and_no_others(changes: dict[str, Any], marks: str) -> None:
    result = localized(**changes)
    lines = [line.rstrip() for line in printed(result).splitlines()]
    assert f"share of grad_norm{marks}" in lines
    drawn = "".join(line for line in lines if line.startswith(("conv1 ", "layer1 ", "fc ")))
    assert [sign in drawn for sign in "┃○"] == [sign in marks for sign in "┃○"]
    said = re.search(r'alt="([^"]*)"', str(localize.section(result)))
    assert said is not None
    assert ["correct examples" in said[1], "random weights" in said[1]] == [sign in marks for sign in "┃○"]


def test_the_picture_in_words_names_gains_only_where_they_are() -> None:
    assert "on errors, on correct examples and at random weights; held-out gain" in str(localize.section(localized()))
    assert "; held-out gain" not in str(localize.section(localized(pays=pd.DataFrame())))


def test_one_example_is_one_example() -> None:
    wrong = localized(n=1, n_errors=1, accuracy=0.0)
    assert localize.findings(wrong)[0] == (
        "The model is wrong on the only example of the diagnose split (accuracy 0.0\N{NO-BREAK SPACE}%)."
    )
    assert localize_tables.grid(wrong).caption.startswith("grad_norm of 1 error in 1 example (")
    assert "passes over the only example (" in localize.small_print(wrong)[0]
    right = localized(n=1, n_errors=0, accuracy=1.0)
    assert localize.findings(right)[0].startswith("The model is right on the only example of the diagnose split, so")
    assert localize.findings(localized())[0].startswith("The model is wrong on 20 of the 100 examples of the")
    assert localize.findings(localized(n_errors=0))[0].startswith("The model is right on all 100 examples of the")
