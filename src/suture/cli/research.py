"""Research: studies, the paper's and one's own."""

from pathlib import Path
from typing import Annotated

import typer

from suture.cli.options import DebugOpt

PANEL = "Research"


def add_to(app: typer.Typer) -> None:
    """Register the verb of this panel."""
    app.command(rich_help_panel=PANEL)(study)


def study(
    name: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="A TOML file, or a name of the catalog; none lists it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory of the results; the same study continues in it.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A variation that the study offers.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Cells at a time; each has a process and a thread.")] = 1,
    executor: Annotated[
        str, typer.Option("--executor", help="inline, processes, or auto: processes for more than one job.")
    ] = "auto",
    debug: DebugOpt = False,
) -> None:
    """Do a study, one function over a grid of parameters, or list those that come with suture.

    Stopped or killed, the same command continues.

    A cell that fails does not stop the others; the exit code is then 3.

    Example: suture study paper/audit --out audit
    """
    from suture.errors import RequirementError
    from suture.studies.engine import run_study

    if name is None:
        _list_catalog()
        return
    outcome = run_study(
        name, out, preset=preset, jobs=jobs, executor=executor, say=lambda line: typer.echo(line, err=True)
    )
    _print(outcome.table())
    typer.echo(f"results: {outcome.directory}")
    if outcome.complaint:
        raise RequirementError(outcome.complaint)


def _list_catalog() -> None:
    from rich.table import Table

    from suture.studies.definitions import catalog, load_study

    table = Table("study", "presets", "what it answers")
    for name in catalog():
        entry = load_study(name).study
        table.add_row(name, ", ".join(entry.presets), entry.title)
    _print(table)


def _print(thing: object) -> None:
    from rich.console import Console

    Console().print(thing, highlight=False)
