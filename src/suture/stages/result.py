"""Results: frozen data that can be saved, loaded, drawn and shown.

A subclass names its stage and the version of its file format; everything else is fields. Numbers go to
``result.json``, tables there and to CSV beside it, pictures and tensors to safetensors.
"""

import importlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from suture.errors import RunError
from suture.rundir import RESULT, read_json, replacing, write_json


def _table_to_json(table: pd.DataFrame) -> dict[str, Any]:
    """Column → index → value where the index names things, else a list of rows; NaN becomes null."""
    plain = table.astype(object).where(table.notna(), None)
    if isinstance(table.index, pd.RangeIndex):
        return {"columns": list(table.columns), "rows": plain.to_numpy().tolist()}
    return {"index": list(table.index), "columns": list(table.columns), "rows": plain.to_numpy().tolist()}


def _table_from_json(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    table = pd.DataFrame(data["rows"], columns=data["columns"], index=data.get("index"))
    return table.infer_objects()


def _scores_to_json(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    return {
        str(column): {str(i): None if pd.isna(v) else float(v) for i, v in table[column].items()} for column in table
    }


def _scores_from_json(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    rows = list(next(iter(data.values()), {}))
    return pd.DataFrame({column: pd.Series(values, dtype=float) for column, values in data.items()}, index=rows)


def _gains_to_json(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    return _scores_to_json(table.T)


def _gains_from_json(data: Any) -> pd.DataFrame:
    return data if isinstance(data, pd.DataFrame) else _scores_from_json(data).T.reindex(columns=GAIN)


GAIN = ["gain", "low", "high"]
Table = Annotated[pd.DataFrame, BeforeValidator(_table_from_json), PlainSerializer(_table_to_json)]
"""Rows of mixed columns."""
Scores = Annotated[pd.DataFrame, BeforeValidator(_scores_from_json), PlainSerializer(_scores_to_json)]
"""Index group, a column per localizer; in JSON {localizer: {group: x}}."""
Gains = Annotated[pd.DataFrame, BeforeValidator(_gains_from_json), PlainSerializer(_gains_to_json)]
"""Index group, columns gain, low, high; in JSON {group: {"gain", "low", "high"}}."""


class Result:
    """Base of what stages return; subclasses are frozen dataclasses."""

    stage: ClassVar[str]
    schema: ClassVar[int]
    in_files: ClassVar[tuple[str, ...]] = ("pictures",)  # fields that do not go to result.json
    further_files: ClassVar[tuple[str, ...]] = ()  # files that are called otherwise than fields
    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    def __init_subclass__(cls, *, stage: str, schema: int, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.stage, cls.schema = stage, schema

    def to_dict(self) -> dict[str, Any]:
        """What ``result.json`` says, without the key."""
        data: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="python", warnings=False)
        plain = {name: value for name, value in data.items() if name not in self.in_files}
        return json.loads(json.dumps(plain, default=_plain))  # type: ignore[no-any-return]

    def save(self, directory: str | Path, key: str = "") -> None:
        """Write the result; ``result.json`` last, since its presence means that all the rest is there."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.save_files(directory)
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, pd.DataFrame) and len(value):
                with replacing(directory / f"{field.name}.csv") as temporary:
                    value.to_csv(temporary, index=not isinstance(value.index, pd.RangeIndex))
        write_json(directory / RESULT, {"stage": self.stage, "schema": self.schema, "key": key} | self.to_dict())

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read a result.

        Raises:
            MissingFileError: the stage was not finished.
            RunError: the files are damaged, or written by a newer suture.
        """
        directory = Path(directory)
        data = read_json(directory / RESULT)
        if not isinstance(data, dict):
            raise RunError(f"{directory / RESULT} is no result of suture; run with --redo {cls.stage}")
        if data.get("schema", 0) > cls.schema:
            raise RunError(f"{directory / RESULT} was written by a newer suture; upgrade with pip install -U suture")
        try:
            if data.get("schema", 0) < cls.schema:
                data = cls.from_older(data)
            known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
            own = {name: value for name, value in data.items() if name in known}
            return TypeAdapter(cls).validate_python(own | cls.load_files(directory))
        except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
            older = data.get("schema", 0) < cls.schema
            first = "an older suture wrote it" if older else f"it is damaged: {str(error).splitlines()[0]}"
            raise RunError(f"{directory} cannot be read ({first}); run with --redo {cls.stage}") from error

    @classmethod
    def from_older(cls, data: dict[str, Any]) -> dict[str, Any]:
        """What an older schema says, in the terms of this one; the same unless a subclass knows better."""
        return data

    @classmethod
    def clear(cls, directory: Path) -> None:
        """Delete what an earlier result of this kind left in a directory, and nothing else that lies there."""
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        for path in directory.glob("*"):
            mine = path.name == RESULT or (path.suffix in (".csv", ".safetensors") and path.stem in names)
            if path.is_file() and (mine or path.name in cls.further_files):
                path.unlink()

    def save_files(self, directory: Path) -> None:
        """Write the fields that are not JSON: here arrays by name, a file per field, where there are some."""
        for field in self.in_files:
            arrays: dict[str, NDArray[np.uint8]] = getattr(self, field, {})
            if arrays:
                with replacing(directory / f"{field}.safetensors") as temporary:
                    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)

    @classmethod
    def load_files(cls, directory: Path) -> dict[str, Any]:
        """Read what `save_files` wrote: field name → value."""
        paths = {field: directory / f"{field}.safetensors" for field in cls.in_files}
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return {field: load_file(path) if path.exists() else {} for field, path in paths.items() if field in known}

    def plot(self, ax: Any = None) -> Any:
        """Draw the result; returns matplotlib axes."""
        return _view(self).figure(self, ax)

    def table(self) -> Any:
        """The result as a `rich` table for a terminal."""
        return _view(self).table(self)

    def _repr_html_(self) -> str:
        return str(_view(self).html(self))


def _view(result: Result) -> Any:
    # Views import stages; the way back is by name and at the moment of drawing.
    return importlib.import_module(f"suture.views.{result.stage}")


def _plain(thing: Any) -> Any:
    if isinstance(thing, np.generic):
        return thing.item()
    raise TypeError(f"{type(thing).__name__} is not JSON")
