"""Pictures as data: how pixels become inputs, and image folders read with Pillow alone."""

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from suture.errors import DataError
from suture.listing import (
    kinds,
    known_suffixes,
    labelled_pictures,
    numbered,
    open_directory,
    open_zip,
    passed_over,
    shortened,
)
from suture.metadata_table import metadata_table
from suture.progress import track
from suture.wording import several

SHOWN = 192  # pixels: a picture that is kept to be shown has no longer side
CACHE_BYTES = 2 * 1024**3  # decoded pictures kept in memory; above it they are decoded each time
LOOKED_AT = 32  # pictures whose EXIF is looked at
TURNING = {"JPEG", "MPO", "WEBP"}  # formats in which pictures lie turned; Pillow itself turns TIFFs


@dataclass(frozen=True)
class ImageFormat:
    """How pixels become a network's input: scale to [0, 1], subtract the mean, divide by the deviation.

    Attributes:
        mean, std: one value per channel, in units of [0, 1]; one channel means grey, three mean RGB.
        size: side in pixels to which pictures are resized (bilinear), or None to take them as they are.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    size: int | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise DataError(
                f"--mean has {len(self.mean)} and --std {len(self.std)} values; give one each for grey pictures "
                "or three each for RGB"
            )
        if not all(0 <= value <= 1 for value in self.mean):
            raise DataError(
                f"--mean must lie between 0 and 1, not {','.join(f'{value:g}' for value in self.mean)}; values for "
                "pixels from 0 to 255 are to be divided by 255, those of --std too"
            )
        if not all(0 < value < float("inf") for value in self.std):
            raise DataError(f"--std must be positive, not {','.join(f'{value:g}' for value in self.std)}")
        if self.size is not None and self.size < 1:
            raise DataError(f"--size must be at least 1, not {self.size}")

    @property
    def mode(self) -> str:
        """Pillow's name of the channels."""
        return "L" if len(self.mean) == 1 else "RGB"

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels (…, h, w, c) uint8 → inputs (…, c, h, w) float32."""
        inputs = torch.from_numpy(np.moveaxis(pixels, -1, -3).copy()).float().div_(255)
        return inputs.sub_(self._column(self.mean)).div_(self._column(self.std))

    def pixels(self, tensor: Tensor) -> NDArray[np.uint8]:
        """Input (c, h, w) → pixels (h, w, c) uint8, the inverse of `normalise` up to rounding."""
        scaled = tensor.detach().cpu().float() * self._column(self.std) + self._column(self.mean)
        return (scaled.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    @staticmethod
    def _column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)[:, None, None]


def pixels_of(inputs: object, image: ImageFormat | None) -> NDArray[np.uint8] | None:
    """A picture (h, w, c) of an input, or None when the input is no picture.

    Without a format the values are stretched from their own minimum to their own maximum.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 3 or inputs.shape[0] not in (1, 3):
        return None
    if min(inputs.shape[1:]) < 4:
        return None
    if image is not None and len(image.mean) == inputs.shape[0]:
        return image.pixels(inputs)
    low, high = inputs.amin(), inputs.amax()
    return ImageFormat((0.0,) * len(inputs), (1.0,) * len(inputs)).pixels((inputs - low) / (high - low + 1e-12))


