"""Every layer with a rule, in odd shapes, and the ways in which models are odd, against plain autograd."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from suture.errors import GroupError, InvalidArgumentError, NonFiniteError
from suture.gradients import Meter, per_example_norms
from suture.gradients.rules import find_rule
from suture.tasks import Classification
from tests.gradients.oracle import Wrapped, agrees, labels


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution of any geometry that its input allows, in one to three dimensions."""
    dims = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(dims))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    padding: Any = tuple(draw(st.integers(0, 2)) for _ in range(dims))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(dims))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    if draw(st.booleans()):
        padding, stride = "same", (1,) * dims
    size = tuple(d * (k - 1) + 1 + draw(st.integers(3, 5)) for k, d in zip(kernel, dilation, strict=True))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    torch.manual_seed(draw(st.integers(0, 9)))
    layer = kind(
        groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), kernel, stride, padding, dilation,
        groups, draw(st.booleans()), mode,
    )  # fmt: skip
    return layer, torch.randn(draw(st.integers(2, 4)), layer.in_channels, *size)


memories = st.sampled_from([1, 2000, None])  # bytes, for one layer


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@given(convolutions(), memories)
def test_convolutions_of_any_geometry(case: tuple[nn.Module, Tensor], memory: int | None) -> None:
    layer, x = case
    width = layer(x).flatten(1).shape[1]
    agrees(Wrapped(layer, width), x, len(x), max_memory=memory)


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class TimeFirst(nn.Module):
    """A layer that sees (positions, examples, width)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class Folded(nn.Module):
    """A layer that sees examples and positions folded into one axis."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Inplace(nn.Module):
    """What comes out of a layer is overwritten."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).relu_()


class Named(nn.Module):
    """A layer whose input is given by name."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(input=x)


class Checkpointed(nn.Module):
    """A stretch that is run again in the backward pass."""

    def __init__(self, layer: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.layer, self.reentrant = nn.Linear(4, 4), layer, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layer, self.stem(x), use_reentrant=self.reentrant)


def normed(layer: nn.Module) -> nn.Module:
    """Scales, shifts and statistics that are not those of a fresh layer."""
    torch.manual_seed(3)
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_()
    return layer


class LlamaRMSNorm(nn.Module):
    """As transformers has it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.variance_epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon))


class GemmaRMSNorm(LlamaRMSNorm):
    """Its weight is what is added to 1."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.weight * (1 + self.weight)


class ScaledEmbedding(nn.Embedding):
    """As some language models have it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3.0


class ShiftedEmbedding(nn.Embedding):
    """Its rows are not multiplied."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class GatedRMSNorm(LlamaRMSNorm):
    """No RMSNorm in spite of its name: the weight is a gate."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.weight * torch.sigmoid(self.weight)


class PairRMSNorm(LlamaRMSNorm):
    """It takes two inputs."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return super().forward(x * gate)


