"""Through which group a cause acts: activation patching (Vig et al. 2020), "layer2 because of silhouette" measured.

The effect of a group is the change of margin when the network gets the clean picture and only the outputs of that
group's modules are those they give on the changed picture. Effects of groups that stand side by side (branches
that are summed, experts) add up to the whole change as far as what follows is linear. Groups that stand in a row
all carry the whole change, each with a share of 1: then the null beside it tells them apart, which is the same
output moved by as much in a random direction.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from suture.case import Case
from suture.causes.intervention import seed_of
from suture.causes.margins import Masks, Pair, Shown, moved, shown
from suture.causes.probes import PROBES, Probe, UnchangedError
from suture.localizers.network import Hook, carriers, hooked
from suture.stats import mean_interval

Calls = dict[str, list[Any]]
Values = NDArray[np.float64]


def share_of_groups(
    case: Case,
    positions: Sequence[int],
    true: int,
    predicted: int,
    probe: str | Probe,
    *,
    masks: Masks = "standing_out",
) -> pd.DataFrame:
    """How much of a probe's change of margin each group carries.

    Args:
        case, positions, true, predicted, masks: as of `suture.causes.find_causes`.
        probe: usually the cause that was found.

    Returns:
        Index group, in model order. Columns effect (mean change of margin, nats), low, high (95 % bootstrap
        interval); share (effect / whole change; NaN when that is zero); random (the group's output moved as far
        in a random direction); excess (effect − random), excess_low, excess_high (95 %, paired, not corrected for
        the number of groups). NaN for a group without modules of its own, or whose modules are never called.

    Raises:
        UnchangedError: the probe changed none of the pictures.
    """
    pair, probe = Pair(true, predicted), PROBES[probe] if isinstance(probe, str) else probe
    paths = {group: carriers(case.model, names) for group, names in case.groups.items()}
    pieces = [_effects(case, batch, pair, probe, paths) for batch in shown(case, positions, masks)]
    found = np.concatenate([np.zeros((0, 1 + len(paths), 2)), *pieces])
    if not len(found):
        raise UnchangedError(f"the probe '{probe.name}' changed none of {len(positions)} pictures")
    whole = float(found[:, 0, 0].mean())
    rows = [_row(found[:, 1 + i, 0], found[:, 1 + i, 1], whole) for i in range(len(paths))]
    columns = ["effect", "low", "high", "share", "random", "excess", "excess_low", "excess_high"]
    return pd.DataFrame(rows, index=pd.Index(list(paths), name="group"), columns=columns)


def _row(effect: Values, random: Values, whole: float) -> list[float]:
    if np.isnan(effect).any():
        return [float("nan")] * 8
    around, excess = mean_interval(effect), effect - random
    share = float(effect.mean()) / whole if whole else float("nan")
    beyond = mean_interval(excess)
    return [
        float(effect.mean()), around.low, around.high, share, float(random.mean()), float(excess.mean()), beyond.low,
        beyond.high,
    ]  # fmt: skip


def _effects(case: Case, batch: Shown, pair: Pair, probe: Probe, paths: Mapping[str, list[str]]) -> Values:
    """(k, 1 + groups, 2) of the k pictures that changed: the whole change, then each group's effect and its null."""
    seed = seed_of(case, probe, batch.positions)
    changed = probe(batch.pictures, seed=seed, mask=batch.mask() if probe.masked else None)
    clean, other = (_Recorder(case.model, [p for each in paths.values() for p in each]) for _ in range(2))
    with clean:
        before = pair.margins(case, batch.pictures, batch.batch)
    with other:
        after = pair.margins(case, changed, batch.batch)
    found = np.full((len(before), 1 + len(paths), 2), np.nan)
    found[:, 0, 0] = after - before
    generator = torch.Generator().manual_seed(seed)
    for i, group in enumerate(paths, start=1):
        called = [p for p in paths[group] if clean.calls[p] and len(clean.calls[p]) == len(other.calls[p])]
        if not called or len(called) < len(paths[group]):
            continue
        nulls = {p: _randomly(clean.calls[p], other.calls[p], len(before), generator) for p in called}
        for column, outputs in enumerate(({p: other.calls[p] for p in called}, nulls)):
            with _replayed(case.model, outputs):
                found[:, i, column] = pair.margins(case, batch.pictures, batch.batch) - before
    return found[moved(batch.pictures, changed)]


@dataclass
class _Recorder:
    """Notes the outputs of modules, call by call, while it is entered."""

    model: nn.Module
    paths: list[str]
    calls: Calls = field(default_factory=dict)

    def __enter__(self) -> None:
        self.calls.update({path: [] for path in self.paths})

        def note(path: str) -> Hook:
            def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
                kept = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, output)
                self.calls[path].append(kept)  # a copy: the next module may work in place

            return hook

        self.hooks: AbstractContextManager[None] = hooked(self.model, {path: note(path) for path in self.paths})
        self.hooks.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)


def _replayed(model: nn.Module, outputs: Calls) -> AbstractContextManager[None]:
    """Modules give recorded outputs in place of their own, call by call."""

    def replay(path: str) -> Hook:
        waiting = iter(outputs[path])

        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
            kept = next(waiting, output)
            return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, kept)

        return hook

    return hooked(model, {path: replay(path) for path in outputs})


def _randomly(clean: list[Any], other: list[Any], n: int, generator: torch.Generator) -> list[Any]:
    """The clean outputs moved in a random direction, each example as far as the changed ones lie from them."""

    def move(here: Any, there: Any) -> Any:
        if not isinstance(here, Tensor) or not here.is_floating_point() or here.shape != there.shape:
            return here
        noise = torch.randn(here.shape, generator=generator).to(here)
        kept = next((axis for axis in range(min(2, here.dim())) if here.shape[axis] == n), None)
        axes = [axis for axis in range(here.dim()) if axis != kept]
        if not axes:  # one number per example has no directions but two
            return here + (there - here).abs() * noise.sign()
        far, long = ((t.square().sum(axes, keepdim=True)).sqrt() for t in (there - here, noise))
        return here + noise * far / long.clamp_min(1e-12)

    return [tree_map(move, a, b) for a, b in zip(clean, other, strict=True)]