def shrunk(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (k, h, w, c) with no side beyond `SHOWN`, so that neither a result nor a page grows with them."""
    _, height, width, channels = pictures.shape
    shrink = SHOWN / max(height, width)
    if shrink >= 1:
        return pictures
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    drawn = [Image.fromarray(each[:, :, 0] if channels == 1 else each).resize(size) for each in pictures]
    return np.stack([np.asarray(each).reshape(size[1], size[0], channels) for each in drawn])


def decode(data: bytes, image: ImageFormat) -> NDArray[np.uint8]:
    """File content → pixels (h, w, c) uint8 in the format's mode and size.

    Raises:
        DataError: the content is no readable picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of palettes and metadata; a picture is readable or it is not
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                picture = _eight_bit(opened).convert(image.mode)
    except UnidentifiedImageError as error:  # its text is an address in memory
        raise DataError("its content is no picture" if data else "it is empty") from error
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes
        raise DataError(str(error) or type(error).__name__) from error
    if image.size is not None and picture.size != (image.size, image.size):
        picture = picture.resize((image.size, image.size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _eight_bit(picture: Image.Image) -> Image.Image:
    """A picture of 16 bits per pixel scaled to 8; Pillow itself would make almost all of it white.

    One of 32 bits that uses no more than 8 of them is taken as it is: scaled, it would be black.
    """
    if picture.mode == "F":
        raise DataError("its pixels are fractions without a known range; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError("its pixels have more than 16 bits; save it with 8 or 16 bits")
    fits = picture.mode == "I" and values.max() <= 255
    return Image.fromarray((values if fits else values >> 8).astype(np.uint8))


def is_turned(data: bytes) -> bool:
    """Whether a file says by its EXIF orientation that its pixels lie turned or mirrored; its pixels are not read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as opened:
                return opened.format in TURNING and opened.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # as hostile as pixels, but nothing depends on it
        return False


class ImageFolder(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Pictures in one folder per class, in a directory or in a zip of one; classes are sorted by name or as given.

    Every picture is decoded once when the folder is opened, so a corrupt one is named at once.

    Args:
        skip_bad: leave out pictures that cannot be read.
        classes: names in the order of their numbers; not all need have a folder.

    Attributes:
        classes: names of the classes, by number.
        names: path of each picture inside the folder.
        targets: class index of each picture.
        metadata: columns of the folder's `metadata.csv`, a value per picture (`suture.metadata_table`).
        skipped: pictures left out because they could not be read.
        passed_over: files in class folders whose suffix is no picture's; notes and tables are not listed.
    """

    def __init__(
        self, path: str | Path, image: ImageFormat, *, skip_bad: bool = False, classes: Sequence[str] | None = None
    ) -> None:
        self.path, self.image = Path(path), image
        found = open_zip(self.path) if self.path.is_file() else open_directory(self.path)
        labelled = labelled_pictures(found, self.path)
        self._read = found.read
        self.classes = numbered({label for _, label in labelled}, classes, self.path)
        self.passed_over = passed_over(found)
        self.names: list[str] = []
        self.targets: list[int] = []
        self.skipped: list[str] = []
        self._unread: Counter[str] = Counter()  # class → pictures that were skipped
        self._cache: NDArray[np.uint8] | None = None
        self._decode_all(labelled, skip_bad)
        self.metadata, self._unmatched = metadata_table(found, self.names, self.path)

    def _decode_all(self, labelled: list[tuple[str, str]], skip_bad: bool) -> None:
        first: tuple[str, tuple[int, ...]] | None = None
        for name, label in track(labelled, f"reading {self.path.name}"):
            pixels = self._decoded(name, skip_bad)
            if pixels is None:
                self.skipped.append(name)
                self._unread[label] += 1
                continue
            if first is None:
                first = name, pixels.shape
                if len(labelled) * pixels.nbytes <= CACHE_BYTES:
                    self._cache = np.empty((len(labelled), *pixels.shape), np.uint8)
            if pixels.shape != first[1]:
                sizes = " and ".join(f"'{n}' is {s[1]}x{s[0]}" for n, s in (first, (name, pixels.shape)))
                raise DataError(
                    f"pictures of {self.path} differ in size ({sizes}); give --size, the side in pixels that all are "
                    "resized to"
                )
            if self._cache is not None:
                self._cache[len(self.names)] = pixels
            self.names.append(name)
            self.targets.append(self.classes.index(label))
        if first is None:
            raise DataError(f"{self.path}: none of its {len(labelled)} pictures can be read")

    def _decoded(self, name: str, skip_bad: bool) -> NDArray[np.uint8] | None:
        try:
            return decode(self._read(name), self.image)
        except DataError as error:
            if skip_bad:
                return None
            raise DataError(
                f"{self.path}: '{name}' is not a readable picture ({error}); mend or remove it, or pass --skip-bad"
            ) from error

    def notes(self) -> list[str]:
        """Sentences on what was left out, and on pictures that may be meant to be turned."""
        return [note for note in (self._unreadable(), self._unlisted(), *self._unmatched, self._turned()) if note]

    def _unreadable(self) -> str:
        if not self.skipped:
            return ""
        gone = set(range(len(self.classes))) - set(self.targets)
        counts = [
            f"{'all ' if self.classes.index(label) in gone else ''}{count} of class '{label}'"
            for label, count in self._unread.most_common()
        ]
        return (
            f"{self.path}: {several(len(self.skipped), 'picture')} left out that cannot be read "
            f"({shortened(counts)}), the first '{self.skipped[0]}'"
        )

    def _unlisted(self) -> str:
        if not self.passed_over:
            return ""
        return (
            f"{self.path}: {several(len(self.passed_over), 'file')} in class folders passed over "
            f"({kinds(self.passed_over)}), the first '{self.passed_over[0]}'; read are {known_suffixes()}"
        )

    def _turned(self) -> str:
        """Of pictures from the whole folder, as those of one class may well come from one camera."""
        looked_at = self.names[:: -(-len(self) // LOOKED_AT)]
        turned = [name for name in looked_at if is_turned(self._read(name))]
        if not turned:
            return ""
        return (
            f"{self.path}: {len(turned)} of {several(len(looked_at), 'picture')} looked at, the first '{turned[0]}', "
            "are marked in their EXIF data as lying turned, and are taken as they lie; turn them if the network was "
            "trained on upright ones"
        )

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, i: int) -> NDArray[np.uint8]:
        """Pixels (h, w, c) of picture i."""
        return self._cache[i] if self._cache is not None else decode(self._read(self.names[i]), self.image)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.image.normalise(self.pixels(i)), self.targets[i]

    def read_batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs (n, c, h, w) and labels (n,) of some pictures at once: much quicker than one by one."""
        pixels = self._cache[positions] if self._cache is not None else np.stack([self.pixels(i) for i in positions])
        return self.image.normalise(pixels), torch.tensor([self.targets[i] for i in positions])
