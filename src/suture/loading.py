"""The one door for other people's files: code by name, data as folders or zips, and a model with its weights."""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from suture.errors import (
    DataError,
    InvalidArgumentError,
    MissingFileError,
    SutureError,
    UnknownNameError,
)
from suture.images import ImageFolder, ImageFormat
from suture.registry import suggest
from suture.rundir import fingerprint
from suture.tasks import TASKS, Task
from suture.weights import load_checkpoint, load_weights

PACKAGES = "-packages"  # site- or dist-: where installed code lies
T = TypeVar("T")
_LOADED: dict[tuple[Path, bytes], ModuleType] = {}  # by path and text
_BESIDE: dict[Path, set[Path]] = {}  # file of a stranger's code → files of its folder that it imported


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
    if where.endswith(".py") and not Path(where).is_file():
        raise MissingFileError(f"there is no file {where}")
    load = _load_file if where.endswith(".py") else importlib.import_module
    module = _guarded(f"importing {where}", where, lambda: load(where))
    if not hasattr(module, name):
        known = [known for known, thing in vars(module).items() if callable(thing) and not known.startswith("_")]
        raise UnknownNameError(f"{where} has no '{name}'; {suggest(name, known)}")
    return getattr(module, name)


def source_of(spec: str) -> str:
    """A fingerprint of the code that a spec names and of what that imported from its own folder.

    The spec itself for installed modules, whose version is not looked at.
    """
    own = _file_of(spec.rpartition(":")[0])
    if own is None or not own.is_file():
        return spec
    return fingerprint(*(path.read_text() for path in (own, *sorted(_BESIDE.get(own, ())))))


def _file_of(where: str) -> Path | None:
    """The file of some code, named as a file or as a module that was imported; None for installed ones."""
    if where.endswith(".py"):
        return Path(where).resolve()
    file = getattr(sys.modules.get(where), "__file__", None)
    if file is None or where.split(".")[0] == "suture":
        return None
    installed = PACKAGES in file or _is_below(file, sys.base_prefix)
    return None if installed else Path(file).resolve()


def _is_below(file: str, folder: str) -> bool:
    return Path(folder).resolve() in Path(file).resolve().parents


def _load_file(path: str) -> ModuleType:
    """The module of a file, executed once as long as it says the same: what it registers cannot be registered twice."""
    key = (Path(path).resolve(), Path(path).read_bytes())
    if key in _LOADED:
        return _LOADED[key]
    spec = importlib.util.spec_from_file_location(f"suture_user_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickling look their module up
    spec.loader.exec_module(module)
    _LOADED[key] = module
    return module


def _call(spec: str, function: Any) -> Any:
    """What a stranger's function of no arguments returns."""
    return _guarded(f"calling {spec}", spec.rpartition(":")[0], function)


def _guarded(doing: str, where: str, do: Callable[[], T]) -> T:
    """Run a stranger's code: it may import its neighbours, and whatever it raises becomes one sentence."""
    neighbours = [str(Path(where).resolve().parent)] if where.endswith(".py") else []
    sys.path[:0] = neighbours
    before = set(sys.modules)
    try:
        return do()
    except SutureError:
        raise
    except (Exception, SystemExit) as error:  # a script without a main guard may well exit
        raise InvalidArgumentError(f"{doing} failed: {type(error).__name__}: {error}") from error
    finally:
        _note_imports(where, before)
        for folder in neighbours:
            if folder in sys.path:
                sys.path.remove(folder)


def _note_imports(where: str, before: set[str]) -> None:
    """Remember what code brought in from its own folder, which belongs to it as if it stood in the same file."""
    own = _file_of(where)
    if own is None:
        return
    folder, found = str(own.parent), set[Path]()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.endswith(".py") and PACKAGES not in file and _is_below(file, folder):
            found.add(Path(file).resolve())
    _BESIDE.setdefault(own, set()).update(found - {own})


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
    network = build if isinstance(build, nn.Module) else _call(str(model), build)
    if not isinstance(network, nn.Module):
        raise InvalidArgumentError(
            f"{model} gave {type(network).__name__} and no torch.nn.Module; name a function that returns the network"
        )
    if weights is not None:
        load_weights(network, load_checkpoint(weights, names=set(network.state_dict())))
    return network.eval()


def load_task(spec: str | Task) -> Task:
    """A task by its name or as ``FILE.py:Class``."""
    if not isinstance(spec, str):
        return spec
    task = _call(spec, load_object(spec)) if ":" in spec else TASKS[spec]()
    if not isinstance(task, Task):
        raise InvalidArgumentError(f"{spec} is no task: it needs the methods outputs, losses and verdicts")
    return task


def load_data(
    path: str | Path,
    image: ImageFormat | None = None,
    *,
    skip_bad: bool = False,
    one_class: bool = False,
    classes: Sequence[str] | None = None,
) -> Any:
    """Data by name: a folder of class folders, a zip of one, or ``FILE.py:FUNC``.

    Args:
        image: how pixels become inputs.
        skip_bad: leave out pictures that cannot be read, with a warning.
        one_class: whether a single class will do, so that nothing is said of it.
        classes: names of the network's classes in its order, by which class folders are numbered, of which some may be
            missing; without them folders are numbered as they are sorted by name.

    Returns:
        A data set of (input, target) pairs, or what FUNC returns: a data set or a dict of the splits
        ``diagnose``, ``repair`` and ``verify``.

    Raises:
        MissingFileError: nothing is there.
        DataError: what is there is no data.
    """
    if ":" in str(path) and not Path(path).exists():
        data = _call(str(path), load_object(str(path)))
        if data is None:
            raise DataError(f"{path} gave nothing; it must return a data set, or a dict of the splits")
        return data
    if not Path(path).exists():
        raise MissingFileError(f"there is no data at {path}")
    folder = ImageFolder(path, image or ImageFormat(), skip_bad=skip_bad, classes=classes)
    for note in folder.notes():
        warnings.warn(note, stacklevel=2)
    if len(folder.classes) == 1 and not one_class:
        warnings.warn(
            f"{path} has one class, '{folder.classes[0]}', and a network cannot be judged on one class; if that is the "
            "wrong level, name the folder that holds the class folders",
            stacklevel=2,
        )
    return folder
