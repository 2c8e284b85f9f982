"""The gates as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from suture.views.checks import checks
from suture.views.verify_tables import caveats, said_of
from suture.wording import plain

if TYPE_CHECKING:
    from suture.stages.verify import Verification
    from suture.views.run import Finished

SUITE = "suture.verify"


def junit(
    result: Verification, title: str = "", *, require: str | None = None, max_regression: float | None = None
) -> str:
    """One suite with a case for the verdict and for each further requirement.

    A case fails exactly where the command would exit with 3; a verdict that nothing was required of and that is not
    ``better`` counts as skipped, with its sentence.

    Args:
        title: of the run.
        require, max_regression: as for `suture.views.checks.checks`.
    """
    root, suite = _suite(title)
    found = checks(result, require, max_regression)
    for check in found:
        case = _case(suite, check.name)
        if check.unmet:
            failure = ElementTree.SubElement(case, "failure", message=plain(check.unmet), type="requirement")
            failure.text = plain(check.unmet)
        elif check.remark:
            ElementTree.SubElement(case, "skipped", message=plain(check.remark))
    out = ElementTree.SubElement(suite, "system-out")
    out.text = plain(" ".join([f"{said_of(result)}.", *caveats(result)]))
    failures, skipped = sum(bool(c.unmet) for c in found), sum(bool(c.remark and not c.unmet) for c in found)
    return _written(root, suite, tests=len(found), failures=failures, skipped=skipped)


def of_run(run: Finished) -> str:
    """The suite of a run; one that has no verdict yet is an error, so that nobody takes it for passed."""
    if run.verify is not None:
        return junit(run.verify, run.title)
    root, suite = _suite(run.title)
    message = f"not verified: {run.stopped}; {run.going_on}"
    ElementTree.SubElement(_case(suite, "verdict"), "error", message=plain(message), type="unfinished")
    return _written(root, suite, tests=1, errors=1)


def _suite(title: str) -> tuple[ElementTree.Element, ElementTree.Element]:
    root = ElementTree.Element("testsuites")
    name = plain(f"suture verify: {title}" if title else "suture verify")
    return root, ElementTree.SubElement(root, "testsuite", name=name)


def _case(suite: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=SUITE, name=plain(name), time="0")


def _written(root: ElementTree.Element, suite: ElementTree.Element, **counts: int) -> str:
    """The document; a suite says how many of its cases went which way."""
    for name in ("tests", "failures", "errors", "skipped"):
        suite.set(name, str(counts.get(name, 0)))
    suite.set("time", "0")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(
        ['<?xml version="1.0" encoding="UTF-8"?>\n', "\n"]
    )