N = 5
LAYERS: dict[str, Callable[[], tuple[nn.Module, Tensor, int]]] = {
    "linear": lambda: (nn.Linear(4, 6), torch.randn(N, 4), 6),
    "linear without bias": lambda: (nn.Linear(4, 6, bias=False), torch.randn(N, 4), 6),
    "linear over positions": lambda: (nn.Linear(4, 6), torch.randn(N, 3, 2, 4), 36),
    "linear, one position": lambda: (nn.Linear(40, 60), torch.randn(N, 1, 40), 60),
    "linear, many positions": lambda: (nn.Linear(2, 3), torch.randn(N, 50, 2), 150),
    "linear, time first": lambda: (TimeFirst(nn.Linear(4, 6)), torch.randn(N, 7, 4), 42),
    "linear, folded": lambda: (Folded(nn.Linear(4, 6)), torch.randn(N, 7, 4), 42),
    "linear, twice": lambda: (Twice(nn.Linear(4, 4)), torch.randn(N, 3, 4), 12),
    "linear, overwritten": lambda: (Inplace(nn.Linear(4, 6)), torch.randn(N, 4), 6),
    "linear, by name": lambda: (Named(nn.Linear(4, 6)), torch.randn(N, 4), 6),
    "convolution, twice": lambda: (Twice(nn.Conv2d(2, 2, 3, padding=1)), torch.randn(N, 2, 4, 5), 40),
    "convolution, depthwise": lambda: (nn.Conv2d(4, 8, 3, groups=4), torch.randn(N, 4, 5, 6), 96),
    "convolution, overwritten": lambda: (Inplace(nn.Conv2d(2, 3, 3)), torch.randn(N, 2, 5, 5), 27),
    "batch norm 1d": lambda: (normed(nn.BatchNorm1d(4)), torch.randn(N, 4), 4),
    "batch norm 1d over positions": lambda: (normed(nn.BatchNorm1d(4)), torch.randn(N, 4, 3), 12),
    "batch norm 2d": lambda: (normed(nn.BatchNorm2d(4)), torch.randn(N, 4, 3, 2), 24),
    "batch norm 3d": lambda: (normed(nn.BatchNorm3d(2)), torch.randn(N, 2, 3, 2, 2), 24),
    "layer norm": lambda: (normed(nn.LayerNorm(4)), torch.randn(N, 3, 4), 12),
    "layer norm over two axes": lambda: (normed(nn.LayerNorm((3, 4))), torch.randn(N, 2, 3, 4), 24),
    "layer norm without bias": lambda: (normed(nn.LayerNorm(4, bias=False)), torch.randn(N, 4), 4),
    "rms norm": lambda: (normed(nn.RMSNorm(4)), torch.randn(N, 3, 4), 12),
    "rms norm of a language model": lambda: (normed(LlamaRMSNorm()), torch.randn(N, 3, 4), 12),
    "rms norm about one": lambda: (normed(GemmaRMSNorm()), torch.randn(N, 3, 4), 12),
    "group norm": lambda: (normed(nn.GroupNorm(2, 4)), torch.randn(N, 4, 3, 3), 36),
    "instance norm": lambda: (normed(nn.InstanceNorm2d(4, affine=True)), torch.randn(N, 4, 3, 3), 36),
    "instance norm, stored": lambda: (
        normed(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), torch.randn(N, 4, 3, 3), 36,
    ),
    "embedding": lambda: (nn.Embedding(5, 4), torch.randint(0, 5, (N, 6)), 24),
    "embedding, scaled": lambda: (ScaledEmbedding(5, 4, padding_idx=0), torch.randint(0, 5, (N, 6)), 24),
    "embedding, padded": lambda: (nn.Embedding(5, 4, padding_idx=0), torch.randint(0, 5, (N, 6)), 24),
    "checkpointed": lambda: (Checkpointed(nn.Linear(4, 6), False), torch.randn(N, 4), 6),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_a_rule(name: str) -> None:
    torch.manual_seed(1)
    layer, x, width = LAYERS[name]()
    agrees(Wrapped(layer, width), x, N)


@pytest.mark.parametrize("memory", [1, 1000, 10**9])
@pytest.mark.parametrize("name", ["linear over positions", "convolution, twice", "embedding"])
def test_chunks_do_not_change_results(name: str, memory: int) -> None:
    torch.manual_seed(1)
    layer, x, width = LAYERS[name]()
    agrees(Wrapped(layer, width), x, N, max_memory=memory)


UNRULED: dict[str, Callable[[], tuple[nn.Module, Tensor, int]]] = {
    "lstm": lambda: (nn.LSTM(4, 3, batch_first=True), torch.randn(N, 6, 4), 18),
    "gru, two layers": lambda: (nn.GRU(4, 3, 2, batch_first=True, bidirectional=True), torch.randn(N, 6, 4), 36),
    "transposed convolution": lambda: (nn.ConvTranspose2d(2, 3, 3, stride=2), torch.randn(N, 2, 3, 3), 147),
    "prelu": lambda: (nn.PReLU(4), torch.randn(N, 4, 3), 12),
    "bilinear": lambda: (Pairwise(), torch.randn(N, 4), 5),
}  # fmt: skip


@pytest.mark.parametrize(
    ("likely", "other"),
    [
        (LlamaRMSNorm(), GatedRMSNorm()),
        (LlamaRMSNorm(), PairRMSNorm()),
        (ScaledEmbedding(5, 4), ShiftedEmbedding(5, 4)),
        (ScaledEmbedding(5, 4), ScaledEmbedding(5, 4, max_norm=1.0)),
    ],
    ids=["gated", "two inputs", "shifted", "renormalised"],
)
def test_what_is_only_called_alike_has_no_rule(likely: nn.Module, other: nn.Module) -> None:
    assert find_rule(normed(likely)) is not None
    assert find_rule(normed(other)) is None


class Pairwise(nn.Module):
    """A layer of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Bilinear(4, 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, x.flip(1))


@pytest.mark.filterwarnings("ignore:no rule for:UserWarning")
@pytest.mark.parametrize("name", UNRULED)
def test_layers_without_a_rule_fall_back(name: str) -> None:
    torch.manual_seed(1)
    layer, x, width = UNRULED[name]()
    agrees(Wrapped(layer, width), x, N)


def test_the_fallback_is_named() -> None:
    with pytest.warns(UserWarning, match="no rule for PReLU"):
        Meter(Wrapped(nn.PReLU(4), 4), Classification()).measure((torch.randn(N, 4), labels(N)))


def test_models_that_mix_examples_or_roll_dice_are_refused() -> None:
    x = torch.randn(N, 4)
    mixing = Wrapped(nn.BatchNorm1d(4, track_running_stats=False), 4)
    with pytest.raises(InvalidArgumentError, match=r"'layer' is a BatchNorm without running statistics"):
        Meter(mixing, Classification())

    class Dice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.dropout(x, 0.5, training=True))

    with pytest.raises(InvalidArgumentError, match="different outputs for the same inputs"):
        Meter(Dice(), Classification()).measure((x, labels(N)))


class TrainsAlways(nn.Module):
    """A batch norm that no call of `eval` reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.linear(x), None, None, self.norm.weight, self.norm.bias, training=True)


