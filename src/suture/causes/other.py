"""Probes of what is neither texture, shape, colour nor background: position, light and high frequencies."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from suture.causes.probes import draw, probe

WORST_QUALITY = 5  # of JPEG, at full strength; 95 is its best


@probe("shift", "other")
def shift(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Moved by up to a quarter of the side along one axis, in a random direction; the edge is repeated."""
    height, width = pictures.shape[2:]
    changed = pictures.clone()
    for i, direction in enumerate((draw((len(pictures),), generator, torch.zeros(0)) * 4).long().tolist()):
        down, right = [(1, 0), (-1, 0), (0, 1), (0, -1)][direction]
        far = max(1, round(strength * min(height, width) / 4))
        rows = (torch.arange(height, device=pictures.device) - down * far).clamp(0, height - 1)
        columns = (torch.arange(width, device=pictures.device) - right * far).clamp(0, width - 1)
        changed[i] = pictures[i][:, rows][:, :, columns]
    return changed


@probe("brightness", "other")
def brightness(pictures: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Darker by up to half."""
    return pictures * (1 - strength / 2)


@probe("contrast", "other")
def contrast(pictures: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Up to three quarters of the way towards each channel's own mean."""
    return torch.lerp(pictures, pictures.mean((2, 3), keepdim=True).expand_as(pictures), 0.75 * strength)


@probe("noise", "other")
def noise(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise with a deviation of up to 0.2."""
    return pictures + 0.2 * strength * torch.randn(pictures.shape, generator=generator).to(pictures.device)


@probe("jpeg", "other")
def jpeg(pictures: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Through JPEG of a quality from 95 down to 5; a picture of other than one or three channels by channel."""
    quality = round(95 - (95 - WORST_QUALITY) * strength)
    pixels = (pictures.movedim(1, -1) * 255).round().byte().cpu().numpy()
    stacked = np.stack([_through_jpeg(picture, quality) for picture in pixels])
    return (torch.from_numpy(stacked).movedim(-1, 1).float() / 255).to(pictures.device)


def _through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(h, w, c) → the same after being saved and read."""
    if pixels.shape[2] == 3:
        return _decoded(pixels, quality)
    planes = [_decoded(np.ascontiguousarray(pixels[:, :, i]), quality) for i in range(pixels.shape[2])]
    return np.stack(planes, axis=2)


def _decoded(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).copy()
