"""Networks that a frozen prefix is hard to find in, and examples and tasks for them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests import zoo


def points(n: int = 7) -> list[Any]:
    inputs, labels = zoo.batch(n)
    return [(x, int(y)) for x, y in zip(inputs, labels, strict=True)]


def pictures(n: int = 7) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(3, 8, 8, generator=generator), i % 3) for i in range(n)]


def texts(n: int = 7) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    return [({"ids": torch.randint(0, 11, (6,), generator=generator)}, 1) for _ in range(n)]


class Words:
    """A task with dictionaries for inputs: the next token."""

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        return model(**batch[0])

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        return F.cross_entropy(outputs[:, :-1].transpose(1, 2), batch[0]["ids"][:, 1:], reduction="none").mean(1)

    def verdicts(self, outputs: Tensor, batch: Any) -> Tensor:
        return outputs[:, -1].argmax(1) == batch[1]


class Residual(nn.Module):
    """Blocks with skips that are added in place."""

    class Block(nn.Module):
        def __init__(self, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, stride, 1), nn.BatchNorm2d(4)
            self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)
            self.shortcut = nn.Conv2d(4, 4, 1, stride)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            out += self.shortcut(x)
            return self.relu(out)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1, self.layer2 = self.Block(1), self.Block(2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(F.relu(self.stem(x), inplace=True))).mean((2, 3)))


class UNet(nn.Module):
    """A skip from the first layer to the last."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2, 1)
        self.middle, self.up = nn.Conv2d(5, 5, 3, padding=1), nn.ConvTranspose2d(5, 4, 2, 2)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.down(x))
        up = self.up(F.relu(self.middle(F.relu(self.low(first)))))
        return self.last(torch.cat([first, up], 1)).mean((2, 3))


class Speaker(nn.Module):
    """A transformer: learnt positions like GPT-2, or rotary ones computed once and handed to every block."""

    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", 10.0 ** -torch.arange(0, 4, 2).float())

        def forward(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            angles = (positions[:, :, None] * self.frequencies).repeat(1, 1, 2)
            return angles.cos(), angles.sin()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
            self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))

        def forward(self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, None]:
            q, k, v = (t.unflatten(2, (2, 4)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, 2))
            if rotary:
                cos, sin = (t.unsqueeze(1) for t in rotary)
                q, k = (t * cos + torch.cat([-t[..., 2:], t[..., :2]], -1) * sin for t in (q, k))
            x = x + self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
            return x + self.mlp(x), None

    def __init__(self, rotary: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.positions = self.Rotary() if rotary else nn.Embedding(6, 8)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(self.Block() for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        positions, rotary = torch.arange(x.shape[1], device=x.device)[None], None
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        if isinstance(self.positions, nn.Embedding):
            x = x + self.positions(positions)
        else:
            rotary = self.positions(x, positions)
        x = self.drop(x)
        for block in self.blocks:
            x, _ = block(x, mask, rotary)
        return self.head(self.norm(x))


class Folded(nn.Module):
    """Two rows for each example, in inputs and activations."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.reshape(-1, 2)).relu().reshape(-1, 8))


class Sideways(nn.Module):
    """Time comes before the examples, and the states of every layer before both."""

    def __init__(self) -> None:
        super().__init__()
        self.recur, self.head = nn.GRU(2, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recur(x.reshape(-1, 2, 2).transpose(0, 1))[1][0])


class Talkative(nn.Module):
    """A frozen module that leaves something behind beside its output."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.memory, self.head = zoo.Frozen(), Memory(), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.memory(self.body(x))
        return self.head(self.memory.seen)


class Borrowed(nn.Module):
    """The weight of the head is used long before the head is called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body, self.head = nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.linear(self.first(x), self.head.weight)))


class Memory(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x * self.scale
        return self.seen


class Noisy(nn.Module):
    """Random in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.body.forward = lambda x: F.linear(x, self.body.weight) + torch.randn(4)  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Restless(list[Any]):
    """Examples that are augmented whenever they are read."""

    def __getitem__(self, i: Any) -> Any:
        x, y = super().__getitem__(i)
        return x + torch.randn(4), y


class Padded(Words):
    """Pads to the longest text of a batch."""

    def collate(self, examples: list[Any]) -> Any:
        ids = nn.utils.rnn.pad_sequence([x["ids"] for x, _ in examples], batch_first=True)
        return {"ids": ids}, torch.tensor([y for _, y in examples])


class Sorting(nn.Module):
    """The frozen module says how many are positive in the whole batch."""

    class Count(nn.Linear):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), (x[:, 0] > 100).sum()

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = self.Count(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, count = self.body(x)
        return self.head(y) + count
