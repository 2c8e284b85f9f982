"""Probes that take colour away and leave lightness alone.

The first three channels are red, green and blue; a fourth (alpha, infrared) stays as it is, and pictures of fewer
channels have no colour to take away and come back unchanged.
"""

import math

import torch
from torch import Tensor

from suture.causes.probes import draw, probe

LIGHTNESS = (0.299, 0.587, 0.114)  # ITU-R BT.601


def lightness(pictures: Tensor) -> Tensor:
    """(n, c, h, w) → (n, 1, h, w): BT.601 of three colours, the mean of fewer."""
    if pictures.shape[1] < 3:
        return pictures.mean(1, keepdim=True)
    weights = torch.tensor(LIGHTNESS, device=pictures.device)
    return (pictures[:, :3] * weights[:, None, None]).sum(1, keepdim=True)


@probe("gray", "colour")
def gray(pictures: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Saturation down to none."""
    return _colours(pictures, lightness(pictures).expand(-1, 3, -1, -1), strength)


@probe("hue_rotation", "colour")
def hue_rotation(pictures: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Every colour turned about the axis of grays by up to half a circle (Rodrigues' formula)."""
    if pictures.shape[1] < 3:
        return pictures
    angle = math.pi * strength
    axis = torch.full((3,), 1 / math.sqrt(3), device=pictures.device)
    cross = torch.linalg.cross(torch.eye(3, device=pictures.device), axis.expand(3, 3))
    turn = math.cos(angle) * torch.eye(3, device=pictures.device) + math.sin(angle) * cross
    turn = turn + (1 - math.cos(angle)) * torch.outer(axis, axis)
    return _colours(pictures, torch.einsum("dc,nchw->ndhw", turn, pictures[:, :3]), 1.0)


@probe("channel_shuffle", "colour")
def channel_shuffle(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Red, green and blue change places in a circle, in a random direction for each picture."""
    right = draw((len(pictures), 1, 1, 1), generator, pictures) < 0.5
    rolled = torch.where(right, pictures[:, :3].roll(1, dims=1), pictures[:, :3].roll(-1, dims=1))
    return _colours(pictures, rolled, strength)


@probe("tint", "colour")
def tint(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A random shift of up to half in each colour, lightness kept, another for each picture.

    It is added: mixing a colour in would weaken texture and contours as well.
    """
    if pictures.shape[1] < 3:
        return pictures
    shift = draw((len(pictures), 3, 1, 1), generator, pictures) - 0.5
    return _colours(pictures, pictures[:, :3] + strength * (shift - lightness(shift)), 1.0)


def _colours(pictures: Tensor, changed: Tensor, share: float) -> Tensor:
    """The colours moved towards others by a share of the way."""
    if pictures.shape[1] < 3:
        return pictures
    moved = torch.lerp(pictures[:, :3], changed.expand_as(pictures[:, :3]), share)
    return torch.cat([moved, pictures[:, 3:]], dim=1)
