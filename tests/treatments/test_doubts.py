"""Doubts about the repair data: counted and said, and nothing said about sound data."""

from typing import Any

import pytest

import suture
from suture.case import Case
from suture.treatments.doubts import doubts_of
from tests import toys


def three(repair: list[Any], **options: Any) -> Case:
    """The toy case with repair data of its own."""
    data = toys.data()
    return Case(toys.network(), diagnose=data[:150], repair=repair, verify=data[450:], **options)


def sound() -> list[Any]:
    return toys.data()[150:450]


def test_sound_data_raises_no_doubt() -> None:
    assert doubts_of(three(sound())) == []
    assert doubts_of(toys.case()) == []
    assert doubts_of(toys.sequence_case()) == []


@pytest.mark.parametrize("n", [1, 7])
def test_twins_with_another_label_are_counted(n: int) -> None:
    repair = sound()
    # By way of further data, since the copies of one data set need not all be in `repair`.
    train = three(repair).splits["repair"]
    copies = [(train[i][0].clone(), (train[i][1] + 1) % 3) for i in range(n)]
    found = doubts_of(three(repair, repair_extra=copies))
    assert found == [f"{2 * n} examples of 'repair' have a twin with another label; check those labels"]
    agreeing = [(train[i][0].clone(), train[i][1]) for i in range(n)]
    assert doubts_of(three(repair, repair_extra=agreeing)) == []


def test_repair_data_without_the_failing_classes() -> None:
    model, data = toys.network(), toys.data()
    wrong = {y for x, y in data[:150] if int(model(x[None]).argmax()) != y}
    assert wrong
    repair = [(x, y) for x, y in sound() if y not in wrong]
    if not repair:
        wrong = {max(wrong)}
        repair = [(x, y) for x, y in sound() if y not in wrong]
    names = ["cat", "dog", "owl"]
    (found,) = [line for line in doubts_of(three(repair, classes=names)) if "has no example" in line]
    shown = ", ".join(names[y] for y in sorted(wrong))
    assert found == f"'repair' has no example of {shown}, where the model fails; such errors cannot be learnt from it"


def test_labels_in_another_order_are_suspected() -> None:
    swapped = [(x, (y + 1) % 3) for x, y in sound()]
    (found,) = doubts_of(three(swapped))
    assert "their labels may not mean the same; check the order of the classes" in found
    assert "of 'repair' and on" in found


def test_harder_repair_data_is_no_reason_for_doubt() -> None:
    # 10 points of accuracy apart is what other data may well be.
    model = toys.network()
    repair, flipped = [], 0
    for x, y in sound():
        wrong = int(model(x[None]).argmax()) == y and flipped < 30
        repair.append((x, (y + 1) % 3 if wrong else y))
        flipped += wrong
    assert doubts_of(three(repair)) == []


def test_a_treatment_carries_the_doubts_and_goes_on() -> None:
    swapped = [(x, (y + 1) % 3) for x, y in sound()]
    case = three(swapped)
    found = suture.treat(case, ["second"], toys.PLAN)
    assert found.warnings == doubts_of(case)
    assert len(found.warnings) == 1
    assert len(found.history) == 6
    assert suture.treat(case, ["second"], "none").warnings == []


def test_a_class_folder_that_is_missing_is_noticed() -> None:
    case = toys.case()
    assert doubts_of(case) == []
    case.classes = ["a", "b"]
    (said,) = doubts_of(case)
    assert "the network tells 3 classes and the data has 2" in said
