"""Doing a study: what is finished is not done again, what fails does not stop the rest.

    <out>/study.json       whose directory this is: study, preset, version
    <out>/cells/<cell>/    one folder per cell, see ``cells``
    <out>/rows.csv         every row of every finished cell, in the order of the grid
    <out>/results.json     the same with what failed
    <out>/means.csv        means by group with n and 95 % intervals, when the study asks for means
    <out>/page.md          the tables as a page
    <out>/…                files of the study's own summary, see ``summaries``

Everything but ``study.json`` and the cells is written anew at the end of a run and holds no times, so a study
that was killed and continued ends with the same files as one that was not.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Group
from rich.markdown import Markdown
from rich.text import Text

from suture.errors import InvalidArgumentError, RunError
from suture.progress import track
from suture.rundir import RunDir, read_json, write_atomic, write_json
from suture.studies import tables
from suture.studies.cells import ERROR, Row, Task, load_function, tasks
from suture.studies.definitions import Definition, load_study
from suture.studies.executors import EXECUTORS, Executor
from suture.studies.grid import Study, expand
from suture.studies.summaries import TEXT, Content, Summary, load_summary, on_page, summarised
from suture.views.grid import escaped

SCHEMA = 1
IDENTITY = "study.json"
CELLS, ROWS, MEANS, RESULTS, PAGE = "cells", "rows.csv", "means.csv", "results.json", "page.md"


@dataclass(frozen=True)
class Outcome:
    """What came of a study.

    Attributes:
        name: of the study.
        study: the study under its preset.
        preset: the name of the preset, or None.
        directory: where everything is.
        total: how many cells the grid has.
        rows: rows of the finished cells, in the order of the grid.
        failed: folder of a cell that failed → why, in one sentence.
        summary: file → content, of the study's own summary.
    """

    name: str
    study: Study
    preset: str | None
    directory: Path
    total: int
    rows: list[Row]
    failed: dict[str, str] = field(default_factory=dict)
    summary: Mapping[str, Content] = field(default_factory=dict)

    @property
    def complaint(self) -> str:
        """How many cells failed and where to read why; empty when none did."""
        if not self.failed:
            return ""
        first = self.directory / CELLS / next(iter(self.failed)) / ERROR
        return (
            f"{len(self.failed)} of {self.total} cells failed; {first} says why, and the same command tries "
            f"{'it' if len(self.failed) == 1 else 'them'} again"
        )

    def table(self) -> Group:
        """The results for a terminal: the study's own summary where it has one, since rows are then many and wide."""
        counts = tables.counted(self.rows, self.study.table)
        texts = [Markdown(str(content)) for name, content in self.summary.items() if name.endswith(TEXT)]
        return Group(
            *([Text(counts)] if counts else []),
            *(texts or tables.terminal(self.rows, self.study.table)),
        )

    def page(self) -> str:
        """The results as Markdown, with the command that makes them."""
        command = f"suture study {self.name}" + (f" --preset {self.preset}" if self.preset else "")
        counts = tables.counted(self.rows, self.study.table)
        short = f"{len(self.failed)} of {self.total} cells failed and are missing here." if self.failed else ""
        parts = [
            f"# {escaped(self.study.title)}",
            f"Made by `{command}`; not edited by hand.",
            self.study.about.strip(),
            escaped(short),
            f"**{escaped(counts)}**" if counts else "",
            on_page(self.summary),
            self._tables(),
        ]
        return "\n\n".join(part for part in parts if part).rstrip() + "\n"

    def _tables(self) -> str:
        """The rows as they are; a summary stands in their place, since what is summarised is long."""
        if any(name.endswith(TEXT) for name in self.summary):
            return f"Every row stands in `{ROWS}`."
        return tables.markdown(self.rows, self.study.table) if self.rows else ""


