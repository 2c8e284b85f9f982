"""Logs as tables: CSV files of any dialect, files of JSON, and data frames."""

import codecs
import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import pandas as pd

from suture.errors import DataError
from suture.history.cells import Rows
from suture.history.columns import find_columns
from suture.history.family import described_optimizer
from suture.history.jsonlines import is_lines, log_of, read_lines, whole_rows
from suture.history.labels import Labels
from suture.history.log import READERS, Log, Reader

HISTORY = "history.csv"  # as `suture train` calls it
_NEEDED = "a header with a column 'lr' and a row per epoch are needed"
_HEAD = 65_536  # bytes that decide whether a file is text, and which
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",  # Excel begins with it
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f")) + b"\x7f"


def find_csv(path: Path) -> Path | None:
    """Any file, so this reader comes last; of directories, those of `suture train`."""
    if path.is_dir():
        return path / HISTORY if (path / HISTORY).is_file() else None
    return path


def read_csv(path: Path, chosen: Mapping[str, str]) -> Log:
    """Read a CSV file row by row: separated by comma, semicolon, tab, bar or blanks; UTF-8, UTF-16 or Latin-1.

    A header that stands again (a restarted run appends to its log) is skipped; a last row that was cut off is left
    out and said. JSON is a table as well, see `suture.history.jsonlines`.

    Raises:
        DataError: it is no text, has no rows, or a value cannot be used.
        UnknownNameError: a chosen column does not exist.
    """
    source = str(path)
    encoding = _encoding(path)
    if encoding is None:
        raise DataError(f"{source} is not readable as CSV (it holds binary data)")
    if (whole := whole_rows(path)) is not None:
        return log_of(whole, path, chosen)
    if is_lines(path):
        return read_lines(path, chosen)
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        header, rows, comma = _header(file)
        if not header:
            raise DataError(f"{source} has no rows; {_NEEDED}")
        columns = find_columns(header, chosen, source)
        found, labels = Rows(columns.names, source), Labels(set(header) - set(columns.names.values()))
        place = {role: header.index(name) for role, name in columns.names.items()}
        notes: list[str] = []
        for row in _whole(rows, header, notes, cut=not _ends_with_newline(path)):
            cells = {role: row[i] for role, i in place.items() if i < len(row)}
            found.add({role: cell.replace(",", ".") for role, cell in cells.items()} if comma else cells)
            labels.add(dict(zip(header, row, strict=False)))
    if not len(found):
        raise DataError(f"{source} has no rows; {_NEEDED}")
    log = found.log()
    log.notes[:0] = columns.notes + notes
    log.labels = labels.columns()
    log.optimizer = log.optimizer or columns.optimizer or described_optimizer(path.parent)
    return log


def _whole(rows: Iterator[list[str]], header: list[str], notes: list[str], *, cut: bool) -> Iterator[list[str]]:
    """Rows with something in them; what is said about the others is added to the notes.

    Args:
        cut: the file does not end with a line break, so its writer may have been stopped in the last row.
    """
    before: list[str] | None = None
    last: list[str] | None = None
    try:
        for row in rows:
            if not any(row) or [cell.strip() for cell in row] == header:
                continue
            if last is not None:
                yield last
            before, last = last, row
    except csv.Error as error:
        notes.append(f"a part at the end is not readable ({error}) and was left out")
        cut = False
    if last is None:
        return
    if cut and len(last) < len(header):
        notes.append("the last row is cut off and was left out")
        return
    if cut and before is not None and len(last[-1]) < len(before[-1]):
        notes.append(f"the last row has no line break, so its last value, '{last[-1]}', may be cut off")
    yield last


def frame_log(table: pd.DataFrame, chosen: Mapping[str, str], source: str = "a table") -> Log:
    """A data frame as a log; an index that is called epoch or step counts as a column.

    Raises:
        DataError: it has no rows, or a value cannot be used.
        UnknownNameError: a chosen column does not exist.
    """
    if table.index.name is not None:
        table = table.reset_index()
    names = [str(name).strip() for name in table.columns]
    columns = find_columns(names, chosen, source)
    found, labels = Rows(columns.names, source), Labels(set(names) - set(columns.names.values()))
    picked = {role: table.iloc[:, names.index(name)] for role, name in columns.names.items()}
    cells = {role: values.astype(object).where(values.notna(), None).tolist() for role, values in picked.items()}
    others = {name: table.iloc[:, names.index(name)].tolist() for name in labels.names}
    for i in range(len(table)):
        found.add({role: values[i] for role, values in cells.items()})
        labels.add({name: values[i] for name, values in others.items()})
    if not len(found):
        raise DataError(f"{source} has no rows; {_NEEDED}")
    log = found.log()
    log.notes[:0] = columns.notes
    log.labels = labels.columns()
    log.optimizer = log.optimizer or columns.optimizer
    return log


def _encoding(path: Path) -> str | None:
    """How a text is encoded; None for what is no text."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if any(byte in _CONTROL for byte in head):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _header(lines: Iterator[str]) -> tuple[list[str], Iterator[list[str]], bool]:
    """Names of the columns, an iterator over the rows below, and whether numbers are written with a comma.

    NumPy's savetxt writes the header as a comment.
    """
    comment = first = ""
    for line in lines:
        if line.lstrip().startswith("#"):
            comment = line.lstrip().lstrip("#").strip()
        elif line.strip():
            first = line
            break
    delimiter = max(",;\t|", key=first.count)
    if delimiter not in first:
        delimiter = " "

    def cells(lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)

    header = [cell.strip() for cell in next(cells([first]), [])]
    if comment and all(_is_number(cell) for cell in header):
        header = [cell.strip() for cell in next(cells([comment]), [])]
        lines = chain([first], lines)
    return header, cells(lines), delimiter == ";"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2))
        return file.read().rstrip(b"\0")[-1:] in (b"\n", b"\r", b"")


READERS.register("csv")(Reader(find_csv, read_csv, HISTORY))
