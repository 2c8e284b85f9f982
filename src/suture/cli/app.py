"""The entry point: verbs by panel, errors as one sentence, exit codes that scripts can rely on.

Exit codes: 0 done, 1 our own fault, 2 bad input, 3 a required verdict or bound was not met or cells of a study failed,
130 interrupted.
"""

import os
import sys
import traceback
import warnings
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from suture.cli import help as help_panel
from suture.cli import patches, repair, research, training
from suture.errors import SutureError
from suture.wording import plain

INTERRUPTED = "interrupted; the same command continues where it stopped"

# Typer carries its own click, so its exception classes are reached through the one it makes public.
ClickException: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="suture",
    help="Find which part of a trained network causes its mistakes, repair only that part, and prove the "
    "repair on data it never saw.\n\nExample: suture run --model model.py:net --weights w.safetensors --data "
    "folder --out run",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
repair.add_to(app)
patches.add_to(app)
training.add_to(app)
research.add_to(app)
help_panel.add_to(app)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"suture {version('suture')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself; its help text is the one given above."""


def main() -> None:
    """Run the command line and exit with its code."""
    sys.path.append(os.getcwd())  # package.module:func may lie where the command is typed, as with python -m
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # names and signs that the terminal cannot show are no fault
    warnings.formatwarning = _warning
    code = _run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # who read our output has gone, as head does; the shutdown must not write again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments or ["--help"], prog_name="suture", standalone_mode=False)
        return _fail(INTERRUPTED, 130) if code == 130 else int(code or 0)  # what typer makes of Ctrl-C
    except ClickException as error:
        return _fail(_sentence(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(INTERRUPTED, 130)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer has silenced the streams
            return 0
        return _fail("code of the model, the task or the data ended the program; take the exit out of it", 2)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        if isinstance(error, SutureError):
            return _fail(str(error), error.exit_code)
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"the system refuses {error.filename}: {error.strerror}", 2)
        return _fail(
            f"a fault of suture's own, {type(error).__name__}: {error}; run again with --debug and report it",
            1,
        )


def _warning(message: Warning | str, *_: object, **__: object) -> str:
    """A line of its own, without the place in the code."""
    return f"warning: {plain(message)}\n"


def _sentence(error: Any) -> str:
    """What a mistyped command line got wrong, and where its options are explained."""
    context = getattr(error, "ctx", None)
    return str(error.format_message().rstrip(".")) + (f"; see {context.command_path} --help" if context else "")


def _fail(message: str, code: int) -> int:
    line = plain(message)
    sys.stderr.write(f"{'error: ' if code != 130 else ''}{line}\n")
    return code
