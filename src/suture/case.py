"""A case: model, data, task and parameter groups, which is all a stage needs to know.

The data is cut into splits that never share an example; see `suture.splits`.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from suture import groups as grouping
from suture.errors import DataError, InvalidArgumentError
from suture.friction import Friction, fitting
from suture.images import ImageFolder, ImageFormat, pixels_of, shrunk
from suture.loading import load_data, load_task
from suture.moments import Moments, Record, layers_of
from suture.patch import base_sha256, canonical_state
from suture.registry import suggest
from suture.rundir import fingerprint
from suture.splits import Split, classes_of, cut, writable
from suture.tasks import Outcomes, Task, evaluate

PROTOCOLS = ("split", "paper")
LOOKED_AT = 32  # examples that are looked at for a warning
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


class Case:
    """Model, data, task and groups.

    Args:
        model: any module; it is copied, and never modified.
        data: one data set of pairs (input, target), split 20/40/40 by class into diagnose, repair and
            verify; or a dict of the three; or a path as `suture.loading.load_data` takes it.
        diagnose, repair, verify: the three data sets, in place of `data`; to verify somebody's patch, `verify`
            alone will do.
        repair_extra: further examples that treatment trains on and nothing is chosen on, such as training images
            passed through the deployed input path.
        task: a name, ``FILE.py:Class``, or a task.
        groups: ``"top"``, ``"block"``, ``"tensor"`` or ``{name: [glob, …]}``.
        protocol: ``"split"``; or ``"paper"``, where verify *is* diagnose, so that gains are optimistic.
        classes: names of the labels, in the order of the network's outputs, by which the class folders of a path are
            numbered; taken from the data set where it has them.
        image: how pixels were normalised, to show pictures as they were.
        factory: builds the architecture afresh, for the null at random initialisation.
        reference: a healthy model of the same architecture that sharpens scores.
        moments: what the layers gave at a healthy time, as `suture.moments.measure_moments` finds it; layers that
            the model does not have are refused.
        friction: parameter → Σ hξ that the iKFAD optimizer of the model's training accumulated; without it the
            localizer ``friction`` trains a copy for a moment.
        seed: of everything random.
        device: ``"auto"`` takes a GPU if there is one.
        batch_size: of evaluation and evidence.

    Attributes:
        splits: name → Split, for diagnose, repair, select and verify.
        groups: group → parameter names.

    Raises:
        SplitOverlapError: an input stands in two splits.
        DataError: a split is missing, empty, lacks a class folder the others have, has pictures of another size, or
            names or metadata that are not one per example.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any = None,
        *,
        diagnose: Any = None,
        repair: Any = None,
        verify: Any = None,
        repair_extra: Any = None,
        task: str | Task = "classification",
        groups: grouping.GroupSpec = "top",
        protocol: str = "split",
        classes: Sequence[str] | None = None,
        image: ImageFormat | None = None,
        factory: Callable[[], nn.Module] | None = None,
        reference: nn.Module | None = None,
        moments: Record | None = None,
        friction: Friction | None = None,
        seed: int = 42,
        device: str = "auto",
        batch_size: int = 128,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise InvalidArgumentError(f"no protocol is called '{protocol}'; {suggest(protocol, list(PROTOCOLS))}")
        if batch_size < 1:
            raise InvalidArgumentError(f"--batch-size must be at least 1, not {batch_size}")
        if not 0 <= seed < 2**63:
            raise InvalidArgumentError(f"--seed must be at least 0 and below 2^63, not {seed}")
        self.device = pick_device(device)
        self.model = _copied(model).to(self.device).eval()
        self.groups = grouping.resolve(self.model, groups)
        self.task = load_task(task)
        self.task_name = task if isinstance(task, str) else type(task).__qualname__
        self.protocol, self.seed, self.batch_size = protocol, seed, batch_size
        self.image, self.factory = image, factory
        self.reference = copy.deepcopy(reference).to(self.device).eval() if reference is not None else None
        self.moments = _fitting(self.model, moments, self.device)
        self.friction = fitting(self.model, friction or {})
        given = _given(data, diagnose, repair, verify, protocol, partial(load_data, image=image, classes=classes))
        if repair_extra is not None:
            extra = load_data(repair_extra, image, classes=classes) if isinstance(repair_extra, str) else repair_extra
            given["repair_extra"] = extra
        refuse_unlike(given)
        self.splits = cut(given, protocol, seed)
        if image is not None and not any(isinstance(each, ImageFolder) for each in given.values()):
            _warn_of_raw(next(iter(self.splits.values())), image)
        self.classes = _class_names(given, classes)
        self.weights_sha256 = base_sha256(canonical_state(self.model))
        self.reference_sha256 = base_sha256(canonical_state(reference)) if reference is not None else None

    @property
    def identity(self) -> dict[str, Any]:
        """What a stage's result could depend on, by name; what explains other differences comes before them."""
        return {
            "weights": self.weights_sha256,
            "seed": self.seed,
            "protocol": self.protocol,
            "task": self.task_name,
            "model": fingerprint(repr(self.model)),
            "groups": {group: list(names) for group, names in self.groups.items()},
            "batch size": self.batch_size,
            "classes": list(self.classes or []),
            "reference": self.reference_sha256,
            "moments": _digest(self.moments),
            "friction": base_sha256(self.friction) if self.friction else "",
            "picture format": repr(self.image),
            "data": {name: split.fingerprint for name, split in self.splits.items()},
        }

    @property
    def fingerprint(self) -> str:
        """Changes when anything does that a stage's result could depend on."""
        return fingerprint(self.identity)

    def replace(self, **changes: Any) -> "Case":
        """A case with other attributes; everything else is shared, and this one stays as it is."""
        twin = copy.copy(self)
        vars(twin).update(changes)
        return twin

    def outcomes(self, split: str | Split, model: nn.Module | None = None) -> Outcomes:
        """What a model, by default the case's, does on a split, in eval mode; see `suture.tasks.evaluate`.

        Raises:
            NonFiniteError: a loss is NaN or infinite.
        """
        examples = self.splits[split] if isinstance(split, str) else split
        return evaluate(
            self.model if model is None else model, examples, self.task, device=self.device,
            batch_size=self.batch_size, name=f"the examples of '{examples.name}'",
        )  # fmt: skip

    def class_name(self, label: int) -> str:
        """The name of a label, with its number where several are called so, or its number where none has a name."""
        if not self.classes:
            return str(label)
        if not 0 <= label < len(self.classes):
            return f"output {label}"  # as names may be numbers
        name = self.classes[label]
        return f"{name} ({label})" if self.classes.count(name) > 1 else name

    def pictures(self, split: str, positions: Sequence[int]) -> NDArray[np.uint8] | None:
        """Pictures (k, h, w, c) of examples, large ones made smaller, or None when inputs are no pictures."""
        shown = [pixels_of(self.splits[split][i][0], self.image) for i in positions]
        kept = [picture for picture in shown if picture is not None]
        if not kept or len(kept) < len(shown) or len({picture.shape for picture in kept}) > 1:
            return None
        return shrunk(np.stack(kept))


