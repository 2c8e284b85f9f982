"""What the command line was asked, as data: enough to build the same case again."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict

from suture.case import Case, refuse_unlike
from suture.errors import InvalidArgumentError
from suture.friction import friction_beside, load_friction
from suture.images import ImageFormat
from suture.loading import load_data, load_model, source_of
from suture.moments import beside, load_moments
from suture.splits import joined

Paths = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class Asked(BaseModel):
    """Names of a model, weights and data, and how to read them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: str | None = None
    data: str | None = None
    diagnose: str | None = None
    repair: str | None = None
    verify: str | None = None
    repair_extra: Paths | None = None
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    task: str = "classification"
    groups: str | dict[str, list[str]] = "top"
    protocol: str = "split"
    reference: str | None = None
    seed: int = 42
    device: str = "auto"
    batch_size: int = 128
    skip_bad: bool = False

    @property
    def image(self) -> ImageFormat:
        """How pixels become inputs; without a mean and deviation they are scaled to [0, 1].

        Raises:
            DataError: the values make no sense.
            InvalidArgumentError: only one of the two is given.
        """
        channels = len(self.mean or self.std or (0.0,) * 3)
        image = ImageFormat(self.mean or (0.0,) * channels, self.std or (1.0,) * channels, self.size)
        if (self.mean is None) != (self.std is None):
            given, absent = ("--mean", "--std") if self.std is None else ("--std", "--mean")
            neutral = ",".join("1" if absent == "--std" else "0" for _ in range(channels))
            raise InvalidArgumentError(
                f"{given} is given without {absent}; give both, as the network was trained with them: "
                f"{absent} {neutral} if it was trained with {given} alone"
            )
        return image

    @property
    def code(self) -> list[str]:
        """Fingerprints of the source files that are named."""
        data = (self.data, self.diagnose, self.repair, self.verify, *(self.repair_extra or ()))
        names = (self.model, *data, self.task)
        return [source_of(name) for name in names if name is not None and ":" in name]

    def absolute(self) -> "Asked":
        """The same with absolute paths, so that the run can be continued from any directory."""
        paths = {
            field: _absolute(getattr(self, field))
            for field in ("weights", "data", "diagnose", "repair", "verify", "reference")
        }
        paths |= {field: _absolute_source(getattr(self, field)) for field in ("model", "task")}
        extra = tuple(map(_absolute, self.repair_extra)) if self.repair_extra else None
        return self.model_copy(update=paths | {"repair_extra": extra})

    def read(self, path: str) -> Any:
        """Data by name, as `suture.loading.load_data` reads them."""
        return load_data(path, self.image, skip_bad=self.skip_bad, classes=self.classes)

    def case(self, check: Callable[[], object] | None = None) -> Case:
        """Load everything that is named; weights that no file gives are drawn from the seed.

        Args:
            check: called before the data is read, which takes longest, and after the model's code was imported, which
                may add to registries.

        Raises:
            SutureError: something is missing, unreadable or does not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = load_model(self.model, self.weights)
        if check is not None:
            check()
        data = {
            name: self.read(path)
            for name in ("data", "diagnose", "repair", "verify")
            if (path := getattr(self, name)) is not None
        }
        extra = {path: self.read(path) for path in self.repair_extra or ()}
        refuse_unlike(data | extra)
        record = beside(Path(self.weights)) if self.weights else None
        braked = friction_beside(Path(self.weights)) if self.weights else None
        return Case(
            model,
            data.pop("data", None),
            **data,
            repair_extra=joined(list(extra.values()), "repair_extra"),
            task=self.task,
            groups=self.groups,
            protocol=self.protocol,
            classes=self.classes,
            image=self.image,
            factory=lambda: load_model(self.model),
            reference=load_model(self.model, self.reference) if self.reference else None,
            friction=load_friction(braked) if braked is not None and braked.is_file() else None,
            moments=load_moments(record) if record is not None and record.is_file() else None,
            seed=self.seed,
            device=self.device,
            batch_size=self.batch_size,
        )


def _absolute(text: str | None) -> str | None:
    """Paths and ``FILE.py:NAME`` made absolute; names of modules stay."""
    if text is None or not Path(text).exists():
        return text and _absolute_source(text)
    return str(Path(text).resolve())


def _absolute_source(text: str) -> str:
    """``FILE.py:NAME`` made absolute; names of modules and tasks stay, whatever folders are called."""
    path, colon, name = text.rpartition(":")
    return f"{Path(path).resolve()}:{name}" if colon and path.endswith(".py") else text
