"""A patch and its file. Files come from strangers: sizes are bounded and every word is checked."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from suture.errors import DataError, InvalidArgumentError, MissingFileError
from suture.rundir import replacing

PATCH, UNDO = "patch.safetensors", "undo.safetensors"  # as Treat writes them, beside each other

MOST_HEADER = 16 << 20  # bytes of names, shapes and metadata: 100,000 tensors need as many
MOST_WORDS = 10_000  # characters of the plan, of the version, and of the metrics
MOST_METRICS = 200
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Patch:
    """Changed tensors and what they were changed from.

    Attributes:
        tensors: state name → new value.
        base: sha256 of the weights the patch applies to.
        result: sha256 of the weights after it was applied in full; empty where that is not known.
        plan: name of the plan that made it.
        undo: whether it leads back from a repair.
        aliases: names of tied copies that the hashes leave out → the name they stand for.
        version: the suture that made it.
        metrics: what was measured of it, such as fixed and broken on select; ``dataclasses.replace`` adds some.
        margin: of a route, in units of probability: the old network answers unless the new one is surer by more; None
            for a patch that stands alone.
    """

    tensors: dict[str, Tensor]
    base: str
    result: str
    plan: str = ""
    undo: bool = False
    aliases: dict[str, str] = field(default_factory=dict)
    version: str = field(default_factory=lambda: version("suture"))
    metrics: Mapping[str, float] = field(default_factory=dict)
    margin: float | None = None

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def size(self) -> int:
        """How many numbers the patch holds."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def save(self, path: str | Path) -> None:
        """Write the patch as safetensors, atomically.

        Raises:
            InvalidArgumentError: the metrics are no finite numbers by name, or it could not be read again.
        """
        try:
            metadata = {
                "base_sha256": self.base,
                "result_sha256": self.result,
                "plan": self.plan,
                "kind": "undo" if self.undo else "patch",
                "aliases": json.dumps(self.aliases),
                "suture_version": self.version,
                "metrics": json.dumps(dict(self.metrics), default=float),  # numbers of numpy and torch
            } | ({} if self.margin is None else {"margin": repr(float(self.margin))})
            _read_words(metadata)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"the patch cannot be written: {error}") from error
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.tensors.items()}
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, metadata=metadata)


def load_patch(path: str | Path) -> Patch:
    """Read a patch.

    Raises:
        MissingFileError: no such file.
        DataError: the file is no patch, or what it says of itself makes no sense.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"there is no patch {path}")
    try:
        check_header(path)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as a patch ({error})") from error
    if "base_sha256" not in metadata:
        raise DataError(f"{path} is a safetensors file but no patch of suture: it does not say which weights it is for")
    try:
        words = _read_words(metadata)
        tied = next((name for name in words["aliases"] if name in tensors), None)
        if tied is not None:
            raise ValueError(f"{shown(tied)} is changed and also said to stand for another tensor")
    except ValueError as error:
        raise DataError(f"{path} is a damaged patch: {error}; fetch it again") from error
    return Patch(tensors, **words)


def shown(name: str, limit: int = 80) -> str:
    """A foreign name in quotes for an error: shortened, and with what could steer a terminal spelt out."""
    return repr(name if len(name) <= limit else f"{name[:limit]}…")


def check_header(path: Path) -> None:
    """Refuse a header that would take long to read, before anything reads it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MOST_HEADER < length < path.stat().st_size:
        raise ValueError(f"names and metadata take {length} bytes; at most {MOST_HEADER} are read")


def _read_words(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a patch but its tensors; ValueError says which word of the metadata makes no sense."""
    digests = {"base_sha256": metadata["base_sha256"], "result_sha256": metadata.get("result_sha256", "")}
    for name, digest in digests.items():
        if not SHA256.fullmatch(digest) and (digest or name == "base_sha256"):  # old files lack the other
            raise ValueError(f"{name} is no sha256")
    for name in ("plan", "suture_version", "metrics"):
        if len(metadata.get(name, "")) > MOST_WORDS:
            raise ValueError(f"{name} takes {len(metadata[name])} characters; at most {MOST_WORDS} are read")
    aliases = _object("aliases", metadata)
    if not all(isinstance(original, str) for original in aliases.values()):
        raise ValueError("aliases are no names by name")
    return {
        "base": digests["base_sha256"],
        "result": digests["result_sha256"],
        "plan": metadata.get("plan", ""),
        "undo": metadata.get("kind") == "undo",
        "aliases": aliases,
        "version": metadata.get("suture_version", ""),
        "metrics": _metrics(_object("metrics", metadata)),
        "margin": _margin(metadata.get("margin")),
    }


def _margin(word: str | None) -> float | None:
    if word is None:
        return None
    margin = float(word)
    if not -1 <= margin <= 1:
        raise ValueError("its margin is no difference of probabilities")
    return margin


def _object(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        read = json.loads(metadata.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} are no JSON") from error
    if not isinstance(read, dict):
        raise ValueError(f"{name} are no JSON object")
    return read


def _metrics(read: Mapping[str, Any]) -> dict[str, float]:
    if len(read) > MOST_METRICS:
        raise ValueError(f"there are {len(read)} metrics; at most {MOST_METRICS} are read")
    found = {}
    for name, value in read.items():
        # A bool is an int to Python, and an int may be too large for a float.
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise ValueError(f"the metric {shown(name)} is no finite number")
        found[name] = float(value)
    return found


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
