"""How the errors of a slice answer to probes, beside errors elsewhere."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from suture.case import Case
from suture.causes.intervention import seed_of
from suture.causes.margins import Masks, Shown, moved, normalised, shown
from suture.causes.probes import Probe, chosen
from suture.causes.ranking import LEAST
from suture.causes.slices import Slices
from suture.stats import mean_interval
from suture.tasks import Batch, forward

MOST = 100  # errors of a slice, and as many of the others; more say the same, later

COLUMNS = ["family", "n", "change", "low", "high", "elsewhere"]


def probe_response(
    case: Case,
    slices: Slices,
    name: str,
    *,
    others: Sequence[int],
    probes: Sequence[str | Probe] | None = None,
    masks: Masks = "standing_out",
) -> pd.DataFrame:
    """What changing the pictures does to the loss on a slice's errors: below zero it takes them towards the truth.

    A slice holds several confusions, so what is measured is the loss and not the margin of a pair. No cause is named
    from it: that takes the nulls of `suture.causes.find_causes`, confusion by confusion.

    Args:
        case: its inputs must be pictures.
        name: of the slice.
        others: the errors of `diagnose`, of which those outside the slice are the comparison.
        probes, masks: as for `suture.causes.find_causes`.

    Returns:
        Index probe, the one that helps most first. Columns family; n (errors it changed); change (mean over them, in
        units of the loss), low, high (95 % bootstrap interval); elsewhere (the mean on other errors, NaN without any).
        Probes that change fewer than three of the errors are missing.

    Raises:
        DataError: the inputs are no pictures in the case's format.
    """
    tried, inside = chosen(probes), set(slices.errors[name])
    here = loss_changes(case, _some(slices.errors[name], case.seed), tried, masks)
    there = loss_changes(case, _some([i for i in others if i not in inside], case.seed), tried, masks)
    rows = []
    for i, probe in enumerate(tried):
        own, other = (changes[~np.isnan(changes[:, i]), i] for changes in (here, there))
        if len(own) >= LEAST:
            interval, elsewhere = mean_interval(own), float(other.mean()) if len(other) else float("nan")
            rows.append([probe.name, probe.family, len(own), own.mean(), interval.low, interval.high, elsewhere])
    table = pd.DataFrame(rows, columns=["probe", *COLUMNS]).set_index("probe")
    return table.sort_values("change", kind="stable")


def loss_changes(case: Case, positions: Sequence[int], probes: Sequence[Probe], masks: Masks) -> NDArray[np.float64]:
    """(n, probes): the loss on examples of `diagnose` after a probe minus before; NaN where a picture stayed as it was.

    Raises:
        DataError: the inputs are no pictures in the case's format.
    """
    found = [np.zeros((0, len(probes)))]
    for batch in shown(case, positions, masks):
        before = _losses(case, batch.batch)
        found.append(np.stack([_change(case, batch, before, probe) for probe in probes], axis=1))
    return np.concatenate(found)


def _change(case: Case, batch: Shown, before: NDArray[np.float64], probe: Probe) -> NDArray[np.float64]:
    seed = seed_of(case, probe, batch.positions)
    changed = probe(batch.pictures, seed=seed, mask=batch.mask() if probe.masked else None)
    inputs = normalised(changed, case.image, batch.batch[0])
    change = _losses(case, (inputs, batch.batch[1])) - before
    return np.where(moved(batch.pictures, changed), change, np.nan)


def _losses(case: Case, batch: Batch) -> NDArray[np.float64]:
    with torch.no_grad():
        losses = case.task.losses(forward(case.model, batch, case.task, "these pictures"), batch)
    found: NDArray[np.float64] = losses.cpu().double().numpy()
    return found


def _some(positions: Sequence[int], seed: int) -> list[int]:
    order = np.random.default_rng(seed).permutation(len(positions))[:MOST]
    return sorted(int(positions[i]) for i in order)
