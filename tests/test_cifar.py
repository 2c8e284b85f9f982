"""The real network on real pictures: what the example promises, on a tenth of its data."""

from pathlib import Path

import pytest

import suture
from suture.case import Case
from suture.patch import base_sha256, canonical_state
from suture.tasks import evaluate
from suture.training import Recipe
from suture.treatments import FineTune, Plan

SHORT = Plan(name="short", how=FineTune(recipe=Recipe(epochs=1, batch_size=64), batchnorm="train"))


def test_the_network_is_right_on_about_four_fifths_of_the_pictures(cifar_case: Case) -> None:
    # 81 % of all 10,000; 200 pictures stray by less than 4 standard deviations in 9,999 draws of 10,000.
    found = evaluate(cifar_case.model, cifar_case.splits["verify"], cifar_case.task, device=cifar_case.device)
    assert found.accuracy == pytest.approx(0.81, abs=0.11)


def test_five_stages_on_real_pictures(cifar_case: Case, tmp_path: Path) -> None:
    before = base_sha256(canonical_state(cifar_case.model))
    results = suture.run(cifar_case, tmp_path / "run", plan=SHORT)
    localize, diagnose, verify = (results[s] for s in ("localize", "diagnose", "verify"))
    assert list(localize.scores.index) == ["conv1", "bn1", "layer1", "layer2", "layer3", "linear"]  # type: ignore[attr-defined]
    gains = localize.pays["gain"]  # type: ignore[attr-defined]
    assert gains.idxmax() in localize.flagged  # type: ignore[attr-defined]
    assert gains[localize.flagged].min() > 0  # type: ignore[attr-defined]
    classes = set(cifar_case.classes or [])
    assert {"cat", "truck"} <= classes
    assert set(diagnose.confusion["true"]) <= classes  # type: ignore[attr-defined]
    assert verify.n == len(cifar_case.splits["verify"])  # type: ignore[attr-defined]
    assert base_sha256(canonical_state(cifar_case.model)) == before
    shown = verify.pictures.get("fixed")  # type: ignore[attr-defined]
    assert shown is None or shown.shape[1:] == (32, 32, 3)
    page = (tmp_path / "run/report.html").read_text()
    assert "automobile" in page


@pytest.mark.slow
def test_method_a_fixes_more_than_it_breaks_on_pictures_it_never_saw(cifar_model: object, shared: Path) -> None:
    from suture.images import ImageFolder
    from tests.conftest import CIFAR

    case = Case(cifar_model, ImageFolder(shared / "data/cifar10_jpeg_test_a.zip", CIFAR), image=CIFAR)  # type: ignore[arg-type]
    verify = suture.verify(case, suture.treat(case, suture.localize(case), "A"))
    assert verify.verdict == "better"
