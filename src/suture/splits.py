"""Splits: parts of the data that never share an example.

`diagnose` (errors are found and attributed here), `repair` (treatment trains here), `select` (a quarter of
repair, where every choice is made and nothing trains) and `verify` (looked at once, at the end).
"""

import copy
import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.errors import DataError, SplitOverlapError, SutureError
from suture.progress import track
from suture.rundir import fingerprint

SPLITS = ("diagnose", "repair", "select", "verify")
SHARES = {"diagnose": 0.2, "repair": 0.4, "verify": 0.4}  # of one data set
SELECT = 0.25  # of repair


class Split(Sequence[Any]):
    """Some examples of a data set, in their order.

    Attributes:
        name: diagnose, repair, select or verify.
        indices: positions in the data set the split was cut from.
        hashes: content hash of each example's input.
        strata: the label of each example, or None where targets are not one integer.
    """

    def __init__(self, name: str, index: "Index", indices: Sequence[int]) -> None:
        self.name, self._data = name, index.data
        self._names, self._columns = index.names, index.columns
        self.indices = [int(i) for i in indices]
        self.hashes = [index.hashes[i] for i in self.indices]
        self.strata = [index.strata[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: Any) -> Any:
        return self._data[self.indices[i]]

    @property
    def read_batch(self) -> Callable[[Sequence[int]], Any]:
        """Reads several examples at once; absent where the data set cannot."""
        whole = self._data.read_batch
        return lambda positions: whole([self.indices[i] for i in positions])

    def only(self, positions: Sequence[int]) -> "Split":
        """The examples at some positions."""
        part = copy.copy(self)
        part.indices = [self.indices[i] for i in positions]
        part.hashes = [self.hashes[i] for i in positions]
        part.strata = [self.strata[i] for i in positions]
        return part

    def without_extra(self) -> "Split":
        """The examples that are no further ones for treatment to train on (``repair_extra``)."""
        own = self._data.extra_from if isinstance(self._data, Joined) else len(self._data)
        return self.only([i for i, index in enumerate(self.indices) if index < own])

    def label(self, i: int) -> str:
        """What example i is called: its file, where the data set knows it, else its position."""
        return writable(self._names[self.indices[i]]) if self._names else f"example {self.indices[i]}"

    @property
    def metadata(self) -> dict[str, list[Any]]:
        """Column → its value for each example, where the data set has ``metadata``."""
        return {name: [values[i] for i in self.indices] for name, values in self._columns.items()}

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the inputs and labels, in order."""
        return fingerprint(self.hashes, self.strata)


class Splits(dict[str, Split]):
    """Name → split; a case for one purpose may lack those it does not need."""

    def __missing__(self, name: str) -> Split:
        raise DataError(f"this case has no examples to {name} on; give the split '{name}'")


class Index:
    """Hash and stratum of every example of a data set, from one pass over it, its names and its metadata.

    Raises:
        DataError: there are no examples, one is no pair, or names or metadata are not those of the examples.
    """

    def __init__(self, data: Any, name: str) -> None:
        _refuse_no_sequence(data, name)
        if not len(data):
            raise DataError(f"the data for {name} is empty")
        self.data: Any = data
        self.names, self.columns = names_of(data), columns_of(data)
        self.hashes: list[str] = []
        self.strata: list[int | None] = []
        for i in track(range(len(data)), f"indexing {name}"):
            example = self._example(i, name)
            if not isinstance(example, tuple | list) or len(example) != 2:
                raise DataError(f"example {i} of {name} is {type(example).__name__}, not a pair (input, target)")
            self.hashes.append(content_hash(example[0]))
            self.strata.append(_stratum(example[1]))

    def _example(self, i: int, name: str) -> Any:
        try:
            return self.data[i]
        except SutureError:
            raise
        except Exception as error:  # a stranger's data set may raise anything
            raise DataError(f"reading example {i} of {name} failed: {type(error).__name__}: {error}") from error


def _refuse_no_sequence(data: Any, name: str) -> None:
    if not isinstance(data, Sized) or not hasattr(data, "__getitem__"):
        raise DataError(f"the data for {name} is {type(data).__name__}; it needs a length and indexing")


def _listed(values: object, what: str) -> list[Any]:
    if not isinstance(values, Iterable):
        raise DataError(f"{what} of the data set must be a list, not {type(values).__name__}")
    return list(values)


def names_of(data: Any) -> list[Any] | None:
    """What a data set calls its examples; None where it does not say.

    Raises:
        DataError: there is not one name per example.
    """
    names = getattr(data, "names", None)
    found = _listed(names, "`names`") if names is not None else []
    if found and len(found) != len(data):
        raise DataError(
            f"`names` of the data set has {len(found)} values for {len(data)} examples; give one name per example "
            "(names of labels are called `classes`)"
        )
    return found or None


def classes_of(data: Any) -> list[Any] | None:
    """What a data set calls its labels; None where it does not say."""
    classes = getattr(data, "classes", None)
    return (_listed(classes, "`classes`") if classes is not None else []) or None


def columns_of(data: Any) -> dict[str, list[Any]]:
    """Metadata of a data set: column → a value per example.

    Raises:
        DataError: it is neither a table, columns by name nor a list with a dict per example, or a column is not as
            long as the data set.
    """
    table = getattr(data, "metadata", None)
    if table is None:
        return {}
    if isinstance(table, list | tuple) and all(isinstance(row, Mapping) for row in table):
        names = dict.fromkeys(name for row in table for name in row)
        table = {name: [row.get(name) for row in table] for name in names}
    if not hasattr(table, "items"):
        raise DataError(
            f"`metadata` of the data set is {type(table).__name__}; give a table, a dict of columns, or a list with a "
            "dict per example"
        )
    columns = {writable(name): _listed(values, f"the metadata column '{name}'") for name, values in table.items()}
    for name, values in columns.items():
        if len(values) != len(data):
            raise DataError(
                f"the metadata column '{name}' has {len(values)} values for {len(data)} examples; give one value per "
                "example"
            )
    return columns


def writable(name: object) -> str:
    """A foreign name as text that can be written as UTF-8: file names need not be."""
    return str(name).encode("utf-8", "replace").decode()


def content_hash(inputs: Any) -> str:
    """sha256 of an input's content: tensors, arrays, numbers, text, and dicts and lists of them."""
    digest = hashlib.sha256()
    _feed(digest, inputs)
    return digest.hexdigest()


def _feed(digest: Any, thing: Any) -> None:
    if isinstance(thing, Tensor):
        thing = thing.detach().cpu().contiguous()
        digest.update(f"{thing.dtype}{tuple(thing.shape)}".encode())
        digest.update(thing.reshape(-1).view(torch.uint8).numpy().data if thing.numel() else b"")
    elif isinstance(thing, np.ndarray):
        digest.update(f"{thing.dtype}{thing.shape}".encode() + thing.tobytes())
    elif isinstance(thing, Mapping):
        for key in sorted(thing, key=str):
            digest.update(f"\0{key}\0".encode())
            _feed(digest, thing[key])
    elif isinstance(thing, list | tuple):
        digest.update(f"[{len(thing)}".encode())
        for item in thing:
            _feed(digest, item)
    elif isinstance(thing, str | bytes | int | float | bool | np.generic) or thing is None:
        digest.update(f"{type(thing).__name__}:{thing!r}".encode())
    elif hasattr(thing, "__dict__"):
        _feed(digest, vars(thing))
    else:
        raise DataError(f"inputs hold a {type(thing).__name__}, which cannot be compared; use tensors, text or dicts")


def _stratum(target: Any) -> int | None:
    if isinstance(target, Tensor | np.ndarray | np.generic) and np.prod(target.shape) == 1:
        target = target.item()
    return target if isinstance(target, int) and not isinstance(target, bool) else None


class Joined(Sequence[Any]):
    """The examples of two data sets, one after the other."""

    def __init__(self, first: Any, second: Any) -> None:
        self._parts = (first, second)
        self.extra_from = len(first)

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __getitem__(self, i: Any) -> Any:
        first, second = self._parts
        return first[i] if i < len(first) else second[i - len(first)]

    @property
    def names(self) -> list[str] | None:
        """What examples are called; None where one of the data sets does not say."""
        named = [names_of(part) for part in self._parts]
        return [name for names in named for name in names or ()] if all(named) else None

    @property
    def classes(self) -> list[str] | None:
        """What labels are called; None where the data does not say."""
        return next((classes for part in self._parts if (classes := classes_of(part))), None)


def joined(parts: Sequence[Any], name: str) -> Any:
    """The examples of several data sets, one after the other; None without any.

    Raises:
        DataError: one is no data set.
    """
    for part in parts:
        _refuse_no_sequence(part, name)
    return functools.reduce(Joined, parts) if parts else None


def _with_extra(repair: tuple[Index, list[int]], extra: Index) -> tuple[Index, list[int]]:
    """The repair examples and further ones, which nothing is chosen on."""
    index, part = repair
    both = copy.copy(index)
    both.data = Joined(index.data, extra.data)
    both.names, both.columns = names_of(both.data), columns_of(both.data)
    both.hashes, both.strata = [*index.hashes, *extra.hashes], [*index.strata, *extra.strata]
    return both, [*part, *range(len(index.hashes), len(both.hashes))]


def cut(given: Mapping[str, Any], protocol: str, seed: int) -> Splits:
    indexed = {name: Index(data, name) for name, data in given.items()}
    extra = indexed.pop("repair_extra", None)
    if "data" in indexed:
        index = indexed["data"]
        parts = stratified(index.hashes, index.strata, list(SHARES.values()), seed)
        cut = {name: (index, part) for name, part in zip(SHARES, parts, strict=True)}
        if protocol == "paper":
            cut["diagnose"] = (index, sorted([*cut["diagnose"][1], *cut.pop("verify")[1]]))
    else:
        cut = {name: (index, list(range(len(index.hashes)))) for name, index in indexed.items()}
    if "repair" in cut:
        index, whole = cut["repair"]
        hashes, strata = [index.hashes[i] for i in whole], [index.strata[i] for i in whole]
        train, select = stratified(hashes, strata, [1 - SELECT, SELECT], seed)
        cut["repair"], cut["select"] = (index, [whole[i] for i in train]), (index, [whole[i] for i in select])
        if extra is not None:
            cut["repair"] = _with_extra(cut["repair"], extra)
    splits = Splits((name, Split(name, *cut[name])) for name in SPLITS if name in cut)
    for name, split in splits.items():
        if not len(split):
            raise DataError(_too_few(name, cut[name][0].hashes))
    _refuse_overlap(splits)
    if protocol == "paper" and "diagnose" in splits:
        splits["verify"] = splits["diagnose"]
    return splits


def _too_few(name: str, hashes: Sequence[str]) -> str:
    different = len(set(hashes))
    copies = f"; of {len(hashes)} examples only {different} {'is' if different == 1 else 'are'} different, and "
    said = f"{copies}equal ones stay in one split" if different < len(hashes) else ""
    return f"there are too few examples: '{name}' would be empty{said}"


def _refuse_overlap(splits: Splits) -> None:
    seen: dict[str, tuple[str, int]] = {}
    for name, split in splits.items():
        shared = [(i, h) for i, h in enumerate(split.hashes) if seen.get(h, (name,))[0] != name]
        if shared:
            position, content = shared[0]
            other, there = seen[content]
            odd = sum(split.strata[i] != splits[seen[h][0]].strata[seen[h][1]] for i, h in shared)
            labels = f" ({odd} with another label there)" if odd else ""
            raise SplitOverlapError(
                f"{len(shared)} inputs of '{name}' also stand in '{other}'{labels}: the first is "
                f"{split.label(position)}, there {splits[other].label(there)}; a verdict needs examples nothing else "
                "saw, so remove one copy"
            )
        seen |= {h: (name, i) for i, h in enumerate(split.hashes)}


def stratified(
    hashes: Sequence[str], strata: Sequence[int | None], shares: Sequence[float], seed: int
) -> list[list[int]]:
    """Positions in parts of the given shares, class by class; equal contents stay in one part.

    Every part gets its share of each class up to rounding, and rounding errors do not add up over classes.
    """
    copies: dict[str, list[int]] = defaultdict(list)
    for position, content in enumerate(hashes):
        copies[content].append(position)
    by_class: dict[Any, list[list[int]]] = defaultdict(list)
    for positions in copies.values():
        by_class[strata[positions[0]]].append(positions)
    rng = np.random.default_rng(seed)
    edges = np.cumsum(shares)[:-1]
    parts: list[list[int]] = [[] for _ in shares]
    for stratum in sorted(by_class, key=lambda s: (s is None, s)):
        members = by_class[stratum]
        order = rng.permutation(len(members))
        places = (np.arange(len(members)) + rng.random()) / len(members)  # a random phase per class
        for part, place in zip(np.searchsorted(edges, places, side="right"), order, strict=True):
            parts[part].extend(members[place])
    return [sorted(part) for part in parts]
