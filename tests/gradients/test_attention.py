"""`torch.nn.MultiheadAttention`: masks, layouts, weights, and what has no rule."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suture.gradients import Meter
from suture.tasks import Classification
from tests.gradients.oracle import Wrapped, agrees, labels

N = 5


@pytest.mark.parametrize("same", [True, False], ids=["self", "cross"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", [None, "bool", "float", "padding", "heads"])
def test_attention(batch_first: bool, masked: str | None, same: bool) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            n, t = x.shape[:2]
            keys = x if same else x.roll(1, 1)[:, :-1]
            masks = {
                None: {},
                "bool": {"attn_mask": torch.ones(t, keys.shape[1], dtype=torch.bool).triu(1)},
                "float": {"attn_mask": torch.linspace(-1, 1, t * keys.shape[1]).reshape(t, -1)},
                "padding": {
                    "key_padding_mask": torch.arange(keys.shape[1]).expand(n, -1) > 2 + (x[:, 0, :1] > 0).int()
                },
                "heads": {"attn_mask": (x[:, :, :1] * keys[:, None, :, 0]).repeat_interleave(2, 0)},
            }[masked]
            parts = [x, keys, keys] if batch_first else [p.transpose(0, 1) for p in (x, keys, keys)]
            y = self.attention(*parts, need_weights=False, **masks)[0]
            return self.head((y if batch_first else y.transpose(0, 1)).mean(1))

    torch.manual_seed(2)
    model = Attends()
    agrees(model, torch.randn(N, 4, 6), N)


class SelfAttends(nn.Module):
    """Attention of a sequence to itself, as it comes out of the module."""

    def __init__(self, weights: bool = False, **options: Any) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(6, 2, batch_first=True, **options), weights
        self.options: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.attention.batch_first else x.transpose(0, 1)
        y, weights = self.attention(x, x, x, **self.options)
        return weights.flatten(1) if self.weights else y.mean(1 if self.attention.batch_first else 0)


@pytest.mark.parametrize("averaged", [True, False])
def test_losses_of_attention_weights(averaged: bool) -> None:
    torch.manual_seed(2)
    layer = SelfAttends(weights=True)
    layer.options = {"average_attn_weights": averaged, "attn_mask": torch.ones(4, 4).triu(1).bool()}
    agrees(Wrapped(layer, 16 if averaged else 32), torch.randn(N, 4, 6), N)


def test_attention_without_bias() -> None:
    torch.manual_seed(2)
    agrees(Wrapped(SelfAttends(bias=False), 6), torch.randn(N, 4, 6), N)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_outputs_stay_what_they_were(batch_first: bool, need_weights: bool) -> None:
    torch.manual_seed(2)
    seen: list[tuple[Tensor, Tensor | None]] = []
    layer = SelfAttends()
    layer.attention.batch_first = batch_first
    layer.options = {"need_weights": need_weights, "is_causal": True, "attn_mask": torch.ones(4, 4).triu(1).bool()}
    layer.attention.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model, x = Wrapped(layer, 6).eval(), torch.randn(4, 4, 6)
    model(x)
    Meter(model, Classification()).measure((x, labels(4)))
    ours_of_all = next(output for output in reversed(seen) if output[0].shape == seen[0][0].shape)
    for ours, theirs in zip(ours_of_all, seen[0], strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs, atol=1e-6)  # type: ignore[arg-type]


class Windows(nn.Module):
    """Attention inside of windows, which are folded into the axis of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x.reshape(-1, 2, 6)
        return self.attention(y, y, y, need_weights=False)[0].reshape(x.shape)


def test_attention_in_windows() -> None:
    torch.manual_seed(2)
    agrees(Wrapped(Windows(), 36), torch.randn(N, 6, 6), N)


class Own(nn.MultiheadAttention):
    """A subclass whose forward is its own."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        y, weights = super().forward(*args, **kwargs)
        return 2 * y, weights


@pytest.mark.filterwarnings("ignore:no rule for:UserWarning")
@pytest.mark.parametrize("odd", ["own forward", "other widths", "learnt keys"])
def test_attention_without_a_rule_falls_back(odd: str) -> None:
    torch.manual_seed(2)
    options: dict[str, dict[str, Any]] = {
        "own forward": {},
        "other widths": {"kdim": 6, "vdim": 3},
        "learnt keys": {"add_bias_kv": True},
    }

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = Own if odd == "own forward" else nn.MultiheadAttention
            self.attention = kind(6, 2, batch_first=True, **options[odd])

        def forward(self, x: Tensor) -> Tensor:
            value = x[..., :3] if odd == "other widths" else x
            return self.attention(x, x, value, need_weights=False)[0].mean(1)

    agrees(Wrapped(Attends(), 6), torch.randn(N, 4, 6), N)


def test_attention_is_itself_again_after_an_exception() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ArithmeticError("on the way")

    layer = SelfAttends()
    model = nn.Sequential(layer, Fails()).train()
    with pytest.raises(ArithmeticError, match="on the way"):
        Meter(model, Classification()).measure((torch.randn(N, 4, 6), labels(N)))
    assert "forward" not in layer.attention.__dict__
    assert model.training
    assert not layer.attention.out_proj._forward_hooks
    assert all(p.requires_grad for p in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled()
