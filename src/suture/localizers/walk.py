"""The walk of a model over some of `diagnose`: what every site saw, against its record."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from suture.localizers.evidence import Evidence
from suture.localizers.sites import Seen, Site, call_order, mismatch, sites_of, walking
from suture.moments import Record, measure_moments, pooled
from suture.tasks import batches

EXAMPLES = 400  # of a walk: the moments' own error is then below a third of the floor
FEWEST = 100  # the moments of fewer are off their record by more than the floor, by chance alone
CHUNK = 50  # examples that a site is renormalised by; the unit that is drawn again
FLOOR = 0.025  # mismatch: JPEG compression of the inputs brings sites of healthy CIFAR networks to 0.019
FLOOR_SAME = 0.005  # where the record is of the same images, so that neither a shift nor chance sets them apart
INPUT = 1.6  # times the floor at the first site, where a shift of the inputs lands: JPEG brings it to 0.033
SHIFT = 2.0  # times the first site's mismatch: JPEG does at most 0.83 of it to any later site of healthy CIFAR networks
CHANCE = 3.0  # over the number of examples: chance alone brought sites of healthy digits networks to 2.4
STRANGE = 4 * FLOOR  # mismatch at nine of ten sites: the record is of another network
RESAMPLES = 200


@dataclass(frozen=True, eq=False)
class Walk:
    """What the sites of a model saw, against their records."""

    sites: Sequence[Site]
    seen: Sequence[Seen]  # per chunk of examples
    floor: float  # mismatch above which a site stands out, however much the inputs have shifted
    record: str = "its BatchNorm layers"  # whose record this is

    @property
    def chance(self) -> float:
        """Mismatch that chance brings to a healthy site."""
        return CHANCE / (CHUNK * len(self.seen))

    @cached_property
    def mismatches(self) -> pd.Series:
        """Per site, in order."""
        return mismatches_of(self.sites, together(self.seen))

    @cached_property
    def floors(self) -> pd.Series:
        """Per site, the mismatch above which it stands out.

        A shift of the inputs shows at the first site most of all. Where it does not, only chance is left to excuse
        the later ones.
        """
        shifted = SHIFT * float(self.mismatches.iloc[0])
        floors = pd.Series(min(max(shifted, self.chance), self.floor), index=self.mismatches.index)
        floors.iloc[0] = INPUT * self.floor
        return floors

    def relative(self, mismatches: pd.Series | None = None) -> pd.Series:
        """Mismatch of every site over its floor."""
        return (self.mismatches if mismatches is None else mismatches) / self.floors

    def excess(self, mismatches: pd.Series | None = None) -> pd.Series:
        """How far the sites of each group are above their floors, in floors, summed; in the order of the sites."""
        above = (self.relative(mismatches) - 1).clip(lower=0)
        owners = [site.owner for site in self.sites]
        return above.groupby(owners, sort=False).sum()

    def resampled(self, seed: int) -> list[str | None]:
        """The group with most excess, or None, in each of many resamples of the chunks."""
        generator = np.random.default_rng(seed)
        k = len(self.seen)
        drawn = [generator.multinomial(k, np.full(k, 1 / k)).astype(float) for _ in range(RESAMPLES)]
        return [first_of(self.excess(mismatches_of(self.sites, together(self.seen, list(w))))) for w in drawn]


def take_walk(evidence: Evidence) -> tuple[Walk | None, list[str]]:
    """Walk over some examples of `diagnose`, and the records that do not fit; no walk without one to compare with."""
    unfit = list[str]()
    for name, record, floor in _records(evidence):
        walk = _walk(evidence, record, floor)
        if walk is not None and (record is None or walk.mismatches.quantile(0.1) < STRANGE):
            return replace(walk, record=name), unfit
        if record is not None:
            unfit.append(name)
    return None, unfit


def _records(evidence: Evidence) -> list[tuple[str, Record | None, float]]:
    """What the walk may be compared with, by name and best first, and the floor that goes with it."""
    case, found = evidence.case, list[tuple[str, Record | None, float]]()
    if case.reference is not None:
        same = evidence.examples.only(_drawn(evidence).tolist())
        record = measure_moments(case.reference, same, case.task, device=case.device, batch_size=CHUNK)
        found.append(("the healthy reference", record, FLOOR_SAME))
    if case.moments:
        found.append(("the moments beside the weights", case.moments, FLOOR))
    return [*found, ("its BatchNorm layers", None, FLOOR)]


def _walk(evidence: Evidence, record: Record | None, floor: float) -> Walk | None:
    model, case = evidence.model.eval(), evidence.case
    examples = evidence.examples.only(_drawn(evidence).tolist())
    chunks = list(batches(examples, case.task, case.device, CHUNK))
    with torch.no_grad():
        with call_order(model) as order:
            case.task.outputs(model, chunks[0])
        sites = sites_of(model, case.groups, record, order)
        if not sites:
            return None
        seen = []
        with walking(model, sites) as now:
            for batch in chunks:
                case.task.outputs(model, batch)
                seen.append(dict(now))
    return Walk(sites, seen, floor)


def _drawn(evidence: Evidence) -> NDArray[np.int64]:
    drawn = np.random.default_rng(evidence.case.seed).permutation(len(evidence.examples))
    return np.sort(whole(drawn[:EXAMPLES]))


def whole(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many as fill chunks: a small one would count as much as the others, and one example has no variance."""
    return positions[: max(len(positions) // CHUNK, 1) * CHUNK]


def mismatches_of(sites: Sequence[Site], seen: Seen) -> pd.Series:
    """Mismatch of every site that was reached, in order."""
    return pd.Series(
        {site.path: float(mismatch(site, seen[site.path])) for site in sites if site.path in seen}, dtype=float
    )


def first_of(excess: pd.Series) -> str | None:
    """The first group with a site above its floor, or None: damage shows behind it, never before."""
    above = excess[excess > 0]
    return str(above.index[0]) if len(above) else None


def together(chunks: Sequence[Seen], weights: Sequence[float] | None = None) -> Seen:
    """Moments at every site over several chunks."""
    return {path: pooled([chunk[path] for chunk in chunks], weights) for path in chunks[0]}
