"""The difference matrix, the examples beside it, and the first screen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from suture.patch import Patch
from suture.stages.verify import Verification
from suture.stats import Flips, Verdict
from suture.views import verify
from suture.views.gallery import CELLS, PER_CELL, cells
from suture.views.matrix import MOST, matrix, views
from suture.views.opening import opening, where
from suture.views.run import read_run
from suture.views.verify_tables import said_of
from tests.views.results import (
    CLASSES,
    localized,
    noise,
    treated,
    untreated,
    verified,
    verified_long_ago,
    verified_unchanged,
    verified_without_classes,
    write_run,
)


def with_examples(result: Verification, per_cell: int = 5, side: int = 8) -> Verification:
    """The result with fixed and broken examples of each of its confusions."""
    rows = []
    for true, predicted in result.pairs[["true", "predicted"]].itertuples(index=False):
        for i in range(per_cell):
            rows.append([true, predicted, "fixed", f"{true}/{i}.png", true, predicted, true, 0.6, 0.9])
            rows.append([true, predicted, "broken", f"{true}/{i + 50}.png", true, true, predicted, 0.55, 0.7])
    columns = ["true class", "predicted class", "kind", "example", "true", "before", "after", "sure_before"]
    table = pd.DataFrame(rows, columns=[*columns, "sure_after"])
    gallery = result.gallery.assign(sure_before=0.625, sure_after=0.875)
    pictures = result.pictures | {"examples": noise(len(rows), side, side, 3)}
    return replace(result, examples=table, gallery=gallery, pictures=pictures)


def crowd(k: int) -> Verification:
    """A result of k classes, of which the last three moved."""
    names = [f"class {i}" for i in range(k)]
    change = [0] * (k - 3) + [-5, 7, 3]
    pairs = pd.DataFrame({
        "true": names, "predicted": names[1:] + names[:1], "before": 9, "after": [9 + c for c in change],
        "change": change,
    })  # fmt: skip
    per_class = pd.DataFrame({"class": names, "n": 50, "before": 0.8, "after": 0.8, "fixed": 0, "broken": 0})
    return verified(names[:3], pairs=pairs, per_class=per_class)


def test_the_matrix_adds_up_and_is_after_minus_before() -> None:
    found = matrix(verified())
    assert found is not None
    assert found.classes == CLASSES
    assert found.before.tolist() == [[50, 9, 0], [0, 50, 9], [9, 0, 50]]
    assert np.diag(found.after).tolist() == [59, 46, 46]
    difference, before, after = views(found, {("cat", "dog"): "confusion-1"})
    assert [[cell.text for cell in row] for _, row in difference.rows] == [
        ["+9", "−5", "0"], ["0", "−4", "−5"], ["−5", "0", "−4"],
    ]  # fmt: skip
    tones = [[cell.tone for cell in row] for _, row in difference.rows]
    assert tones[0] == ["better strong", "better strong", "zero"]
    assert tones[1][1] == "worse strong"
    assert difference.rows[0][1][1].target == "confusion-1"
    assert before.rows[0][1][0].tone == "right"
    assert after.rows[0][1][1].text == "4"


def test_of_many_classes_those_that_changed_are_shown_and_the_rest_is_said() -> None:
    found = matrix(crowd(1000))
    assert found is not None
    assert found.classes == ["class 0", "class 997", "class 998", "class 999"]
    assert found.before.shape == (4, 5)
    row = found.before[1]
    assert row.sum() == 40 + 9, "nothing of a row is lost"
    html = str(verify.section(crowd(1000)))
    assert "4 classes that changed most, of 1,000" in html
    assert len(html) < 400_000
    still = crowd(50)
    found = matrix(replace(still, pairs=still.pairs.assign(after=9, change=0)))
    assert found is not None
    assert len(found.classes) == MOST


@pytest.mark.parametrize("make", [verified_without_classes, lambda: verified(["only"])], ids=["none", "one"])
def test_fewer_than_two_classes_have_no_matrix(make: object) -> None:
    result = make()  # type: ignore[operator]
    if len(result.per_class) == 1:
        result = replace(result, pairs=result.pairs.iloc[:0])
    assert matrix(result) is None
    assert "data-part" not in str(verify.section(replace(result, gallery=result.gallery.iloc[:0])))


def test_old_results_have_their_matrix_and_no_examples_beside_it() -> None:
    html = str(verify.section(verified_long_ago()))
    assert "After minus before" in html
    assert "Underlined numbers" not in html
    assert "with the probability" not in html


def test_examples_stand_beside_their_confusion_and_are_few() -> None:
    result = with_examples(verified())
    found = cells(result)
    assert [(cell["true"], cell["predicted"]) for cell in found] == [("cat", "dog"), ("dog", "ship"), ("ship", "cat")]
    assert all(len(cell[kind]) == PER_CELL for cell in found for kind in ("fixed", "broken"))
    assert found[0]["fixed"][0]["sure_before"] == "60\xa0%"
    html = str(verify.section(result))
    assert 'href="#confusion-1"' in html
    assert 'id="confusion-3"' in html
    assert html.count('class="thumb') == 6 + 3 * 2 * PER_CELL
    assert "dog 62\xa0%" in html
    assert len(cells(with_examples(crowd(40)))) == CELLS


def test_examples_without_pictures_have_names() -> None:
    result = replace(with_examples(verified()), pictures={})
    html = str(verify.section(result))
    assert "cat/0.png" in html
    assert "<img" not in html.split("</figure>")[-1]


def test_a_result_saved_before_there_were_examples_loads(tmp_path: Path) -> None:
    result = verified()
    result.save(tmp_path)
    data = (tmp_path / "result.json").read_text()
    assert '"examples"' in data
    import json

    old = {key: value for key, value in json.loads(data).items() if key != "examples"}
    (tmp_path / "result.json").write_text(json.dumps(old))
    loaded = Verification.load(tmp_path)
    assert not len(loaded.examples)
    assert verify.section(loaded)


def test_examples_survive_saving_and_pictures_stay_out_of_the_json(tmp_path: Path) -> None:
    result = with_examples(verified())
    result.save(tmp_path)
    loaded = Verification.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.examples, result.examples, check_dtype=False)
    assert np.array_equal(loaded.pictures["examples"], result.pictures["examples"])
    assert (tmp_path / "result.json").stat().st_size < 30_000


# The first screen


def test_the_verdict_is_one_sentence_with_its_numbers() -> None:
    assert said_of(verified()) == "The repair fixes 30 and breaks 6 of 200 examples: better, p = 7.0 × 10⁻⁵"
    many = Flips(fixed=4120, broken=95, both_right=40_000, both_wrong=5_785)
    assert said_of(verified(moves=many)) == (
        "The repair fixes 4,120 and breaks 95 of 50,000 examples: better, p < 10⁻⁹"
    )
    assert said_of(verified_unchanged()) == (
        "The patch is empty and changes none of 200 examples: no measurable change"
    )
    nothing = Flips(fixed=0, broken=0, both_right=0, both_wrong=0)
    empty = said_of(replace(verified(), n=0, verdict=Verdict.CANNOT_TELL))
    assert nothing.n == 0
    assert empty == "There were no examples to verify on: cannot tell"


def test_it_says_where_and_how_sure() -> None:
    assert where(localized(), treated()) == [
        ("Sick group", "fc, the same in 93\xa0% of resamples"), ("Treated", "fc, by A"),
    ]  # fmt: skip
    assert where(localized(top=None, why=""), None) == [
        ("Sick group", "no group stands out"), ("Flagged for treatment", "fc, by above_median"),
    ]  # fmt: skip
    assert where(None, untreated()) == [("Treated", "nothing")]
    tried = replace(untreated(), tried=treated().tried)
    assert where(None, tried) == [("Treated", "nothing: no candidate was worth keeping")]
    assert where(None, None) == []
    base = "a" * 64
    assert where(None, treated(patch=Patch({}, base, base, "A")))[0][1].startswith("nothing")


def test_it_says_what_to_hold_against_the_verdict(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, verified(optimistic=True, looks=2, broken_must_keep=["a"], must_keep=2)))
    said = " ".join(opening(run)["caveats"])
    for part in ("protocol paper", "looked at 2 times", "1 example that may not break is broken"):
        assert part in said
