"""Pictures and networks whose cause is known by construction: each network reads one feature and nothing else."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.case import Case
from suture.images import ImageFormat

SIDE = 32
FORMAT = ImageFormat((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


class Reader(nn.Module):
    """One feature, then logits (−wf, wf): class 1 where the feature is above zero."""

    def __init__(self, feature: Callable[[Tensor], Tensor], weight: float = 10.0) -> None:
        super().__init__()
        self.feature = feature
        self.head = nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-weight], [weight]]))
        self.register_buffer("mean", torch.tensor(FORMAT.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(FORMAT.std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised (n, 3, h, w) → logits (n, 2)."""
        return self.head(self.feature(x * self.std + self.mean)[:, None])


def redness(pictures: Tensor) -> Tensor:
    """Mean red minus mean blue, (n,)."""
    return pictures[:, 0].mean((1, 2)) - pictures[:, 2].mean((1, 2))


def roughness(pictures: Tensor) -> Tensor:
    """How far pixels lie from their neighbours, less what is half way between the classes, (n,)."""
    light = pictures.mean(1)
    return (light[:, :, 1:] - light[:, :, :-1]).abs().mean((1, 2)) * 4 - 0.35


def uprightness(pictures: Tensor) -> Tensor:
    """Best match of an upright bar minus best match of a lying one, wherever they are, (n,)."""
    bar = torch.full((1, 1, 18, 18), -6 / 12)
    bar[..., 6:12] = 1.0
    light = pictures.mean(1, keepdim=True)
    up, flat = (F.conv2d(light, kernel / 108).amax((1, 2, 3)) for kernel in (bar, bar.transpose(2, 3)))
    return up - flat


def surroundings(pictures: Tensor) -> Tensor:
    """Lightness of the outermost four pixels, less one half, (n,)."""
    inner = pictures.mean(1)[:, 4:-4, 4:-4]
    whole = pictures.mean(1)
    edge = (whole.sum((1, 2)) - inner.sum((1, 2))) / (SIDE**2 - (SIDE - 8) ** 2)
    return edge - 0.5


def coloured(kinds: Tensor, g: torch.Generator) -> Tensor:
    """Blue pictures of kind 0, red ones of kind 1."""
    pictures = _plain(len(kinds), g)
    sign = (2 * kinds - 1).float()[:, None, None] * (0.1 + 0.1 * torch.rand(len(kinds), 1, 1, generator=g))
    pictures[:, 0] += sign
    pictures[:, 2] -= sign
    return pictures


def textured(kinds: Tensor, g: torch.Generator) -> Tensor:
    """Smooth pictures of kind 0, grained ones of kind 1."""
    size = (0.02 + 0.16 * kinds).float()[:, None, None, None]
    return _plain(len(kinds), g) + size * torch.randn(len(kinds), 1, SIDE, SIDE, generator=g)


def barred(kinds: Tensor, g: torch.Generator) -> Tensor:
    """A lying bar for kind 0, an upright one for kind 1, about the middle."""
    pictures = _plain(len(kinds), g) - 0.2
    for i, kind in enumerate(kinds.tolist()):
        top, left = (torch.randint(5, 10, (2,), generator=g)).tolist()
        tall, wide = (18, 6) if kind else (6, 18)
        top, left = top + (18 - tall) // 2, left + (18 - wide) // 2
        pictures[i, :, top : top + tall, left : left + wide] += 0.4
    return pictures


def surrounded(kinds: Tensor, g: torch.Generator) -> Tensor:
    """A disc before a dark background for kind 0, before a light one for kind 1."""
    pictures = 0.25 * _plain(len(kinds), g) + 0.125 + (0.5 * kinds).float()[:, None, None, None]
    axis = torch.arange(SIDE) - SIDE / 2 + 0.5
    disc = axis[:, None] ** 2 + axis[None] ** 2 < 81
    inside = torch.rand(len(kinds), 3, 1, 1, generator=g) * 0.3 + 0.35
    return torch.where(disc, inside + 0.1 * torch.randn(pictures.shape, generator=g), pictures)


def discs(n: int) -> Tensor:
    """The masks (n, h, w) of `surrounded`."""
    axis = torch.arange(SIDE) - SIDE / 2 + 0.5
    return (axis[:, None] ** 2 + axis[None] ** 2 < 81).expand(n, SIDE, SIDE)


SCENES = {
    "colour": (redness, coloured),
    "texture": (roughness, textured),
    "shape": (uprightness, barred),
    "background": (surroundings, surrounded),
}


def case(
    feature: Callable[[Tensor], Tensor],
    draw: Callable[[Tensor, torch.Generator], Tensor],
    *,
    seed: int = 0,
    errors: int = 16,
    right: int = 30,
    model: nn.Module | None = None,
) -> tuple[Case, list[int]]:
    """A case and the positions of its errors: labelled 0, though the feature says 1."""
    kinds = torch.tensor([0] * right + [1] * right + [1] * errors)
    labels = [0] * right + [1] * right + [0] * errors
    pictures = draw(kinds, torch.Generator().manual_seed(seed)).clamp(0, 1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (FORMAT.mean, FORMAT.std))
    examples = list(zip((pictures - mean) / std, labels, strict=True))
    whole = Case(model or Reader(feature), diagnose=examples, image=FORMAT, device="cpu", seed=seed)
    return whole, list(range(2 * right, 2 * right + errors))


def _plain(n: int, g: torch.Generator) -> Tensor:
    """Gray with soft clouds, (n, 3, h, w)."""
    clouds = F.interpolate(torch.rand(n, 3, 4, 4, generator=g), size=(SIDE, SIDE), mode="bilinear") - 0.5
    return 0.5 + 0.2 * clouds
