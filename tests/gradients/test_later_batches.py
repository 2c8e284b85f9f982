"""What one batch of few examples cannot show: conditional layers, sizes that coincide, examples without gradient."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from suture.curvature import curvature_range
from suture.errors import InvalidArgumentError
from suture.gradients import Meter, per_example_norms
from suture.tasks import Classification
from tests.gradients.oracle import labels, plain

pytestmark = pytest.mark.filterwarnings("ignore:(no rule for|.*used outside of its module):UserWarning")


class Experts(nn.Module):
    """Each example goes through the layer that its first number names."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 5) for _ in range(3))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for k, expert in enumerate(self.experts):
            rows = (x[:, 0].long() == k).nonzero()[:, 0]
            h = h.index_copy(0, rows, expert(x[rows]))
        return self.head(h.tanh())


def routed(to: list[int]) -> Tensor:
    x = torch.randn(len(to), 4)
    x[:, 0] = torch.tensor(to) + 0.5
    return x


class Places(nn.Module):
    """A layer without a rule that is given a table as long as a batch may be."""

    class Add(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4) / 2)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return (x + table) @ self.weight

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(6, 4))
        self.add, self.head = self.Add(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.add(x, self.table).tanh().mean(1))


class Masked(nn.Module):
    """Attention that needs its own vector-Jacobian product, with a mask as long as a batch may be."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, add_bias_kv=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(6, 6, dtype=x.dtype).fill_diagonal_(-1)
        return self.head(self.attention(x, x, x, attn_mask=mask)[0].mean(1))


class LastState(nn.Module):
    """Reads the state of a recurrent layer, and its outputs where asked to."""

    def __init__(self, outputs: bool) -> None:
        super().__init__()
        self.recur, self.head, self.outputs = nn.GRU(4, 4, 2, batch_first=True), nn.Linear(4, 3), outputs

    def forward(self, x: Tensor) -> Tensor:
        all_, last = self.recur(x)
        return self.head(last[-1] + all_.mean(1) if self.outputs else last[-1])


class TimeFirst(nn.Module):
    """A linear layer whose first axis is time and examples in one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.transpose(0, 1)
        return self.head(self.inner(steps.flatten(0, 1)).tanh().unflatten(0, steps.shape[:2]).mean(0))


class Sorts(nn.Module):
    """Puts its examples into another order inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort(stable=True)
        return self.head(self.inner(x[order]).tanh())[order.argsort()]


class Scaled(nn.Module):
    """A parameter without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = nn.Linear(4, 3), nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale.exp() * F.normalize(self.inner(x))


class Spectrum(nn.Module):
    """A complex parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.head = nn.Parameter(torch.randn(3, dtype=torch.complex128)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.irfft(torch.fft.rfft(x) * self.filter, 4))


class Checkpointed(nn.Module):
    """Forgets its first layers, which are given the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.first, x, use_reentrant=False))


def ordered(n: int) -> Tensor:
    x = torch.randn(n, 4)
    x[:3, 0] = torch.tensor([-9.0, -8.0, -7.0])
    return x


def sequences(*sizes: int) -> list[Tensor]:
    return [torch.randn(n, 6, 4) for n in sizes]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Tensor]]]] = {
    "an expert later": (Experts, lambda: [routed([0, 1, 0, 2, 2, 0, 1, 2])]),
    "fewer for an expert": (Experts, lambda: [routed([0] * 4), routed([0, 0] + [1] * 6), routed([1] + [0] * 7)]),
    "a table of n rows": (Places, lambda: sequences(7, 6, 1)),
    "a mask of n rows": (Masked, lambda: sequences(7, 6, 1)),
    "the last state": (lambda: LastState(False), lambda: sequences(7, 6, 2, 1)),
    "states of n layers": (lambda: LastState(True), lambda: sequences(7, 2, 6, 1)),
    "one example first": (TimeFirst, lambda: sequences(1, 6, 7)),
    "one step first": (TimeFirst, lambda: [torch.randn(5, 1, 4), *sequences(5, 6)]),
    "sorted at first": (Sorts, lambda: [ordered(8)]),
    "no axes": (Scaled, lambda: [torch.randn(7, 4)]),
    "complex": (Spectrum, lambda: [torch.randn(7, 4)]),
    "checkpointed": (Checkpointed, lambda: [torch.randn(7, 4), torch.randn(3, 4)]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_batch_is_right(name: str) -> None:
    torch.manual_seed(0)
    build, inputs = CASES[name]
    model = build().double()
    meter = Meter(model, Classification())
    for x in (x.double() for x in inputs()):
        y = labels(len(x))
        weights = torch.linspace(-1, 1, len(x))[None]
        found = meter.measure((x, y), lambda _, weights=weights: weights)
        twin = copy.deepcopy(model).eval()
        losses = F.cross_entropy(twin(x), y, reduction="none")
        rows = [
            torch.autograd.grad(loss, list(twin.parameters()), retain_graph=True, allow_unused=True) for loss in losses
        ]
        norms = torch.tensor([[0.0 if g is None else float(g.norm()) for g in row] for row in rows])
        assert torch.allclose(found.squares.sqrt(), norms, rtol=1e-4, atol=1e-6)
        for i, total in enumerate(found.sums[0].values()):
            expected = sum(w * row[i] for w, row in zip(weights[0].double(), rows, strict=True) if row[i] is not None)
            assert torch.allclose(total, torch.as_tensor(expected, dtype=total.dtype).expand_as(total), atol=1e-6)


def test_examples_without_gradient_come_first() -> None:
    class Hinge(Classification):
        def losses(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.multi_margin_loss(outputs, batch[1], reduction="none")

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))).eval()
    model[2].parametrizations.weight.original0.data.mul_(4)
    x = torch.randn(4000, 4)
    y = model(x).argmax(1)
    loss = F.multi_margin_loss(model(x), y, reduction="none")
    easy, hard = (loss == 0).nonzero()[:3, 0], (loss > 0).nonzero()[:5, 0]
    first, last = torch.cat([easy, hard]), torch.cat([hard, easy])
    a = per_example_norms(model, x[first], y[first], task=Hinge())
    b = per_example_norms(model, x[last], y[last], task=Hinge())
    assert torch.allclose(a[3:], b[:5])
    assert not a[:3].any()
    whole = Meter(model, Hinge())
    whole.measure((x[easy], y[easy]))  # a batch in which nothing can be seen
    assert torch.allclose(whole.measure((x[first], y[first])).squares.sum(1).sqrt(), a.square().sum(1).sqrt())


def test_a_mixing_model_is_found_after_a_batch_of_one() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x / x.norm(dim=0, keepdim=True))

    torch.manual_seed(0)
    meter, x = Meter(Mixes(), Classification()), torch.randn(6, 4)
    meter.measure((x[:1], labels(1)))
    with pytest.raises(InvalidArgumentError, match="depends on the others in its batch"):
        meter.measure((x, labels(6)))


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_old_norms_leave_no_graph_behind(norm: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(4, 5)), nn.Tanh(), norm(nn.Linear(5, 3))).eval()
    x, y = torch.randn(6, 4), labels(6)
    found = Meter(model, Classification()).measure((x, y))
    twin = copy.deepcopy(model)  # which fails where a graph hangs on it
    assert torch.allclose(found.squares, plain(twin, x, y)[0].float(), rtol=1e-4)
    curvature_range(model, [(x, y)])
    copy.deepcopy(model)
