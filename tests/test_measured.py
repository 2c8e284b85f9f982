"""Tables of the documentation are those that the measured rows make."""

from pathlib import Path

import pytest

from tests.golden.pages import DOCS, TABLE, pages, rewritten

PAGES = list(pages())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_its_rows_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert rewritten(text) == text, "if this is wanted: make golden, and review the diff"


def test_all_rows_are_shown_somewhere() -> None:
    named = {name for page in PAGES for name, _ in TABLE.findall(page.read_text(encoding="utf-8"))}
    assert named == {f"measured/{path.name}" for path in (DOCS / "measured").iterdir()}
