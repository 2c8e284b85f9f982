"""Places of treatment: groups, blocks, tensors, layers of a kind, and single entries of parameters."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from suture.case import Case
from suture.errors import GroupError
from suture.groups import resolve
from suture.localizers import LOCALIZERS, RULES, Ranking
from suture.registry import suggest
from suture.treatments.entries import SCORES, evidence_of
from suture.treatments.plan import WHERES, Places, Where, known_groups

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def places_of(case: Case, names: Sequence[str] | set[str], masks: Mapping[str, Tensor] | None = None) -> Places:
    """Places by the names of parameters, as far as these can be trained: integers cannot."""
    numbers = {n for n, p in case.model.named_parameters() if p.is_floating_point() or p.is_complex()}
    wanted = set(names) & numbers
    groups = [group for group, parameters in case.groups.items() if wanted & set(parameters)]
    return Places(groups, frozenset(wanted), masks or {})


def groups_at(case: Case, groups: Sequence[str]) -> Places:
    """Places by the names of groups."""
    chosen = known_groups(case.groups, groups)
    return places_of(case, {name for group in chosen for name in case.groups[group]})


@WHERES.register("flagged")
class Flagged(Where):
    """The groups that Localize flagged, or that were named."""

    kind: Literal["flagged"] = "flagged"

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        return groups_at(case, flagged)


@WHERES.register("groups")
class Groups(Where):
    """Groups chosen by name."""

    kind: Literal["groups"] = "groups"
    names: tuple[str, ...] = Field(min_length=1, description="groups to treat")

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        return groups_at(case, self.names)


@WHERES.register("everything")
class Everything(Where):
    """Every group: full fine-tuning."""

    kind: Literal["everything"] = "everything"

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        return groups_at(case, list(case.groups))


@WHERES.register("ranked")
class Ranked(Where):
    """Groups that a localizer of one's choice ranks first, by a rule that reads scores (Method B: friction)."""

    kind: Literal["ranked"] = "ranked"
    localizer: str = Field("friction", description="name of a localizer")
    rule: str = Field("above_median", description="name of a rule, such as above_median, first or top_2")

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        scores = LOCALIZERS[self.localizer](evidence_of(case))
        return groups_at(case, RULES[self.rule](Ranking(scores)))


@WHERES.register("random")
class Random(Where):
    """As many groups as were flagged, drawn blindly: what a localizer has to beat."""

    kind: Literal["random"] = "random"
    count: int | None = Field(None, ge=1, description="how many; as many as were flagged when none")
    seed: int | None = Field(None, description="of the draw; the case's when none")

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        seed = case.seed if self.seed is None else self.seed
        count = min(len(flagged) if self.count is None else self.count, len(case.groups))
        drawn = np.random.default_rng(seed).permutation(list(case.groups))[:count]
        return groups_at(case, [str(name) for name in drawn])


@WHERES.register("early")
class Early(Where):
    """The first groups, up to the first with two layers of weights: the stem and the first stage.

    Shifts of the inputs are best undone where they come in (Lee et al. 2023).
    """

    kind: Literal["early"] = "early"

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        sizes = {name: p.dim() for name, p in case.model.named_parameters()}
        chosen = list[str]()
        for group, names in case.groups.items():
            chosen.append(group)
            if sum(sizes[name] > 1 for name in names) > 1:
                break
        return groups_at(case, chosen)


@WHERES.register("blocks")
class Blocks(Where):
    """Residual or transformer blocks: those named, else those inside the flagged groups."""

    kind: Literal["blocks"] = "blocks"
    names: tuple[str, ...] = Field((), description="blocks to treat; those of the flagged groups when empty")

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        blocks = resolve(case.model, "block")
        return places_of(case, {p for name in self.chosen(case, flagged) for p in blocks[name]})

    def chosen(self, case: Case, flagged: Sequence[str]) -> list[str]:
        """Names of the blocks, in model order."""
        blocks = resolve(case.model, "block")
        if self.names:
            return known_groups(blocks, self.names)
        inside = groups_at(case, flagged).parameters
        return [name for name, parameters in blocks.items() if inside & set(parameters)]


@WHERES.register("tensors")
class Tensors(Where):
    """Parameter tensors by glob, such as ``layer3.*.weight``."""

    kind: Literal["tensors"] = "tensors"
    globs: tuple[str, ...] = Field(min_length=1, description="globs over parameter names")

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        names = [name for name, _ in case.model.named_parameters()]
        chosen = set[str]()
        for glob in self.globs:
            hits = {name for name in names if fnmatchcase(name, glob)}
            if not hits:
                raise GroupError(f"the glob '{glob}' matches no parameter; {suggest(glob, names)}")
            chosen |= hits
        return places_of(case, chosen)


@WHERES.register("norms")
class Norms(Where):
    """Scales and shifts of the normalisation layers: of all, or of the flagged groups'."""

    kind: Literal["norms"] = "norms"
    flagged: bool = Field(False, description="only those inside the flagged groups")

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        inside = groups_at(case, flagged).parameters if self.flagged else None
        found = {
            name
            for path, module in case.model.named_modules()
            if isinstance(module, NORMS) or type(module).__name__.endswith("RMSNorm")
            for name, _ in module.named_parameters(prefix=path, recurse=False)
        }
        known = {name for name, _ in case.model.named_parameters()}
        return places_of(case, {n for n in found & known if inside is None or n in inside})


@WHERES.register("last")
class Last(Where):
    """The last linear layer."""

    kind: Literal["last"] = "last"

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        path = last_linear(case.model)
        if path is None:
            return Places([], frozenset())
        layer = case.model.get_submodule(path)
        known = {id(p): name for name, p in case.model.named_parameters()}
        return places_of(case, {known[id(p)] for p in layer.parameters()})


def last_linear(model: nn.Module) -> str | None:
    """Path of the last linear layer, in the order of modules."""
    found = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    return found[-1] if found else None


@WHERES.register("entries")
class Entries(Where):
    """The share of single entries with the highest score (Methods C and D: friction, 30 % and 15 %).

    All other parameters stay bit by bit as they were, and so do the other entries of the same tensor. Statistics of
    BatchNorm are no parameters: ``batchnorm = "train"`` updates those of every layer that owns a treated entry.
    """

    kind: Literal["entries"] = "entries"
    score: Literal["friction", "gradient", "gradient_weight", "fisher"] = Field(
        "friction", description="friction: Σ hξ; gradient: |g|; gradient_weight: |g θ|; fisher: mean g²; on the errors"
    )
    share: float = Field(0.3, gt=0, le=1, description="of all entries")

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        scores = SCORES[self.score](evidence_of(case))
        if not scores:
            return Places([], frozenset())
        flat = torch.cat([values.flatten() for values in scores.values()]).nan_to_num(nan=0.0)
        kept = max(math.ceil(round(self.share * flat.numel(), 6)), 1)  # 7 % of 100 are 7.000000000000001
        # As many as asked for, also where scores are equal: the first of equals in model order.
        highest = torch.zeros(flat.numel(), dtype=torch.bool)
        highest[flat.argsort(descending=True, stable=True)[:kept]] = True
        parts = torch.split(highest, [values.numel() for values in scores.values()])
        masks = {
            name: part.reshape(values.shape)
            for (name, values), part in zip(scores.items(), parts, strict=True)
            if part.any()
        }
        return places_of(case, list(masks), masks)