@pytest.mark.filterwarnings("ignore:.*used outside of its module:UserWarning")
def test_statistics_of_the_batch_are_refused_and_it_is_said_why() -> None:
    meter = Meter(Wrapped(TrainsAlways(), 4), Classification())
    for _ in range(2):  # also when it is tried once more
        with pytest.raises(InvalidArgumentError, match=r"depends on the others in its batch.*BatchNorm"):
            meter.measure((torch.randn(N, 4), labels(N)))


class Centres(nn.Module):
    """Takes the mean of the batch away."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - x.mean(0))


@pytest.mark.parametrize("n", [2, 3, 4, N])
def test_a_model_that_mixes_a_few_examples_is_refused_too(n: int) -> None:
    torch.manual_seed(0)
    with pytest.raises(InvalidArgumentError, match="depends on the others in its batch"):
        Meter(Wrapped(Centres(), 4), Classification()).measure((3 * torch.randn(N, 4)[:n], labels(N)[:n]))


def test_a_model_that_cannot_take_one_example_alone_is_measured() -> None:
    class Squeezes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).unsqueeze(2).squeeze()

    assert per_example_norms(Squeezes(), torch.randn(2, 4), torch.tensor([0, 1])).shape == (2, 1)


def test_what_cannot_be_measured_is_said() -> None:
    model, x, y = nn.Linear(4, 3), torch.randn(3, 4), torch.tensor([0, 1, 2])
    with pytest.raises(GroupError, match="has no parameters"):
        per_example_norms(nn.Identity(), x, y)
    with pytest.raises(InvalidArgumentError, match="there are 3 inputs and 2 targets"):
        per_example_norms(model, x, y[:2])
    with pytest.raises(InvalidArgumentError, match="the batch has no examples"):
        per_example_norms(model, x[:0], y[:0])
    with torch.inference_mode(), pytest.raises(InvalidArgumentError, match="measure outside of it"):
        per_example_norms(model, x, y)


def test_a_model_in_train_mode_is_measured_in_eval_mode() -> None:
    torch.manual_seed(1)
    model = Wrapped(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.9)), 4)
    means = model.layer[1].running_mean.clone()  # type: ignore[index]
    agrees(model.train(), torch.randn(N, 4), N)
    assert model.layer[1].training  # type: ignore[index]
    assert torch.equal(model.layer[1].running_mean.float(), means)  # type: ignore[index]


def test_checkpoints_that_hide_their_layers_are_refused() -> None:
    model = Wrapped(Checkpointed(nn.Linear(4, 6), True), 6)
    with pytest.raises(InvalidArgumentError, match="use_reentrant=False"):
        Meter(model, Classification()).measure((torch.randn(N, 4), labels(N)))


def test_gradients_that_are_not_finite_name_the_parameter() -> None:
    model = Wrapped(nn.Linear(4, 6), 6)
    with torch.no_grad():
        model.head.weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"'(layer|head)\.\w+'"):
        Meter(model, Classification()).measure((torch.randn(N, 4), labels(N)))


def test_nothing_is_left_behind_in_the_model() -> None:
    model = Wrapped(nn.Linear(4, 6), 6).train()
    model.head.weight.requires_grad_(False)
    kept: list[int] = []
    model.layer.register_forward_hook(lambda *_: kept.append(1))
    Meter(model, Classification()).measure((torch.randn(N, 4), labels(N)))
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, True]
    assert all(p.grad is None for p in model.parameters())
    assert len(model.layer._forward_hooks) == 1
    assert torch.backends.mha.get_fastpath_enabled()
