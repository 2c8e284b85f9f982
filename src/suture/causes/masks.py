"""Where the object is: foreground masks, from the pictures alone or from what the network looks at."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from suture.errors import DataError
from suture.tasks import Task

LEVELS = 64  # of the histogram that is cut in two
RIM = 16  # a border of 1/16 of the side counts as background


def standing_out(pictures: Tensor) -> Tensor:
    """What differs from the border of its own picture: (n, c, h, w) in [0, 1] → foreground (n, 1, h, w), bool.

    The border is taken for background (the boundary prior of Wei et al. 2012); each pixel's Mahalanobis distance to
    its colours, smoothed, is cut by Otsu's threshold (1979), and holes are filled. It does not ask the network, so
    a network that looks at nothing but the background does not turn background into foreground.
    """
    found = [_object(picture) for picture in pictures.detach().cpu().double().numpy()]
    masks = np.stack(found) if found else np.zeros((0, *pictures.shape[2:]), bool)
    return torch.from_numpy(masks)[:, None].to(pictures.device)


def salient(model: nn.Module, task: Task, inputs: Tensor, targets: Tensor) -> Tensor:
    """The half of the pixels that the loss rests on most: inputs (n, c, h, w) → (n, 1, h, w), bool.

    |gradient × input| of the loss (Shrikumar et al. 2016), summed over channels and smoothed. It shows where the
    network looks: where that is the background, background is what this calls foreground.
    """
    with torch.enable_grad():
        given = inputs.detach().clone().requires_grad_(True)
        batch = (given, targets)
        (gradient,) = torch.autograd.grad(task.losses(task.outputs(model, batch), batch).sum(), given)
    weight = (gradient * inputs).abs().sum(1).detach().cpu().double().numpy()
    smooth = ndimage.gaussian_filter(weight, (0, *_smoothing(weight.shape[-2:])))
    cut = np.median(smooth, axis=(1, 2), keepdims=True)
    return torch.from_numpy(smooth > cut)[:, None].to(inputs.device)


def checked(mask: Tensor, inputs: Tensor) -> Tensor:
    """A mask (n, h, w) or (n, 1, h, w) as (n, 1, h, w), bool.

    Raises:
        DataError: it has another shape.
    """
    mask = mask[:, None] if mask.dim() == 3 else mask
    wanted = (len(inputs), 1, *inputs.shape[2:])
    if mask.shape != wanted:
        raise DataError(f"masks have the shape {tuple(mask.shape)}; pictures {tuple(inputs.shape)} need {wanted}")
    return mask.bool().to(inputs.device)


def _object(picture: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(c, h, w) → (h, w)."""
    channels, height, width = picture.shape
    rim = np.ones((height, width), bool)
    wide = max(1, min(height, width) // RIM)
    rim[wide : height - wide, wide : width - wide] = False
    border = picture[:, rim]
    away = picture.reshape(channels, -1) - border.mean(1, keepdims=True)
    spread = np.cov(border).reshape(channels, channels) + 1e-4 * np.eye(channels)
    squares = (away * np.linalg.solve(spread, away)).sum(0).reshape(height, width)
    distance = ndimage.gaussian_filter(np.sqrt(squares), _smoothing((height, width)))
    return np.asarray(ndimage.binary_fill_holes(distance > _otsu(distance)), bool)


def _smoothing(size: tuple[int, ...]) -> tuple[float, float]:
    sigma = min(size) / 32
    return sigma, sigma


def _otsu(values: NDArray[np.float64]) -> float:
    """The threshold that sets the means of both sides furthest apart, weighted by their sizes."""
    counts, edges = np.histogram(values, LEVELS)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    low = (counts * centres).cumsum()[:-1] / np.maximum(below, 1)
    high = ((counts * centres).sum() - (counts * centres).cumsum()[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (high - low) ** 2)])
