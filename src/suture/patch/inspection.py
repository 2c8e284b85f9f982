"""What a patch file holds: how many numbers, how far they moved where the old values lie beside it."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture.errors import DataError
from suture.patch.file import PATCH, UNDO, Patch, load_patch

FORM = {  # columns of a row per tensor
    "group": object, "dtype": object, "shape": object, "parameters": int, "changed": float, "norm_before": float,
    "norm_change": float, "change": float, "finite": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """What a patch is.

    Attributes:
        file: name of its file.
        patch: what the file holds.
        tensors: a row per tensor, sorted by name: group, dtype, shape, parameters (how many numbers it has), changed
            (how many of them have other bits than before), norm_before, norm_change (‖old‖, ‖new − old‖), change
            (their ratio), finite (whether no new value is NaN or infinite). Old values come from the file beside the
            patch; NaN where they are not known.
        note: why the old values are not known; empty where they are.
    """

    file: str
    patch: Patch = field(repr=False)
    tensors: pd.DataFrame = field(repr=False)
    note: str = ""

    @property
    def groups(self) -> pd.DataFrame:
        """A row per group of tensors, in their order: tensors, parameters, changed, norms, change."""
        norms = ["norm_before", "norm_change"]
        columns = self.tensors[["parameters", "changed"]].join(self.tensors[norms] ** 2)
        columns.insert(0, "tensors", 1)
        table = added_up(columns, self.tensors["group"])
        table[norms] **= 0.5
        table["change"] = share(table["norm_change"].to_numpy(float), table["norm_before"].to_numpy(float))
        return table

    @property
    def changed(self) -> float:
        """How many numbers have other bits than before; NaN where that is not known."""
        return float(self.tensors["changed"].sum(skipna=False))

    @property
    def change(self) -> float:
        """‖new − old‖ / ‖old‖ over all tensors of the patch; NaN where that is not known."""
        norms = (np.array([_norm(self.tensors[name])]) for name in ("norm_change", "norm_before"))
        return float(share(*norms)[0])

    @property
    def nonfinite(self) -> list[str]:
        """Tensors that hold NaN or infinite values."""
        return [str(name) for name in self.tensors.index[~self.tensors["finite"]]]


def inspect(path: str | Path) -> Inspection:
    """Read a patch and, where ``undo.safetensors`` lies beside it, say how far it moves the weights.

    For an undo file the old values are in ``patch.safetensors``. What lies beside it is believed: only `apply`, which
    has the weights, can check it.

    Raises:
        MissingFileError: no such file.
        DataError: the file is no patch.
    """
    path = Path(path)
    patch = load_patch(path)
    old, note = _beside(path, patch)
    names = in_order(patch.tensors)
    rows = [
        {"group": group} | _row(patch.tensors[name], old.get(name))
        for name, group in zip(names, group_names(names), strict=True)
    ]
    index = pd.Index(names, name="tensor", dtype=object)
    return Inspection(path.name, patch, pd.DataFrame(rows, index=index, columns=list(FORM)).astype(FORM), note)


def _beside(path: Path, patch: Patch) -> tuple[dict[str, Tensor], str]:
    """Old values, or why there are none."""
    other = path.with_name(PATCH if patch.undo else UNDO)
    unknown = "so how far the values moved is not known"
    if not other.is_file():
        return {}, f"There is no {other.name} beside it, {unknown}."
    try:
        found = load_patch(other)
    except DataError:
        return {}, f"The {other.name} beside it cannot be read, {unknown}."
    if (found.base, found.result) != (patch.result, patch.base) or _forms(found) != _forms(patch):
        return {}, f"The {other.name} beside it belongs to another patch, {unknown}."
    return found.tensors, ""


def _forms(patch: Patch) -> dict[str, tuple[Any, ...]]:
    return {name: (tensor.dtype, *tensor.shape) for name, tensor in patch.tensors.items()}


def _row(new: Tensor, old: Tensor | None) -> dict[str, Any]:
    values = numbers(new)
    before = None if old is None else numbers(old)
    norm = math.nan if before is None else float(before.norm())
    moved = math.nan if before is None else float((values - before).norm())
    return {
        "dtype": str(new.dtype).removeprefix("torch."),
        "shape": " × ".join(map(str, new.shape)),
        "parameters": new.numel(),
        "changed": math.nan if old is None else _other_bits(new, old),
        "norm_before": norm,
        "norm_change": moved,
        "change": float(share(np.array([moved]), np.array([norm]))[0]),
        "finite": bool(values.isfinite().all()),
    }


def _other_bits(a: Tensor, b: Tensor) -> int:
    """How many numbers of two tensors of one form differ in a byte."""
    if not a.numel():
        return 0
    left, right = (t.contiguous().reshape(-1).view(torch.uint8).reshape(t.numel(), -1) for t in (a, b))
    return int((left != right).any(1).sum())


def numbers(tensor: Tensor) -> Tensor:
    """The values as float64, flat; a complex number counts as two."""
    tensor = tensor.detach().cpu()
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double().reshape(-1)


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Part over whole: nothing is 0 of anything, something is infinite beside nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(part == 0, 0.0, part / whole)


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted as a reader would, ``layer10`` after ``layer2``: files do not keep the model's order."""
    return sorted(names, key=lambda name: (re.sub("[0-9]+", lambda found: found[0].zfill(12), name), name))


def group_names(names: list[str]) -> list[str]:
    """The group of each tensor: its name up to the first part that tells tensors apart, without the tensor's own."""
    parts = [name.split(".") for name in names]
    depth = 1
    while all(len(each) > depth + 1 for each in parts) and len({tuple(each[:depth]) for each in parts}) == 1:
        depth += 1
    return [".".join(each[:depth]) for each in parts]


def added_up(table: pd.DataFrame, keys: "pd.Series[str] | pd.Index[str]") -> pd.DataFrame:
    """Sums of the rows of each key, in order of appearance; NaN where any of a sum is not known."""
    grouped = table.groupby(keys, sort=False)
    return grouped.sum().where(grouped.count().eq(grouped.size(), axis=0))


def _norm(norms: "pd.Series[float]") -> float:
    return math.sqrt((norms**2).sum(skipna=False))
