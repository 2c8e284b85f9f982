"""A plan: where to treat, how, with which guards, and what may be kept, as data that can be written and read back.

Places, methods and guards are registries; one of your own is a class in a file of yours::

    @METHODS.register("prune")
    class Prune(Method):
        kind: Literal["prune"] = "prune"
        share: float = 0.01

        def treat(self, job: Job) -> Treated: ...
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import pandas as pd
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from torch import Tensor, nn

from suture.case import Case
from suture.errors import GroupError, InvalidArgumentError
from suture.registry import Registry, suggest
from suture.rundir import first_wrong
from suture.tasks import Examples
from suture.training import Augment, Checkpoints
from suture.training.loop import Penalty
from suture.treatments.cost import Cost, Estimate
from suture.wording import percent

ORIGINAL = "none"  # the name of the network as it was, among the candidates


class Part(BaseModel):
    """Base of the parts of a plan: frozen, and strict about misspelt fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = Field("", description="name in its registry")


@dataclass(frozen=True, eq=False)
class Places:
    """Where a treatment reaches.

    Attributes:
        groups: those that hold a treated parameter, in model order.
        parameters: names of the treated parameters.
        masks: parameter → bool tensor of its shape, True where it is treated; parameters without a mask are
            treated whole.
    """

    groups: list[str]
    parameters: frozenset[str]
    masks: Mapping[str, Tensor] = field(default_factory=dict)


class Where(Part):
    """Base of the ways to say what is treated."""

    def places(self, case: Case, flagged: Sequence[str]) -> Places:
        """What is treated; nothing when there is no such place.

        Args:
            flagged: groups that Localize flagged, or that were named.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that may be kept.

    Attributes:
        model: as it was treated.
        weight: how far to go from the old weights to the new ones, 1 for all the way.
        margin: where not None, the old network answers unless the new one is surer by more than this.
    """

    model: nn.Module
    weight: float = 1.0
    margin: float | None = None


@dataclass(frozen=True, eq=False)
class Treated:
    """What a treatment left, before anybody has judged it.

    Attributes:
        candidates: name → what may be kept.
        history: a row per epoch of every training; see `suture.training.TrainingRun`.
        cost: of all of it.
        stopped: why a training ended early; None when none did.
        account: sentences on what was tried on the way.
        again: the method that makes the same candidates on other examples, where this one chose among several
            trainings on the way; None where it made no such choice.
    """

    candidates: dict[str, Candidate]
    history: pd.DataFrame
    cost: Cost
    stopped: str | None = None
    account: Sequence[str] = ()
    again: "Method | None" = None


@dataclass(frozen=True, eq=False)
class Job:
    """What a method is given.

    Attributes:
        case: the data, the task and the seed.
        model: the network that treatment begins from; never modified.
        places: what is treated.
        flagged: the groups that Localize flagged, for plans within plans.
        name: what the candidate is called.
        guards: what holds a training back.
        augment: in place of the recipe's own; None leaves that.
        checkpoints: where to save after each epoch and to resume from.
        seed: of the order of examples and of augmentation.
        share: of the epochs that are done now; a later job goes on from the checkpoints.
        say: told when a plan within a plan begins.
    """

    case: Case
    model: nn.Module
    places: Places
    flagged: Sequence[str]
    name: str
    guards: Sequence["Guard"] = ()
    augment: Augment | None = None
    checkpoints: Checkpoints | None = None
    seed: int = 0
    share: float = 1.0
    say: Callable[[str], None] = lambda _: None

    @property
    def examples(self) -> Examples:
        """What treatment trains on."""
        return self.case.splits["repair"]

    def of(self, plan: "Plan") -> "Job":
        """The job of a plan within this one."""
        return replace(
            self,
            places=plan.where.places(self.case, self.flagged),
            name=plan.name,
            guards=(*self.guards, *plan.guards),
            augment=self.augment or plan.augment,
            checkpoints=self.checkpoints.below(plan.name) if self.checkpoints else None,
        )


class Method(Part):
    """Base of the ways to treat."""

    reads_places: ClassVar[bool] = True
    """Whether there is nothing to do where no place is named."""
    guarded: ClassVar[bool] = True
    """Whether it is a training that the plan's guards can hold back."""

    def treat(self, job: Job) -> Treated:
        """Make candidates; the job's model stays as it is."""
        raise NotImplementedError

    def estimate(self, job: Job) -> Estimate:
        """What it will take, found without doing it; nothing where that is not worth a word."""
        return Estimate()


Watch = Callable[[int, nn.Module], None]
"""Sees the epoch and the network after it; raises `suture.training.Stop` to end the training before it."""


class Guard(Part):
    """Base of what holds a training back; each of the three may be left as it is."""

    def penalty(self, job: Job) -> Penalty | None:
        """What is added to the loss."""
        return None

    def examples(self, job: Job, examples: Examples) -> Examples:
        """What is trained on."""
        return examples

    def watch(self, job: Job) -> Watch | None:
        """What is looked at after each epoch."""
        return None


WHERES: Registry[type[Where]] = Registry("place of treatment")
METHODS: Registry[type[Method]] = Registry("method of treatment")
GUARDS: Registry[type[Guard]] = Registry("guard")

P = TypeVar("P", bound=Part)


def _reader(registry: Registry[type[P]], usual: str | None = None) -> Callable[[Any], Any]:
    """Reads a part by its kind; without one it is the usual kind, where there is such."""

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        kind = value.get("kind", usual)
        if kind is None:
            raise ValueError(f"it needs a kind; {suggest('', list(registry))}")
        if kind not in registry:
            raise ValueError(f"no {registry.kind} is called {kind!r}; {suggest(str(kind), list(registry))}")
        try:
            return registry[str(kind)].model_validate(value)
        except ValidationError as error:
            raise ValueError(first_wrong(registry[str(kind)], error)) from None

    return read


