"""The one door for other people's files: code by name, weights without code, data as folders or zips."""

import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from suture.errors import (
    DataError,
    InvalidArgumentError,
    MissingFileError,
    SutureError,
    UnknownNameError,
    UnsafeFileError,
    WeightsMismatchError,
)
from suture.images import ImageFolder, ImageFormat
from suture.patch import COUNTER, aliases_of
from suture.registry import suggest
from suture.rundir import fingerprint, replacing
from suture.tasks import TASKS, Task

WRAPPER_KEYS = ("state_dict", "model_state_dict", "model", "net", "module")
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def load_object(spec: str) -> Any:
    """What ``FILE.py:NAME`` or ``package.module:name`` names; importing it runs its code.

    Raises:
        InvalidArgumentError: the text is no such name, or importing fails.
        MissingFileError: no such file.
        UnknownNameError: the module has no such name.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise InvalidArgumentError(f"'{spec}' names no object; write FILE.py:NAME or package.module:name")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise UnknownNameError(f"{where} has no '{name}'; {suggest(name, known)}")
    return getattr(module, name)


def source_of(spec: str) -> str:
    """A fingerprint of the code that a spec names, for files; the spec itself for installed modules."""
    where = Path(spec.rpartition(":")[0])
    return fingerprint(where.read_text()) if where.suffix == ".py" and where.is_file() else spec


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"suture_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickling look their module up
    sys.path.insert(0, str(path.resolve().parent))  # a model file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidArgumentError(f"importing {path} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _load_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InvalidArgumentError(f"importing {name} failed: {type(error).__name__}: {error}") from error


def load_model(model: str | Callable[[], nn.Module] | nn.Module, weights: str | Path | None = None) -> nn.Module:
    """A model in eval mode on the CPU, with weights when a file is given.

    Args:
        model: ``FILE.py:FUNC`` or ``package.module:func``, a function of no arguments, or a module.
        weights: safetensors or a torch file; ``module.``, ``state_dict`` and ``model`` wrappers are undone.

    Raises:
        InvalidArgumentError: the function fails, or gives no module.
        UnsafeFileError: the weights hold code.
        WeightsMismatchError: tensors missing, unexpected or misshapen.
    """
    build = load_object(model) if isinstance(model, str) else model
    try:
        network = build if isinstance(build, nn.Module) else build()
    except SutureError:
        raise
    except Exception as error:
        raise InvalidArgumentError(f"calling {model} failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise InvalidArgumentError(f"{model} gave {type(network).__name__} and no torch.nn.Module")
    if weights is not None:
        load_weights(network, load_checkpoint(weights, names=set(network.state_dict())))
    return network.eval()


def load_task(spec: str | Task) -> Task:
    """A task by its name or as ``FILE.py:Class``."""
    if not isinstance(spec, str):
        return spec
    task = load_object(spec)() if ":" in spec else TASKS[spec]()
    if not isinstance(task, Task):
        raise InvalidArgumentError(f"{spec} is no task: it needs the methods outputs, losses and verdicts")
    return task


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

        A path that ends in ``.safetensors`` gets plain names, as such files have no wrapping.
        """
        with replacing(Path(path)) as temporary:
            if Path(path).suffix == ".safetensors":
                tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
                save_file(tensors, temporary, metadata=self.metadata or None)
            else:
                torch.save(self._wrapped(state), temporary)

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
        raise MissingFileError(f"there is no weights file {path}")
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
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return load_file(path), dict(file.metadata() or {})
        except (safetensors.SafetensorError, OSError) as error:
            raise DataError(f"{path} is not readable as safetensors ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a stranger's pickle is said below
            return torch.load(path, map_location="cpu", weights_only=True), {}
    except Exception as error:  # a hostile or broken file may fail in any way; none of them runs its code
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise UnsafeFileError(
                f"{path} is a pickle that asks for {asked[1]}, which is code; it was not run. Save "
                "model.state_dict() as safetensors and give that"
            ) from error
        raise DataError(
            f"{path} is no weights file: neither safetensors nor a file of torch.save that loads with weights_only"
        ) from error


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
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    if not (missing or unexpected or shapes):
        model.load_state_dict({name: tensor for name, tensor in state.items() if name in own}, strict=False)
        return
    kind = type(model).__name__
    complaints = []
    if missing:
        complaints.append(f"no tensor {_some(missing)} in {path}, which has {_tops(state)}")
    if unexpected:
        complaints.append(f"tensor {_some(unexpected)} of {path} is unknown to {kind}, which has {_tops(own)}")
    if shapes:
        name = shapes[0]
        complaints.append(
            f"'{name}' is {tuple(state[name].shape)} in {path} and {tuple(own[name].shape)} in {kind}"
            + (f", and {len(shapes) - 1} more differ" if len(shapes) > 1 else "")
        )
    raise WeightsMismatchError("; ".join(complaints) + f"; is the model of these weights really a {kind}?")


def _some(names: list[str]) -> str:
    return f"'{names[0]}'" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def _tops(names: Mapping[str, Tensor]) -> str:
    tops = list(dict.fromkeys(name.split(".")[0] for name in names))
    return ", ".join(tops[:8]) + (" …" if len(tops) > 8 else "")


def load_data(path: str | Path, image: ImageFormat | None = None, *, skip_bad: bool = False) -> Any:
    """Data by name: a folder of class folders, a zip of one, or ``FILE.py:FUNC``.

    Returns:
        A data set of (input, target) pairs, or what FUNC returns: a data set or a dict of the splits
        ``diagnose``, ``repair`` and ``verify``.

    Raises:
        MissingFileError: nothing is there.
        DataError: what is there is no data.
    """
    if ":" in str(path) and not Path(path).exists():
        load = load_object(str(path))
        try:
            return load()
        except SutureError:
            raise
        except Exception as error:
            raise InvalidArgumentError(f"calling {path} failed: {type(error).__name__}: {error}") from error
    if not Path(path).exists():
        raise MissingFileError(f"there is no data at {path}")
    return ImageFolder(path, image or ImageFormat(), skip_bad=skip_bad)
