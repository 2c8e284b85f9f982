"""Progress bars on standard error for work that takes longer than a blink."""

import sys
from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 1.0  # seconds of silence before a bar appears


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, showing a bar with the time left once they have taken a second.

    A bar is drawn only when standard error is a terminal: logs stay free of it.

    Args:
        items: what to go through.
        description: what is being done, for the reader.
        total: how many items there are, where `items` has no length.
    """
    from rich.console import Console  # noqa: PLC0415 - a program that never waits never pays for rich

    console = Console(file=sys.stderr)  # this one, wherever work that redirects standard error sends its own
    if not console.is_terminal:
        yield from items
        return
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(description, total=total)
    begun = monotonic()
    visible = False
    try:
        for done, item in enumerate(items):
            if not visible and monotonic() - begun > PATIENCE:
                bar.start()
                visible = True
            bar.update(task, completed=done)
            yield item
    finally:
        bar.stop()
