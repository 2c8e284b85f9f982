"""Short trainings on the toy case, for the tests of treatments."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from suture.case import Case
from suture.patch import same_bits
from suture.training import Augment, Recipe
from suture.treatments import Candidate, Cost, Everything, FineTune, Job, Treated, Where
from tests import toys, zoo

PLAIN = Augment(pad=0, flip=False)
SHORT = Recipe(epochs=2, batch_size=32, lr=0.05, lr_min=0.01, momentum=0.9, weight_decay=0.0, augment=PLAIN)


def short(**changes: Any) -> FineTune:
    """Fine-tuning with the short recipe, or some fields of it changed."""
    return FineTune(recipe=SHORT.model_copy(update=changes))


def job(case: Case, where: Where | None = None, flagged: tuple[str, ...] = (), **options: Any) -> Job:
    """A job of the case's own model; everything is treated unless a place is named."""
    places = (where or Everything()).places(case, flagged)
    return Job(case, case.model, places, flagged, options.pop("name", "mine"), seed=case.seed, **options)


def only(treated: Treated) -> nn.Module:
    """The network of the one candidate."""
    (made,) = treated.candidates.values()
    return made.model


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors that are not the same bit by bit."""
    assert a.keys() == b.keys()
    return {name for name in a if not same_bits(a[name], b[name])}


def identical(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have the same state, bit by bit."""
    return not differing(a.state_dict(), b.state_dict())


def constant(case: Case, answers: list[int], split: str = "select") -> nn.Module:
    """A network that gives the answers named to the examples of a split, whatever it has to look up for it."""
    inputs = torch.stack([case.splits[split][i][0] for i in range(len(case.splits[split]))])

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            rows = (x[:, None] == inputs[None]).all(2).int().argmax(1)
            return nn.functional.one_hot(torch.tensor(answers)[rows], 3) * 9.0 + 0 * self.unused

    return Table()


def at(model: nn.Module, weight: float = 1.0) -> Candidate:
    """A candidate."""
    return Candidate(model, weight)


def only_cost() -> Cost:
    """What nothing costs."""
    return Cost()


def zoo_case(name: str, **options: Any) -> Case:
    """A case of 120 random points with a network of the zoo."""
    inputs, labels = zoo.batch(240)
    return Case(zoo.build(name), [(x, int(y)) for x, y in zip(inputs, labels, strict=True)], **options)


def small_case(**options: Any) -> Case:
    """The toy case with fewer examples: 40 to diagnose, 60 to repair, 20 to select on, 80 to verify."""
    return Case(toys.network(), toys.points(200, seed=2, shift=0.9), **options)
