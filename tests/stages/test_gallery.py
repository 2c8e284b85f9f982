"""Examples that Verify keeps to look at: of the right kind and confusion, with probabilities, bounded in number."""

import numpy as np
import pandas as pd
import pytest

from suture.case import Case
from suture.patch import Patch, patched
from suture.stages.gallery import CELL, CELLS, COLUMNS, GALLERY, PER_CELL
from suture.stages.localize import localize
from suture.stages.treat import treat
from suture.stages.verify import Verification, verify
from tests import toys

Made = tuple[Case, Patch, Verification]


@pytest.fixture(scope="module")
def made() -> Made:
    case = toys.case()
    patch = treat(case, localize(case), "full").patch
    result = verify(case, patch)
    assert result.fixed > 3
    assert list(result.gallery.columns) == COLUMNS
    assert list(result.examples.columns) == [*CELL, *COLUMNS]
    return case, patch, result


def test_examples_left_or_joined_the_confusion_they_stand_with(made: Made) -> None:
    *_, result = made
    fixed = result.examples[result.examples["kind"] == "fixed"]
    broken = result.examples[result.examples["kind"] == "broken"]
    assert (fixed["before"] == fixed[CELL[1]]).all()
    assert (fixed["after"] == fixed["true"]).all()
    assert (broken["after"] == broken[CELL[1]]).all()
    assert (broken["before"] == broken["true"]).all()
    assert (result.examples["true"] == result.examples[CELL[0]]).all()
    changed = result.pairs[result.pairs["change"] != 0]
    known = set(changed[["true", "predicted"]].itertuples(index=False, name=None))
    assert set(result.examples[CELL].itertuples(index=False, name=None)) <= known


def test_there_are_no_more_than_a_page_can_show(made: Made) -> None:
    *_, result = made
    assert result.gallery["kind"].value_counts().max() <= GALLERY
    counts = result.examples.groupby([*CELL, "kind"]).size()
    assert counts.max() <= PER_CELL
    assert len(result.examples) <= 2 * CELLS * PER_CELL


def test_probabilities_are_those_of_the_predictions(made: Made) -> None:
    case, patch, result = made
    split = case.splits["verify"]
    places = {split.label(i): i for i in range(len(split))}
    for model, when in ((case.model, "before"), (patched(case.model, patch), "after")):
        for row in pd.concat([result.gallery, result.examples]).to_dict("records"):
            x = split[places[str(row["example"])]][0]
            shares = model.eval()(x[None]).softmax(1)[0].detach().numpy()
            assert row[f"sure_{when}"] == pytest.approx(float(shares.max()), abs=1e-5)
            assert row[when] == case.class_name(int(np.argmax(shares)))
