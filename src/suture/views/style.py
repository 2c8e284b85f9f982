"""How figures look: one palette, one set of axes, text that is never read as mathematics."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from suture.wording import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# matplotlib is imported when something is drawn: tables and the command line do without it.
# ruff: noqa: PLC0415

# Okabe and Ito (2008): told apart under every common colour blindness, and in grey by lightness or marker.
BLUE, VERMILLION, GREEN, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9"
INK, MUTED, FAINT = "#1f2328", "#6b7280", "#d7dbe0"

NAME = 40  # characters of a name on an axis
WIDTH = 5.4  # inches: on a telephone the whole figure is still legible
MOST = 24  # rows in a figure: more cannot be read


def axes(height: float = 3.2, width: float = WIDTH) -> Axes:
    """Axes on a figure of their own, without pyplot's global state; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white").add_subplot()


def rows(n: int) -> Axes:
    """Axes high enough for `n` rows of horizontal bars."""
    return axes(0.9 + 0.32 * max(n, 2))


def label(text: object, limit: int | None = NAME) -> str:
    """A foreign string for a figure: shortened, safe in SVG, dollars never starting a formula."""
    return plain(text, limit).replace("$", r"\$")


def dress(ax: Axes, *, title: str, x: str, y: str = "") -> None:
    """Title that says what is shown, axis labels with units, no more lines than needed."""
    ax.set_title(title, loc="left", fontsize="medium", fontweight="bold", color=INK)
    ax.set_xlabel(x, color=INK, fontsize="small")
    ax.set_ylabel(y, color=INK, fontsize="small")
    ax.tick_params(labelsize="small", color=MUTED, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)


def name_rows(ax: Axes, names: list[str]) -> None:
    """Rows from the top down, with their names."""
    ax.set_yticks(range(len(names)), [label(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)


def legend(ax: Axes, columns: int = 3, below: float = 0.0) -> None:
    """The legend, under the axes; `below` moves it down further, in shares of their height."""
    height = ax.get_figure(root=True).get_figheight() * ax.get_position().height  # type: ignore[union-attr]
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.5 / height - below), ncols=columns, frameon=False,
        fontsize="small", handlelength=1.4, columnspacing=1.4,
    )  # fmt: skip


def floats(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as numbers; what is none, or was never logged, becomes NaN."""
    import numpy as np
    import pandas as pd

    if column not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[column], errors="coerce").to_numpy(float)


def epochs(table: pd.DataFrame) -> NDArray[np.float64]:
    """Numbers of the epochs, counted from 1 where the log does not have them all."""
    import numpy as np

    numbers = floats(table, "epoch")
    return numbers if np.isfinite(numbers).all() else np.arange(1.0, len(numbers) + 1)


def sentence(ax: Axes, text: str) -> Axes:
    """What a figure says when there is nothing to draw."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, label(text, None), ha="center", va="center", wrap=True, color=INK, transform=ax.transAxes)
    return ax


def svg(draw: Callable[[], Axes]) -> bytes:
    """A figure as SVG, independent of the user's matplotlib settings, equal for equal input.

    Text stays text, so that letters missing from matplotlib's own font come from the reader's.
    """
    with _own_settings():
        figure: Any = draw().get_figure(root=True)
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.12, metadata={"Date": None})
    return buffer.getvalue()


@contextmanager
def _own_settings() -> Iterator[None]:
    import matplotlib

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "suture", "font.size": 11.0}
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield
