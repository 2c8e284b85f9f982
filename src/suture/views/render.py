"""Templates and pictures: the one place where HTML is made."""

from __future__ import annotations

import io
from base64 import b64encode
from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from suture.views import text
from suture.views.style import svg

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LARGEST = 160  # pixels: larger pictures are made smaller, so that a page stays a few megabytes
CRISP = 96  # pixels: pictures up to here are magnified without blurring


def render(template: str, **context: Any) -> Markup:
    """A template of this package, filled in; every string is escaped."""
    return Markup(_environment().get_template(template).render(**context))


def standalone(fragment: Markup) -> Markup:
    """A fragment of the page with its style sheet, for a notebook."""
    return render("notebook.html.j2", fragment=fragment)


def image(draw: Callable[[], Axes], alt: str) -> Markup:
    """A figure as an image that holds its own data."""
    return render("figure.html.j2", source=_data_uri(svg(draw), "image/svg+xml"), alt=alt)


def thumbnail(picture: NDArray[np.uint8], alt: str) -> Markup:
    """A picture (h, w, c) as an image that holds its own data; small ones are magnified with sharp pixels."""
    pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
    drawn = Image.fromarray(np.ascontiguousarray(pixels))
    drawn.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    source = _data_uri(buffer.getvalue(), "image/png")
    return render("thumbnail.html.j2", source=source, alt=alt, crisp=max(drawn.size) <= CRISP)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(data).decode('ascii')}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("suture.views"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    for name in (
        "count", "flops", "number", "p_value", "percent", "plain", "points", "ratio", "seconds", "several", "signed",
    ):  # fmt: skip
        environment.filters[name] = getattr(text, name)
    return environment


def _finalize(value: Any) -> Any:
    """What stands in a template, made safe; HTML that was escaped already stays."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else text.plain(value)
