"""Plant a known fault in one known group of a copy of a model: truth for whoever claims to find it."""

import copy
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, nn

from suture.bench.examples import Pairs
from suture.bench.kinds import FAULTS, Kind, Site
from suture.bench.layers import Layer, layers_of
from suture.errors import GroupError, InvalidArgumentError, NonFiniteError
from suture.groups import GroupSpec, resolve, tensors_of
from suture.loading import load_task
from suture.patch import COUNTER
from suture.registry import suggest
from suture.rundir import fingerprint
from suture.tasks import Task


def plant(
    model: nn.Module,
    group: str,
    kind: str,
    strength: float,
    seed: int,
    *,
    groups: GroupSpec = "top",
    inputs: Any = None,
    targets: Any = None,
    task: str | Task = "classification",
) -> nn.Module:
    """A copy of a model with one group damaged.

    Everything random follows from (seed, group, kind): with the same seed a larger strength is the same random
    direction gone further, or the same filters and more. Where several modules of the group can be damaged, the
    seed decides by a coin between all of them and one of them; ``finetune`` always trains all.

    Args:
        model: never modified.
        group: a name of ``suture.groups.resolve(model, groups)``.
        kind: a name in ``suture.bench.FAULTS``: ``noise``, ``zero``, ``sign``, ``scale``, ``permute``,
            ``bnstat``, ``huge``, ``finetune``, or one's own.
        strength: in the kind's own unit (see its docstring): multiples of rms or σ, a share above 0 and at most
            1, multiples of the largest weight, or a number of steps.
        seed: of everything random.
        groups: as for `suture.groups.resolve`.
        inputs, targets: n examples that ``finetune`` trains on, first axes (n, …); other kinds need none.
        task: a name or a task; only a kind that trains asks it for losses.

    Returns:
        The copy in eval mode, on the model's device; only parameters of the group, and buffers of the modules
        that own them, differ.

    Raises:
        UnknownNameError: no such kind.
        GroupError: no such group.
        InvalidArgumentError: the kind does not apply to the group, the strength means nothing, or nothing changed.
        DataError: the examples that the kind trains on are missing or cannot be used.
        NonFiniteError: a weight became infinite or NaN.
    """
    examples = Pairs(inputs, targets) if inputs is not None and targets is not None else None
    planting = Planting(model, group, kind, seed, groups, load_task(task), examples)
    FAULTS[kind].check(kind, strength)
    (damaged,) = deque(planting.steps(strength), maxlen=1)
    if not planting.changed(damaged):
        raise InvalidArgumentError(
            f"a '{kind}' fault of strength {strength:g} changes nothing in the group '{group}'; "
            "its values are zero or all alike, or the loss does not depend on them"
        )
    return damaged


def applies(model: nn.Module, group: str, kind: str, *, groups: GroupSpec = "top") -> bool:
    """Whether a kind of fault can be planted in a group: ``bnstat``, say, needs running statistics there.

    Raises:
        UnknownNameError: no such kind.
        GroupError: no such group.
    """
    return bool(_fitting(model, parameters_of(model, group, groups), FAULTS[kind]))


def parameters_of(model: nn.Module, group: str, groups: GroupSpec) -> list[str]:
    """Names of a group's parameters.

    Raises:
        GroupError: no such group.
    """
    resolved = resolve(model, groups)
    if group not in resolved:
        raise GroupError(f"there is no group '{group}'; {suggest(group, list(resolved))}")
    return resolved[group]


class Planting:
    """A fault of which everything is decided but its strength.

    Raises:
        UnknownNameError: no such kind.
        GroupError: no such group.
        InvalidArgumentError: the kind does not apply to the group.
    """

    def __init__(
        self,
        model: nn.Module,
        group: str,
        kind: str,
        seed: int,
        groups: GroupSpec,
        task: Task,
        examples: Pairs | None,
    ) -> None:
        self.model, self.group, self.kind, self.seed, self.task, self.examples = (
            model,
            group,
            kind,
            seed,
            task,
            examples,
        )
        self.how = FAULTS[kind]
        self.parameters = parameters_of(model, group, groups)
        if not _fitting(model, self.parameters, self.how):
            raise InvalidArgumentError(f"a '{kind}' fault needs {self.how.needs}, and the group '{group}' has none")

    def steps(self, strength: float) -> Iterator[nn.Module]:
        """The damaged copy, one and the same: after every step of a kind that trains, else once.

        Raises:
            NonFiniteError: a weight became infinite or NaN.
        """
        damaged = copy.deepcopy(self.model).eval()
        site = self.site(damaged)
        with torch.no_grad():
            steps = self.how.damage(site, strength)
        for _ in steps if self.how.trains else (None,):
            self._refuse_non_finite(damaged, strength)
            yield damaged

    def site(self, damaged: nn.Module) -> Site:
        """What is damaged in a copy: every layer of the group that fits, or by a coin of the seed one module's."""
        generator = Generator().manual_seed(int(fingerprint(self.seed, self.group, self.kind)[:15], 16))
        layers = _fitting(damaged, self.parameters, self.how)
        paths = sorted({layer.path for layer in layers})
        coin, one = (int(torch.randint(below, (), generator=generator)) for below in (2, len(paths)))
        if coin and not self.how.trains:
            layers = [layer for layer in layers if layer.path == paths[one]]
        return Site(layers, generator, damaged, self.task, self.examples)

    def changed(self, damaged: nn.Module) -> tuple[str, ...]:
        """State names of the group's tensors that have other values than in the model, in state order."""
        before, after = self.model.state_dict(), damaged.state_dict()
        names = tensors_of(self.model, self.parameters)
        return tuple(n for n in names if not n.endswith(COUNTER) and not torch.equal(before[n], after[n]))

    def _refuse_non_finite(self, damaged: nn.Module, strength: float) -> None:
        state = damaged.state_dict()
        for name in tensors_of(damaged, self.parameters):
            if not state[name].isfinite().all():
                raise NonFiniteError(
                    f"after a '{self.kind}' fault of strength {strength:g}, '{name}' is not finite; "
                    "take a smaller strength, or check the model's weights"
                )


def _fitting(model: nn.Module, parameters: list[str], kind: Kind) -> list[Layer]:
    return [layer for layer in layers_of(model, parameters) if kind.fits(layer)]
