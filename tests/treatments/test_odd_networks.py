"""Treatment of networks that few have: layers of a kind of their own, parameters that are no plain floats."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, weight_norm

import suture
from suture.patch import apply, canonical_state
from suture.training import Augment, Recipe
from suture.treatments import FineTune, Plan
from suture.treatments.guards import EWC, L2SP
from suture.treatments.interpolate import Average
from suture.treatments.lastlayer import LastLayer
from suture.treatments.search import Search
from suture.treatments.where import Everything, Last
from tests import toys

SHORT = FineTune(recipe=Recipe(epochs=2, batch_size=32, lr=0.05, augment=Augment(pad=0, flip=False)))
ALL = Plan(name="all", where=Everything(), how=SHORT)


class Places(nn.Module):
    """Adds a parameter that has gone through dropout, as embeddings of positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(2, 16), nn.Dropout(0.1), nn.Linear(16, 3)
        self.places = nn.Parameter(torch.randn(16) / 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2) → (n, 3)."""
        return self.last(F.relu(self.first(x) + self.drop(self.places)))  # type: ignore[no-any-return]


class Spectral(nn.Module):
    """Filters in the frequency domain, with complex weights, and an integer parameter beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 16), nn.Linear(16, 3)
        self.filter = nn.Parameter(torch.ones(9, dtype=torch.complex64))
        self.steps = nn.Parameter(torch.tensor([3]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2) → (n, 3)."""
        return self.last(F.relu(torch.fft.irfft(torch.fft.rfft(self.first(x)) * self.filter, 16)))  # type: ignore[no-any-return]


def wrapped(wrap: Callable[[nn.Linear], Any], name: str = "last") -> nn.Module:
    net = toys.network()
    wrap(net.get_submodule(name))  # type: ignore[arg-type]
    return net


def normed() -> nn.Module:
    return wrapped(parametrizations.weight_norm)


def spectral() -> nn.Module:
    return wrapped(parametrizations.spectral_norm, "second")


def old_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="deprecated"), torch.no_grad():  # else torch refuses to copy it
        return wrapped(weight_norm, "second")


NETWORKS = {
    "places": Places,
    "weight norm": normed,
    "spectral norm": spectral,
    "old norm": old_norm,
    "complex": Spectral,
}


@pytest.mark.parametrize("plan", ["all", "search", "average"])
@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_treated_and_the_patch_does_what_was_judged(name: str, plan: str) -> None:
    case = suture.Case(NETWORKS[name](), toys.data())
    other = ALL.model_copy(update={"name": "other"})
    plans = {"all": ALL, "search": Plan(name="search", how=Search(plans=(ALL, other), budget=9.0)),
             "average": Plan(name="average", how=Average(plans=(ALL, other)))}  # fmt: skip
    found = suture.treat(case, ["last"], plans[plan])
    assert found.kept != "none", found.note
    moves = {row["candidate"]: row for row in found.tried.to_dict("records")}[found.kept]
    select = case.splits["select"]
    before, after = (case.outcomes(select, m).right for m in (case.model, suture.patched(case.model, found.patch)))
    assert len(select) == found.patch.metrics["judged_on"]
    assert ((~before & after).sum(), (before & ~after).sum()) == (moves["fixed"], moves["broken"])


def test_half_way_is_half_way_for_complex_weights_too() -> None:
    case = suture.Case(Spectral(), toys.data())
    found = suture.treat(case, [], ALL)
    old = canonical_state(case.model)
    half, _ = apply(old, found.patch, 0.5)
    new = found.patch.tensors["filter"]
    assert (new - old["filter"]).abs().max() > 0
    assert torch.allclose(half["filter"], (old["filter"] + new) / 2)


@pytest.mark.parametrize("guard", [L2SP(), EWC()])
def test_guards_hold_complex_weights(guard: Any) -> None:
    case = suture.Case(Spectral(), toys.data())
    assert len(suture.treat(case, [], ALL.model_copy(update={"guards": (guard,)})).history) == 2


def test_what_reaches_no_loss_ends_the_training_with_a_sentence() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.idle = toys.network(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)  # type: ignore[no-any-return]

    found = suture.treat(suture.Case(Idle(), toys.data()), ["idle"], "flagged")
    assert found.kept == "none"
    assert found.note.startswith("nothing that is trained reaches the loss")


class Cosine(nn.Linear):
    """A head that normalises."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) → (n, c)."""
        return F.linear(F.normalize(x), F.normalize(self.weight)) * 8


def cosine() -> nn.Module:
    net = toys.network()
    net.last = Cosine(16, 3)  # type: ignore[assignment]
    return net


def hooked() -> nn.Module:
    net = toys.network()
    net.last.register_forward_hook(lambda module, args, output: output / 4)
    return net


@pytest.mark.parametrize("build", [cosine, hooked, normed], ids=["cosine", "hook", "weight norm"])
@pytest.mark.parametrize("plan", ["last_layer", "arachne"])
def test_a_head_that_is_no_plain_linear_layer_is_not_fitted_as_one(build: Callable[[], nn.Module], plan: str) -> None:
    found = suture.treat(suture.Case(build(), toys.data()), ["last"], plan)
    assert (found.kept, len(found.patch)) == ("none", 0)
    assert "does not end in a linear layer" in found.note or "nothing in this network" in found.note


def test_the_last_layer_in_closed_form_keeps_to_its_place() -> None:
    plan = Plan(name="mine", where={"kind": "groups", "names": ["first"]}, how=LastLayer())
    found = suture.treat(toys.case(), ["first"], plan)
    assert (found.kept, found.note) == (
        "none",
        "it treats the last layer, 'last', which is not among the places of 'mine'",
    )
    assert suture.treat(toys.case(), ["first"], Plan(name="mine", where=Last(), how=LastLayer())).kept == "mine"
    assert not parametrize.is_parametrized(toys.network())
