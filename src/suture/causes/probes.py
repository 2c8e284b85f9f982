"""Probes: small pure changes of pictures, each of which takes one kind of feature away.

A probe of one's own is a function and a line; it is then among those that `find_causes` asks::

    @probe("dim", "other")
    def dim(pictures, strength, generator):
        \"\"\"Darker by up to half.\"\"\"
        return pictures * (1 - strength / 2)

The family names the feature that is *taken away or altered*, not the one that is kept: a network that decides by
colour is moved by `gray` and not by `phase_scramble`. Probes that keep shape alone (`edges`, `silhouette`) take
away colour, texture and background together, so no one family can be read from them; they are in ``other``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from suture.causes.masks import standing_out
from suture.errors import DataError, InvalidArgumentError
from suture.registry import Registry, suggest

Family = Literal["texture", "shape", "colour", "background", "other"]
FAMILIES: tuple[Family, ...] = get_args(Family)

Plain = Callable[[Tensor, float, torch.Generator], Tensor]
Masked = Callable[[Tensor, float, torch.Generator, Tensor], Tensor]


class UnchangedError(DataError):
    """An intervention left every picture as it was, so that it measures nothing."""


@dataclass(frozen=True)
class Probe:
    """A change of pictures with a strength.

    Attributes:
        name: as registered.
        family: the feature it takes away.
        function: (pictures (n, c, h, w) in [0, 1], strength, generator on the CPU) → pictures of the same shape,
            and with `masked` a fourth argument, the foreground (n, 1, h, w), bool.
        strength: what is used when none is given, in (0, 1].
        masked: whether it needs to know the foreground.
    """

    name: str
    family: Family
    function: Plain | Masked
    strength: float = 1.0
    masked: bool = False

    def __call__(
        self, pictures: Tensor, strength: float | None = None, *, seed: int = 0, mask: Tensor | None = None
    ) -> Tensor:
        """Changed pictures (n, c, h, w) in [0, 1], float32; those given are not touched.

        Args:
            pictures: (n, c, h, w) in [0, 1].
            strength: in (0, 1]; the probe's own by default.
            seed: of everything random in it.
            mask: the foreground (n, 1, h, w), bool; found by `suture.causes.masks.standing_out` if none is given.

        Raises:
            InvalidArgumentError: the strength is outside (0, 1], or the pictures are none.
        """
        strength = self.strength if strength is None else strength
        if not 0 < strength <= 1:
            raise InvalidArgumentError(f"the strength of a probe must lie in (0, 1], not {strength:g}")
        _check(pictures)
        if not len(pictures):
            return pictures.detach().float().clone()
        given, generator = pictures.detach().float().clone(), torch.Generator().manual_seed(seed)
        if not self.masked:
            changed = self.function(given, strength, generator)  # type: ignore[call-arg]
        else:
            shown = standing_out(pictures) if mask is None else mask
            changed = self.function(given, strength, generator, shown.to(given.device))  # type: ignore[call-arg]
        if changed.shape != pictures.shape:
            raise InvalidArgumentError(
                f"the probe '{self.name}' made {tuple(changed.shape)} of pictures {tuple(pictures.shape)}; "
                "it must keep their shape"
            )
        return changed.clamp(0, 1)


PROBES: Registry[Probe] = Registry("probe")


def probe(
    name: str, family: Family, *, strength: float = 1.0, masked: bool = False
) -> Callable[[Callable[..., Tensor]], Probe]:
    """Decorator that registers a function (pictures, strength, generator) → pictures.

    Raises:
        InvalidArgumentError: the name is taken, or there is no such family.
    """
    if family not in FAMILIES:
        raise InvalidArgumentError(f"no family of probes is called '{family}'; {suggest(family, list(FAMILIES))}")

    def register(function: Callable[..., Tensor]) -> Probe:
        return PROBES.register(name)(Probe(name, family, function, strength, masked))

    return register


def chosen(probes: Sequence[str | Probe] | None) -> list[Probe]:
    """The probes by name, or all that are registered."""
    return list(PROBES.values()) if probes is None else [p if isinstance(p, Probe) else PROBES[p] for p in probes]


def draw(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Numbers uniform in [0, 1) on the device of `like`; drawn on the CPU, so that every device draws the same."""
    return torch.rand(*shape, generator=generator).to(like.device)


def _check(pictures: Tensor) -> None:
    if pictures.dim() != 4 or not pictures.is_floating_point():
        raise InvalidArgumentError(
            f"probes change pictures (n, c, h, w) of floats, not {pictures.dtype} of shape {tuple(pictures.shape)}"
        )
    if pictures.numel() and not (pictures.amin() >= 0 and pictures.amax() <= 1):  # NaN fails too
        raise InvalidArgumentError("probes change pictures with values from 0 to 1; these have others")
