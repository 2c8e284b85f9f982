"""Every probe keeps its promises on pictures of any size and number of channels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suture.causes import FAMILIES, PROBES, Probe, probe
from suture.causes.colour import lightness
from suture.causes.margins import ONE_LEVEL
from suture.causes.masks import salient, standing_out
from suture.errors import InvalidArgumentError, UnknownNameError
from suture.tasks import Classification
from tests.causes import scenes

# These move or replace whole pixels or patches, a number of them that grows with the strength.
IN_STEPS = {"shuffle_fine", "shuffle_medium", "tiles_2", "tiles_4", "shift", "jpeg"}
NAMES = sorted(PROBES)

sizes = st.tuples(st.integers(8, 40), st.integers(8, 40))
strengths = st.floats(0.01, 1.0)


def random_pictures(n: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """(n, channels, h, w), uniform in [0, 1]."""
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 3), st.sampled_from([1, 3, 4]), sizes, strengths, st.integers(0, 2**31))
def test_shape_range_determinism_and_a_clean_input(
    name: str, n: int, channels: int, size: tuple[int, int], strength: float, seed: int
) -> None:
    pictures = random_pictures(n, channels, size)
    before = pictures.clone()
    changed = PROBES[name](pictures, strength, seed=seed)
    assert torch.equal(pictures, before)
    assert changed.shape == pictures.shape
    assert changed.dtype == torch.float32
    assert ((changed >= 0) & (changed <= 1)).all()
    assert torch.equal(changed, PROBES[name](pictures, strength, seed=seed))
    assert changed.data_ptr() != pictures.data_ptr() or not pictures.numel()


@pytest.mark.parametrize("name", sorted(set(NAMES) - IN_STEPS))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_vanishing_strength_vanishes(name: str, channels: int) -> None:
    pictures = scenes.barred(torch.arange(2), torch.Generator().manual_seed(0)).clamp(0, 1)[:, [0] * channels]
    weak = PROBES[name](pictures, 1e-4, seed=1)
    assert (weak - pictures).abs().max() < ONE_LEVEL


@pytest.mark.parametrize("name", NAMES)
def test_at_its_own_strength_it_changes_coloured_pictures(name: str) -> None:
    pictures = random_pictures(3, 3, (32, 32))
    assert ((PROBES[name](pictures) - pictures).abs().amax((1, 2, 3)) > ONE_LEVEL).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_pictures(name: str) -> None:
    for channels in (1, 4):
        pictures = random_pictures(1, channels, (512, 512))
        assert PROBES[name](pictures).shape == pictures.shape


@pytest.mark.parametrize("name", [name for name in NAMES if PROBES[name].family == "colour"])
def test_colour_is_not_looked_for_in_gray_and_alpha_stays(name: str) -> None:
    gray, four = random_pictures(2, 1, (9, 12)), random_pictures(2, 4, (9, 12))
    assert torch.equal(PROBES[name](gray), gray)
    assert torch.equal(PROBES[name](four)[:, 3], four[:, 3])


def test_what_each_probe_leaves_alone() -> None:
    pictures = 0.3 + 0.4 * random_pictures(4, 3, (32, 32))
    for name in ("gray", "tint"):
        assert torch.allclose(lightness(PROBES[name](pictures)), lightness(pictures), atol=0.03), name
    for name in ("shuffle_fine", "shuffle_medium", "tiles_2", "tiles_4"):
        changed = PROBES[name](pictures).flatten(2).sort(-1).values
        assert torch.equal(changed, pictures.flatten(2).sort(-1).values), f"{name} only moves pixels"
    for name in ("blur", "phase_scramble", "contrast"):
        assert torch.allclose(PROBES[name](pictures).mean((2, 3)), pictures.mean((2, 3)), atol=0.01), name
    spectrum = torch.fft.rfft2(pictures).abs()
    assert torch.allclose(torch.fft.rfft2(PROBES["phase_scramble"](pictures)).abs(), spectrum, atol=0.6, rtol=0.2)


@pytest.mark.parametrize("name", [name for name in NAMES if PROBES[name].family == "background"])
def test_the_foreground_stays(name: str) -> None:
    pictures, mask = random_pictures(2, 3, (16, 16)), torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[..., 4:12, 4:12] = True
    changed = PROBES[name](pictures, mask=mask)
    assert torch.equal(changed[..., 4:12, 4:12], pictures[..., 4:12, 4:12])
    assert not torch.equal(changed, pictures)


def test_half_a_circle_of_hue_and_back() -> None:
    pictures = 0.4 + 0.2 * random_pictures(2, 3, (8, 8))
    turned = PROBES["hue_rotation"](pictures)
    assert torch.allclose(PROBES["hue_rotation"](turned), pictures, atol=1e-5)
    assert torch.allclose(turned.mean(1), pictures.mean(1), atol=1e-5)


def test_what_stands_out_is_the_object() -> None:
    pictures = scenes.surrounded(torch.arange(20) % 2, torch.Generator().manual_seed(3)).clamp(0, 1)
    found, true = standing_out(pictures)[:, 0], scenes.discs(20)
    overlap = (found & true).sum((1, 2)) / (found | true).sum((1, 2))
    assert overlap.median() > 0.8
    flat = torch.full((1, 3, 8, 8), 0.5)
    assert standing_out(flat).shape == (1, 1, 8, 8)


def test_saliency_shows_where_the_network_looks() -> None:
    model = scenes.Reader(scenes.surroundings)
    pictures = random_pictures(3, 3, (scenes.SIDE, scenes.SIDE))
    found = salient(model, Classification(), pictures, torch.tensor([0, 1, 0]))
    assert found[..., :2].float().mean() > 0.9
    assert found[..., 12:20, 12:20].float().mean() < 0.1


def test_a_probe_of_ones_own() -> None:
    name = "dim for a test"

    @probe(name, "other", strength=0.5)
    def dim(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return pictures * (1 - strength)

    try:
        assert isinstance(dim, Probe)
        assert np.allclose(PROBES[name](torch.ones(1, 1, 8, 8)), 0.5)
    finally:
        PROBES._things.pop(name)  # type: ignore[attr-defined]


def test_families_are_all_there() -> None:
    assert {p.family for p in PROBES.values()} == set(FAMILIES)


def test_refusals() -> None:
    pictures = random_pictures(1, 3, (8, 8))
    for strength in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(InvalidArgumentError, match="strength"):
            PROBES["gray"](pictures, strength)
    for wrong in (pictures[0], pictures * 255, pictures - 1, (pictures * 255).byte(), pictures * float("nan")):
        with pytest.raises(InvalidArgumentError, match="pictures"):
            PROBES["gray"](wrong)
    with pytest.raises(InvalidArgumentError, match="did you mean 'colour'"):
        probe("x", "color")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean 'gray'"):
        PROBES["grey"]
    with pytest.raises(InvalidArgumentError, match="keep their shape"):
        Probe("crop", "other", lambda p, s, g: p[..., :4])(pictures)
