"""DeepFault: which units are on when the network errs, and off when it is right; spectra of software testing.

A unit is a channel or neuron that a single layer with parameters gives, and it is on at an example when its mean over
positions is above 0. With c, u = on, off and f, s = on errors, on correct examples: cf + uf errors, cs + us correct
ones. A group scores the share of the network's 20 most suspicious units that are its own, over its share of all
units: 1 is what chance gives. NaN for a group without such layers, or whose layers are never called; and for all
groups when there are no correct examples to compare with.

Cost: a forward over the errors and as many correct examples.

Source: Eniser, Gerasimou and Sen, DeepFault, FASE 2019.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.localizers.evidence import Evidence
from suture.localizers.network import carriers, twin, unit_means, unknown
from suture.localizers.registry import localizer

Counts = NDArray[np.float64]
Suspicion = Callable[[Counts, Counts, Counts, Counts], Counts]

WORST = 20  # units, but never more than half of all


@localizer("tarantula", reads="network", nulls=("correct", "random"))
def tarantula(evidence: Evidence) -> pd.Series:
    """Units by (cf/(cf+uf)) / (cf/(cf+uf) + cs/(cs+us)), in [0, 1]; see the head of this file for the rest."""

    def suspicion(cf: Counts, uf: Counts, cs: Counts, us: Counts) -> Counts:
        wrong, right = cf / (cf + uf), cs / (cs + us)
        return _ratio(wrong, wrong + right)

    return _density(evidence, suspicion)


@localizer("ochiai", reads="network", nulls=("correct", "random"))
def ochiai(evidence: Evidence) -> pd.Series:
    """Units by cf / √((cf+uf)(cf+cs)), in [0, 1]; see the head of this file for the rest."""
    return _density(evidence, lambda cf, uf, cs, us: _ratio(cf, np.sqrt((cf + uf) * (cf + cs))))


@localizer("dstar", reads="network", nulls=("correct", "random"))
def dstar(evidence: Evidence) -> pd.Series:
    """Units by cf³ / (cs+uf), infinite for one that is on at every error and nowhere else; see the head of this file
    for the rest."""
    return _density(evidence, lambda cf, uf, cs, us: _ratio(cf**3, cs + uf))


def _ratio(above: Counts, below: Counts) -> Counts:
    """Elementwise, with x/0 infinite and 0/0 zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above > 0, above / below, 0.0)


def _density(evidence: Evidence, suspicion: Suspicion) -> pd.Series:
    if not len(evidence.wrong_at) or not len(evidence.correct_at):
        return unknown(evidence)
    model = twin(evidence)
    layers = {group: carriers(model, names, layers=True) for group, names in evidence.groups.items()}
    paths = list(dict.fromkeys(path for several in layers.values() for path in several))
    on = [
        {path: means > 0 for path, means in unit_means(evidence, at, model, paths).items()}
        for at in (evidence.wrong_at, evidence.correct_at)
    ]
    score = {path: suspicion(*_counts(on[0][path]), *_counts(on[1][path])) for path in on[0]}
    if not score:
        return unknown(evidence)
    part = _places(score)
    units = sum(map(len, score.values()))
    found: dict[str, Any] = {}
    for group, several in layers.items():
        known = [path for path in several if path in score]
        own = sum(len(score[path]) for path in known)
        found[group] = sum(part[path].sum() for path in known) / (own / units) if own else float("nan")
    return pd.Series(found, dtype=float)


def _counts(on: NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """(units,) each: at how many examples a unit is on, and off."""
    count = on.sum(0).astype(float)
    return count, len(on) - count


def _places(score: Mapping[str, Counts]) -> dict[str, Counts]:
    """Each unit's part of the places among the worst, 1 in all; units that tie for the last places share them."""
    every = np.concatenate(list(score.values()))
    places = min(WORST, max(1, len(every) // 2))
    last = np.sort(every)[-places]
    left = (places - (every > last).sum()) / (every == last).sum()
    return {path: np.where(own > last, 1.0, np.where(own == last, left, 0.0)) / places for path, own in score.items()}
