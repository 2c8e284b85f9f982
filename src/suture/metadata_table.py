"""What a `metadata.csv` beside class folders says of their pictures, in the layout of Hugging Face's image folders."""

import io
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from suture.errors import DataError
from suture.listing import Listing
from suture.wording import plain, several

TABLE, NAME = "metadata.csv", "file_name"


def metadata_table(listing: Listing, names: list[str], path: Path) -> tuple[dict[str, list[Any]], list[str]]:
    """Columns of the table, a value per picture, and sentences on what does not go together.

    The table lies in the folder that holds the class folders, or in one around it; `file_name` is the path of a picture
    from there, such as ``cat/1.png``. A picture without a row has missing values; rows of no picture are left out.

    Args:
        names: of the pictures, in the order of the values.
        path: of the folder or zip, for messages.

    Raises:
        DataError: the file is no table, has no such column, or two rows for one picture.
    """
    tables = [PurePosixPath(name) for name in listing.others if PurePosixPath(name).name == TABLE]
    around = [table for table in tables if all(table.parent in PurePosixPath(name).parents for name in names)]
    if not around:
        return {}, []
    file = max(around, key=lambda table: len(table.parts))
    table = _read(listing, file, path)
    own, every = ([_below(file.parent, name) for name in each] for each in (names, listing.pictures))
    found = table.reindex(own)
    columns = {str(column): found[column].tolist() for column in found}
    return columns, _notes(table, own, every, f"{path}: {file}")


def _below(folder: PurePosixPath, name: str) -> str:
    return PurePosixPath(name).relative_to(folder).as_posix()


def _read(listing: Listing, file: PurePosixPath, path: Path) -> pd.DataFrame:
    """The table, by the pictures' paths from where it lies."""
    try:
        table = pd.read_csv(io.BytesIO(listing.read(str(file))), dtype={NAME: str}, encoding="utf-8-sig")
    except (DataError, ValueError, pd.errors.ParserError) as error:  # ValueError: no text, or empty
        reason = plain(error, 200)
        raise DataError(f"{path}: {file} is no table with commas ({reason}); mend, rename or remove it") from error
    if NAME not in table:
        has = ", ".join(plain(column, 40) for column in table.columns[:5])
        raise DataError(
            f"{path}: {file} has no column {NAME} that says which picture a row is of (it has {has}); add it, or "
            "rename the file to have it passed over"
        )
    table[NAME] = [PurePosixPath(str(name).replace("\\", "/")).as_posix() for name in table[NAME]]
    twice = table[NAME][table[NAME].duplicated()]
    if len(twice):
        raise DataError(f"{path}: {file} has more than one row for '{plain(twice.iloc[0])}'; leave one")
    return table.set_index(NAME)


def _notes(table: pd.DataFrame, names: list[str], every: list[str], where: str) -> list[str]:
    """On pictures without a row, and on rows that name none of all that lie here, read or not."""
    known, lying = set(table.index), set(every)
    without = [name for name in names if name not in known]
    left = [name for name in table.index if name not in lying]
    if len(without) == len(names):
        return [f"{where} has a row for none of the {several(len(names), 'picture')}, the first is '{names[0]}'"]
    said = []
    if without:
        said.append(f"{where} has no row for {several(len(without), 'picture')}, the first '{without[0]}'")
    if left:
        said.append(f"{where} has {several(len(left), 'row')} of no picture here, the first '{plain(left[0])}'")
    return said
