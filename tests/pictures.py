"""Tiny picture folders, whole and damaged, and a tiny network for them."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

# A model file as users write them: reached with --model FILE:net.
NETWORK = """\
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d({channels}, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, {classes})
    )
"""


def network(path: Path, classes: int = 2, channels: int = 3) -> str:
    """Write a model file; what --model names it by."""
    path.write_text(NETWORK.format(channels=channels, classes=classes))
    return f"{path}:net"


def pixels(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    """Random pixels (h, w, c) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(picture: np.ndarray | Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The content of a picture file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture.squeeze())
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def files(counts: Mapping[str, int], seed: int = 0, suffix: str = ".png") -> dict[str, bytes]:
    """Name → content of some different pictures per class."""
    return {
        f"{name}/{i}{suffix}": encoded(pixels(seed * 10_000 + 100 * c + i))
        for c, (name, count) in enumerate(counts.items())
        for i in range(count)
    }


def folder(path: Path, content: Mapping[str, bytes]) -> Path:
    """Write files below a directory; a name that ends in a slash is an empty folder."""
    for name, data in content.items():
        target = path / name
        if name.endswith("/"):
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return path


def archive(path: Path, content: Mapping[str, bytes]) -> Path:
    """Write the same as a zip."""
    with zipfile.ZipFile(path, "w") as written:
        for name, data in content.items():
            written.writestr(name, data)
    return path
