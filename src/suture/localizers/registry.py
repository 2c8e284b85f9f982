"""The registry of localizers.

A localizer of one's own is a function and a line::

    @suture.localizer("last_layers")
    def last_layers(evidence):
        \"\"\"Position of the group, counted from the input.\"\"\"
        return pd.Series(range(len(evidence.groups)), index=list(evidence.groups), dtype=float)
"""

from collections.abc import Callable

import pandas as pd

from suture.localizers.evidence import Evidence
from suture.registry import Registry

Localizer = Callable[[Evidence], pd.Series]

LOCALIZERS: Registry[Localizer] = Registry("localizer")
DEFAULT = ("grad_norm", "relative", "rms")  # the first of them says which group is sick


def localizer(name: str) -> Callable[[Localizer], Localizer]:
    """Decorator that registers a function Evidence → Series (index: group, larger = more suspect)."""
    return LOCALIZERS.register(name)
