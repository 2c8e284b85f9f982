"""A run as the page, for other programs as JSON, for pull requests as Markdown, and for CI as JUnit XML."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from suture.rundir import STAGES, write_atomic, write_json
from suture.views import (
    baselines,
    causes,
    diagnose,
    localize,
    localize_tables,
    scan,
    slices,
    subgroups,
    suspects,
    treat_tables,
    verify,
    verify_tables,
)
from suture.views.grid import Grid, escaped
from suture.views.junit import of_run
from suture.views.page import report
from suture.views.run import Finished, identity, read_run
from suture.views.scan_tables import findings, milestones, motion
from suture.views.verify_tables import said_of

FORMATS = ("html", "md", "json", "junit")
SUFFIXES = {"junit": "xml"}  # where a file is not named after its format


def export(run: str | Path, form: str, out: Path) -> None:
    """Write a run as the page (``html``), a summary (``md``), data (``json``) or a test for CI (``junit``), atomically.

    Raises:
        RunError: it is no run directory, or a stage is damaged.
    """
    if form == "html":
        report(run, out)
    elif form == "md":
        write_atomic(out, markdown(run))
    elif form == "junit":
        write_atomic(out, of_run(read_run(run)))
    else:
        write_json(out, to_json(run))


def to_json(run: str | Path) -> dict[str, Any]:
    """What was asked and the result of every finished stage, as plain data.

    Raises:
        RunError: it is no run directory, or a stage is damaged.
    """
    finished = read_run(run)
    results = {name: getattr(finished, name) for name in STAGES}
    return {"case": finished.case} | {name: result.to_dict() for name, result in results.items() if result}


def markdown(run: str | Path) -> str:
    """A summary of a run: the verdict, then the tables.

    Raises:
        RunError: it is no run directory, or a stage is damaged.
    """
    done = read_run(run)
    lines = [f"# {escaped(done.title)}", "", *_warned(done), *_verdict(done)]
    for title, sentences, grids in _chapters(done):
        tables = [grid.markdown() for grid in grids if grid]
        if tables or sentences:
            lines += [f"## {title}", "", *_listed(sentences), *tables]
    return "\n".join(lines)


def _listed(sentences: list[str]) -> list[str]:
    """A paragraph, or an item each of a list."""
    if not sentences:
        return []
    said = [
        re.sub(r"^(\d*)([-+.)])(?= )", r"\1\\\2", escaped(sentence)) for sentence in sentences
    ]  # no list of its own
    return [said[0], ""] if len(said) == 1 else [*(f"- {each}" for each in said), ""]


def _warned(done: Finished) -> list[str]:
    said = localize_tables.warnings(done.localize) if done.localize else []
    return [line for text in said for line in (f"**Warning.** {escaped(text)}", "")]


def _verdict(done: Finished) -> list[str]:
    verification = done.verify
    if verification is None:
        return [f"Not verified yet: {escaped(done.stopped)}; {escaped(done.going_on)}.", ""]
    n = verify.headline(verification)
    said = (
        f"Accuracy {n['accuracy']} ({n['change']}); fixed : broken {n['ratio']}; net {n['net']} ({n['interval']}); "
        f"p = {n['p']}."
    )
    return [
        f"**{escaped(verification.sentence)}** {escaped(said_of(verification))}.",
        "",
        escaped(" ".join([said, *verify_tables.caveats(verification)])),
        "",
    ]


def _chapters(done: Finished) -> Iterator[tuple[str, list[str], list[Grid]]]:
    """Title, sentences and tables of what is there."""
    yield "What was asked", [], [replace(identity(done), caption="")]
    if done.scan:
        yield "Scan", findings(done.scan), [scan.grid(done.scan), milestones(done.scan), motion(done.scan)]
    if done.localize:
        yield (
            "Localize",
            localize.findings(done.localize),
            [localize_tables.grid(done.localize), localize_tables.others(done.localize)]
            if done.localize.n_errors
            else [],
        )
    if done.diagnose:
        found = done.diagnose
        said = [*diagnose.leads(found), diagnose.elsewhere(found), *causes.sentences(found), subgroups.sentence(found)]
        said += [slices.why_not(found), *slices.sentences(found), suspects.sentence(found), suspects.caution(found)]
        tables = [diagnose.grid(found), causes.grid(found), subgroups.grid(found)]
        tables += [slices.grid(found), slices.probes(found)]
        yield "Diagnose", [each for each in said if each], [*tables, suspects.grid(found)]
    if done.treat:
        t = done.treat
        said = [*(f"Warning: {text}" for text in treat_tables.warnings(t)), *treat_tables.findings(t)]
        tables = [treat_tables.tried(t, treat_tables.SHOWN), treat_tables.cost(t)]
        yield "Treat", [*said, *treat_tables.answering(t)], tables
    if done.verify:
        v = done.verify
        tables = [
            verify_tables.grid(v),
            baselines.grid(v),
            verify_tables.drift(v),
            verify_tables.beyond_chance(v),
            verify_tables.targeted(v, done.diagnose),
            verify_tables.per_class(v),
            verify_tables.per_slice(v),
        ]
        yield "Verify", verify_tables.remarks(v), tables
