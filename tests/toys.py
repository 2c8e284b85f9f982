"""Small problems with known answers, for tests; also reachable by name from the command line."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.case import Case
from suture.tasks import Classification
from suture.training import Recipe, train
from suture.training.augment import Augment
from suture.treatments import FineTune, Flagged, Plan

Pairs = list[tuple[Tensor, int]]

# Method A, but short: toys need no thirty epochs.
PLAN = Plan(
    name="short",
    where=Flagged(),
    how=FineTune(recipe=Recipe(epochs=6, batch_size=32, lr=0.05, augment=Augment(pad=0, flip=False))),
)


class Net(nn.Module):
    """Two hidden layers with BatchNorm for points in the plane."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(2, 16)
        self.norm = nn.BatchNorm1d(16)
        self.second = nn.Linear(16, 16)
        self.last = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2) → (n, classes)."""
        return self.last(F.relu(self.second(F.relu(self.norm(self.first(x))))))


def points(n: int, seed: int, shift: float = 0.0) -> Pairs:
    """n points of three clusters, moved by `shift` along both axes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    inputs = centres[labels] + torch.randn(n, 2, generator=generator) * 0.6 + shift
    return [(x, int(y)) for x, y in zip(inputs, labels, strict=True)]


@cache
def trained() -> dict[str, Tensor]:
    """State of a network that has learnt the clusters where they were."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
        optimizer, schedules = Recipe(lr=0.1, momentum=0.9).build(model.parameters())
        train(
            model, points(300, seed=1), Classification(), optimizer, schedules,
            epochs=15, batch_size=32, seed=0, device=torch.device("cpu"),
        )  # fmt: skip
    return model.state_dict()


def network() -> Net:
    """The trained network."""
    model = Net()
    model.load_state_dict(trained())
    return model.eval()


def untrained() -> Net:
    """The same architecture at random weights."""
    return Net()


def data() -> Pairs:
    """600 shifted points: what the network meets in use."""
    return points(600, seed=2, shift=0.9)


def case(**options: Any) -> Case:
    """The toy case."""
    return Case(network(), data(), **options)


@dataclass
class Text:
    """A batch of sequences padded to one length: no tensor, so only ``.to`` moves it."""

    tokens: Tensor  # (n, t)
    lengths: Tensor  # (n,)

    def to(self, device: torch.device) -> "Text":
        """The same on another device."""
        return Text(self.tokens.to(device), self.lengths.to(device))


class CopyTask:
    """Say each token of a sequence again: right when all of them are. A target is a sequence, not a label."""

    def collate(self, examples: list[tuple[Tensor, Tensor]]) -> tuple[Text, Tensor]:
        """Pad sequences of different lengths."""
        tokens = nn.utils.rnn.pad_sequence([x for x, _ in examples], batch_first=True)
        targets = nn.utils.rnn.pad_sequence([y for _, y in examples], batch_first=True, padding_value=-100)
        return Text(tokens, torch.tensor([len(x) for x, _ in examples])), targets

    def outputs(self, model: nn.Module, batch: tuple[Text, Tensor]) -> Tensor:
        """Logits (n, t, vocabulary)."""
        return model(batch[0].tokens)

    def losses(self, outputs: Tensor, batch: tuple[Text, Tensor]) -> Tensor:
        """Mean cross-entropy over the tokens of each sequence, (n,)."""
        each = F.cross_entropy(outputs.transpose(1, 2), batch[1], reduction="none")
        return each.sum(1) / batch[0].lengths

    def verdicts(self, outputs: Tensor, batch: tuple[Text, Tensor]) -> Tensor:
        """Whether every token was said, (n,)."""
        return ((outputs.argmax(2) == batch[1]) | (batch[1] < 0)).all(1)


class Speaker(nn.Module):
    """Embedding, GRU, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 16)
        self.recur = nn.GRU(16, 24, batch_first=True)
        self.speak = nn.Linear(24, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, t) → (n, t, 12)."""
        return self.speak(self.recur(self.embed(tokens))[0])


def sentences(n: int, seed: int, words: int) -> list[tuple[Tensor, Tensor]]:
    """n different sequences of 2 to 6 of the first `words` tokens."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < n:
        length = int(torch.randint(2, 7, (), generator=generator))
        found[tuple(torch.randint(0, words, (length,), generator=generator).tolist())] = None
    return [(torch.tensor(s), torch.tensor(s)) for s in found]


def speaker() -> Speaker:
    """A speaker that has learnt 9 of 12 words."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Speaker()
        optimizer, schedules = Recipe(lr=1.0, momentum=0.9).build(model.parameters())
        train(
            model, sentences(300, seed=1, words=9), CopyTask(), optimizer, schedules,
            epochs=10, batch_size=32, seed=0, device=torch.device("cpu"),
        )  # fmt: skip
    return model


def sequence_case() -> Case:
    """A task that has nothing to do with pictures or labels."""
    return Case(speaker(), sentences(500, seed=2, words=12), task=CopyTask())
