"""TensorBoard event files: records that are framed and checked one by one, each with some scalars of one step.

A record is its length (uint64), a checksum of that, the data, a checksum of the data (TFRecord format); the data is an
``Event`` message. A file whose writer was killed ends in the middle of a record: what stands before is read.
"""

import struct
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from suture.errors import DataError, InvalidArgumentError
from suture.history.cells import Rows
from suture.history.columns import find_columns, has_lr
from suture.history.family import described_optimizer
from suture.history.log import READERS, Log, Reader
from suture.progress import track

# TensorBoard is an extra, and heavy: it is imported when event files are read.
# ruff: noqa: PLC0415

MARK = "tfevents"
_FIRST = b"brain.Event:"  # in the first record of every event file
Series = tuple["array[int]", "array[float]"]  # steps, values


def find_events(path: Path) -> Path | None:
    """An event file by its name or first bytes, or a directory with some."""
    if path.is_dir():
        return path if next(path.rglob(f"*{MARK}*"), None) else None
    if MARK in path.name:
        return path
    with open(path, "rb") as file:
        return path if _FIRST in file.read(64) else None


def read_events(path: Path, chosen: Mapping[str, str]) -> Log:
    """Read the scalars of an event file, or of a run's directory with its files in order of their start.

    Tags from another directory than that of the learning rate (Keras: ``validation``) have its name before them. A
    value that was logged again for the same or an earlier step (a restarted run) replaces the earlier ones.

    Raises:
        DataError: there is no scalar, or the directory holds several runs.
        InvalidArgumentError: TensorBoard is not installed.
        UnknownNameError: a chosen tag does not exist.
    """
    files = sorted((p for p in path.rglob(f"*{MARK}*") if p.is_file()), key=_start) if path.is_dir() else [path]
    folders: dict[Path, dict[str, Series]] = {}
    notes: list[str] = []
    for file in files:
        tags = folders.setdefault(file.parent, defaultdict(lambda: (array("q"), array("d"))))
        notes += _read_file(file, tags)
    series = _one_run(path, folders)
    if not series:
        raise DataError("; ".join([f"{path} holds no scalars", *notes]))
    columns = find_columns(list(series), chosen, str(path))
    names = {role: name for role, name in columns.names.items() if role not in ("step", "batch", "optimizer")}
    log = _join({role: series[name] for role, name in names.items()}, names, str(path))
    log.notes[:0] = notes + columns.notes
    log.optimizer = columns.optimizer or described_optimizer(path if path.is_dir() else path.parent)
    return log


def _start(file: Path) -> tuple[str, float, str]:
    """Files of a run in the order in which they were begun: the time stands in their names."""
    stamp = file.name.partition(f"{MARK}.")[2].partition(".")[0]
    return str(file.parent), float(stamp) if stamp.isdigit() else file.stat().st_mtime, file.name


def _one_run(path: Path, folders: Mapping[Path, dict[str, Series]]) -> dict[str, Series]:
    """The scalars of a run: those beside its learning rate by their tags, others with their directory before.

    Raises:
        DataError: learning rates in several directories belong to several runs.
    """
    own = [folder for folder, tags in folders.items() if has_lr(list(tags))]
    if len(own) > 1:
        names = ", ".join(folder.relative_to(path).as_posix() for folder in own[:5]) + ", …" * (len(own) > 5)
        raise DataError(f"{path} holds {len(own)} training logs ({names}); name one")
    main = own or list(folders)[:1]
    return {
        tag if folder in main else f"{folder.relative_to(path).as_posix()}/{tag}": points
        for folder, tags in folders.items()
        for tag, points in tags.items()
    }


def _read_file(file: Path, series: dict[str, Series]) -> list[str]:
    """Append the scalars of a file to the series by tag; returns what is to be said."""
    try:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    except ImportError as error:
        raise InvalidArgumentError(
            "TensorBoard is not installed, which reading its event files takes; pip install 'suture[trackers]'"
        ) from error
    notes: list[str] = []
    with open(file, "rb") as opened:
        for record in track(_records(opened, file.name, notes), f"reading {file.name}"):
            try:
                event = Event.FromString(record)
            except DecodeError:
                notes.append(f"a record of {file.name} is damaged and was left out")
                continue
            for value in event.summary.value:
                number = _scalar(value)
                if number is not None:
                    steps, values = series[value.tag]
                    steps.append(event.step)
                    values.append(number)
    return list(dict.fromkeys(notes))


def _records(file: BinaryIO, name: str, notes: list[str]) -> Iterator[bytes]:
    """The data of each whole record; why reading ended early is added to the notes."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # type: ignore[import-untyped]

    size = file.seek(0, 2)
    file.seek(0)
    count = 0
    while header := file.read(12):
        whole = len(header) == 12
        if whole and masked_crc32c(header[:8]) != struct.unpack("<I", header[8:])[0]:
            notes.append(f"{name} is damaged after {count} records; what stands before was read")
            return
        length = struct.unpack("<Q", header[:8])[0] if whole else 0
        if not whole or file.tell() + length + 4 > size:
            notes.append(f"{name} is cut off after {count} records; what stands before was read")
            return
        data, check = file.read(length), file.read(4)
        if masked_crc32c(data) == struct.unpack("<I", check)[0]:
            yield data
        else:
            notes.append(f"a record of {name} is damaged and was left out")
        count += 1


def _scalar(value: Any) -> float | None:
    """The number in a summary value, as PyTorch or TensorFlow 2 writes it; None where there is none."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name not in ("", "scalars"):
        return None
    from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

    try:
        content = make_ndarray(value.tensor)
        return float(content.reshape(())) if np.issubdtype(content.dtype, np.number) else None
    except (TypeError, ValueError):
        return None


def _join(series: dict[str, Series], names: dict[str, str], source: str) -> Log:
    """One row per step at which something was logged."""
    latest: dict[str, dict[int, float]] = {}
    notes = []
    for role, (steps, values) in series.items():
        order = np.array(steps, dtype=np.int64)
        lowest_later = np.append(np.minimum.accumulate(order[::-1])[::-1][1:], np.iinfo(np.int64).max)
        kept = order < lowest_later
        latest[role] = dict(zip(order[kept].tolist(), np.array(values)[kept].tolist(), strict=True))
        if any(b < a for a, b in pairwise(steps)):
            notes.append(
                f"'{names[role]}' goes back to earlier steps, as after a restart; the later values are kept and "
                f"{int((~kept).sum())} before them left out"
            )
    rows = Rows({"step": "step", **names}, source)
    for step in sorted(set().union(*latest.values())):
        rows.add({"step": step} | {role: found.get(step) for role, found in latest.items()}, f"step {step}")
    log = rows.log()
    log.notes[:0] = notes
    return log


READERS.register("tensorboard")(Reader(find_events, read_events, "TensorBoard event files"))
