"""The causes of the most frequent confusions of a case, and the groups through which they act."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.causes.intervention import Causes, find_causes, seed_of
from suture.causes.margins import Pair, shown
from suture.causes.patching import share_of_groups
from suture.causes.probes import PROBES
from suture.causes.ranking import NAMED_FROM
from suture.errors import DataError, InvalidArgumentError
from suture.images import shrunk
from suture.progress import track

MOST_ERRORS = 100  # of one pair; more would name the same cause, later


@dataclass(frozen=True)
class Asked:
    """What was found, pair by pair.

    Attributes:
        causes: a row each: n, family, by (``"swap"`` or ``"probe"``: what named it), probe, excess, low, high, share,
            p (of the swap where that named it), group, carried, beyond.
        swaps: `suture.causes.swaps.swap_features`.
        probes: `suture.causes.intervention.Causes.probes`.
        through: `suture.causes.patching.share_of_groups`, for pairs with a cause.
        changed: pictures (k, h, w, c) of the pair's exemplars under the probe that names the cause.
        why_not: why no pair was asked, or nothing.
    """

    causes: dict[Pair, pd.DataFrame] = field(default_factory=dict)
    swaps: dict[Pair, pd.DataFrame] = field(default_factory=dict)
    probes: dict[Pair, pd.DataFrame] = field(default_factory=dict)
    through: dict[Pair, pd.DataFrame] = field(default_factory=dict)
    changed: dict[Pair, NDArray[np.uint8]] = field(default_factory=dict)
    why_not: str = ""


def asked_of_pairs(
    case: Case,
    members: Mapping[Pair, Sequence[int]],
    exemplars: Mapping[Pair, Sequence[int]],
    right: NDArray[np.bool_],
    most: int,
) -> Asked:
    """Ask for the causes of the first `most` pairs that have errors enough.

    Inputs that are no pictures, or in a format that is not known, are no error: the reason is kept.

    Args:
        members: pair → its errors' positions in `diagnose`, most frequent first.
        exemplars: pair → positions of which pictures are drawn.
        right: (n,) verdicts on `diagnose`.

    Raises:
        NonFiniteError: the network gives NaN or infinite scores for changed pictures.
    """
    enough = [pair for pair, positions in members.items() if len(positions) >= NAMED_FROM][:most]
    if not enough:
        few = f"no confusion has {NAMED_FROM} errors, the fewest that a cause is named from"
        return Asked(why_not=few if most else "they were not asked for")
    found = Asked()
    try:
        for pair in track(enough, "asking for causes"):
            positions = _drawn(members[pair], case.seed)
            causes = find_causes(case, positions, pair.true, pair.predicted, right=right)
            found.swaps[pair], found.probes[pair], through = causes.swaps, causes.probes, None
            if causes.cause is not None:
                through = share_of_groups(case, positions, pair.true, pair.predicted, causes.cause)
                found.through[pair] = through
                found.changed[pair] = _changed(case, exemplars[pair], causes.cause)
            found.causes[pair] = _row(causes, len(positions), through)
    except (DataError, InvalidArgumentError) as error:  # no pictures, no scores, other labels: so for every pair
        return Asked(why_not=str(error))
    return found


def _drawn(positions: Sequence[int], seed: int) -> list[int]:
    """At most `MOST_ERRORS` of them, in their order."""
    if len(positions) <= MOST_ERRORS:
        return list(positions)
    return sorted(np.random.default_rng(seed).choice(positions, MOST_ERRORS, replace=False).tolist())


def _row(causes: Causes, n: int, through: pd.DataFrame | None) -> pd.DataFrame:
    """The answer for one pair; where there is none, the probe with the largest excess."""
    by_swap = causes.family in set(causes.swaps.index[causes.swaps["stands_out"].astype(bool)])
    named = causes.cause if causes.cause is not None or by_swap else next(iter(causes.probes.index), None)
    table, key = (causes.swaps, causes.family) if by_swap else (causes.probes, named)
    found: dict[Any, Any] = table.loc[[key]].iloc[0].to_dict() if key is not None else {}
    around = ("low", "high") if by_swap else ("excess_low", "excess_high")
    by = None if causes.family is None else "swap" if by_swap else "probe"
    row: dict[str, Any] = {"n": n, "family": causes.family, "by": by, "probe": named}
    sources = {"excess": "excess", "low": around[0], "high": around[1], "share": "share", "p": "p"}
    row |= {name: found.get(source, float("nan")) for name, source in sources.items()}
    group = carrier(through) if through is not None else None
    row |= {"group": group, "carried": None, "beyond": None}
    if group is not None and through is not None:
        carries = through.loc[group].to_dict()
        row |= {"carried": carries["share"], "beyond": carries["excess"]}
    return pd.DataFrame([row])


def carrier(through: pd.DataFrame) -> str | None:
    """The group whose outputs a change is more specific to than any other's: moved as far at random they do less.

    Not simply the one that carries most of it, since of groups that stand in a row each carries all. None where no
    group is beyond random, or where the interval of the first reaches into that of another that helps.

    Args:
        through: as `suture.causes.patching.share_of_groups` gives it.
    """
    helping = through[through["effect"] > 0]
    beyond = helping[helping["excess_low"] > 0]
    if beyond.empty:
        return None
    first = str(beyond["excess"].idxmax())
    others = helping["excess_high"].drop(first)
    return None if (others >= beyond["excess_low"][first]).any() else first


def _changed(case: Case, positions: Sequence[int], name: str) -> NDArray[np.uint8]:
    """Pictures (k, h, w, c) of examples under a probe."""
    probe, drawn = PROBES[name], []
    for batch in shown(case, positions):
        changed = probe(batch.pictures, seed=seed_of(case, probe, batch.positions), mask=batch.mask())
        drawn.append((changed * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return shrunk(np.concatenate(drawn))
