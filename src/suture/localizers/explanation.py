"""Whether the norms of one group, let move, explain what other sites see."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from suture.localizers.brief import adam
from suture.localizers.evidence import Evidence
from suture.localizers.sites import Site, keeps_record, mismatch, walking
from suture.localizers.walk import CHUNK, EXAMPLES, FLOOR, Walk, mismatches_of, together, whole
from suture.tasks import Batch, batches

EXPLAINED = 0.7  # of the mismatch must go away: planted faults of norms left 0.28 at most, most others 0.3 and more
ALIKE = 1.5  # times the median over sites is what a site shows that nothing is wrong with
STEPS, BATCH, LR = 15, 32, 0.1  # far enough to undo a sign; Adam at a tenth of a tensor's rms


def explains(evidence: Evidence, walk: Walk, group: str) -> bool:
    """Whether the scales and shifts of a group's norms, let move, bring the other groups' sites back to their records.

    They are tuned on one half of `diagnose` without labels, and judged on the other.
    """
    model, case = copy.deepcopy(evidence.model).eval(), evidence.case
    watched = [site for site in walk.sites if site.owner != group]
    parameters = _norm_parameters(model, evidence.groups[group])
    if not watched or not parameters:
        return False
    first, second = (whole(half[: EXAMPLES // 2]) for half in evidence.halves)
    held_out = list(batches(evidence.examples.only(second.tolist()), case.task, case.device, CHUNK))
    order = np.resize(np.random.default_rng(case.seed).permutation(first), STEPS * BATCH)
    training = batches(evidence.examples.only(order.tolist()), case.task, case.device, BATCH)
    optimizer = adam(parameters, LR)
    with torch.enable_grad(), walking(model, walk.sites) as seen:
        for batch in training:
            case.task.outputs(model, batch)
            loss = torch.stack([mismatch(site, seen[site.path]) for site in watched if site.path in seen]).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    before, after = (_total(evidence, each, walk, watched, held_out) for each in (evidence.model, model))
    return before > 0 and after < (1 - EXPLAINED) * before


def _total(
    evidence: Evidence, model: nn.Module, walk: Walk, watched: Sequence[Site], held_out: Sequence[Batch]
) -> float:
    """Mismatch above what most sites of the walk showed, summed over the watched sites."""
    usual, seen = min(ALIKE * float(walk.mismatches.median()), FLOOR / 2), []
    with torch.no_grad(), walking(model, walk.sites) as now:
        for batch in held_out:
            evidence.case.task.outputs(model, batch)
            seen.append(dict(now))
    found = mismatches_of(watched, together(seen))
    return float((found - usual).clip(lower=0).sum())


def _norm_parameters(model: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """Scales and shifts of a group's BatchNorms, the only parameters that will have gradients.

    Channels whose scale and shift are both zero would get no gradient behind a ReLU; they start at the others' median.
    """
    wanted, found = set(names), list[Tensor]()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for path, module in model.named_modules():
        if not keeps_record(module) or module.weight is None or f"{path}.weight" not in wanted:
            continue
        scale, shift = module.weight, module.bias
        with torch.no_grad():
            dead = (scale == 0) & (shift == 0)
            scale[dead] = scale[~dead].median() if (~dead).any() else 1.0
        found += [p.requires_grad_(True) for p in (scale, shift)]
    return found
