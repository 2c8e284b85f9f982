"""One cell: its key, its call, and what is left of it on disk.

A cell is a function of its parameters alone: whatever is random in it takes its seed from one of them. It
returns a row (name → number, text, bool or None) or a list of rows. If it has a parameter ``directory`` it gets
the path of its own folder there, to keep checkpoints and pictures in; it may find its own unfinished work.

    <cell>/result.json     the rows; written last, by rename: it exists when the cell is finished
    <cell>/log.txt         what the cell printed
    <cell>/error.txt       the traceback, when it failed
"""

import contextlib
import hashlib
import importlib.util
import inspect
import math
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from suture.errors import DataError, InvalidArgumentError, SutureError
from suture.registry import suggest
from suture.rundir import RESULT, fingerprint, read_json, write_atomic, write_json
from suture.studies.grid import RESERVED, Cell

# suture.loading brings torch along. It is imported when a cell is loaded: workers first set their threads.

SCHEMA = 1
LOG, ERROR = "log.txt", "error.txt"
LABEL = 80  # characters of a label in the name of a folder

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What an executor carries to where the cell is done; it can be pickled.

    Attributes:
        function: ``FILE.py:FUNC`` with an absolute path, or ``package.module:func``.
        cell: the point of the grid.
        directory: the cell's own folder.
        key: what the result answers, as a fingerprint.
    """

    function: str
    cell: Cell
    directory: Path
    key: str

    def rows(self) -> list[Row] | None:
        """The rows of a finished cell, parameters of the grid first; None when it is not finished."""
        path = self.directory / RESULT
        stored = read_json(path) if path.exists() else None
        if stored is None or stored["key"] != self.key:
            return None
        return [self.cell.point | row for row in stored["rows"]]


def tasks(function: str, cells: Sequence[Cell], folder: Path) -> list[Task]:
    """The cells of a function as tasks, each with a folder of its own below `folder`.

    The key is a fingerprint of the function's name and source, the parameters, the content of files that
    parameters name, and the version of suture. Source means the file of the function, or all files of the
    package when the function stands in a package's ``__init__``. Folders that parameters name go by name.
    """
    where, _, name = function.rpartition(":")
    about = [name if where.endswith(".py") else function, _source(where), version("suture")]
    contents: dict[str, Any] = {}
    keys = [fingerprint(about, _content(cell.parameters, contents)) for cell in cells]
    return [
        Task(function, cell, folder / f"{_slug(cell.label)}-{key[:12]}", key)
        for cell, key in zip(cells, keys, strict=True)
    ]


def load_function(spec: str, names: Sequence[str]) -> Callable[..., Any]:
    """The function of a cell, after a look at whether it takes these parameters.

    Raises:
        SutureError: it does not exist, or importing it fails.
        InvalidArgumentError: it is no function, or parameters are unknown or missing.
    """
    function = _loaded(spec, _source(spec.rpartition(":")[0]))
    if not callable(function):
        raise InvalidArgumentError(f"{spec} is a {type(function).__name__} and no function")
    try:
        takes = inspect.signature(function).parameters.values()
    except ValueError:
        raise InvalidArgumentError(f"{spec} does not tell its parameters; wrap it in a function of your own") from None
    by_name = {p.name: p for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in takes)
    for name in names:
        if name not in by_name and not anything:
            raise InvalidArgumentError(f"{spec} takes no parameter '{name}'; {suggest(name, list(by_name))}")
    for name, parameter in by_name.items():
        if parameter.default is parameter.empty and name not in names and name != RESERVED:
            raise InvalidArgumentError(f"{spec} needs the parameter '{name}'; give it under fixed or axes")
    return function  # type: ignore[no-any-return]


def attempt(task: Task) -> str | None:
    """Do a cell and write what came of it; the reason in one sentence when it failed, else None.

    Only an interrupt gets out: whatever else the cell raises is kept in its ``error.txt``.
    """
    task.directory.mkdir(parents=True, exist_ok=True)
    (task.directory / ERROR).unlink(missing_ok=True)
    begun = time.monotonic()
    try:
        with (
            open(task.directory / LOG, "w", encoding="utf-8", buffering=1) as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            rows = _rows(_call(task), task.cell)
    except (Exception, SystemExit) as error:
        return record_failure(task, f"{type(error).__name__}: {error}", traceback.format_exc())
    result = {
        "schema": SCHEMA,
        "key": task.key,
        "function": task.function.rpartition("/")[2],
        "parameters": task.cell.parameters,
        "rows": rows,
        "seconds": round(time.monotonic() - begun, 3),
        "suture_version": version("suture"),
    }
    write_json(task.directory / RESULT, result)
    return None


def record_failure(task: Task, reason: str, details: str) -> str:
    """Write ``error.txt``; the reason on one line."""
    write_atomic(task.directory / ERROR, details)
    return " ".join(reason.split())


@cache
def _loaded(spec: str, source: str) -> Any:
    """What a spec names, once per process as long as its source stays: what the file keeps in memory is kept."""
    from suture.loading import load_object  # noqa: PLC0415

    return load_object(spec)


def _call(task: Task) -> Any:
    parameters = dict(task.cell.parameters)
    function = load_function(task.function, list(parameters))
    if RESERVED in inspect.signature(function).parameters:
        parameters[RESERVED] = task.directory
    return function(**parameters)


def _rows(returned: Any, cell: Cell) -> list[Row]:
    rows = [returned] if isinstance(returned, Mapping) else returned
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"a cell returns a row (name → value) or a list of rows, not a {type(returned).__name__}")
    return [{_name(name, cell): _value(name, value) for name, value in row.items()} for row in rows]


def _name(name: Any, cell: Cell) -> str:
    if not isinstance(name, str):
        raise DataError(f"the names of a row are texts, not {name!r}")
    if name in cell.point:
        raise DataError(f"'{name}' is an axis of the study; return it under another name")
    return name


def _value(name: str, value: Any) -> Any:
    """A value as JSON holds it; what is not finite is missing, and the cell's log says so."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        print(f"'{name}' is {value}: kept as missing")  # noqa: T201 - into the log of the cell
        return None
    raise DataError(f"'{name}' is a {type(value).__name__}; a row holds numbers, texts, true, false and None")


def _source(where: str) -> str:
    """A fingerprint of the code behind the function; empty where there is none to read."""
    if where.endswith(".py"):
        files = [Path(where)]
    else:
        try:
            found = importlib.util.find_spec(where)
        except Exception:  # a package above it may fail in any way; loading the function says how
            found = None
        origin = Path(found.origin) if found and found.origin else Path()
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    files = [path for path in files if path.suffix == ".py" and path.is_file()]
    return fingerprint([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])


def _content(value: Any, contents: dict[str, Any]) -> Any:
    """A parameter for the key: a file that it names counts by what it holds, wherever it lies."""
    if isinstance(value, Mapping):
        return {name: _content(item, contents) for name, item in value.items()}
    if isinstance(value, list):
        return [_content(item, contents) for item in value]
    if not isinstance(value, str):
        return value
    if value not in contents:
        contents[value] = _file_content(value)
    return contents[value]


def _file_content(text: str) -> Any:
    where, _, name = text.rpartition(":")
    try:
        if where.endswith(".py") and Path(where).is_file():
            return ["source", _source(where), name]
        if Path(text).is_file():
            with open(text, "rb") as file:
                return ["file", hashlib.file_digest(file, "sha256").hexdigest()]
    except (OSError, SutureError):  # a long text is no path
        pass
    return text


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9=,.+-]+", "_", label)[:LABEL].strip(".")
