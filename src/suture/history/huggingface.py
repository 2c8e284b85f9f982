"""Logs of Hugging Face's Trainer: ``trainer_state.json``, in the output directory and in every checkpoint.

Each record says what happened up to a fractional epoch (1.0 is the end of the first one). Neither the optimizer nor
its betas are written; the file beside it that holds them is a pickle, which is not read.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from suture.errors import DataError
from suture.history.cells import Rows, number
from suture.history.columns import find_columns
from suture.history.jsonlines import is_lines, whole_rows
from suture.history.log import READERS, Log, Reader

STATE = "trainer_state.json"
USUAL = "AdamW"  # TrainingArguments' default for `optim`
_SUMMARY = ("train_runtime", "total_flos")  # keys of the last record, whose train_loss is a mean over the run


def find_state(path: Path) -> Path | None:
    """``trainer_state.json``, in a directory or in its newest checkpoint; or any JSON file that is no table."""
    if path.is_file():
        state = path.suffix == ".json" and whole_rows(path) is None and not is_lines(path)
        return path if state else None
    if (path / STATE).is_file():
        return path / STATE
    checkpoints = [p for p in path.glob(f"checkpoint-*/{STATE}") if p.parent.name.removeprefix("checkpoint-").isdigit()]
    return max(checkpoints, key=lambda p: int(p.parent.name.removeprefix("checkpoint-")), default=None)


def read_state(path: Path, chosen: Mapping[str, str]) -> Log:
    """Read the history of a ``trainer_state.json``; of a file that was cut off, the records that are whole.

    Raises:
        DataError: it is no such file, or holds no record.
    """
    source = str(path)
    records, notes = _records(path, source)
    records = [record for record in records if not any(key in record for key in _SUMMARY)]
    if not records:
        raise DataError(f"{source} holds no record of a training; was it saved before the first logging step?")
    columns = find_columns(list(dict.fromkeys(key for record in records for key in record)), chosen, source)
    rows = Rows(columns.names, source)
    for record in records:
        cells = {role: record.get(name) for role, name in columns.names.items()}
        epoch = number(cells.get("epoch"))
        if epoch is not None and 0 <= epoch < math.inf:
            cells["epoch"] = max(1, math.ceil(epoch - 1e-9))
        rows.add(cells)
    log = rows.log()
    log.notes[:0] = notes + columns.notes
    log.optimizer, log.usual_optimizer = log.optimizer or columns.optimizer, USUAL
    return log


def _records(path: Path, source: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of ``log_history``, and what is to be said about them."""
    try:
        text = path.read_text("utf-8-sig")  # Windows' editors begin it with a mark
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is no JSON ({error})") from error
    try:
        state = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        saved = list(_whole(text))
        if not saved:
            raise DataError(f"{source} is no JSON ({error})") from error
        return saved, [f"the file is cut off or damaged; its first {len(saved)} records were read"]
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise DataError(f"{source} has no 'log_history'; give the trainer_state.json of a Hugging Face training")
    return [record for record in history if isinstance(record, dict)], []


def _whole(text: str) -> Iterator[dict[str, Any]]:
    """Records that stand before a place where the text is damaged."""
    start = text.find('"log_history"')
    place = text.find("[", start) + 1 if start >= 0 else 0
    decoder = json.JSONDecoder()
    while place:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        try:
            record, place = decoder.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError):
            return
        if not isinstance(record, dict):
            return
        yield record


READERS.register("huggingface")(Reader(find_state, read_state, STATE))
