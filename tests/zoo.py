"""Awkward networks that every contract test goes through."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class RootParameters(nn.Module):
    """Parameters that hang on the root, beside children."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x)) * self.scale)


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x) + self.embed.weight.mean(0)))


class Reused(nn.Module):
    """One module called twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.relu(self.body(x))))


class Unused(nn.Module):
    """A parameter that the loss does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.idle = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Nested(nn.Module):
    """One child owns everything, two levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.wrapped = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.wrapped(x)


class Norms(nn.Module):
    """Buffers that belong to groups, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))
        self.second = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)))


class Affineless(nn.Module):
    """Norms that own no parameters: one before everything, one that is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.BatchNorm1d(4, affine=False)
        self.first, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(input=self.first(self.inputs(x)))))


class Frozen(nn.Module):
    """Parameters whose gradients are switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x)))


class Convolutions(nn.Module):
    """Residual stages of blocks, on inputs that are reshaped to pictures."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(2, 2, 3, padding=1)
            self.bn1 = nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return x + F.relu(self.bn1(self.conv1(x)))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 1)
        self.layer1 = nn.Sequential(self.Block(), self.Block())
        self.layer2 = nn.Sequential(self.Block(), self.Block())
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(x.reshape(-1, 1, 2, 2))))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """A layer whose parameters have no modules of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.recur = nn.LSTM(2, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recur(x.reshape(-1, 2, 2))[0][:, -1])


class TimeFirst(nn.Module):
    """A recurrent layer whose input and states have the examples behind their first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.recur = nn.GRU(2, 5, num_layers=2)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.reshape(-1, 2, 2).transpose(0, 1)
        return self.head(self.recur(steps, x.new_zeros(2, len(x), 5))[0][-1])


class Parametrized(nn.Module):
    """Weights made of other parameters, of as many rows as there may be examples."""

    def __init__(self) -> None:
        super().__init__()
        self.body = parametrizations.weight_norm(nn.Linear(4, 3))
        self.head = parametrizations.spectral_norm(nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.body(x)))


class Attention(nn.Module):
    """Attention, whose output projection is never called as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 4)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True) for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.reshape(-1, 2, 2))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


ZOO: dict[str, Callable[[], nn.Module]] = {
    cls.__name__.lower(): cls
    for cls in (
        RootParameters, Tied, Reused, Unused, Nested, Norms, Affineless, Frozen, Convolutions, Recurrent, TimeFirst,
        Parametrized, Attention,
    )
}  # fmt: skip


def build(name: str) -> nn.Module:
    """A network of the zoo: inputs (n, 4), logits (n, 3)."""
    torch.manual_seed(0)
    return ZOO[name]()


def batch(n: int = 7) -> tuple[Tensor, Tensor]:
    """Inputs (n, 4) and labels (n,)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % 3
