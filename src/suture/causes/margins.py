"""What a network says of pictures, as one number: how far it is from taking one class for another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture.case import Case
from suture.causes import masks as foreground
from suture.errors import DataError, InvalidArgumentError, NonFiniteError
from suture.images import ImageFormat
from suture.tasks import Batch, Task, batches, forward

SLACK = 0.01  # outside [0, 1] that interpolation and rounding explain; more means another mean or deviation
ONE_LEVEL = 1 / 255  # of 8-bit pixels: a picture of which no value moves by as much counts as unchanged

Masks = str | Tensor | NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """A confusion: pictures of `true` that are taken for `predicted`, both as labels."""

    true: int
    predicted: int

    def __post_init__(self) -> None:
        if self.true == self.predicted:
            raise InvalidArgumentError(f"label {self.true} taken for itself is no confusion; give two different labels")

    def margins(self, case: Case, pictures: Tensor, batch: Batch) -> NDArray[np.float64]:
        """(n,): logit, or log-probability, of true minus that of predicted, in nats, for pictures in place of the
        batch's inputs.

        Raises:
            DataError: the task's outputs are no class scores.
            NonFiniteError: a score is NaN or infinite.
        """
        inputs = normalised(pictures, case.image, batch[0])
        with torch.no_grad():
            outputs = forward(case.model, (inputs, batch[1]), case.task, "these pictures")
            scores = class_scores(case.task, outputs, (inputs, batch[1]))
        if not max(self.true, self.predicted) < scores.shape[1]:
            raise InvalidArgumentError(
                f"labels {self.true} and {self.predicted} are not both among the model's {scores.shape[1]} classes"
            )
        margins = scores[:, self.true] - scores[:, self.predicted]
        if not margins.isfinite().all():
            raise NonFiniteError("the network gave NaN or infinite scores for pictures, so that margins mean nothing")
        return margins.cpu().double().numpy()


@dataclass(frozen=True)
class Shown:
    """A batch of examples as pictures.

    Attributes:
        positions: (n,) in `diagnose`.
        batch: inputs and targets as the network gets them.
        pictures: (n, c, h, w) in [0, 1].
        mask: () → the foreground (n, 1, h, w), bool; called only where a probe needs it.
    """

    positions: list[int]
    batch: Batch
    pictures: Tensor
    mask: Callable[[], Tensor]


def shown(case: Case, positions: Sequence[int], masks: Masks = "standing_out") -> Iterator[Shown]:
    """The examples at some positions of `diagnose`, batch by batch.

    Args:
        masks: ``"standing_out"``, ``"salient"`` (`suture.causes.masks`) or one's own for the whole of `diagnose`,
            (examples, h, w) or (examples, 1, h, w), bool, True = foreground.
    """
    if isinstance(masks, str) and masks not in ("standing_out", "salient"):
        raise InvalidArgumentError(f"no mask is called '{masks}'; there are standing_out and salient")
    examples, start = case.splits["diagnose"].only(positions), 0
    if not isinstance(masks, str) and len(masks) != len(case.splits["diagnose"]):
        raise DataError(f"there are {len(masks)} masks for {len(case.splits['diagnose'])} examples of diagnose")
    for batch in batches(examples, case.task, case.device, case.batch_size):
        here = list(positions[start : start + case.batch_size])
        start += len(here)
        pictures = pictures_of(batch[0], case.image)
        yield Shown(here, batch, pictures, _mask(case, here, batch, pictures, masks))


def pictures_of(inputs: Any, image: ImageFormat | None) -> Tensor:
    """Inputs (n, c, h, w) → pictures in [0, 1], the normalisation undone.

    Raises:
        DataError: the inputs are no pictures, or not normalised as the format says.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or not inputs.is_floating_point():
        raise DataError("causes are asked by changing pictures, and the inputs of this case are none")
    if image is None:
        pictures, hint = inputs.float(), "give the case image=ImageFormat(mean, std)"
    else:
        mean, std = _columns(image, inputs)
        pictures, hint = inputs.float() * std + mean, "are --mean and --std those it was trained with?"
    if pictures.numel() and not (pictures.amin() >= -SLACK and pictures.amax() <= 1 + SLACK):
        low, high = float(pictures.amin()), float(pictures.amax())
        raise DataError(f"pixels lie between {low:.3g} and {high:.3g} where 0 to 1 is expected; {hint}")
    return pictures.clamp(0, 1)


def normalised(pictures: Tensor, image: ImageFormat | None, like: Tensor) -> Tensor:
    """Pictures in [0, 1] → inputs, on the device and in the dtype of other inputs: undoes `pictures_of`."""
    pictures = pictures.to(like.device)
    if image is not None:
        mean, std = _columns(image, like)
        pictures = (pictures - mean) / std
    return pictures.to(like.dtype)


def moved(pictures: Tensor, changed: Tensor) -> NDArray[np.bool_]:
    """(n,): which pictures changed, by at least one level of 8 bits somewhere."""
    return ((changed - pictures).abs().flatten(1).amax(1) >= ONE_LEVEL * 0.999).cpu().numpy()


def equal_energy(pictures: Tensor, changed: Tensor, seed: int) -> Tensor:
    """Random changes as large as given ones: (n, c, h, w) in [0, 1].

    Each picture's change keeps its L2 norm, and its share at every spatial frequency, but gets random phases in
    every channel: white noise of the same norm would be a weak null for changes of brightness or colour, which a
    network may feel at a hundredth of the norm. Where pixels are clipped the norm is met by scaling, as far as
    pictures in [0, 1] allow.
    """
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed)).to(pictures.device)
    phases = torch.fft.rfft2(noise)
    change = changed - pictures
    turned = torch.fft.rfft2(change) * phases / phases.abs().clamp_min(1e-12)
    direction: Tensor = torch.fft.irfft2(turned, s=pictures.shape[2:])
    wanted = change.flatten(1).norm(dim=1)
    scale = torch.ones_like(wanted)
    for _ in range(12):
        reached = ((pictures + scale[:, None, None, None] * direction).clamp(0, 1) - pictures).flatten(1).norm(dim=1)
        scale = (scale * wanted / reached.clamp_min(1e-12)).clamp(max=1e3)
    return (pictures + scale[:, None, None, None] * direction).clamp(0, 1)


def _mask(case: Case, positions: list[int], batch: Batch, pictures: Tensor, masks: Masks) -> Callable[[], Tensor]:
    @cache  # several probes ask
    def mask() -> Tensor:
        if not isinstance(masks, str):
            return foreground.checked(torch.as_tensor(masks)[positions], pictures)
        if masks == "salient":
            return foreground.salient(case.model, case.task, *batch)
        return foreground.standing_out(pictures)

    return mask


def _columns(image: ImageFormat, inputs: Tensor) -> tuple[Tensor, Tensor]:
    if len(image.mean) != inputs.shape[1]:
        raise DataError(f"inputs have {inputs.shape[1]} channels and --mean {len(image.mean)} values; they must agree")
    mean, std = (torch.tensor(v, device=inputs.device)[:, None, None] for v in (image.mean, image.std))
    return mean, std


def class_scores(task: Task, outputs: Any, batch: Batch) -> Tensor:
    """(n, classes): the outputs where they are one row of scores per example, else log-probabilities."""
    if isinstance(outputs, Tensor) and outputs.dim() == 2:
        return outputs.float()
    probabilities = getattr(task, "probabilities", None)
    if probabilities is None:
        raise DataError(f"the task {type(task).__name__} gives no scores of classes, so that there is no margin")
    found: Tensor = probabilities(outputs, batch)
    return found.float().clamp_min(1e-30).log()