def _copied(model: nn.Module) -> nn.Module:
    """A copy, so that the user's own model is never touched.

    Raises:
        InvalidArgumentError: it holds something that no copy can be made of.
    """
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise InvalidArgumentError(
            f"{type(model).__name__} cannot be copied ({str(error).splitlines()[0]}); in place of nn.utils.weight_norm "
            "take that of torch.nn.utils.parametrizations, or build the network under torch.no_grad()"
        ) from error


def pick_device(name: str) -> torch.device:
    """A device that works here; ``"auto"`` is a GPU if there is one.

    Raises:
        InvalidArgumentError: no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in DEVICES:
        meant = suggest(name.replace("gpu", "cuda"), list(DEVICES))  # gpu is what everybody says
        raise InvalidArgumentError(f"no device is called '{name}'; {meant}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError or its own, by backend
        raise InvalidArgumentError(f"--device {name} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def _fitting(model: nn.Module, moments: Record | None, device: torch.device) -> dict[str, Moments]:
    """The record on the device, empty without one; refused when it is of another network."""
    layers = layers_of(model)
    strange = [path for path in moments or {} if path not in layers]
    if strange:
        raise InvalidArgumentError(f"the record of moments has a layer '{strange[0]}' that the model lacks")
    return {path: Moments(m.mean.to(device), m.var.to(device)) for path, m in (moments or {}).items()}


def _digest(moments: Record) -> str:
    state = {f"{path}.{what}": getattr(m, what) for path, m in moments.items() for what in ("mean", "var")}
    return base_sha256(state) if state else ""


def _given(
    data: Any, diagnose: Any, repair: Any, verify: Any, protocol: str, load: Callable[[str], Any]
) -> dict[str, Any]:
    """The data sets as given: {"data": …} or the splits by name."""
    data, diagnose, repair, verify = (load(d) if isinstance(d, str) else d for d in (data, diagnose, repair, verify))
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


def refuse_unlike(given: Mapping[str, Any]) -> None:
    """Refuse data sets, by name, that do not belong together.

    Raises:
        DataError: one lacks a class folder another has, or the pictures of two folders differ in size.
    """
    named = _classes_in(given)
    for name, names in named.items():
        for other, others in named.items():
            missing = [c for c in others if c not in names]
            if missing:
                raise DataError(
                    f"'{name}' lacks the class folder '{missing[0]}' that '{other}' has; add or remove it, or name "
                    "all classes with --classes"
                )
            if names != others and set(names) == set(others):
                raise DataError(f"'{name}' and '{other}' have the same classes in another order; labels must agree")
    sides = {name: data.pixels(0).shape[1::-1] for name, data in given.items() if isinstance(data, ImageFolder)}
    for name, side in sides.items():
        first, expected = next(iter(sides.items()))
        if side != expected:
            raise DataError(
                f"pictures of '{first}' are {expected[0]}x{expected[1]} and those of '{name}' {side[0]}x{side[1]}; "
                "give --size, the side in pixels that all are resized to"
            )


def _warn_of_raw(split: Split, image: ImageFormat) -> None:
    """Warn of pictures that a format says are normalised and that cannot be: normalised ones have values below 0."""
    if min(image.mean) <= 0:
        return
    inputs = [split[i][0] for i in range(min(len(split), LOOKED_AT))]
    if all(isinstance(x, Tensor) and x.is_floating_point() and x.dim() == 3 and float(x.min()) >= 0 for x in inputs):
        warnings.warn(
            f"the inputs of '{split.name}' have no value below 0, so they are not normalised by --mean and --std, "
            "which only say how a data set normalised its inputs and change none; normalise them where they are made",
            stacklevel=3,
        )


def _classes_in(given: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: classes for name, data in given.items() if (classes := classes_of(data))}


def _class_names(given: Mapping[str, Any], classes: Sequence[str] | None) -> list[str] | None:
    named = [classes] if classes is not None else _classes_in(given).values()
    return next(([writable(c) for c in names] for names in named), None)
