"""What each check has to find: what → (recomputed, verdict), by place of the paper.

The oracles register here. The verdicts are written out in them: they are what docs/audit.md says, and a change of
one has to be made there too.
"""

from collections.abc import Callable

import torch
from torchvision.models import resnet18

AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "cannot be decided"
Expected = dict[str, tuple[str, str]]
EXPECTED: dict[str, Callable[[], Expected]] = {}


def place(name: str) -> Callable[[Callable[[], Expected]], Callable[[], Expected]]:
    def add(function: Callable[[], Expected]) -> Callable[[], Expected]:
        EXPECTED[name] = function
        return function

    return add


def network() -> torch.nn.Module:
    model = resnet18(weights=None, num_classes=10)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = torch.nn.Identity()
    return model
