"""Causes of a confusion by intervention: what changes the network's mind when it is taken away."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.case import Case
from suture.causes import ranking
from suture.causes.margins import Masks, Pair, Shown, equal_energy, moved, shown
from suture.causes.probes import Family, Probe, UnchangedError, chosen
from suture.causes.swaps import swap_features
from suture.errors import InvalidArgumentError
from suture.stats import mean_interval
from suture.tasks import evaluate

MOST_CORRECT = 80  # correct examples per class: errors are fewer, so that more would hardly sharpen the comparison
DRAWS = 3  # random changes per picture, averaged

UNDETERMINED = "undetermined"


@dataclass(frozen=True, kw_only=True)
class Causes:
    """What moves a confusion, beside what moves it by chance.

    Margins are logit (or log-probability) of true minus predicted, so a change above zero speaks for the truth.

    Attributes:
        true, predicted: labels of the pair.
        family: the family of features that causes the confusion, or None when it is undetermined.
        cause: the probe of that family with the largest excess, or None where none of it has one.
        swaps: index family; see `suture.causes.swaps.swap_features`. Where one stands out it names the family, the
            one with the largest excess; else the probes do (`suture.causes.ranking.cause`).
        probes: index probe, largest excess first. Columns family; strength; n (errors it changed); change (mean
            over them), low, high (95 % bootstrap interval); correct (the mean on correct examples of the two
            classes, weighed equally); random (the mean under random changes of equal energy); excess (over the
            null it exceeds less clearly), excess_low, excess_high (together covering with 95 %); p (two-sided,
            Holm); share (excess / mean absolute margin of the errors); energy (root mean square change of a
            pixel); stands_out.
        families: index family; see `suture.causes.ranking.by_family`.
        examples: index position in `diagnose`; columns margin (before), then a change of margin per probe, NaN
            where the probe left the picture as it was.
        skipped: probe → why it could not be asked; only probes nobody asked for by name.
        n_correct: correct examples of true and of predicted in the null.
    """

    true: int
    predicted: int
    cause: str | None
    family: Family | None
    swaps: pd.DataFrame
    probes: pd.DataFrame
    families: pd.DataFrame
    examples: pd.DataFrame
    skipped: dict[str, str]
    n_correct: tuple[int, int]

    @property
    def answer(self) -> str:
        """The family, or ``"undetermined"``."""
        return self.family or UNDETERMINED


@dataclass(frozen=True)
class Responses:
    """How margins change, a row per example and a column per probe, NaN where a picture stayed as it was.

    Attributes:
        margins: (n,) before; the others (n, probes).
        changes: under the probe.
        chance: under random changes of equal energy, averaged over draws; NaN throughout when none were drawn.
        energy: root mean square change of a pixel.
    """

    margins: NDArray[np.float64]
    changes: NDArray[np.float64]
    chance: NDArray[np.float64]
    energy: NDArray[np.float64]


def find_causes(
    case: Case,
    positions: Sequence[int],
    true: int,
    predicted: int,
    *,
    probes: Sequence[str | Probe] | None = None,
    masks: Masks = "standing_out",
    right: NDArray[np.bool_] | None = None,
) -> Causes:
    """What takes the errors of one confusion pair back towards the truth, more than its nulls do.

    Args:
        case: its inputs must be pictures (n, c, h, w).
        positions: the pair's errors, in `diagnose`.
        true, predicted: labels.
        probes: names or probes; all that are registered by default. Features of their families are swapped too.
        masks: the foreground, for the probes that need it: ``"standing_out"``, ``"salient"``, or one's own for
            all of `diagnose`; see `suture.causes.margins.shown`.
        right: (n,) verdicts on `diagnose`, where they are known; found out otherwise.

    Raises:
        UnchangedError: a probe that was asked for by name changed fewer than three of the errors.
        DataError: the inputs are no pictures in the case's format.
        InvalidArgumentError: no positions, or some are no examples of `true`.
    """
    pair, tried, positions = Pair(true, predicted), chosen(probes), [int(i) for i in positions]
    _check(case, positions, pair)
    errors = responses(case, positions, pair, tried, masks, draws=DRAWS)
    enough = (~np.isnan(errors.changes)).sum(0) >= ranking.LEAST
    skipped = {p.name: _too_few(p, errors, i) for i, p in enumerate(tried) if not enough[i]}
    if probes is not None and skipped:
        raise UnchangedError(next(iter(skipped.values())))
    sound = [_correct(case, label, right) for label in (pair.true, pair.predicted)]
    correct = [responses(case, members, pair, tried, masks, draws=0) for members in sound]
    rows = [_row(p, i, errors, correct, int(enough.sum())) for i, p in enumerate(tried) if enough[i]]
    columns = list(_COLUMNS)
    table = ranking.corrected(pd.DataFrame(rows, columns=["probe", *columns]).set_index("probe"))
    table = table.sort_values("excess", ascending=False, kind="stable")
    swaps = swap_features(case, positions, sound[0], pair, masks, {p.family for p in tried})
    family = ranking.named_by_swaps(swaps)
    found = ranking.cause(table) if family is None else ranking.of_family(table, family)
    if family is None and found is not None:
        family = next(p.family for p in tried if p.name == found)
    examples = pd.DataFrame(errors.changes, index=positions, columns=[p.name for p in tried])
    examples.insert(0, "margin", errors.margins)
    return Causes(
        true=pair.true,
        predicted=pair.predicted,
        cause=found,
        family=family,
        swaps=swaps,
        probes=table,
        families=ranking.by_family(table),
        examples=examples,
        skipped=skipped,
        n_correct=(len(correct[0].margins), len(correct[1].margins)),
    )


def responses(
    case: Case, positions: Sequence[int], pair: Pair, probes: Sequence[Probe], masks: Masks, *, draws: int
) -> Responses:
    """Changes of margin of the examples at some positions of `diagnose`, for every probe."""
    margins = [np.zeros(0)]
    pieces = [np.zeros((3, 0, len(probes)))]
    for batch in shown(case, positions, masks):
        before = pair.margins(case, batch.pictures, batch.batch)
        margins.append(before)
        columns = [_response(case, batch, before, pair, p, draws) for p in probes]
        pieces.append(np.stack(columns, axis=2))
    changes, chance, energy = np.concatenate(pieces, axis=1)
    return Responses(np.concatenate(margins), changes, chance, energy)


def _response(
    case: Case, batch: Shown, before: NDArray[np.float64], pair: Pair, probe: Probe, draws: int
) -> NDArray[np.float64]:
    """(3, n): change of margin, the mean under random changes, energy."""
    seed = seed_of(case, probe, batch.positions)
    changed = probe(batch.pictures, seed=seed, mask=batch.mask() if probe.masked else None)
    change = pair.margins(case, changed, batch.batch) - before
    chance = np.full((max(draws, 1), len(before)), np.nan)
    for i in range(draws):
        random = equal_energy(batch.pictures, changed, seed + 1 + i)
        chance[i] = pair.margins(case, random, batch.batch) - before
    energy = (changed - batch.pictures).flatten(1).square().mean(1).sqrt().cpu().double().numpy()
    found = np.stack([change, chance.mean(0), energy])
    found[:, ~moved(batch.pictures, changed)] = np.nan
    return found


def seed_of(case: Case, probe: Probe, positions: Sequence[int]) -> int:
    """A seed for a probe on a batch, the same in every process."""
    return zlib.crc32(f"{case.seed} {probe.name} {list(positions)}".encode())


_COLUMNS = (
    "family", "strength", "n", "change", "low", "high", "correct", "random", "excess", "excess_low", "excess_high",
    "p", "share", "energy",
)  # fmt: skip


def _row(probe: Probe, i: int, errors: Responses, correct: list[Responses], looks: int) -> list[object]:
    """The probe's name, then `_COLUMNS`, p not yet corrected."""
    met = ~np.isnan(errors.changes[:, i])
    change, chance = errors.changes[met, i], errors.chance[met, i]
    nulls = [c.changes[~np.isnan(c.changes[:, i]), i] for c in correct]
    known = [values.mean() for values in nulls if len(values) > 1]
    interval = mean_interval(change)
    excess = ranking.difference(change, chance, nulls, looks=looks)
    distance = float(np.abs(errors.margins).mean())
    return [
        probe.name, probe.family, probe.strength, int(met.sum()), float(change.mean()), interval.low, interval.high,
        float(np.mean(known)) if known else float("nan"), float(chance.mean()), excess.value, excess.low, excess.high,
        excess.p, excess.value / distance if distance else float("nan"), float(errors.energy[met, i].mean()),
    ]  # fmt: skip


