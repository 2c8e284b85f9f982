"""Optimizers by name: which of them rescale the gradient, so that a curvature of the loss says nothing about them."""

import json
import re
from pathlib import Path

PLAIN = ("sgd", "sgdm", "sgdw", "msgd", "asgd", "momentum", "nesterov", "nag", "heavyball", "cubicdamping", "ikfad")
# With a preconditioner the oscillator's curvature is that of the rescaled loss; nobody logs it.
PRECONDITIONED = (
    "adam", "cadam", "adan", "adopt", "adafactor", "adagrad", "adadelta", "adabelief", "came", "lamb", "lars", "lbfgs",
    "lion", "muon", "prodigy", "rmsprop", "rprop", "shampoo", "soap", "sophia", "galore", "yogi",
)  # fmt: skip
ASSUMED_MOMENTUM = 0.9  # torch users' usual choice, the paper's baseline, and beta1 of every Adam


def is_preconditioned(optimizer: str) -> bool | None:
    """Whether an optimizer of this name rescales the gradient; None for a name that says nothing.

    >>> is_preconditioned("AdamW"), is_preconditioned("torch.optim.SGD"), is_preconditioned("mine")
    (True, False, None)
    """
    words = re.sub(r"[^a-z]+", " ", optimizer.lower()).split()
    whole = "".join(words)
    if "adam" in whole or any(word in PRECONDITIONED for word in (*words, whole)):
        return True
    return False if any(word in PLAIN for word in (*words, whole)) else None


def described_optimizer(directory: Path) -> str | None:
    """The optimizer that a ``training.json`` of `suture train` beside a log names."""
    try:
        described = json.loads((directory / "training.json").read_text("utf-8"))
        name = described["recipe"]["optimizer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
