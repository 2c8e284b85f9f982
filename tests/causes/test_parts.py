"""Pictures taken apart: put together from their own parts they are themselves, and a swap changes one part alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from suture.causes.parts import CLEAR, SWAPS, Parts, lightness, parts_of, swapped

SIDE = 20
DISC = np.hypot(*(np.mgrid[:SIDE, :SIDE] - 9.5)) < 7
BAR = np.zeros((SIDE, SIDE), bool)
BAR[4:16, 6:13] = True


def picture(mask: NDArray[np.bool_], colour: tuple[float, ...], ground: float, seed: int = 0) -> NDArray[np.float32]:
    """A speckled object of a colour before a gray ground."""
    rng = np.random.default_rng(seed)
    front = np.array(colour, np.float32)[:, None, None] + 0.05 * rng.standard_normal(mask.shape).astype(np.float32)
    behind = np.full((len(colour), *mask.shape), ground, np.float32) + 0.01 * rng.random(mask.shape).astype(np.float32)
    return np.where(mask, front, behind).astype(np.float32)


def parts(mask: NDArray[np.bool_], colour: tuple[float, ...], ground: float, seed: int = 0) -> Parts:
    found = parts_of(picture(mask, colour, ground, seed), mask)
    assert found is not None
    return found


RED, BLUE = parts(DISC, (0.7, 0.3, 0.3), 0.2), parts(BAR, (0.4, 0.4, 0.7), 0.9, 1)


@pytest.mark.parametrize("family", SWAPS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_swap_with_itself_changes_nothing_but_texture_outside_its_square(family: str, seed: int) -> None:
    own = parts(DISC, (0.7, 0.4, 0.2), 0.1, seed)
    made = swapped(own, own, family)  # type: ignore[arg-type]
    assert made.dtype == np.float32
    if family == "texture":  # read from a square inside, so that only its mean and the background stay
        assert made[:, ~DISC] == pytest.approx(own.picture[:, ~DISC])
        assert made[:, DISC].mean(1) == pytest.approx(own.picture[:, DISC].mean(1), abs=0.03)
    else:
        assert made == pytest.approx(own.picture, abs=1e-6)


def test_colour_gives_the_mean_chroma_and_keeps_lightness_and_ground() -> None:
    made = swapped(RED, BLUE, "colour")
    assert made[:, ~DISC] == pytest.approx(RED.picture[:, ~DISC])
    assert lightness(made)[0][DISC] == pytest.approx(lightness(RED.picture)[0][DISC], abs=1e-5)
    blue = BLUE.flat[:, 0, 0]
    mean = made[:, DISC].mean(1)
    assert np.diff(mean) == pytest.approx(np.diff(blue), abs=1e-5)  # differences of channels are the other's


def test_shape_gives_the_outline_and_keeps_colour_and_ground() -> None:
    made = swapped(RED, BLUE, "shape")
    assert made[:, BAR].mean(1) == pytest.approx(RED.picture[:, DISC].mean(1), abs=0.03)
    assert made[:, ~BAR].max() < 0.25  # the old disc is filled with ground


def test_background_gives_the_ground_and_keeps_the_object() -> None:
    made = swapped(RED, BLUE, "background")
    assert made[:, DISC] == pytest.approx(RED.picture[:, DISC])
    assert made[:, ~DISC].min() > 0.85


def test_texture_gives_the_relief_around_the_own_mean_colour() -> None:
    striped = np.where(np.arange(SIDE) % 4 < 2, 0.6, 0.2).astype(np.float32) * np.ones((3, SIDE, SIDE), np.float32)
    other = parts_of(np.where(DISC, striped, 0.95).astype(np.float32), DISC)
    assert other is not None
    made = swapped(RED, other, "texture")
    inside = np.where(DISC, lightness(made)[0], np.nan)
    columns = np.nanmean(inside[6:14, 4:16], axis=0)
    assert np.ptp(columns) > 0.3
    assert made[:, DISC].mean(1) == pytest.approx(RED.picture[:, DISC].mean(1), abs=0.06)


@pytest.mark.parametrize("mask", [np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)])
def test_a_mask_without_object_or_background_has_no_parts(mask: NDArray[np.bool_]) -> None:
    assert parts_of(picture(DISC, (0.5, 0.5, 0.5), 0.2), mask) is None


def test_an_object_that_hardly_stands_out_or_is_a_line_has_no_parts() -> None:
    rng = np.random.default_rng(0)
    clouds = rng.random((3, SIDE, SIDE)).astype(np.float32)
    assert parts_of(clouds, DISC) is None
    assert CLEAR == 3
    line = np.zeros((SIDE, SIDE), bool)
    line[9:11] = True
    assert parts_of(picture(line, (0.9, 0.9, 0.9), 0.1), line) is None


def test_pictures_of_one_channel_have_parts_and_no_colour_to_give() -> None:
    own, other = parts(DISC, (0.8,), 0.2), parts(BAR, (0.5,), 0.9, 1)
    assert swapped(own, other, "colour") == pytest.approx(own.picture)
    assert not np.allclose(swapped(own, other, "background"), own.picture)
