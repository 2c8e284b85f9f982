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
from suture.wording import plain, several

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LARGEST = 96  # pixels: larger pictures are made smaller, so that a page stays below two megabytes
CRISP = 40  # pixels: pictures up to here keep every pixel and are magnified without blurring
QUALITY = 85  # of the JPEG of larger ones: even pure noise then takes less than 10 kB


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
    pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture[:, :, :3]
    drawn = Image.fromarray(np.ascontiguousarray(pixels))
    crisp = max(drawn.size) <= CRISP
    drawn.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG" if crisp else "JPEG", optimize=True, quality=QUALITY)
    source = _data_uri(buffer.getvalue(), "image/png" if crisp else "image/jpeg")
    return render("thumbnail.html.j2", source=source, alt=alt, crisp=crisp)


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
    for name in ("count", "flops", "number", "p_value", "percent", "plain", "points", "ratio", "seconds", "signed"):
        environment.filters[name] = getattr(text, name)
    environment.filters["several"] = several
    return environment


def _finalize(value: Any) -> Any:
    """What stands in a template, made safe; HTML that was escaped already stays."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else plain(value)
