"""Rewrite the golden lists and the measured tables of the pages: ``python -m tests.golden.write``; review the diff."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import suture
from suture.cli.app import app
from tests.golden import pages

HERE = Path(__file__).parent


def public_names() -> str:
    """Names that users may rely on, a line each."""
    names = [f"suture.{name}" for name in suture.__all__]
    for module in suture.MODULES:
        names += [f"suture.{module}.{name}" for name in names_of(importlib.import_module(f"suture.{module}"))]
    return "\n".join(sorted(names)) + "\n"


def names_of(module: ModuleType) -> list[str]:
    """What a module says is public, else what it defines without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__)
    return [name for name in own if not name.startswith("_")]


def cli_options() -> str:
    """Every word of the command line, a line each: verb, names, type, whether it must be given, its default."""
    callbacks = {"": app.registered_callback.callback} | verbs()
    return "".join(f"suture {verb} {line}\n" for verb, do in callbacks.items() for line in _words(do)).replace(
        "  ", " "
    )


def verbs() -> dict[str, Callable[..., None]]:
    """Verb → the function behind it, in the order of ``suture --help``."""
    return {command.name or command.callback.__name__: command.callback for command in app.registered_commands}


def _words(do: Callable[..., None]) -> Iterator[str]:
    for name, parameter in inspect.signature(do, eval_str=True).parameters.items():
        kind, word = get_args(parameter.annotation)
        flags = [each for each in (word.default, *(word.param_decls or ())) if str(each).startswith("-")]
        shown = kind.__name__ if isinstance(kind, type) else str(kind).replace("pathlib.", "")
        required = parameter.default is inspect.Parameter.empty
        yield f"{'/'.join(flags) or word.metavar or name} {shown} {'required' if required else parameter.default}"


GOLDEN: dict[str, Callable[[], str]] = {"public_names.txt": public_names, "cli_options.txt": cli_options}


def main() -> None:
    """Write every list and every table."""
    for name, make in GOLDEN.items():
        (HERE / name).write_text(make())
        print(HERE / name)
    for path in pages.rewrite():
        print(path)


if __name__ == "__main__":
    main()