def run_study(
    spec: str | Path,
    out: str | Path | None = None,
    *,
    preset: str | None = None,
    jobs: int = 1,
    executor: str = "auto",
    say: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Do every cell of a study that is not finished, and make the tables.

    Args:
        spec: a TOML file, or a name of the catalog.
        out: directory of the results; None makes one from the name. The same study continues in it.
        preset: a preset of the study.
        jobs: how many cells may run at a time.
        executor: a name of the registry; ``"auto"`` is ``"inline"`` for one job, else ``"processes"``.
        say: is told of every cell that fails.

    Raises:
        InvalidArgumentError: the file, the preset or a name in it is wrong. Nothing was done then, unless it is
            a column to show: which columns there are is known when the cells are done.
        RunError: the directory belongs to something else, or another process works in it.
    """
    if jobs < 1:
        raise InvalidArgumentError(f"jobs must be at least 1, got {jobs}")
    definition = load_study(spec)
    study = definition.study.varied(preset)
    do = EXECUTORS[("inline" if jobs == 1 else "processes") if executor == "auto" else executor]
    cells = expand(definition.study, preset)
    load_function(study.cell, list(cells[0].parameters))
    summary = load_summary(study.summary)
    directory = Path(out) if out is not None else default_directory(definition.name, preset)
    with _claimed(directory, definition, preset):
        todo = tasks(study.cell, cells, directory / CELLS)
        failed: dict[str, str] = {}
        try:
            _carry_out(do, [task for task in todo if task.rows() is None], jobs, failed, say)
        finally:  # after an interrupt too: what is finished is worth a table
            rows = [row for task in todo for row in task.rows() or []]
            outcome = Outcome(definition.name, study, preset, directory, len(todo), rows, failed)
            outcome = _write(outcome, summary)
    return outcome


def default_directory(name: str, preset: str | None) -> Path:
    """``paper/exp1`` with the preset small → ``paper-exp1-small``, in the working directory."""
    return Path("-".join([*name.split("/"), *([preset] if preset else [])]))


def _carry_out(
    do: Executor,
    todo: list[Task],
    jobs: int,
    failed: dict[str, str],
    say: Callable[[str], None],
) -> None:
    reasons: dict[str, str] = {}
    ended = do(todo, jobs)
    with closing(ended):  # an interrupt stops the workers at once
        for task, reason in track(ended, "cells", total=len(todo)):
            if reason is not None:
                reasons[task.directory.name] = reason
                say(f"{task.cell.label} failed: {reason}")
    failed.update(
        {task.directory.name: reasons[task.directory.name] for task in todo if task.directory.name in reasons}
    )


def _write(outcome: Outcome, summary: Summary | None) -> Outcome:
    """Everything that holds what came out; the outcome with its summary."""
    shown, directory = outcome.study.table, outcome.directory
    write_atomic(directory / ROWS, tables.to_csv(outcome.rows))
    results = {
        "schema": SCHEMA,
        "study": outcome.name,
        "preset": outcome.preset,
        "suture_version": version("suture"),
        "cells": outcome.total,
        "failed": outcome.failed,
        "rows": outcome.rows,
    }
    write_json(directory / RESULTS, results)
    if outcome.rows:
        tables.check_columns(outcome.rows, shown)
    if shown.mean:
        write_atomic(directory / MEANS, tables.means_csv(outcome.rows, shown))
    if summary is not None and outcome.rows:
        outcome = replace(outcome, summary=summarised(summary, outcome.rows))
        for name, content in outcome.summary.items():
            write_atomic(directory / name, content)
    write_atomic(directory / PAGE, outcome.page())
    return outcome


@contextmanager
def _claimed(directory: Path, definition: Definition, preset: str | None) -> Iterator[None]:
    """Hold the directory, after making sure that it is this study's or nobody's."""
    identity = {"study": definition.name, "cell": definition.cell, "preset": preset}
    _refuse_other(directory, identity)
    with RunDir(directory).lock():
        _refuse_other(directory, identity)  # it may have become somebody's meanwhile
        write_json(directory / IDENTITY, {"schema": SCHEMA, **identity, "suture_version": version("suture")})
        yield


def _refuse_other(directory: Path, identity: dict[str, str | None]) -> None:
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory} is a file; choose another --out")
    path = directory / IDENTITY
    if not path.exists():
        # A process that was killed at its beginning leaves the lock and a temporary file.
        others = [p.name for p in directory.glob("*") if p.name != "lock" and not p.name.startswith(f".{IDENTITY}")]
        if others:
            raise RunError(f"{directory} holds '{sorted(others)[0]}' and is no study's directory; choose another --out")
        return
    stored = read_json(path)
    if not isinstance(stored, dict) or any(stored.get(key) != value for key, value in identity.items()):
        raise RunError(f"{directory} belongs to {_called(stored)} and not to {_called(identity)}; choose another --out")


def _called(identity: object) -> str:
    if not isinstance(identity, dict):
        return "something else"
    preset = f" with the preset {identity['preset']}" if identity.get("preset") else ""
    return f"the study {identity.get('study')} ({identity.get('cell')}){preset}"
