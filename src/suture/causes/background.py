"""Probes that take the background away; what the foreground is, a mask says."""

import torch
from torch import Tensor

from suture.causes.probes import draw, probe
from suture.causes.texture import blurred


@probe("background_fill", "background", masked=True)
def background_fill(pictures: Tensor, strength: float, _: torch.Generator, mask: Tensor) -> Tensor:
    """Middle gray in place of the background."""
    return _behind(pictures, torch.full_like(pictures, 0.5), strength, mask)


@probe("background_blur", "background", masked=True)
def background_blur(pictures: Tensor, strength: float, _: torch.Generator, mask: Tensor) -> Tensor:
    """The background out of focus: sigma an eighth of the shorter side."""
    return _behind(pictures, blurred(pictures, min(pictures.shape[2:]) / 8), strength, mask)


@probe("background_tint", "background", masked=True)
def background_tint(pictures: Tensor, strength: float, generator: torch.Generator, mask: Tensor) -> Tensor:
    """A random shift of up to half in each channel of the background, another for each picture."""
    shift = strength * (draw((*pictures.shape[:2], 1, 1), generator, pictures) - 0.5)
    return _behind(pictures, pictures + shift, 1.0, mask)


def _behind(pictures: Tensor, changed: Tensor, share: float, mask: Tensor) -> Tensor:
    return torch.where(mask, pictures, torch.lerp(pictures, changed, share))
