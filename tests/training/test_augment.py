"""Crops against a slow twin, one picture at a time."""

import pytest
import torch
from torch.nn import functional as F

from suture.images import ImageFormat
from suture.training import Augment


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_every_crop_is_a_window_of_the_padded_picture() -> None:
    pictures = torch.rand(20, 3, 6, 5)
    out = Augment(pad=2, flip=False).apply(pictures, generator())
    for picture, cropped in zip(pictures, out, strict=True):
        padded = F.pad(picture, (2, 2, 2, 2))
        windows = [padded[:, t : t + 6, le : le + 5] for t in range(5) for le in range(5)]
        assert any(torch.equal(cropped, w) for w in windows)
    assert any(not torch.equal(a, b) for a, b in zip(pictures, out, strict=True))


def test_padding_is_black_in_the_units_of_the_network() -> None:
    image = ImageFormat((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    white = (1 - torch.tensor(image.mean)) / torch.tensor(image.std)
    out = Augment(pad=3, flip=False).apply(white[None, :, None, None].expand(30, 3, 4, 4), generator(), image)
    black = -torch.tensor(image.mean) / torch.tensor(image.std)
    pixels = out.permute(0, 2, 3, 1).reshape(-1, 3)
    is_white, is_black = (torch.isclose(pixels, c, atol=1e-5).all(1) for c in (white, black))
    assert (is_white | is_black).all()
    assert is_black.any()


def test_half_are_mirrored_and_the_seed_says_which() -> None:
    pictures = torch.rand(200, 1, 4, 4)
    out = Augment(pad=0, flip=True).apply(pictures, generator())
    mirrored = [torch.equal(o, p.flip(2)) for o, p in zip(out, pictures, strict=True)]
    kept = [torch.equal(o, p) for o, p in zip(out, pictures, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130
    assert torch.equal(out, Augment(pad=0, flip=True).apply(pictures, generator()))


@pytest.mark.parametrize(
    "inputs", [torch.rand(3, 4), torch.zeros(2, 1, 4, 4, dtype=torch.int64), {"a": torch.rand(2, 1, 4, 4)}],
    ids=["vectors", "integers", "dict"],
)  # fmt: skip
def test_what_is_no_picture_passes_through(inputs: object) -> None:
    assert Augment().apply(inputs, generator()) is inputs
