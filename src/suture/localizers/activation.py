"""norm_statistics: a damaged network compared with its own record of health.

No gradient says where a network is damaged; what it remembers of its healthy activations does. The record is, in
this order: moments of every layer measured on a healthy reference, moments that were stored beside the weights
when they were trained, or the running statistics of BatchNorm layers. A walk (see ``walk``) compares each site with
its record. Where two groups could have caused the same mismatch, one of them is let move to see whether it explains it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from suture.localizers.brief import treat_briefly
from suture.localizers.evidence import Evidence
from suture.localizers.explanation import explains
from suture.localizers.network import judged_at, twin
from suture.localizers.pays import GAIN as GAINS
from suture.localizers.pays import fall
from suture.localizers.registry import Finding, localizer
from suture.localizers.sites import Site, channel_mismatch, concentration
from suture.localizers.tail import GAIN, refit
from suture.localizers.walk import CHUNK, FEWEST, FLOOR, Walk, first_of, take_walk, together
from suture.stats import ALPHA, flips, mcnemar
from suture.tasks import batches
from suture.wording import percent, plain, several

MANY = 0.2  # share of errors that a network which is as it was trained does not make on what it was trained for
FEWEST_ERRORS = 10  # from which it says something that most are of one class
FEW = 0.1  # concentration below which a mismatch is that of a few channels


@localizer("norm_statistics", reads="network")
def norm_statistics(evidence: Evidence) -> Finding:
    """The largest mismatch of the group's sites in units of the floor; above 1 it stands out.

    Returns NaN for groups without a site, and for all of them below 100 examples.

    A network without any record has no sites. Groups are then treated briefly, one at a time, and scored by what
    that gains, in units of what the best one's gain must exceed to be sure; the best is named where it mends more
    verdicts than it breaks by more than chance (McNemar, 5 % for all groups together). That is a much weaker answer.

    Cost: a third of a pass over 400 examples, and half a pass over 1,000 where two groups could be at fault; without
    a record half a pass for every group.
    Source: notes on planted faults in docs/localization.md; batch statistics against stored ones as a sign of
    damage go back to Li et al. 2017 (AdaBN), there as a sign of another domain.
    """
    if len(evidence.examples) < FEWEST:
        why = f"It takes {FEWEST} examples to tell activations from their record, and there are fewer."
        return Finding(pd.Series(np.nan, index=list(evidence.groups)), None, None, why)
    walk, unfit = take_walk(evidence)
    if walk is None:
        return _without_record(evidence, unfit)
    found = _with_record(evidence, walk)
    return replace(found, why=f"{found.why} The record is that of {walk.record}{_unfit(unfit)}.")


def _unfit(names: Sequence[str]) -> str:
    return f"; that of {' and '.join(names)} is of another network: nine of ten sites are off" if names else ""


def _with_record(evidence: Evidence, walk: Walk) -> Finding:
    owners = [site.owner for site in walk.sites]
    scores = walk.relative().groupby(owners).max().reindex(list(evidence.groups))
    named = first_of(walk.excess())
    if named is None:
        return _behind(evidence, walk, scores)
    top, why = _settle(evidence, walk, named)
    agree = [group == named for group in walk.resampled(evidence.case.seed)]
    if top != named:  # what was seen at the one belongs to the other
        scores[top], scores[named] = scores[named], min(scores[named], 1.0)
    return Finding(scores, top, float(np.mean(agree)), why)


def _settle(evidence: Evidence, walk: Walk, named: str) -> tuple[str, str]:
    """Who it was: the group whose sites are off, the one before it, or the one whose layer feeds the site."""
    star = max((s for s in walk.sites if s.owner == named), key=lambda s: walk.mismatches[s.path])
    inputs = _about_inputs(evidence) if star is walk.sites[0] else ""
    seen = f"What arrives at {star.path} is not what the network was trained on{inputs}"
    if star.at == "output":
        return named, f"The output of {star.path} is not what a healthy network gave{inputs}."
    if star.producer not in (None, star.keeper):
        return _stale_or_changed(evidence, walk, star, seen)
    before = _before(walk, named)
    if concentration(star, together(walk.seen)[star.path]) < FEW:
        return named, f"{seen}, in a few channels only."  # a change of norms before it would reach all of them
    if before not in (None, named) and explains(evidence, walk, before):
        return before, f"{seen}, and a change of the norms of {before} alone explains it."
    return named, f"{seen}."


def _stale_or_changed(evidence: Evidence, walk: Walk, star: Site, seen: str) -> tuple[str, str]:
    """Between the layer that feeds a norm and the norm itself, where they belong to different groups.

    Statistics that are merely stale are the one fault that renormalising cures altogether. If later sites are off too
    it was the weights of the layer, unless a change of the norm's own explains them. A layer whose channels were
    rescaled is cured as well, but then a factor per channel explains mean and variance at once.
    """
    producer, keeper = str(star.producer), str(star.keeper)
    arrived = together(walk.seen)[star.path]
    if concentration(star, arrived) < FEW:
        return producer, f"{seen}, in a few channels only."  # statistics grow stale in all of them at once
    later = [s for s in walk.sites[walk.sites.index(star) + 1 :] if walk.relative()[s.path] > 1]
    if later:
        if explains(evidence, walk, keeper):
            return keeper, f"{seen}, and a change of {keeper} alone explains what follows."
        return producer, f"{seen}, and {keeper} does not explain what follows."
    if float(channel_mismatch(star, arrived)) < FLOOR:
        return producer, f"{seen}: the channels of {producer} were rescaled."
    return keeper, f"{seen}, and all else is well: the statistics of {keeper} are stale."


def _about_inputs(evidence: Evidence) -> str:
    """What to look at before a first layer is blamed."""
    case, said = evidence.case, " (inputs that have shifted look the same: check them first"
    some = evidence.examples.only(range(min(CHUNK, len(evidence.examples))))
    inputs, _ = next(batches(some, case.task, case.device, CHUNK))
    normalised = case.image is not None and any(case.image.mean)
    if not normalised or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return f"{said})"
    return f"{said}; they have mean {inputs.mean():.2f} and deviation {inputs.std():.2f}, where 0 and 1 are usual)"


def _before(walk: Walk, group: str) -> str | None:
    """The group whose norms come right before the first site of a group."""
    first = next(i for i, site in enumerate(walk.sites) if site.owner == group)
    return walk.sites[first - 1].keeper if first else None


def _behind(evidence: Evidence, walk: Walk, scores: pd.Series) -> Finding:
    """No site is off: either all is well, or the fault lies behind the last site, where only labels can tell."""
    agree = float(np.mean([group is None for group in walk.resampled(evidence.case.seed)]))
    outside = [site for site in walk.sites if site.owner is None and walk.relative()[site.path] > 1]
    if outside:
        at = f"What arrives at {outside[0].path}, before any group, is not what the network was trained on"
        return Finding(scores, None, agree, f"{at}{_about_inputs(evidence)}.")
    known = {site.owner for site in walk.sites} | {site.producer for site in walk.sites}
    tried = {group: refit(evidence, group) for group in evidence.groups if group not in known}
    fits = {group: fit for group, fit in tried.items() if fit is not None}
    for group, fit in fits.items():
        score = max(fit.gain, 0.0) / GAIN
        scores[group] = score if fit.heals else min(score, 1.0)
    healed = [group for group, fit in fits.items() if fit.heals]
    if healed:
        top = max(healed, key=lambda group: fits[group].gain)
        gain = fits[top].gain
        fell = f"fitting it anew lowers held-out loss by {percent(gain, 0)}"
        return Finding(scores, top, agree, f"Activations up to {top} are as trained, but {fell}{_one_class(evidence)}.")
    return Finding(scores, None, agree, f"{_nothing_off(evidence, walk)}.")


def _one_class(evidence: Evidence) -> str:
    """The class that most errors are of, where there is one: its inputs or labels may be what has changed."""
    labels = evidence.examples.strata
    wrong = Counter(labels[i] for i in evidence.wrong_at)
    label, n = wrong.most_common(1)[0] if wrong else (None, 0)
    if label is None or 2 * n <= wrong.total() or wrong.total() < FEWEST_ERRORS or len(set(labels)) < 3:
        return ""
    name = plain(evidence.case.class_name(label), 60)
    return f"; {n} of {several(wrong.total(), 'error')} are of {name}: look at its inputs and labels first"


def _nothing_off(evidence: Evidence, walk: Walk) -> str:
    """That no group stands out, and what to look at where there are errors all the same."""
    why = "No activation is further from its record than a mild input shift takes it"
    if not len(evidence.wrong_at):
        return why
    suspected = len(evidence.wrong_at) > MANY * len(evidence.examples)
    if walk.mismatches.max() > walk.chance:
        order, furthest = list(walk.mismatches.index), str(walk.mismatches.idxmax())
        place = "arrives at" if walk.sites[order.index(furthest)].at == "input" else "comes out of"
        why += f"; furthest is what {place} {furthest}"
        suspected = suspected or order.index(furthest) < len(order) / 2
    return f"{why}, so if anything it is the input or early layers{_about_inputs(evidence)}" if suspected else why


def _without_record(evidence: Evidence, unfit: Sequence[str]) -> Finding:
    """Nothing is known of the healthy network: all that is left is to treat every group briefly."""
    before = judged_at(evidence, evidence.halves[1], twin(evidence))
    treated = {group: treat_briefly(evidence, group, before=before) for group in evidence.groups}
    rows = [fall(each.before.losses, each.after.losses, evidence.case.seed) for each in treated.values()]
    gains = pd.DataFrame(rows, index=list(evidence.groups), columns=GAINS)
    known = (
        f"The record of {' and '.join(unfit)} is of another network: nine of ten sites are off"
        if unfit
        else "The network keeps no record of healthy activations (give suture run a --reference, or train with suture "
        "train)"
    )
    if gains["gain"].isna().all():
        return Finding(gains["gain"], None, None, f"{known}, and no group could be treated.")
    top = str(gains["gain"].idxmax())
    low = float(gains["low"][top])
    scores = gains["gain"] / max(float(gains["gain"][top]) - low, 1e-9)
    moves = flips(before.right, treated[top].after.right)
    by_chance = mcnemar(moves.fixed, moves.broken) >= ALPHA / len(treated)  # the best of so many groups was picked
    if low <= 0 or moves.net <= 0 or by_chance:
        return Finding(
            scores.clip(upper=1.0), None, None, f"{known}, and treating no group briefly mends more than chance."
        )
    return Finding(scores, top, None, f"{known}; treating {top} briefly gains most, which is a weak sign.")
