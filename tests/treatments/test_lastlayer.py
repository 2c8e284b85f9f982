"""The last layer in closed form: never worse, and in the end where scikit-learn ends."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.treatments.lastlayer import LastLayer, fit
from suture.treatments.where import Entries, Last
from tests import toys, zoo
from tests.treatments import jobs


def problem(n: int, d: int, k: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * scale, torch.randint(0, k, (n,), generator=generator)


@example(n=1, d=3, k=2, seed=0, scale=1e4, ridge=0.0, bias=False)  # singular without a ridge
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40), d=st.integers(1, 8), k=st.integers(2, 5), seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]), ridge=st.sampled_from([0.0, 1e-4, 0.01, 3.0]), bias=st.booleans(),
)  # fmt: skip
def test_no_step_raises_the_loss(n: int, d: int, k: int, seed: int, scale: float, ridge: float, bias: bool) -> None:
    x, y = problem(n, d, k, seed, scale)
    layer = nn.Linear(d, k, bias=bias)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
    losses = np.array(fit(layer, x, y, ridge, 12))
    assert len(losses) == 12
    assert np.isfinite(losses).all()
    assert (np.diff(losses) <= 1e-9 * (1 + np.abs(losses[:-1]))).all()


def test_the_first_loss_is_that_of_the_layer_as_it_was_and_the_next_is_that_after_a_step() -> None:
    x, y = problem(50, 4, 3, seed=1)
    layer = nn.Linear(4, 3)
    old = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().clone()
    before = F.cross_entropy(layer(x), y).item()
    losses = fit(layer, x, y, 0.1, 1)
    assert losses == pytest.approx([before], rel=1e-5)
    new = torch.cat([layer.weight, layer.bias[:, None]], 1).detach()
    after = F.cross_entropy(layer(x), y).item() + 0.05 * float((new - old).square().sum())
    assert fit_again(old, x, y, steps=2)[1] == pytest.approx(after, rel=1e-5)


def fit_again(old: Tensor, x: Tensor, y: Tensor, steps: int) -> list[float]:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(old[:, :4])
        layer.bias.copy_(old[:, 4])
    return fit(layer, x, y, 0.1, steps)


@pytest.mark.parametrize("ridge", [0.01, 0.3])
def test_it_converges_to_scikit_learn_s_solution(ridge: float) -> None:
    x, y = problem(200, 5, 4, seed=2)
    layer = nn.Linear(5, 4, bias=False)
    nn.init.zeros_(layer.weight)
    fit(layer, x, y, ridge, 2000)
    # C ∑ losses + ½ ‖W‖² has its minimum where the mean loss + ridge / 2 ‖W‖² has it, for C = 1 / (n ridge).
    other = LogisticRegression(C=1 / (len(x) * ridge), fit_intercept=False, tol=1e-10, max_iter=10_000)
    other.fit(x.double().numpy(), y.numpy())
    np.testing.assert_allclose(layer.weight.detach().numpy(), other.coef_, atol=1e-4)


def test_the_ridge_pulls_towards_the_old_weights() -> None:
    x, y = problem(100, 4, 3, seed=3)
    distances = []
    for ridge in (0.01, 1.0, 1e3):
        torch.manual_seed(1)
        layer = nn.Linear(4, 3)
        old = layer.weight.detach().clone()
        fit(layer, x, y, ridge, 200)
        distances.append(float((layer.weight.detach() - old).norm()))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-3


def test_the_network_s_last_layer_learns_and_nothing_else_changes() -> None:
    case = toys.case()
    treated = LastLayer(steps=20).treat(jobs.job(case, Last()))
    model, repair = jobs.only(treated), case.splits["repair"]
    assert jobs.differing(jobs.state(model), jobs.state(case.model)) == {"last.weight", "last.bias"}
    x, y = torch.stack([repair[i][0] for i in range(len(repair))]), torch.tensor(repair.strata)
    before, after = (F.cross_entropy(m(x), y).item() for m in (case.model, model))
    assert treated.history["loss"].iloc[0] == pytest.approx(before, rel=1e-4)
    assert after < treated.history["loss"].iloc[-1] < before
    assert treated.history["step"].tolist() == list(range(1, 21))
    assert (treated.cost.parameters, treated.cost.groups) == (16 * 3 + 3, 1)


def test_the_features_and_the_steps_are_counted_beside_an_epoch_of_full_fine_tuning() -> None:
    case = toys.case()
    n, cost = len(case.splits["repair"]), LastLayer(steps=20).treat(jobs.job(case, Last())).cost
    features = n * 2 * (2 * 16 + 16 * 16 + 16 * 3)
    bound, step = 2 * n * 17 * 17, 4 * n * 17 * 3 + 2 * 3 * 17 * 17  # 16 features and a one for the bias
    assert cost.flops == features + bound + 20 * step
    epoch = jobs.short(epochs=1).treat(jobs.job(case)).cost
    assert cost.full_flops == pytest.approx(epoch.full_flops)
    assert cost.one_full_flops == pytest.approx(8 * epoch.full_flops)


class Scaled(nn.Module):
    """Something comes after the last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * 2


@pytest.mark.parametrize("model", [Scaled, zoo.ZOO["tied"]], ids=["scaled", "tied"])
def test_networks_that_it_is_not_for_give_one_sentence(model: type[nn.Module]) -> None:
    inputs, labels = zoo.batch(200)
    data = [(x[:2] if model is Scaled else x, int(y)) for x, y in zip(inputs, labels, strict=True)]
    treated = LastLayer().treat(jobs.job(Case(model(), data)))
    assert not treated.candidates
    assert treated.stopped == "the network does not end in a linear layer of its own with labels"


def test_targets_that_are_no_labels_give_one_sentence_and_entries_are_refused() -> None:
    treated = LastLayer().treat(jobs.job(toys.sequence_case()))
    assert treated.stopped == "the network does not end in a linear layer of its own with labels"
    case = toys.case()
    with pytest.raises(InvalidArgumentError, match="treats parameters whole"):
        LastLayer().treat(jobs.job(case, Entries(score="gradient")))
