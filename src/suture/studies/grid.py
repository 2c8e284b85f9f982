"""A study as data: which function, over which grid of parameters, and what to show of the results."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.registry import suggest

LARGEST = 100_000  # cells: a grid above it is a slip of the pen
RESERVED = "directory"  # the parameter through which a cell is told where it may keep files

Parameters = dict[str, Any]


class Part(BaseModel):
    """Base of the parts of a study: frozen, strict about types and misspelt keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Preset(Part):
    """What a preset changes: values under the same name are replaced, and so are whole lists of include or exclude."""

    fixed: Parameters = Field({}, description="parameter → value")
    axes: dict[str, list[Any]] = Field({}, description="axis → values")
    include: list[Parameters] | None = Field(None, description="None keeps those of the study")
    exclude: list[Parameters] | None = Field(None, description="None keeps those of the study")


class Shown(Part):
    """Which columns stand in the tables. The CSV of all rows always has every column."""

    columns: list[str] = Field([], description="columns of the table of rows; none: all of them")
    by: list[str] = Field([], description="columns whose values make a group, for means")
    mean: list[str] = Field([], description="columns to average within each group")
    count: str = Field("", description="column of words whose frequencies are told above the table")
    heading: str = Field("", description="column that divides the page into chapters")


class Study(Part):
    """A function, a grid, and what to show.

    A cell is one call of the function with the parameters of `fixed` and one value of each axis.

    >>> study = Study(title="t", cell="m:f", axes={"seed": [1, 2], "method": ["a"]})
    >>> [cell.label for cell in expand(study)]
    ['seed=1,method=a', 'seed=2,method=a']
    """

    title: str = Field(description="one line, for the list of the catalog")
    about: str = Field("", description="paragraphs that open the page of results")
    cell: str = Field(description="FILE.py:FUNC, beside the study's file, or package.module:func")
    fixed: Parameters = Field({}, description="parameters that are the same for every cell")
    axes: dict[str, list[Any]] = Field({}, description="parameter → its values")
    include: list[Parameters] = Field([], description="further cells, each with a value for every axis")
    exclude: list[Parameters] = Field([], description="cells to leave out: those with all the values given")
    presets: dict[str, Preset] = Field({}, description="name → what it changes")
    table: Shown = Field(Shown(), description="what to show")
    summary: str = Field("", description="FILE.py:FUNC or package.module:func, all rows → {file: content}; or none")

    def varied(self, preset: str | None) -> "Study":
        """The study under one of its presets; the study itself for None.

        Raises:
            UnknownNameError: there is no such preset.
            InvalidArgumentError: the preset names an axis that the study does not have.
        """
        if preset is None:
            return self
        if preset not in self.presets:
            raise UnknownNameError(f"no preset is called '{preset}'; {suggest(preset, list(self.presets))}")
        change = self.presets[preset]
        for axis in change.axes:
            if axis not in self.axes:
                raise InvalidArgumentError(
                    f"presets.{preset}.axes: the study has no axis '{axis}'; {suggest(axis, list(self.axes))}"
                )
        replaced = {
            "fixed": self.fixed | change.fixed,
            "axes": self.axes | change.axes,
            "include": self.include if change.include is None else change.include,
            "exclude": self.exclude if change.exclude is None else change.exclude,
        }
        return self.model_copy(update=replaced)


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes:
        point: axis → value.
        parameters: everything the function is called with.
    """

    point: Parameters
    parameters: Parameters

    @property
    def label(self) -> str:
        """``axis=value,axis=value``, for people."""
        return ",".join(f"{axis}={_text(value)}" for axis, value in self.point.items()) or "cell"


def expand(study: Study, preset: str | None = None) -> list[Cell]:
    """The cells of a study in order: the product of the axes, the last one running fastest, then `include`.

    Raises:
        UnknownNameError: there is no such preset.
        InvalidArgumentError: the grid contradicts itself; the sentence says where.
    """
    chosen = study.varied(preset)
    _check_names(chosen)
    points = [
        dict(zip(chosen.axes, values, strict=True))
        for values in product(*chosen.axes.values())
        if not _excluded(dict(zip(chosen.axes, values, strict=True)), chosen.exclude)
    ]
    _check_listed(chosen, study)
    points += [{axis: point[axis] for axis in chosen.axes} for point in chosen.include]
    if not points:
        raise InvalidArgumentError("exclude leaves no cell")
    twice = _first_twice(points)
    if twice is not None:
        raise InvalidArgumentError(f"the cell {Cell(twice, twice).label} is listed twice; see include")
    return [Cell(point, chosen.fixed | point) for point in points]


def _check_names(study: Study) -> None:
    for name in (*study.fixed, *study.axes):
        if not name.isidentifier() or name == RESERVED:
            raise InvalidArgumentError(f"'{name}' cannot be the name of a parameter; rename it")
    both = [name for name in study.axes if name in study.fixed]
    if both:
        raise InvalidArgumentError(f"'{both[0]}' is both an axis and fixed; keep one")
    for name, value in study.fixed.items():
        _check_value(f"fixed.{name}", value)
    for axis, values in study.axes.items():
        if not values:
            raise InvalidArgumentError(f"axes.{axis} is empty; give it a value or leave it out")
        for value in values:
            _check_value(f"axes.{axis}", value)
        twice = _first_twice(values)
        if twice is not None:
            raise InvalidArgumentError(f"axes.{axis} has {_text(twice)} twice")
    size = math.prod(len(values) for values in study.axes.values())
    if size > LARGEST:
        raise InvalidArgumentError(f"the axes make {size:,} cells; at most {LARGEST:,} are allowed")


def _check_listed(study: Study, original: Study) -> None:
    """What include and exclude may say: axes of the study, and to exclude only values that are there."""
    for kind, points in (("include", study.include), ("exclude", study.exclude)):
        for point in points:
            for axis, value in point.items():
                if axis not in study.axes:
                    raise InvalidArgumentError(
                        f"{kind}: the study has no axis '{axis}'; {suggest(axis, list(study.axes))}"
                    )
                _check_value(f"{kind}.{axis}", value)
    for point in study.include:
        missing = [axis for axis in study.axes if axis not in point]
        if missing:
            raise InvalidArgumentError(f"include: '{missing[0]}' is missing; give every axis a value")
    # A preset may have fewer values than the list was written for.
    for point in study.exclude:
        for axis, value in point.items():
            known = [_text(v) for each in (study, original) for v in each.axes[axis]]
            if _text(value) not in known:
                raise InvalidArgumentError(
                    f"exclude: {_text(value)} is no value of the axis '{axis}'; {suggest(_text(value), known)}"
                )


def _check_value(where: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgumentError(f"{where} is {value}, which results cannot hold; write it as a text")
    if isinstance(value, str | int | float):
        return
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list):
        raise InvalidArgumentError(f"{where} is a {type(value).__name__}; write it as a text")
    for item in value:
        _check_value(where, item)


def _excluded(point: Parameters, exclude: Sequence[Parameters]) -> bool:
    return any(e and all(a in point and _text(point[a]) == _text(v) for a, v in e.items()) for e in exclude)


def _first_twice(values: Iterable[Any]) -> Any:
    seen = set()
    for value in values:
        if _text(value) in seen:
            return value
        seen.add(_text(value))
    return None


def _text(value: Any) -> str:
    """Texts as they are, anything else as JSON: 1, 1.0 and true stay apart."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
