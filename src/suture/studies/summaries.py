"""A study's own summary: one function of all rows, for what means do not tell, such as a figure.

It takes the rows, parameters of the grid among them, and returns file → content. The files lie beside ``rows.csv``;
those that end in ``.md`` also stand on the page, and pictures are shown on it. It runs at the end of every run, on
whatever is finished, so it has to do with few rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from suture.errors import InvalidArgumentError, SutureError
from suture.studies.cells import Row

Content = str | bytes
Summary = Callable[[Sequence[Row]], Mapping[str, Content]]

TEXT, PICTURES = ".md", (".png", ".svg")
TAKEN = {"study.json", "cells", "rows.csv", "means.csv", "results.json", "page.md", "lock"}


def load_summary(spec: str) -> Summary | None:
    """The function of a summary; None for an empty spec.

    Raises:
        SutureError: it does not exist, or importing it fails.
        InvalidArgumentError: it is no function.
    """
    if not spec:
        return None
    from suture.loading import load_object  # noqa: PLC0415 - brings torch along

    function = load_object(spec)
    if not callable(function):
        raise InvalidArgumentError(f"summary: {spec} is a {type(function).__name__} and no function")
    return function  # type: ignore[no-any-return]


def summarised(summary: Summary, rows: Sequence[Row]) -> dict[str, Content]:
    """What a summary makes of the rows.

    Raises:
        InvalidArgumentError: it fails, or returns something else than files by plain names.
    """
    try:
        files: Any = summary(rows)
    except SutureError:
        raise
    except Exception as error:  # the function is the user's
        raise InvalidArgumentError(f"the summary of the study failed ({type(error).__name__}: {error})") from error
    if not isinstance(files, Mapping) or not all(isinstance(content, str | bytes) for content in files.values()):
        raise InvalidArgumentError("the summary of a study returns {name of a file: its text or bytes}")
    for name in files:
        if not isinstance(name, str) or not name or name in TAKEN or name.startswith(".") or {*name} & {*"/\\:"}:
            raise InvalidArgumentError(f"the summary of a study cannot write a file called {name!r}; choose another")
    return dict(files)


def on_page(files: Mapping[str, Content]) -> str:
    """Texts and pictures of a summary as part of the page."""
    pictures = [f"![{name}]({name})" for name in files if name.endswith(PICTURES)]
    texts = [str(content).strip() for name, content in files.items() if name.endswith(TEXT)]
    return "\n\n".join([*pictures, *texts])