def _too_few(probe: Probe, errors: Responses, i: int) -> str:
    n, of = int((~np.isnan(errors.changes[:, i])).sum()), len(errors.margins)
    return (
        f"the probe '{probe.name}' changed {n} of {of} pictures, and {ranking.LEAST} are the fewest that tell anything"
    )


def _check(case: Case, positions: list[int], pair: Pair) -> None:
    if not positions:
        raise InvalidArgumentError("no errors were given; a cause is asked of the errors of one confusion pair")
    strata = case.splits["diagnose"].strata
    strange = next((i for i in positions if not 0 <= i < len(strata) or strata[i] != pair.true), None)
    if strange is not None:
        raise InvalidArgumentError(f"position {strange} of diagnose is no example of '{case.class_name(pair.true)}'")


def _correct(case: Case, label: int, right: NDArray[np.bool_] | None) -> list[int]:
    """Positions in `diagnose` of correct examples of a class, in their order, at most `MOST_CORRECT`."""
    split = case.splits["diagnose"]
    members = [i for i, stratum in enumerate(split.strata) if stratum == label]
    if not members:
        return []
    order = np.random.default_rng(case.seed).permutation(members)
    if right is None:
        order = order[: 4 * MOST_CORRECT]
        hits = evaluate(case.model, split.only(order.tolist()), case.task, device=case.device,
                        batch_size=case.batch_size).right  # fmt: skip
    else:
        hits = right[order]
    return sorted(order[hits][:MOST_CORRECT].tolist())
