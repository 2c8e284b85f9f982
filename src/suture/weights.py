"""Weights files of other people: read without running code, and written back in the wrapping they came in."""

import contextlib
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from suture.errors import DataError, MissingFileError, UnsafeFileError, WeightsMismatchError
from suture.patch import COUNTER, aliases_of
from suture.rundir import replacing

WRAPPER_KEYS = ("state_dict", "model_state_dict", "model", "net", "module")
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
HARMLESS = re.compile(r"collections\.OrderedDict$|torch\._utils\.|torch\.\w+Storage$")  # what tensors need
LEGACY_PICKLES = 4  # that a torch file before 1.6 begins with


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a weights file and the wrapping they came in.

    Attributes:
        path: the file.
        state: state name → tensor, after wrappers are undone.
        content: what the file holds as a whole; None for safetensors.
        keys: the keys that lead from `content` to the tensors.
        prefix: what every tensor's name began with.
        metadata: of a safetensors file.
    """

    path: Path
    state: dict[str, Tensor]
    content: Any
    keys: tuple[str, ...]
    prefix: str
    metadata: dict[str, str]

    def save(self, path: str | Path, state: Mapping[str, Tensor]) -> None:
        """Write other tensors of the same names in the wrapping this file has, atomically.

        A path that ends in ``.safetensors`` gets the tensors alone, as such files know no dicts in dicts.
        """
        with replacing(Path(path)) as temporary:
            if Path(path).suffix == ".safetensors":
                tensors = {self.prefix + name: tensor.clone().contiguous() for name, tensor in state.items()}
                save_file(tensors, temporary, metadata=self.metadata or None)
            else:
                with open(temporary, "wb") as file:  # by its path, torch makes a full disk a RuntimeError of its own
                    torch.save(self._wrapped(state), file)

    def _wrapped(self, state: Mapping[str, Tensor]) -> Any:
        wrapped: Any = {self.prefix + name: tensor for name, tensor in state.items()}
        levels = [self.content]
        for key in self.keys:
            levels.append(levels[-1][key])
        for key, level in zip(reversed(self.keys), reversed(levels[:-1]), strict=True):
            wrapped = {**level, key: wrapped}
        return wrapped


def load_checkpoint(path: str | Path, names: set[str] | None = None) -> Checkpoint:
    """Read a weights file without running code.

    Args:
        path: safetensors, or a file of ``torch.save``.
        names: the state names of the model or patch it is for; a prefix such as ``model.`` is then undone
            when that makes the names fit.

    Raises:
        MissingFileError: no such file.
        UnsafeFileError: the pickle asks for code; it is not run.
        DataError: the file holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder; give the weights file in it" if path.is_dir() else "does not exist"
        raise MissingFileError(f"the weights file {path} {kind}")
    content, metadata = _read_tensors(path)
    state, keys = content, []
    while isinstance(state, Mapping) and not _is_state(state):
        key = next((key for key in WRAPPER_KEYS if isinstance(state.get(key), Mapping)), None)
        if key is None:
            break
        keys.append(key)
        state = state[key]
    if not isinstance(state, Mapping) or not _is_state(state):
        found = ", ".join(map(str, list(state)[:6])) if isinstance(state, Mapping) else type(state).__name__
        raise DataError(f"{path} holds no state_dict but {found or 'nothing'}; save model.state_dict() and give that")
    prefix = _prefix_of(list(state), names)
    tensors = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return Checkpoint(path, tensors, content, tuple(keys), prefix, metadata)


