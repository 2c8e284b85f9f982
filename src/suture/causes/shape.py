"""Probes of shape: some take it away and leave colours and textures, two keep it alone."""

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from suture.causes.colour import lightness
from suture.causes.probes import draw, probe


@probe("tiles_2", "shape")
def tiles_2(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Quarters of the picture change places: what is larger than a quarter is broken."""
    return _rearranged(pictures, 2, strength, generator)


@probe("tiles_4", "shape")
def tiles_4(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Sixteen tiles change places: only texture, colour and small parts are left."""
    return _rearranged(pictures, 4, strength, generator)


@probe("phase_scramble", "shape")
def phase_scramble(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random phases added to every spatial frequency, the same in all channels.

    Mean colour and power spectrum stay (up to clipping), that is colour and the coarse of texture; contours go.
    The phases are those of white noise, so the picture stays real.
    """
    noise = torch.fft.rfft2(draw((len(pictures), 1, *pictures.shape[2:]), generator, pictures) - 0.5)
    angle = noise.angle() * strength
    angle[..., 0, 0] = 0
    turned = torch.fft.rfft2(pictures) * torch.polar(torch.ones_like(angle), angle)
    scrambled: Tensor = torch.fft.irfft2(turned, s=pictures.shape[2:])
    return scrambled


@probe("elongation", "shape")
def elongation(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Stretched by up to two about the middle, across or along, at random for each picture."""
    factor = 1 / (1 + strength)
    across = draw((len(pictures),), generator, pictures) < 0.5
    scale = torch.ones(len(pictures), 2, device=pictures.device)
    scale[across, 0], scale[~across, 1] = factor, factor
    moves = torch.cat([torch.diag_embed(scale), torch.zeros(len(pictures), 2, 1, device=pictures.device)], dim=2)
    grid = F.affine_grid(moves, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


@probe("edges", "other")
def edges(pictures: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Contours alone: the Sobel gradient of lightness, its largest value 1, in all channels."""
    light = lightness(pictures).cpu().numpy()
    steep = torch.from_numpy(np.hypot(ndimage.sobel(light, 2), ndimage.sobel(light, 3))).to(pictures.device)
    drawn = steep / steep.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return torch.lerp(pictures, drawn.expand_as(pictures), strength)


@probe("silhouette", "other", masked=True)
def silhouette(pictures: Tensor, strength: float, _: torch.Generator, mask: Tensor) -> Tensor:
    """The outline alone: foreground black, background white."""
    return torch.lerp(pictures, (~mask).float().expand_as(pictures), strength)


def _rearranged(pictures: Tensor, parts: int, strength: float, generator: torch.Generator) -> Tensor:
    """Tiles of a grid of parts x parts in a random circle; `strength` is the share of tiles that takes part.

    One circle through all of them, so none stays in its place; rows and columns that do not fill a tile stay.
    """
    n, channels, height, width = pictures.shape
    tall, wide = height // parts, width // parts
    inside = pictures[:, :, : parts * tall, : parts * wide]
    tiles = inside.reshape(n, channels, parts, tall, parts, wide).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(n, parts * parts, channels * tall * wide)
    moving = max(2, math.ceil(strength * parts * parts))
    circle = draw((n, parts * parts), generator, pictures).argsort(1)[:, :moving]
    order = torch.arange(parts * parts, device=pictures.device).repeat(n, 1)
    order = order.scatter(1, circle, circle.roll(1, dims=1))
    tiles = tiles.gather(1, order[:, :, None].expand_as(tiles))
    tiles = tiles.reshape(n, parts, parts, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    changed = pictures.clone()
    changed[:, :, : parts * tall, : parts * wide] = tiles.reshape(inside.shape)
    return changed
