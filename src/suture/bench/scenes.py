"""Small scenes whose four features are drawn apart: an object of one shape, texture and colour before a background.

A class has a kind of each. What a picture shows of one family is a number in a table (n, 4), so that a picture can be
drawn again with one of them changed and everything else, down to the noise, the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Generator, Tensor

from suture.images import ImageFormat
from suture.rundir import fingerprint

SIDE = 32
FORMAT = ImageFormat((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
FAMILIES = ("shape", "texture", "colour", "background")

Field = Callable[[Tensor, Tensor], Tensor]
"""(u, v), each (n, h, w), across and down → (n, h, w)."""


def _box(u: Tensor, v: Tensor, wide: float, tall: float) -> Tensor:
    return torch.maximum(u.abs() / wide, v.abs() / tall)


def _petals(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) / (0.72 + 0.28 * torch.cos(5 * torch.atan2(u, -v)))


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    sides = [u * math.sin(a) - v * math.cos(a) for a in (math.pi, math.pi / 3, -math.pi / 3)]
    return 2 * torch.stack(sides).amax(0)


def _crescent(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(u, v), 1.7 - torch.hypot(u - 0.6, v) * 0.9)


# Inside where at most 1, in units of the object's size; upright.
SHAPES: dict[str, Field] = {
    "disc": torch.hypot,
    "square": lambda u, v: _box(u, v, 1, 1),
    "triangle": _triangle,
    "cross": lambda u, v: torch.minimum(_box(u, v, 1, 0.36), _box(u, v, 0.36, 1)),
    "ring": lambda u, v: (torch.hypot(u, v) - 0.75).abs() * 4,
    "bar": lambda u, v: _box(u, v, 1, 0.4),
    "star": _petals,
    "crescent": _crescent,
}


def _grain(u: Tensor, v: Tensor) -> Tensor:
    """A value of its own for every pixel, from its place alone."""
    mixed = torch.sin(u * 91.7 + v * 271.3) * 43758.5453
    return 2 * (mixed - mixed.floor()) - 1


# From −1 to 1, on average 0: lighter or darker than the object; a unit is one period.
TEXTURES: dict[str, Field] = {
    "plain": lambda u, v: torch.zeros_like(u),
    "upright": lambda u, v: torch.sin(2 * math.pi * u),
    "lying": lambda u, v: torch.sin(2 * math.pi * v),
    "slanting": lambda u, v: torch.sin(2 * math.pi * (u + v) / math.sqrt(2)),
    "checks": lambda u, v: torch.sin(2 * math.pi * u / 1.4).sign() * torch.sin(2 * math.pi * v / 1.4).sign(),
    "dots": lambda u, v: (torch.cos(2 * math.pi * u) + torch.cos(2 * math.pi * v)) / 2,
    "grain": _grain,
}


def _waves(u: Tensor, v: Tensor) -> Tensor:
    return torch.sin(v * 24 + 2 * torch.sin(u * 9))


def _bricks(u: Tensor, v: Tensor) -> Tensor:
    row = (v * 5).floor()
    seam = torch.maximum(_tooth(v * 5), _tooth(u * 3 + 0.5 * (row % 2)))
    return 0.4 - 1.4 * (seam > 0.8).float()


def _tooth(x: Tensor) -> Tensor:
    return 2 * (x - x.floor() - 0.5).abs()


@dataclass(frozen=True)
class Backdrop:
    """A background: red, green and blue, and a pattern from −1 to 1 over the picture (u and v from 0 to 1)."""

    colour: tuple[float, float, float]
    pattern: Field
    depth: float


BACKGROUNDS: dict[str, Backdrop] = {
    "sky": Backdrop((0.55, 0.7, 0.9), lambda u, v: 2 * v - 1, 0.18),
    "grass": Backdrop((0.3, 0.5, 0.2), lambda u, v: _grain(u * SIDE, v * SIDE), 0.12),
    "sand": Backdrop((0.78, 0.68, 0.48), lambda u, v: torch.sin(7 * u + 3 * torch.sin(5 * v)), 0.07),
    "night": Backdrop((0.1, 0.1, 0.2), lambda u, v: (_grain(u * SIDE, v * SIDE) > 0.9).float(), 0.5),
    "wall": Backdrop((0.6, 0.35, 0.28), _bricks, 0.12),
    "fog": Backdrop((0.75, 0.76, 0.78), lambda u, v: torch.zeros_like(u), 0.0),
    "water": Backdrop((0.2, 0.45, 0.6), _waves, 0.1),
    "wood": Backdrop((0.5, 0.36, 0.2), lambda u, v: torch.sin(u * 40 + 3 * torch.sin(v * 6)), 0.1),
}


@dataclass(frozen=True)
class World:
    """What the classes look like, a kind of each family for each class.

    Attributes:
        shape, texture, background: names in `SHAPES`, `TEXTURES`, `BACKGROUNDS`.
        colour: hues, as angles in the plane of equal lightness.
        period: of textures, in pixels.
        contrast: of textures, half the way from dark to light.
    """

    shape: tuple[str, ...]
    texture: tuple[str, ...]
    colour: tuple[float, ...]
    background: tuple[str, ...]
    period: float
    contrast: float

    @property
    def classes(self) -> int:
        """How many classes."""
        return len(self.shape)


def draw_world(classes: int, seed: int) -> World:
    """A world by seed: kinds drawn without repetition, hues at equal distances from a random start."""
    rng = np.random.default_rng(seed)

    def some(names: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(str(name) for name in rng.permutation(sorted(names))[:classes])

    hues = 2 * math.pi * (rng.permutation(classes) / classes + rng.uniform())
    return World(
        some(SHAPES), some(TEXTURES), tuple(hues.tolist()), some(BACKGROUNDS), rng.uniform(3.0, 5.0),
        rng.uniform(0.14, 0.24),
    )  # fmt: skip


def draw_kinds(labels: Tensor, classes: int, reliability: Mapping[str, float], seed: int) -> Tensor:
    """What each picture shows, (n, 4), in the order of `FAMILIES`: its class's own kind, or one of all at random.

    Args:
        labels: (n,).
        reliability: family → the chance that it is drawn as the class's own; otherwise it is drawn from all kinds
            alike, each family for itself.
    """
    generator = Generator().manual_seed(seed)
    shape = (len(labels), len(FAMILIES))
    own = torch.rand(shape, generator=generator) < torch.tensor([reliability[family] for family in FAMILIES])
    return torch.where(own, labels[:, None], torch.randint(classes, shape, generator=generator))


@dataclass(frozen=True)
class _Nuisance:
    """What differs from picture to picture whatever it shows; each (n, 1, 1) unless said.

    Attributes:
        across, down: the middle of the object, in pixels from the middle of the picture.
        size: square root of its area, in pixels.
        turn: in radians.
        phase_u, phase_v: of the texture, in periods.
        slide_u, slide_v: of the background's pattern, in sides of the picture.
        hue: away from the kind's, in radians.
        saturation: distance from gray.
        light: of the object.
        contrast: of the texture, relative to the world's.
        tint: (n, 3, 1, 1), of the background.
        noise: (n, 3, h, w), of the camera.
    """

    across: Tensor
    down: Tensor
    size: Tensor
    turn: Tensor
    phase_u: Tensor
    phase_v: Tensor
    slide_u: Tensor
    slide_v: Tensor
    hue: Tensor
    saturation: Tensor
    light: Tensor
    contrast: Tensor
    tint: Tensor
    noise: Tensor


_RANGES = {
    "across": (-4, 4), "down": (-4, 4), "size": (13, 17), "turn": (-0.3, 0.3), "phase_u": (0, 1), "phase_v": (0, 1),
    "slide_u": (-0.2, 0.2), "slide_v": (-0.2, 0.2), "hue": (-0.25, 0.25), "saturation": (0.14, 0.24),
    "light": (0.4, 0.6), "contrast": (0.7, 1.3),
}  # fmt: skip


def _nuisance(n: int, seed: int) -> _Nuisance:
    generator = Generator().manual_seed(int(fingerprint("nuisance", seed)[:15], 16))  # not the numbers of `draw_kinds`
    tint = 0.16 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    tint = tint + 0.08 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    drawn = {"tint": tint, "noise": 0.02 * torch.randn(n, 3, SIDE, SIDE, generator=generator)}
    for name, (low, high) in _RANGES.items():
        drawn[name] = low + (high - low) * torch.rand(n, 1, 1, generator=generator)
    return _Nuisance(**drawn)


def render(world: World, kinds: Tensor, seed: int) -> Tensor:
    """Pictures (n, 3, 32, 32) in [0, 1] of what a table (n, 4) says.

    All shapes cover the same area and all hues have the same lightness (BT.601), so that neither size nor light tells
    a class. Place, size, a slight turn, lightness, saturation, the phase and contrast of the texture, the tint of the
    background and the noise follow from the seed alone.
    """
    given = _nuisance(len(kinds), seed)
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    x, y = (each.expand(len(kinds), SIDE, SIDE) for each in (axis[None, None, :], axis[None, :, None]))
    dx, dy = x - given.across, y - given.down
    u = (dx * given.turn.cos() + dy * given.turn.sin()) / given.size
    v = (dy * given.turn.cos() - dx * given.turn.sin()) / given.size
    inside = torch.zeros(len(kinds), SIDE, SIDE)
    relief, behind = inside.clone(), torch.zeros(len(kinds), 3, SIDE, SIDE)
    for kind in range(world.classes):
        shape, texture, _, background = (kinds[:, i] == kind for i in range(len(FAMILIES)))
        inside[shape] = _coverage(world.shape[kind], u[shape], v[shape], given.size[shape])
        at = (x / world.period + given.phase_u)[texture], (y / world.period + given.phase_v)[texture]
        relief[texture] = TEXTURES[world.texture[kind]](*at)
        place = (x / SIDE + 0.5 + given.slide_u)[background], (y / SIDE + 0.5 + given.slide_v)[background]
        behind[background] = _backdrop(world.background[kind], *place, given.tint[background])
    hue = torch.tensor(world.colour)[kinds[:, 2]][:, None, None] + given.hue
    light = given.light + world.contrast * given.contrast * relief
    front = _opponent(light, given.saturation * hue.cos(), given.saturation * hue.sin())
    return (torch.lerp(behind, front, inside[:, None]) + given.noise).clamp(0, 1)


def _coverage(name: str, u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """How much of each pixel the object covers, its edge a pixel wide."""
    unit = _unit(name)
    return ((1 - SHAPES[name](u * unit, v * unit)) * size / unit + 0.5).clamp(0, 1)


@cache
def _unit(name: str) -> float:
    """The square root of a shape's area, in units of its size."""
    axis = torch.linspace(-1.5, 1.5, 601)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return math.sqrt(float((SHAPES[name](u, v) <= 1).float().mean()) * 9)


def _backdrop(name: str, u: Tensor, v: Tensor, tint: Tensor) -> Tensor:
    kind = BACKGROUNDS[name]
    pattern = kind.depth * kind.pattern(u, v)
    return torch.tensor(kind.colour)[:, None, None] + tint + pattern[:, None]


def _opponent(light: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    """Lightness and two differences of colour (YCbCr, BT.601), (n, h, w) or (n, 1, 1) → (n, 3, h, w)."""
    blue, red = blue.expand_as(light), red.expand_as(light)
    return torch.stack([light + 1.402 * red, light - 0.344 * blue - 0.714 * red, light + 1.772 * blue], dim=1)
