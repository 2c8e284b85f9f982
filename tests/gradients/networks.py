"""Networks of real shapes, small: language models as they are built today, and torchvision's, narrowed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, WIDTH, HEADS = 11, 8, 2


class GPT(nn.Module):
    """Learnt positions, causal attention from one projection, and an output that shares the words' embedding."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.attn, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (p.unflatten(2, (HEADS, -1)).transpose(1, 2) for p in self.attn(self.ln_1(x)).chunk(3, -1))
            x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
            return x + self.mlp(self.ln_2(x))

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(16, WIDTH)
        self.h = nn.Sequential(self.Block(), self.Block())
        self.ln_f = nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, words: Tensor) -> Tensor:
        # Positions repeated for every example, as libraries with left padding do.
        places = torch.arange(words.shape[1]).expand_as(words)
        return self.lm_head(self.ln_f(self.h(self.wte(words) + self.wpe(places)))).mean(1)


class Llama(nn.Module):
    """RMS norms, rotary positions, fewer keys than queries, a gated MLP, and an output of its own."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_1, self.norm_2 = nn.RMSNorm(WIDTH, eps=1e-6), nn.RMSNorm(WIDTH, eps=1e-6)
            self.q, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
            self.k, self.v = (nn.Linear(WIDTH, WIDTH // HEADS, bias=False) for _ in range(2))
            self.gate, self.up = (nn.Linear(WIDTH, 12, bias=False) for _ in range(2))
            self.down = nn.Linear(12, WIDTH, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm_1(x)
            q, k, v = (m(y).unflatten(2, (-1, WIDTH // HEADS)).transpose(1, 2) for m in (self.q, self.k, self.v))
            k, v = (part.repeat_interleave(HEADS, 1) for part in (k, v))
            y = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).flatten(2))
            y = self.norm_2(x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.Sequential(self.Block(), self.Block())
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        return self.lm_head(self.norm(self.layers(self.embed_tokens(words))))[:, -1]


def rotated(x: Tensor) -> Tensor:
    """(n, heads, t, d) with rotary positions."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[2])[:, None] * 0.1 ** torch.arange(half)
    left, right = x[..., :half], x[..., half:]
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)


class LSTM(nn.Module):
    """Words, two recurrent layers, and the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 4)
        self.recur = nn.LSTM(4, 5, 2, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.recur(self.embed(words))[0][:, -1])


def resnet18(models: Any) -> nn.Module:
    """All of ResNet-18's layers, an eighth as wide after the first."""

    class Narrow(models.ResNet):  # type: ignore[name-defined, misc]
        def _make_layer(self, block: Any, planes: int, blocks: int, **options: Any) -> nn.Sequential:
            return super()._make_layer(block, planes // 8, blocks, **options)

    model = Narrow(models.resnet.BasicBlock, [2, 2, 2, 2])
    model.fc = nn.Linear(64, 3)
    return model


def vgg16(models: Any, batch_norm: bool) -> nn.Module:
    """All of VGG-16's layers, an eighth as wide, with a classifier to match."""
    plan = [step if step == "M" else step // 8 for step in models.vgg.cfgs["D"]]
    features = models.vgg.make_layers(plan, batch_norm=batch_norm)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 3))


PICTURES: dict[str, Callable[[Any], nn.Module]] = {
    "resnet18": resnet18,
    "vgg16": lambda m: vgg16(m, False),
    "vgg16 bn": lambda m: vgg16(m, True),
    "vit b 16, narrow": lambda m: m.VisionTransformer(32, 16, 12, 2, 16, 32, num_classes=3),
    "mobilenet v2": lambda m: m.mobilenet_v2(num_classes=3, width_mult=0.35),
    "densenet": lambda m: m.DenseNet(8, (2, 2), 8, num_classes=3),
    "swin": lambda m: m.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=3),
}
TEXTS: dict[str, Callable[[], nn.Module]] = {"gpt": GPT, "llama": Llama, "lstm": LSTM}
