"""The run directory: atomic writes, lock, fingerprints, and stages that know what they were made from.

A stage is finished when its ``result.json`` exists *and* carries the key it is asked for; the file is
written last, by rename, so a killed process leaves either a finished stage or one that is done again.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import filelock
from pydantic import BaseModel, ValidationError

from suture.errors import InvalidArgumentError, MissingFileError, RunError
from suture.registry import suggest
from suture.wording import plain

M = TypeVar("M", bound=BaseModel)

STAGES = ("scan", "localize", "diagnose", "treat", "verify")
MADE_FROM = {"localize": ("diagnose", "treat", "verify"), "treat": ("verify",)}  # stage → those that read its result
RESULT = "result.json"
LOOKS = "looks.json"  # which patches were judged on verify


def fingerprint(*parts: object) -> str:
    """sha256, as 64 hex digits, of the canonical JSON of `parts` (which must be JSON-able)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, synced and renamed over it when the block ends without error.

    The file may be read by whom the umask says, whoever writes it: safetensors replaces it by one of its own with mode
    0600.

    Raises:
        InvalidArgumentError: there is a folder of that name.
        RunError: the disk is full, or cannot be written to; what was there before stays.
    """
    if path.is_dir():
        raise InvalidArgumentError(f"{path} is a folder; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except Exception as error:
        if not _of_the_disk(error):
            raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(
            f"{path} cannot be written ({why}), and what was there before stays; make room, or name another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _of_the_disk(error: Exception) -> bool:
    from safetensors import SafetensorError  # noqa: PLC0415 - not loaded to read a command line

    return isinstance(error, OSError | SafetensorError)


def sync_directory(path: Path) -> None:
    """Make a rename durable: the directory itself is flushed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN and infinities are refused, they are not JSON."""
    write_atomic(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        MissingFileError: no such file.
        RunError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise MissingFileError(f"there is no {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not readable as JSON ({error}); delete it and run again") from None


def read_toml(path: Path, kind: type[M], changes: Mapping[str, object] | None = None) -> M:
    """A TOML file as a model, with some fields set from outside.

    Raises:
        MissingFileError: no such file.
        InvalidArgumentError: not TOML, or the first field that is wrong.
    """
    return validated(kind, toml_in(path) | dict(changes or {}), str(path))


def toml_in(path: Path) -> dict[str, Any]:
    """What a TOML file says, whatever it means.

    Raises:
        MissingFileError: no such file.
        InvalidArgumentError: not TOML.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}")
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path} is not TOML ({error})") from error


def validated(kind: type[M], data: Mapping[str, object], source: str) -> M:
    """Data as a model; an error names the first field that is wrong, and where it came from."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InvalidArgumentError(f"{source}: {first_wrong(kind, error)}") from error


def first_wrong(kind: type[BaseModel], error: ValidationError) -> str:
    """The first field that is wrong and why, in words for people who wrote a file."""
    first = error.errors()[0]
    field, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = f"there is no such field; {suggest(str(first['loc'][-1]), _fields(kind, first['loc'][:-1]))}"
    elif first["type"] == "tuple_type":
        said = "it must be a list, such as [0.5, 1.0]"
    return f"'{field}': {said}" if field else said


def _fields(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of a model, or of one inside it."""
    for step in path:
        inside = getattr(kind, "model_fields", {}).get(step)
        kind = getattr(inside, "annotation", None)
    return list(getattr(kind, "model_fields", {}))


class RunDir:
    """A directory that holds what was asked (``case.json``) and the finished stages of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    @property
    def case_file(self) -> Path:
        """Where the case that this run answers is described."""
        return self.path / "case.json"

    def stage(self, name: str) -> Path:
        """The directory of a stage."""
        return self.path / name

    def stored(self, name: str) -> dict[str, Any] | None:
        """What a stage's ``result.json`` says, or None when the stage has not been finished."""
        path = self.stage(name) / RESULT
        found = read_json(path) if path.exists() else None
        if found is not None and not isinstance(found, dict):
            raise RunError(f"{path} is no result of suture; run with --redo {name}")
        return found

    def key(self, name: str) -> str | None:
        """What a finished stage was made from, as a fingerprint; None when it is not finished."""
        stored = self.stored(name)
        return stored.get("key") if stored else None

    def forget(self, name: str) -> None:
        """Make a stage and everything after it unfinished; files other than results stay."""
        for later in STAGES[STAGES.index(name) :]:
            (self.stage(later) / RESULT).unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Make a stage unfinished, and those that are made from it."""
        for each in (name, *MADE_FROM.get(name, ())):
            (self.stage(each) / RESULT).unlink(missing_ok=True)

    def log(self, message: str) -> None:
        """Append a line with the time, in UTC, to ``log.txt``."""
        self.path.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with open(self.path / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{now} {plain(message)}\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one process; the system releases it when the process dies.

        Raises:
            RunError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RunError(
                f"another suture process is working in {self.path}; wait for it or choose another --out"
            ) from None
        try:
            yield
        finally:
            lock.release()
