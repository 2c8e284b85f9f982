"""A picture taken apart into what its families of features say, and put together with one part from another picture.

The object is what a mask calls foreground. Its colour is its mean chroma, its texture what its lightness does inside
the largest square that fits into it, its shape the mask, its background all the rest. Where a part has to reach further
than it is known, texture is continued by mirroring and background by the nearest pixel outside.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from suture.causes import colour
from suture.causes.probes import Family

SMALLEST = 3  # pixels: side of the square that texture is read from
CLEAR = 3.0  # standard deviations of the background that an object's mean colour lies away from its; else none is seen
RANGE = (0.02, 0.9)  # share of the picture that an object may cover; else there is none, or no background

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Parts:
    """What one picture is made of; every field is a picture (c, h, w) as large as it.

    Attributes:
        mask: (h, w), the object.
        picture: as it is.
        front: the object, continued over the whole picture.
        behind: the background, continued under the object.
        relief: lightness of the texture around its mean, (1, h, w).
        flat: mean colour of the object, (c, 1, 1).
    """

    mask: NDArray[np.bool_]
    picture: Picture
    front: Picture
    behind: Picture
    relief: Picture
    flat: Picture


def parts_of(picture: Picture, mask: NDArray[np.bool_]) -> Parts | None:
    """The parts of a picture (c, h, w) in [0, 1]; None where the mask shows no object before a background."""
    if not RANGE[0] <= mask.mean() <= RANGE[1] or _clarity(picture, mask) < CLEAR:
        return None
    patch = _patch(picture, mask)
    if patch is None:
        return None
    rows, columns = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    tiled = _tiled(patch, mask.shape)
    light = lightness(tiled)
    return Parts(
        mask=mask,
        picture=picture,
        front=np.where(mask, picture, tiled),
        behind=picture[:, rows, columns],
        relief=light - light.mean(),
        flat=picture[:, mask].mean(1)[:, None, None],
    )


def lightness(picture: Picture) -> Picture:
    """(c, h, w) → (1, h, w), as `suture.causes.colour.lightness` has it."""
    light: Picture = colour.lightness(torch.from_numpy(picture)[None])[0].numpy()
    return light


def _clarity(picture: Picture, mask: NDArray[np.bool_]) -> float:
    """Mahalanobis distance of the object's mean colour from the background's colours."""
    inside, outside = picture[:, mask].astype(float), picture[:, ~mask].astype(float)
    spread = np.cov(outside).reshape(len(outside), len(outside)) + 1e-4 * np.eye(len(outside))
    away = inside.mean(1) - outside.mean(1)
    return float(np.sqrt(away @ np.linalg.solve(spread, away)))


def _patch(picture: Picture, mask: NDArray[np.bool_]) -> Picture | None:
    """The largest square inside the mask."""
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    reach = int(depth[y, x]) - 1
    if 2 * reach + 1 < SMALLEST:
        return None
    return picture[:, y - reach : y + reach + 1, x - reach : x + reach + 1]


def _tiled(patch: Picture, size: tuple[int, ...]) -> Picture:
    more = [(0, 0)] + [(0, max(side - have, 0)) for side, have in zip(size, patch.shape[1:], strict=True)]
    return np.pad(patch, more, mode="symmetric")[:, : size[0], : size[1]]


def _colour(own: Parts, other: Parts) -> Picture:
    chroma = [part.flat - lightness(part.flat) for part in (own, other)]
    return np.where(own.mask, own.picture + chroma[1] - chroma[0], own.picture)


def _texture(own: Parts, other: Parts) -> Picture:
    return np.where(own.mask, own.flat + other.relief, own.picture)


def _shape(own: Parts, other: Parts) -> Picture:
    return np.where(other.mask, own.front, own.behind)


def _background(own: Parts, other: Parts) -> Picture:
    return np.where(own.mask, own.picture, other.behind)


SWAPS: dict[Family, Callable[[Parts, Parts], Picture]] = {
    "texture": _texture, "shape": _shape, "colour": _colour, "background": _background,
}  # fmt: skip


def swapped(own: Parts, other: Parts, family: Family) -> Picture:
    """(c, h, w) in [0, 1]: the picture with one family of features taken from another."""
    return np.clip(SWAPS[family](own, other), 0, 1).astype(np.float32)
