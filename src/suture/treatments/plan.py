"""A plan: where to treat and how, as data that can be written down and read back."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from suture.errors import GroupError
from suture.registry import suggest
from suture.training import Recipe


class Part(BaseModel):
    """Base of the parts of a plan: frozen, and strict about misspelt fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Flagged(Part):
    """The groups that Localize flagged."""

    kind: Literal["flagged"] = "flagged"


class Groups(Part):
    """Groups chosen by name."""

    kind: Literal["groups"] = "groups"
    names: tuple[str, ...] = Field(min_length=1, description="groups to treat")


class Everything(Part):
    """Every group: full fine-tuning."""

    kind: Literal["everything"] = "everything"


class Nothing(Part):
    """No treatment: the candidate that every other one has to beat."""

    kind: Literal["nothing"] = "nothing"


class FineTune(Part):
    """Train the chosen groups with all others frozen (surgical fine-tuning; Lee et al. 2023)."""

    kind: Literal["finetune"] = "finetune"
    recipe: Recipe = Field(Recipe(), description="optimizer, schedules and budget")
    batchnorm: Literal["train", "eval"] = Field(
        "eval", description="whether BatchNorm in treated groups uses and updates batch statistics"
    )


Where = Annotated[Flagged | Groups | Everything, Field(discriminator="kind")]
How = Annotated[FineTune | Nothing, Field(discriminator="kind")]


class Plan(Part):
    """What Treat will do.

    >>> Plan(name="mine", where=Groups(names=("layer3",)), how=FineTune(recipe=Recipe(epochs=5))).how.recipe.epochs
    5
    """

    name: str = Field("custom", description="what the plan is called in results and reports")
    where: Where = Field(Flagged(), description="which groups")
    how: How = Field(FineTune(), description="what is done to them")


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
