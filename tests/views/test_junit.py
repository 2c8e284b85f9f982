"""JUnit XML: what CI reads is what the exit code says, whatever names the data have."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suture.stats import Verdict
from suture.views.checks import checks
from suture.views.junit import junit, of_run
from suture.views.run import read_run
from tests.views.results import HOSTILE, UNWRITABLE, localized, verified, verified_in_full, write_run


def suite(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    (found,) = root
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(found.attrib[name]) == len(found.findall(f"testcase/{tag}"))
    assert int(found.attrib["tests"]) == len(found.findall("testcase"))
    return found


def test_a_case_per_requirement_and_failures_with_their_sentence() -> None:
    result = verified_in_full()
    found = suite(junit(result, "run", require="better", max_regression=0.01))
    assert [case.attrib["name"] for case in found.findall("testcase")] == [
        "verdict: better", "must keep: none of 12 examples breaks", "regression rate at most 0.01",
    ]  # fmt: skip
    said = [failure.attrib["message"] for failure in found.findall("testcase/failure")]
    assert said == [check.unmet for check in checks(result, "better", 0.01) if check.unmet]
    assert "cat and dog" in said[0]
    assert "cannot be ruled out" in said[1]
    assert "fixes 30 and breaks 6" in str(found.findtext("system-out"))


def test_a_verdict_that_is_not_met_fails() -> None:
    (failure,) = suite(junit(verified(verdict=Verdict.CANNOT_TELL), require="better")).findall("testcase/failure")
    assert failure.attrib["message"] == "the verdict is 'cannot tell' and not 'better' as required"


@pytest.mark.parametrize(("verdict", "skipped"), [(Verdict.BETTER, 0), (Verdict.WORSE, 1), (Verdict.CANNOT_TELL, 1)])
def test_without_a_requirement_nothing_fails_and_only_better_passes(verdict: Verdict, skipped: int) -> None:
    found = suite(junit(verified(verdict=verdict)))
    assert (found.attrib["tests"], found.attrib["failures"], found.attrib["skipped"]) == ("1", "0", str(skipped))


def test_a_run_without_a_verdict_is_an_error(tmp_path: Path) -> None:
    found = suite(of_run(read_run(write_run(tmp_path, localized()))))
    (error,) = found.findall("testcase/error")
    assert "the run stopped after localize" in error.attrib["message"]


def test_hostile_names_stay_text() -> None:
    names = [*HOSTILE, UNWRITABLE, "]]>", "<failure/>"]
    found = suite(junit(verified_in_full(broken_must_keep=names, must_keep=9), HOSTILE[0] + UNWRITABLE))
    assert len(found.findall("testcase/failure")) == 1
    assert HOSTILE[0] in found.attrib["name"]
    assert "<failure/>" in str(found.findtext("testcase/failure"))


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_name_parses_back(name: str) -> None:
    found = suite(junit(verified(broken_must_keep=[name], must_keep=1), name))
    assert len(found.findall("testcase/failure")) == 1
