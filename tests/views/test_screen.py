"""What a run found, on one screen: short, whole, and safe to print."""

import io
from typing import Any

import pytest
from rich.console import Console

from suture.views.screen import screen
from tests.views.results import (
    HOSTILE,
    SCRIPT,
    diagnosed,
    diagnosed_without_classes,
    localized,
    localized_without_errors,
    routed,
    scanned,
    searched,
    untreated,
    verified,
    verified_in_full,
    verified_unchanged,
)


def printed(**results: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(screen(results))
    return text.getvalue()


ORDINARY: dict[str, Any] = {
    "scan": scanned(),
    "localize": localized(),
    "diagnose": diagnosed(),
    "treat": searched(),
    "verify": verified_in_full(),
}


def test_a_paragraph_for_every_stage_and_the_numbers_of_the_verdict() -> None:
    text = printed(**ORDINARY)
    starts = [line.split()[0] for line in text.splitlines() if line[:1].isalpha()]
    assert starts[:5] == ["Scan", "Localize", "Diagnose", "Treat", "Verify"]
    assert len(text.splitlines()) <= 60
    said = " ".join(text.split())
    assert "The model is wrong on 20 of the 100 examples of the diagnose split" in said
    assert "Warning: 3 examples of 'repair' have a twin with another label; check those labels." in said
    assert "early x 0.5 fixed 15 and broke 0 of the 100 examples of 'select' and was kept." in said
    assert "McNemar p, exact" in said
    assert ORDINARY["verify"].sentence in said


@pytest.mark.parametrize(
    "odd",
    [
        {"localize": localized_without_errors()},
        {"diagnose": diagnosed_without_classes()},
        {"diagnose": diagnosed_without_classes(0)},
        {"treat": untreated()},
        {"treat": routed()},
        {"verify": verified()},
        {"verify": verified_unchanged()},
        {"localize": localized(HOSTILE), "diagnose": diagnosed(HOSTILE, HOSTILE)},
        {"treat": searched(HOSTILE, note=SCRIPT, warnings=HOSTILE)},
    ],
    ids=lambda odd: "-".join(odd),
)
def test_odd_results_have_a_screen_too(odd: dict[str, Any]) -> None:
    text = printed(**(ORDINARY | odd))
    assert {"Localize", "Diagnose", "Treat", "Verify"} <= set(text.split())
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_run_that_stopped_early_has_what_there_is() -> None:
    text = printed(localize=localized())
    assert text.startswith("Localize")
    assert "Verify" not in text
