"""A case: model, data, task and parameter groups, which is all a stage needs to know.

The data is cut into splits that never share an example: `diagnose` (errors are found and attributed
here), `repair` (treatment trains here), `select` (a quarter of repair, where every choice is made and
nothing trains) and `verify` (looked at once, at the end).
"""

import copy
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from suture import groups as grouping
from suture.errors import DataError, InvalidArgumentError, SplitOverlapError, SutureError
from suture.images import ImageFormat, pixels_of
from suture.loading import load_data, load_task
from suture.patch import base_sha256, canonical_state
from suture.progress import track
from suture.registry import suggest
from suture.rundir import fingerprint
from suture.tasks import Task

SPLITS = ("diagnose", "repair", "select", "verify")
SHARES = {"diagnose": 0.2, "repair": 0.4, "verify": 0.4}  # of one data set
SELECT = 0.25  # of repair
PROTOCOLS = ("split", "paper")
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


class Split(Sequence[Any]):
    """Some examples of a data set, in their order.

    Attributes:
        name: diagnose, repair, select or verify.
        indices: positions in the data set the split was cut from.
        hashes: content hash of each example's input.
        strata: the label of each example, or None where targets are not one integer.
    """

    def __init__(self, name: str, index: "_Index", indices: Sequence[int]) -> None:
        self.name, self._data = name, index.data
        self.indices = [int(i) for i in indices]
        self.hashes = [index.hashes[i] for i in self.indices]
        self.strata = [index.strata[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: Any) -> Any:
        return self._data[self.indices[i]]

    def only(self, positions: Sequence[int]) -> list[Any]:
        """The examples at some positions."""
        return [self[i] for i in positions]

    def label(self, i: int) -> str:
        """What example i is called: its file, where the data set knows it, else its position."""
        names = getattr(self._data, "names", None)
        return str(names[self.indices[i]]) if names else f"example {self.indices[i]}"

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the inputs and labels, in order."""
        return fingerprint(self.hashes, self.strata)


class Splits(dict[str, Split]):
    """Name → split; a case for one purpose may lack those it does not need."""

    def __missing__(self, name: str) -> Split:
        raise DataError(f"this case has no examples to {name} on; give the split '{name}'")


class _Index:
    """Hash and stratum of every example of a data set, from one pass over it."""

    def __init__(self, data: Any, name: str) -> None:
        if not isinstance(data, Sized) or not hasattr(data, "__getitem__"):
            raise DataError(f"the data for {name} is {type(data).__name__}; it needs a length and indexing")
        if not len(data):
            raise DataError(f"the data for {name} is empty")
        self.data: Any = data
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


class Case:
    """Model, data, task and groups.

    Args:
        model: any module; it is copied, and never modified.
        data: one data set of pairs (input, target), split 20/40/40 by class into diagnose, repair and
            verify; or a dict of the three; or a path as `suture.loading.load_data` takes it.
        diagnose, repair, verify: the three data sets, in place of `data`; to verify somebody's patch, `verify`
            alone will do.
        task: a name, ``FILE.py:Class``, or a task.
        groups: ``"top"``, ``"block"``, ``"tensor"`` or ``{name: [glob, …]}``.
        protocol: ``"split"``; or ``"paper"``, where verify *is* diagnose, so that gains are optimistic.
        classes: names of the labels; taken from the data set where it has them.
        image: how pixels were normalised, to show pictures as they were.
        factory: builds the architecture afresh, for the null at random initialisation.
        reference: a healthy model of the same architecture that sharpens scores.
        seed: of everything random.
        device: ``"auto"`` takes a GPU if there is one.
        batch_size: of evaluation and evidence.

    Attributes:
        splits: name → Split, for diagnose, repair, select and verify.
        groups: group → parameter names.

    Raises:
        SplitOverlapError: an input stands in two splits.
        DataError: a split is missing, empty, or lacks a class folder the others have.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any = None,
        *,
        diagnose: Any = None,
        repair: Any = None,
        verify: Any = None,
        task: str | Task = "classification",
        groups: grouping.GroupSpec = "top",
        protocol: str = "split",
        classes: Sequence[str] | None = None,
        image: ImageFormat | None = None,
        factory: Callable[[], nn.Module] | None = None,
        reference: nn.Module | None = None,
        seed: int = 42,
        device: str = "auto",
        batch_size: int = 128,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise InvalidArgumentError(f"no protocol is called '{protocol}'; {suggest(protocol, list(PROTOCOLS))}")
        if batch_size < 1:
            raise InvalidArgumentError(f"--batch-size must be at least 1, not {batch_size}")
        self.device = _device(device)
        self.model = copy.deepcopy(model).to(self.device).eval()
        self.groups = grouping.resolve(self.model, groups)
        self.task = load_task(task)
        self.task_name = task if isinstance(task, str) else type(task).__qualname__
        self.protocol, self.seed, self.batch_size = protocol, seed, batch_size
        self.image, self.factory, self.reference = image, factory, reference
        given = _given(data, diagnose, repair, verify, protocol, image)
        self.splits = _cut(given, protocol, seed)
        self.classes = _class_names(given, classes)
        self.weights_sha256 = base_sha256(canonical_state(self.model))

    @property
    def fingerprint(self) -> str:
        """Changes when anything does that a stage's result could depend on."""
        return fingerprint(
            self.weights_sha256,
            repr(self.model),
            {name: split.fingerprint for name, split in self.splits.items()},
            self.groups,
            self.task_name,
            self.protocol,
            self.seed,
            self.batch_size,
            list(self.classes or []),
            repr(self.image),
        )

    def class_name(self, label: int) -> str:
        """The name of a label, or its number."""
        return str(self.classes[label]) if self.classes and 0 <= label < len(self.classes) else str(label)

    def pictures(self, split: str, positions: Sequence[int]) -> NDArray[np.uint8] | None:
        """Pictures (k, h, w, c) of examples, or None when inputs are no pictures."""
        shown = [pixels_of(self.splits[split][i][0], self.image) for i in positions]
        kept = [picture for picture in shown if picture is not None]
        if not kept or len(kept) < len(shown) or len({picture.shape for picture in kept}) > 1:
            return None
        return np.stack(kept)


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
    if isinstance(target, Tensor | np.ndarray | np.generic) and np.size(target) == 1:
        target = target.item()
    return target if isinstance(target, int) and not isinstance(target, bool) else None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in DEVICES:
        raise InvalidArgumentError(f"no device is called '{name}'; {suggest(name, list(DEVICES))}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError or its own, by backend
        raise InvalidArgumentError(f"--device {name} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def _given(
    data: Any, diagnose: Any, repair: Any, verify: Any, protocol: str, image: ImageFormat | None
) -> dict[str, Any]:
    """The data sets as given: {"data": …} or the splits by name."""
    data, diagnose, repair, verify = (
        load_data(d, image) if isinstance(d, str) else d for d in (data, diagnose, repair, verify)
    )
    splits = dict(data) if isinstance(data, Mapping) else {}
    splits |= {k: v for k, v in {"diagnose": diagnose, "repair": repair, "verify": verify}.items() if v is not None}
    if not splits:
        if data is None:
            raise DataError("no data: give one data set, or the three splits diagnose, repair and verify")
        return {"data": data}
    if data is not None and not isinstance(data, Mapping):
        raise DataError("give either one data set or the three splits, not both")
    unknown = set(splits) - {"diagnose", "repair", "verify"}
    if unknown:
        raise DataError(f"there is no split '{min(unknown)}'; the splits are diagnose, repair and verify")
    if protocol == "paper" and "verify" in splits:
        raise DataError("under protocol 'paper' verify is diagnose, so give only diagnose and repair")
    return splits


def _cut(given: Mapping[str, Any], protocol: str, seed: int) -> Splits:
    indexed = {name: _Index(data, name) for name, data in given.items()}
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
    splits = Splits((name, Split(name, *cut[name])) for name in SPLITS if name in cut)
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"there are too few examples: '{name}' would be empty")
    _refuse_overlap(splits)
    if protocol == "paper" and "diagnose" in splits:
        splits["verify"] = splits["diagnose"]
    return splits


def _refuse_overlap(splits: Splits) -> None:
    seen: dict[str, tuple[str, int]] = {}
    for name, split in splits.items():
        shared = [(i, h) for i, h in enumerate(split.hashes) if seen.get(h, (name,))[0] != name]
        if shared:
            position, content = shared[0]
            other, there = seen[content]
            raise SplitOverlapError(
                f"{len(shared)} inputs of '{name}' also stand in '{other}': the first is {split.label(position)}, "
                f"there {splits[other].label(there)}; a verdict needs examples nothing else saw, so remove one copy"
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


def _class_names(given: Mapping[str, Any], classes: Sequence[str] | None) -> list[str] | None:
    named = {name: list(data.classes) for name, data in given.items() if getattr(data, "classes", None)}
    for name, names in named.items():
        for other, others in named.items():
            missing = [c for c in others if c not in names]
            if missing:
                raise DataError(
                    f"'{name}' lacks the class folder '{missing[0]}' that '{other}' has; add it or remove it"
                )
            if names != others:
                raise DataError(f"'{name}' and '{other}' have the same classes in another order; labels must agree")
    if classes is not None:
        return [str(c) for c in classes]
    return next(iter(named.values()), None)