AnyWhere = Annotated[SerializeAsAny[Where], BeforeValidator(_reader(WHERES, "flagged"))]
AnyMethod = Annotated[SerializeAsAny[Method], BeforeValidator(_reader(METHODS, "finetune"))]
AnyGuard = Annotated[SerializeAsAny[Guard], BeforeValidator(_reader(GUARDS))]


class Choice(BaseModel):
    """What may be kept, judged on `select`, and what is best of that (notes on repair, section 7)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_regression: float | None = Field(
        None, gt=0, lt=1, description="largest share of what was right that may break, by its 95 % upper bound"
    )
    broken_costs: float = Field(1.0, ge=0, description="what one broken example weighs in fixed ones")
    switch_se: float | None = Field(
        None,
        ge=0,
        description="standard errors by which a score must exceed that of the preferred candidate, the first that is "
        "allowed and gains; by default the highest score is kept, however narrowly",
    )


class Plan(BaseModel):
    """What Treat will do.

    In a file, ``base = "auto"`` begins with a named plan, of which the fields that follow replace its own.

    >>> Plan(name="mine", where={"kind": "groups", "names": ["layer3"]}).how.kind
    'finetune'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field("custom", description="what the plan is called in results and reports")
    where: AnyWhere = Field(default_factory=lambda: WHERES["flagged"](), description="what is treated")
    how: AnyMethod = Field(default_factory=lambda: METHODS["finetune"](), description="what is done to it")
    guards: tuple[AnyGuard, ...] = Field((), description="what holds the training back")
    augment: Augment | None = Field(None, description="what happens to pictures, in place of the recipe's own")
    weights: tuple[float, ...] = Field(
        (1.0,), min_length=1, description="how far to go from the old weights to the new ones, preferred first"
    )
    choose: Choice = Field(Choice(), description="what may be kept")
    cycles: int = Field(1, ge=1, description="times that the result is localized and treated again, while it pays")

    @model_validator(mode="before")
    @classmethod
    def _on_base(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "base" not in data:
            return data
        base = data["base"]
        if base not in NAMED:
            raise ValueError(f"no plan is called {base!r}; {suggest(str(base), list(NAMED))}")
        return NAMED[str(base)].model_dump() | {name: value for name, value in data.items() if name != "base"}

    @field_validator("weights")
    @classmethod
    def _between(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        return checked_weights(weights)

    @model_validator(mode="after")
    def _says_what_it_does(self) -> Self:
        if self.name == ORIGINAL and not isinstance(self.how, Nothing):
            raise ValueError(f"'{ORIGINAL}' stands for the network as it was; give the plan another name")
        if self.guards and not self.how.guarded:
            raise ValueError(
                f"guards hold back a training, which '{self.how.kind}' is none of; leave them out, or give them to the "
                "plans inside"
            )
        return self


def checked_weights(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse a weight that leads nowhere or beyond the treated network."""
    if any(not 0 < weight <= 1 for weight in weights):
        raise ValueError("each weight must be above 0 and at most 1")
    return weights


def only_once(plans: Iterable[Plan]) -> None:
    """Refuse plans within a plan that would be gone through several times, which only the outermost is."""
    for plan in plans:
        if plan.cycles > 1:
            raise ValueError(f"'{plan.name}' has cycles, which only the plan around it may have")


@METHODS.register("nothing")
class Nothing(Method):
    """No treatment: the candidate that every other one has to beat."""

    kind: Literal["nothing"] = "nothing"
    reads_places: ClassVar[bool] = False
    guarded: ClassVar[bool] = False

    def treat(self, job: Job) -> Treated:
        return Treated({}, pd.DataFrame(), Cost(), "the plan is to change nothing")


NAMED: Registry[Plan] = Registry("plan")


def carry_out(plan: Plan, job: Job) -> Treated:
    """What a plan within a plan makes of the job's model.

    Args:
        job: as for the plan around this one; its places, name, guards and checkpoints become the plan's own.
    """
    part = "" if job.share == 1 else f", the first {percent(job.share, 0)} of its epochs"
    job.say(f"trying {plan.name}{part} …")
    return perform(plan, job.of(plan))


def perform(plan: Plan, job: Job) -> Treated:
    """What a plan makes of the job's model: each of its networks at each of the plan's weights."""
    if plan.how.reads_places and not job.places.parameters:
        return Treated({}, pd.DataFrame(), Cost(), f"there is nothing to treat for '{plan.name}'")
    treated = plan.how.treat(job)
    candidates = {
        name if weight == 1 else f"{name} x {weight:g}": replace(made, weight=made.weight * weight)
        for name, made in treated.candidates.items()
        for weight in plan.weights
    }
    return replace(treated, candidates=candidates)


def known_groups(groups: Mapping[str, object], names: Iterable[str]) -> list[str]:
    """The named groups in model order.

    Raises:
        GroupError: no such group.
    """
    wanted = list(names)
    unknown = [name for name in wanted if name not in groups]
    if unknown:
        raise GroupError(f"there is no group '{unknown[0]}'; {suggest(unknown[0], list(groups))}")
    return [name for name in groups if name in wanted]


def refuse_partial(job: Job, what: str) -> None:
    """For methods that treat parameters whole.

    Raises:
        InvalidArgumentError: only some entries of a parameter are to be treated.
    """
    if job.places.masks:
        raise InvalidArgumentError(f"{what} treats parameters whole; choose groups, blocks or tensors, not entries")