def _is_state(state: Mapping[Any, Any]) -> bool:
    return bool(state) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def _read_tensors(path: Path) -> tuple[Any, dict[str, str]]:
    """Content and metadata of a file, by what it is and not by what it is called."""
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise DataError(f"{path} is empty; save or fetch it again")
    pickled = head[:2] == b"PK" or (head[0] == 0x80 and head[1:2] <= b"\x05")
    if pickled and path.suffix == ".safetensors":
        raise UnsafeFileError(
            f"{path} is no safetensors file but a pickle, which may hold code; it was not read. Save "
            "model.state_dict() as safetensors and give that"
        )
    if path.suffix == ".safetensors" or head[8:] == b"{":
        try:
            with safetensors.safe_open(path, framework="pt") as tensors:
                return load_file(path), dict(tensors.metadata() or {})
        except (safetensors.SafetensorError, OSError) as error:
            raise DataError(f"{path} is not readable as safetensors ({error}); save or fetch it again") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a stranger's pickle is said below
            return torch.load(path, map_location="cpu", weights_only=True), {}
    except Exception as error:  # a hostile or broken file may fail in any way; none of them runs its code
        asked = _code_in(path)
        if asked:
            raise UnsafeFileError(
                f"{path} is a pickle that asks for {asked}, which is code; it was not run. Save "
                "model.state_dict() as safetensors and give that"
            ) from error
        hint = "; it begins like one and may be incomplete, so fetch it again" if pickled else ""
        raise DataError(f"{path} is no weights file: neither safetensors nor a file of torch.save{hint}") from error


def _code_in(path: Path) -> str | None:
    """The first name that a pickle asks for beyond tensors, read off its opcodes; none of them is carried out."""
    with contextlib.suppress(Exception):  # what cannot be parsed names nothing
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return next(name for _ in range(LEGACY_PICKLES) for name in _globals(file) if not HARMLESS.match(name))
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return "a TorchScript program"
            pickles = (archive.open(name) for name in archive.namelist() if name.endswith(".pkl"))
            return next(name for file in pickles for name in _globals(file) if not HARMLESS.match(name))
    return None


def _globals(file: IO[bytes]) -> Iterator[str]:
    """``module.name`` of everything that the next pickle in a file would import."""
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)


def _prefix_of(keys: list[str], names: set[str] | None) -> str:
    """The longest run of wrapper prefixes that all keys share; with names, only as far as it makes them fit."""
    prefix = ""
    while True:
        rest = [key[len(prefix) :] for key in keys]
        if names is not None and names & set(rest):
            return prefix
        step = next((p for p in WRAPPER_PREFIXES if all(key.startswith(p) for key in rest)), None)
        if step is None or (names is None and step not in ("module.", "_orig_mod.")):
            return prefix
        prefix += step


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a model, every tensor of it.

    Raises:
        WeightsMismatchError: a tensor is missing, unexpected or misshapen; nothing is loaded then.
    """
    own, state, path = model.state_dict(), dict(checkpoint.state), checkpoint.path
    for alias, name in aliases_of(model).items():  # files may hold a tied tensor once, under either name
        if name in state:
            state.setdefault(alias, state[name])
        elif alias in state:
            state[name] = state[alias]
    missing = [name for name in own if name not in state and not name.endswith(COUNTER)]
    unexpected = [name for name in state if name not in own and not name.endswith(COUNTER)]
    misfits = [name for name in own if name in state and not _fits(own[name], state[name])]
    if not (missing or unexpected or misfits):
        model.load_state_dict({name: tensor for name, tensor in state.items() if name in own}, strict=False)
        return
    kind = type(model).__name__
    complaints = []
    if missing:
        complaints.append(f"no tensor {_some(missing)} in {path}, which has {_tops(state)}")
    if unexpected:
        complaints.append(f"tensor {_some(unexpected)} of {path} is unknown to {kind}, which has {_tops(own)}")
    if misfits:
        name = misfits[0]
        complaints.append(
            f"'{name}' is {_form(state[name])} in {path} and {_form(own[name])} in {kind}"
            + (f", and {len(misfits) - 1} more differ" if len(misfits) > 1 else "")
        )
    raise WeightsMismatchError("; ".join(complaints) + f"; is the model of these weights really a {kind}?")


def _fits(own: Tensor, given: Tensor) -> bool:
    """Shapes agree and fractions meet fractions: precision may differ, but integers are no weights."""
    return own.shape == given.shape and own.is_floating_point() == given.is_floating_point()


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _some(names: list[str]) -> str:
    return f"'{names[0]}'" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def _tops(names: Mapping[str, Tensor]) -> str:
    tops = list(dict.fromkeys(name.split(".")[0] for name in names))
    return ", ".join(tops[:8]) + (" …" if len(tops) > 8 else "")
