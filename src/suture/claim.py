"""Whose a run directory is: made for one case, held by one process, refused to any other."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import pandas as pd
import torch

from suture.asked import Asked
from suture.case import Case
from suture.errors import RunError
from suture.rundir import RunDir, read_json, replacing, write_json

SCHEMA = 1  # of case.json
OURS = {"lock", "log.txt", "model", "splits.csv"}  # what a run may leave before its case.json is written


@contextmanager
def claimed(directory: RunDir, case: Case, asked: Asked | None = None) -> Iterator[None]:
    """Hold a run's directory, which is made for its case or must belong to it.

    A directory that was made here and in which nothing could be finished is removed again, with the parents
    that were made for it: bad input leaves nothing behind.

    Raises:
        RunError: the directory is somebody else's, holds a run of another case, or another process works in it.
    """
    refuse_strangers(directory.path)
    refuse_other_case(directory, case, asked)
    made = [path for path in (directory.path, *directory.path.parents) if not path.exists()]
    with directory.lock():
        refuse_other_case(directory, case, asked)  # again: another process may have been here until now
        fresh = directory.path in made and not directory.case_file.exists()
        try:
            if not directory.case_file.exists():
                _describe(directory, case, asked)
            else:
                _note_new_places(directory, asked)
            yield
        except Exception as error:
            if fresh and directory.key("localize") is None:
                shutil.rmtree(directory.path, ignore_errors=True)
                with suppress(OSError):  # somebody else may have put something beside it
                    for parent in made[1:]:
                        parent.rmdir()
            else:
                directory.log(f"stopped: {error}")
            raise


def _note_new_places(directory: RunDir, asked: Asked | None) -> None:
    """Files that were moved are the same files: later commands are to find them where they are now."""
    stored, now = read_json(directory.case_file), asked.model_dump(mode="json") if asked else None
    if now is not None and stored.get("asked") not in (None, now):
        write_json(directory.case_file, stored | {"asked": now})


def refuse_strangers(path: Path) -> None:
    """Refuse a directory that holds files and is no run.

    Raises:
        RunError: it is one.
    """
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; choose a directory for --out")
    if not path.is_dir() or (path / "case.json").exists():
        return
    strangers = {entry.name for entry in path.iterdir() if not entry.name.endswith(".tmp")} - OURS
    if strangers:
        raise RunError(f"{path} exists and is no run directory; choose another --out")


def asked_in(directory: RunDir) -> Asked:
    """What a run was asked, from its ``case.json``.

    Raises:
        RunError: the directory is no run, was made from Python objects, or its ``case.json`` is damaged.
    """
    if not directory.case_file.is_file():
        raise RunError(f"{directory.path} is no run directory: it has no case.json; make one with suture run")
    stored = _stored(directory)
    asked = stored.get("asked") if isinstance(stored, dict) else stored
    if asked is None:
        raise RunError(f"{directory.path} was made from Python; continue there with suture.run(case, out=…)")
    try:
        return Asked.model_validate(asked)
    except ValueError as error:
        raise RunError(f"{directory.case_file} is damaged; make the run again in a new directory") from error


def _stored(directory: RunDir) -> Any:
    """What ``case.json`` says.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return read_json(directory.case_file)
    except RunError as error:
        raise RunError(
            f"{directory.case_file} is damaged, so nobody can tell what was run there; make the run again in a new "
            "directory (patches in this one can still be used)"
        ) from error


def _identity(case: Case, asked: Asked | None) -> dict[str, Any]:
    """What makes a run that of a case, part by part, so that a difference can be named."""
    return case.identity | {"code": asked.code if asked else []}


def refuse_other_case(directory: RunDir, case: Case, asked: Asked | None) -> None:
    """Refuse a directory in which another case was begun, and say what differs.

    Raises:
        RunError: it is one, or an earlier suture did not note what tells cases apart.
    """
    if not directory.case_file.exists():
        return
    stored, own = _stored(directory), _identity(case, asked)
    kept = stored.get("identity", {}) if isinstance(stored, dict) else {}
    different = [part for part, value in own.items() if part in kept and kept[part] != value]
    if not different and own.keys() - kept.keys():
        raise RunError(f"{directory.path} was begun by an earlier suture, which noted less; choose another --out")
    if different:
        raise RunError(f"{directory.path} holds a run of another case (other {different[0]}); choose another --out")


def _describe(directory: RunDir, case: Case, asked: Asked | None) -> None:
    rows = [
        {
            "split": name,
            "index": index,
            "example": split.label(i),
            "label": split.strata[i],
            "sha256": split.hashes[i],
        }
        for name, split in case.splits.items()
        for i, index in enumerate(split.indices)
    ]
    with replacing(directory.path / "splits.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    write_json(
        directory.case_file,
        {
            "schema": SCHEMA,
            "asked": asked.model_dump(mode="json") if asked else None,
            "identity": _identity(case, asked),
            "classes": case.classes,
            "splits": {name: len(split) for name, split in case.splits.items()},
            "device": str(case.device),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "suture": version("suture"),
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "pandas": pd.__version__,
            },
        },
    )
