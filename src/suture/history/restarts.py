"""Logs that go back: of a run that was resumed, or appended to, the part that led to its end."""

import numpy as np
from numpy.typing import NDArray

from suture.errors import DataError
from suture.history.log import Log

Floats = NDArray[np.float64]
_TOLERATED = 10  # times that a log may go back whatever its length


def last_run(
    major: Floats, minor: Floats | None, log: Log, unit: str, given: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """Positions of the rows to keep, in order, and what is to be said.

    Where the rows go back to an earlier place, everything logged before for that place and later ones is left out: it
    belongs to a run that was given up. Rows that are only out of order, each place once, are sorted.

    Args:
        major: (rows,) epoch or step, without blanks.
        minor: (rows,) step, where `major` is the epoch.
        log: for messages.
        unit: what `major` counts.
        given: (rows,) whether a row has a place of its own; the others go with the next that has.

    Raises:
        DataError: the rows go back and forth.
    """
    own = np.flatnonzero(given) if given is not None else np.arange(len(major))
    if not _falls(major[own], None if minor is None else minor[own]).any():
        return np.arange(len(major)), []
    place = _places(major, minor)
    falls = np.flatnonzero(place[own][1:] < place[own][:-1]) + 1
    blocks = place[own][np.append(True, np.diff(place[own]) != 0)]
    if len(np.unique(blocks)) == len(blocks):
        return np.argsort(place, kind="stable"), [f"the rows were not in order of '{log.names[unit]}' and were sorted"]
    first, back = float(major[own[falls[0] - 1]]), float(major[own[falls[0]]])
    if len(falls) > max(_TOLERATED, len(blocks) // 5):
        raise DataError(
            f"{log.source}: '{log.names[unit]}' goes back {len(falls)} times in {len(place)} rows (first from "
            f"{first:g} to {back:g}), so this is no log of one run; split it by run"
        )
    again = np.full(len(place) + 1, np.inf)  # at the row where a fall begins, the place it falls to
    again[own[falls - 1] + 1] = place[own[falls]]
    lowest_later = np.minimum.accumulate(again[::-1])[::-1][1:]
    kept = np.flatnonzero(place < lowest_later)
    times = "once" if len(falls) == 1 else f"{len(falls)} times"
    return kept, [
        f"the log goes back {times} ({'' if len(falls) == 1 else 'first '}from {unit} {first:g} to {back:g}), as after "
        f"a restart; the later rows are kept and {len(place) - len(kept)} before them left out"
    ]


def _falls(major: Floats, minor: Floats | None) -> NDArray[np.bool_]:
    """Where a row stands before the one above it."""
    lower = major[1:] < major[:-1]
    return lower if minor is None else lower | ((major[1:] == major[:-1]) & (minor[1:] < minor[:-1]))


def _places(major: Floats, minor: Floats | None) -> NDArray[np.float64]:
    """Rank of each row by major, then minor; equal pairs share one."""
    keys = np.stack([major, np.zeros_like(major) if minor is None else minor], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1).astype(float)
