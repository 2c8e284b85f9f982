"""Where studies come from: TOML files, which are other people's input, and the catalog of this package."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from suture.errors import InvalidArgumentError, MissingFileError, SutureError, UnknownNameError
from suture.registry import suggest
from suture.studies.grid import Preset, Shown, Study, expand

CATALOG = Path(__file__).parent / "catalog"
SUFFIX = ".toml"
COMPLAINTS = 3  # in one message
KINDS = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


@dataclass(frozen=True)
class Definition:
    """A study and where it stands.

    Attributes:
        name: the name in the catalog, or the file's without its suffix.
        study: what the file says, with the path of the cell's file made absolute.
        cell: the cell as the file writes it, which does not change with the place of the file.
    """

    name: str
    study: Study
    cell: str


def catalog() -> list[str]:
    """Names of the studies that come with the package, such as ``paper/audit``."""
    files = sorted(CATALOG.rglob(f"*{SUFFIX}"))
    return [path.relative_to(CATALOG).with_suffix("").as_posix() for path in files]


def load_study(spec: str | Path) -> Definition:
    """A study by the path of its file, or by its name in the catalog.

    Raises:
        MissingFileError: no such file.
        UnknownNameError: no such name.
        InvalidArgumentError: the file is no study; every complaint names the key and what is wrong.
    """
    path = Path(spec)
    if str(spec).endswith(SUFFIX) or path.is_file():
        if not path.is_file():
            raise MissingFileError(f"there is no file {path}")
        return _read(path, path.stem)
    if str(spec) not in catalog():
        raise UnknownNameError(f"no study is called '{spec}'; {suggest(str(spec), catalog())}, or give a TOML file")
    return _read(CATALOG / f"{spec}{SUFFIX}", str(spec))


def _read(path: Path, name: str) -> Definition:
    try:
        study = Study.model_validate(_parsed(path))
        for preset in (None, *study.presets):
            expand(study, preset)
    except ValidationError as error:
        raise InvalidArgumentError(f"{path}: {_sentence(error)}") from error
    except SutureError as error:
        raise InvalidArgumentError(f"{path}: {error}") from error
    found = {"cell": _absolute(study.cell, path.parent), "summary": _absolute(study.summary, path.parent)}
    return Definition(name, study.model_copy(update=found), study.cell)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"this is not TOML ({error})") from error
    except RecursionError:
        raise InvalidArgumentError("this is not TOML that can be read (nested too deeply)") from None


def _absolute(cell: str, folder: Path) -> str:
    where, _, name = cell.rpartition(":")
    return f"{(folder / where).resolve()}:{name}" if where.endswith(".py") else cell


def _sentence(error: ValidationError) -> str:
    complaints = [_complaint(dict(e)) for e in error.errors()]
    more = len(complaints) - COMPLAINTS
    return "; ".join(complaints[:COMPLAINTS]) + (f"; and {more} more" if more > 0 else "")


def _complaint(error: dict[str, Any]) -> str:
    *above, last = error["loc"]
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}', {suggest(str(last), list(_part(above).model_fields))}"
    if error["type"] == "missing":
        return f"'{key}' is missing"
    if error["type"] in KINDS:
        return f"'{key}' must be {KINDS[error['type']]}, got {_brief(error['input'])}"
    return f"'{key}': {error['msg']}"


def _part(above: Sequence[Any]) -> type[BaseModel]:
    """The model whose fields stand at a place of the file."""
    parts: dict[str, type[BaseModel]] = {"table": Shown, "presets": Preset}
    return parts.get(str(above[0]), Study) if above else Study


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
