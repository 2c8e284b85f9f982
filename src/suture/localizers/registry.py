"""The registry of localizers.

A localizer of one's own is a function and a line; any name that stands in the registry can be asked for::

    @suture.localizer("last_layers")
    def last_layers(evidence):
        \"\"\"Position of the group, counted from the input.\"\"\"
        return pd.Series(range(len(evidence.groups)), index=list(evidence.groups), dtype=float)
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd

from suture.errors import InvalidArgumentError
from suture.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from suture.localizers.evidence import Evidence

Reads = Literal["gradients", "weights", "network"]
Null = Literal["correct", "random"]

NULLS: dict[Reads, tuple[Null, ...]] = {"gradients": ("correct", "random"), "weights": ("random",), "network": ()}


@dataclass(frozen=True)
class Finding:
    """What a localizer says that can also say "no group stands out".

    Attributes:
        scores: index group, larger = more suspect.
        top: the group that is sick, or None when none stands out.
        confidence: share of resamples that name the same, in [0, 1]; None when it was not measured.
        why: one sentence for people.
    """

    scores: pd.Series
    top: str | None
    confidence: float | None = None
    why: str = ""

    @property
    def decides(self) -> bool:
        """Whether this is an answer of its own, be it that no group stands out, and not scores alone."""
        return self.top is not None or bool(self.why) or self.confidence is not None


@dataclass(frozen=True)
class Localizer:
    """A function Evidence → Series (index group, larger = more suspect) or Finding, and what it needs.

    Attributes:
        name: as registered.
        function: the score.
        reads: ``"gradients"`` (of the errors: it gets bootstrap intervals), ``"weights"`` (no data) or ``"network"``
            (it runs the network in ways of its own).
        needs: ``"reference"`` when it compares with a healthy reference, else None.
        nulls: what its scores are compared with: ``"correct"``, as many correct examples in the place of the errors,
            for what looks at ``wrong_at``; ``"random"``, the same network at random initialisation. By default both
            for what reads gradients, ``"random"`` for what reads weights, and none for what runs the network, which
            may have a standard of its own.
    """

    name: str
    function: "Callable[[Evidence], pd.Series | Finding]"
    reads: Reads = "gradients"
    needs: Literal["reference"] | None = field(default=None)
    nulls: tuple[Null, ...] = ()

    @property
    def __wrapped__(self) -> "Callable[[Evidence], pd.Series | Finding]":
        return self.function

    def __call__(self, evidence: "Evidence") -> pd.Series:
        """The scores of every group, in the order of the groups."""
        return self.find(evidence).scores

    def find(self, evidence: "Evidence") -> Finding:
        """Scores and, where the localizer has one, its own answer.

        Raises:
            InvalidArgumentError: it gave something else than a Series of scores by group.
        """
        found = self.function(evidence)
        finding = found if isinstance(found, Finding) else Finding(found, None)
        groups, given = list(evidence.groups), finding.scores
        if not isinstance(given, pd.Series) or (len(given) and not set(given.index) & set(groups)):
            what = f"index {list(given.index)[:3]}" if isinstance(given, pd.Series) else type(given).__name__
            raise InvalidArgumentError(
                f"the localizer '{self.name}' gave {what}; it gives a Series of scores whose index is "
                f"names of groups, such as '{groups[0]}'"
            )
        scores = given.reindex(groups).astype(float)
        return Finding(scores, finding.top, finding.confidence, finding.why)


LOCALIZERS: Registry[Localizer] = Registry("localizer")
DEFAULT = ("norm_statistics", "grad_norm")  # the first of them says which group is sick


def localizer(
    name: str,
    *,
    reads: Reads = "gradients",
    needs: Literal["reference"] | None = None,
    nulls: "Iterable[Null] | None" = None,
) -> "Callable[[Callable[[Evidence], pd.Series | Finding]], Localizer]":
    """Decorator that registers a function Evidence → Series (index: group, larger = more suspect).

    Raises:
        InvalidArgumentError: the name is taken.
    """

    def register(function: "Callable[[Evidence], pd.Series | Finding]") -> Localizer:
        against = NULLS[reads] if nulls is None else tuple(nulls)
        return LOCALIZERS.register(name)(Localizer(name, function, reads, needs, against))

    return register
