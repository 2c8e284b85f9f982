"""The report: one HTML file that shows a run, with nothing to fetch and nothing that executes."""

from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from suture.rundir import write_atomic
from suture.views import diagnose, localize, scan, treat, verify
from suture.views.opening import opening
from suture.views.reading import terms
from suture.views.render import render
from suture.views.run import Finished, identity, read_run, subtitle

FILE = "report.html"


class Section(NamedTuple):
    """A stage on the page."""

    anchor: str
    title: str
    question: str
    body: Markup


def report(run: str | Path, out: Path | None = None) -> Path:
    """Write the page of a run directory.

    Args:
        run: the run directory; stages that were not finished are left out.
        out: where to write; ``report.html`` in the run directory by default.

    Returns:
        The path of the page.

    Raises:
        RunError: it is no run directory, or a stage is damaged.
    """
    finished = read_run(run)
    path = Path(out) if out is not None else finished.path / FILE
    write_atomic(path, page(finished))
    return path


def page(run: Finished) -> str:
    """The page as text."""
    return render(
        "report.html.j2",
        title=run.title,
        subtitle=subtitle(run),
        opening=opening(run),
        identity=identity(run),
        terms=terms(run),
        sections=sections(run),
    )


def sections(run: Finished) -> list[Section]:
    """The finished stages, in order."""
    found = []
    if run.scan:
        found.append(Section("scan", "Scan", "How was it trained?", scan.section(run.scan)))
    if run.localize:
        found.append(Section("localize", "Localize", "Where do the errors come from?", localize.section(run.localize)))
    if run.diagnose:
        found.append(Section("diagnose", "Diagnose", "What is taken for what?", diagnose.section(run.diagnose)))
    if run.treat:
        body = treat.section(run.treat, run.weights)
        found.append(Section("treat", "Treat", "What was changed?", body))
    if run.verify:
        body = verify.section(run.verify, run.diagnose)
        found.append(Section("verify", "Verify", "Did it help, and whom did it hurt?", body))
    return found
