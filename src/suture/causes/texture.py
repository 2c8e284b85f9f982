"""Probes that take texture away: what small patches look like, with colours and large forms left in place."""

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from suture.causes.probes import draw, probe


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, (n, c, h, w), sigma in pixels; separable, so that wide ones stay quick."""
    smooth = ndimage.gaussian_filter(pictures.cpu().numpy(), (0, 0, sigma, sigma))
    return torch.from_numpy(smooth).to(pictures.device)


@probe("blur", "texture")
def blur(pictures: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Gaussian blur with sigma up to 1/16 of the shorter side, and at least one pixel, at full strength."""
    return blurred(pictures, strength * max(1.0, min(pictures.shape[2:]) / 16))


@probe("shuffle_fine", "texture")
def shuffle_fine(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Pixels change places inside patches of 1/16 of the side."""
    return _within(pictures, 16, strength, generator)


@probe("shuffle_medium", "texture")
def shuffle_medium(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Pixels change places inside patches of 1/8 of the side."""
    return _within(pictures, 8, strength, generator)


@probe("style_noise", "texture")
def style_noise(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """One random 3x3 filter per picture, the same for all channels (random convolutions, Xu et al. 2021).

    Its weights sum to one, so flat areas keep their colour.
    """
    n, channels, height, width = pictures.shape
    weights = torch.randn(n, 9, generator=generator).to(pictures.device)
    weights = (weights - weights.mean(1, keepdim=True)) / 2 + 1 / 9
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    kernels = weights.view(n, 1, 3, 3).repeat_interleave(channels, dim=0)
    planes = padded.reshape(1, n * channels, height + 2, width + 2)
    changed = F.conv2d(planes, kernels, groups=n * channels)
    return torch.lerp(pictures, changed.reshape(pictures.shape).clamp(0, 1), strength)


def _within(pictures: Tensor, parts: int, strength: float, generator: torch.Generator) -> Tensor:
    """Shuffle pixels inside a share `strength` of the patches; what does not fill a patch stays."""
    n, channels, height, width = pictures.shape
    side = max(2, min(height, width) // parts)
    rows, columns = height // side, width // side
    whole = pictures[:, :, : rows * side, : columns * side]
    patches = whole.reshape(n, channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(n, rows * columns, channels, side * side)
    order = draw((n, rows * columns, 1, side * side), generator, pictures).argsort(-1).expand_as(patches)
    taken = draw((n, rows * columns, 1, 1), generator, pictures) < strength
    patches = torch.where(taken, patches.gather(-1, order), patches)
    patches = patches.reshape(n, rows, columns, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    changed = pictures.clone()
    changed[:, :, : rows * side, : columns * side] = patches.reshape(whole.shape)
    return changed
