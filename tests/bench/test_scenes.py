"""Drawn scenes: deterministic, and a family changed changes nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suture.bench.scenes import (
    BACKGROUNDS,
    FAMILIES,
    SHAPES,
    SIDE,
    TEXTURES,
    World,
    draw_kinds,
    draw_world,
    render,
)
from suture.causes.colour import lightness

MIDDLE = (slice(None), slice(None), slice(15, 17), slice(15, 17))  # inside every square
CORNER = (slice(None), slice(None), slice(0, 2), slice(0, 2))


def world(**changes: tuple[object, ...]) -> World:
    """Two classes: plain red squares on fog and plain blue ones, unless said otherwise."""
    same = {
        "shape": ("square", "square"), "texture": ("plain", "plain"), "colour": (1.57, 0.0),
        "background": ("fog", "fog"),
    }  # fmt: skip
    return World(**(same | changes), period=4.0, contrast=0.2)


def pair(family: str, seed: int, made: World) -> tuple[Tensor, Tensor]:
    """The same twelve pictures with kind 0 and kind 1 of one family; the others show kind 0."""
    first = torch.zeros(12, 4, dtype=torch.long)
    second = first.clone()
    second[:, FAMILIES.index(family)] = 1
    return render(made, first, seed), render(made, second, seed)


seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, classes=st.integers(2, 5), n=st.integers(0, 6))
def test_pictures_follow_from_the_seed_and_lie_between_0_and_1(seed: int, classes: int, n: int) -> None:
    made = draw_world(classes, seed)
    assert made == draw_world(classes, seed)
    labels = torch.arange(n) % classes
    kinds = draw_kinds(labels, classes, dict.fromkeys(FAMILIES, 0.5), seed)
    assert torch.equal(kinds, draw_kinds(labels, classes, dict.fromkeys(FAMILIES, 0.5), seed))
    pictures = render(made, kinds, seed)
    assert pictures.shape == (n, 3, SIDE, SIDE)
    assert torch.equal(pictures, render(made, kinds, seed))
    assert not n or (pictures.min() >= 0 and pictures.max() <= 1)
    assert not n or not torch.equal(pictures, render(made, kinds, seed + 1))


@settings(max_examples=15, deadline=None)
@given(seed=seeds, classes=st.integers(3, 5))
def test_no_two_classes_share_a_kind(seed: int, classes: int) -> None:
    made = draw_world(classes, seed)
    for family in FAMILIES:
        assert len(set(getattr(made, family))) == classes
    turns = sorted(hue % (2 * math.pi) for hue in made.colour)
    gaps = [(b - a) % (2 * math.pi) for a, b in zip(turns, [*turns[1:], turns[0]], strict=True)]
    assert gaps == pytest.approx([2 * math.pi / classes] * classes)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_a_background_changed_leaves_the_object_alone_and_an_object_its_background(seed: int) -> None:
    before, after = pair("background", seed, world(background=("night", "fog")))
    assert torch.equal(before[MIDDLE], after[MIDDLE])
    assert (before[CORNER] - after[CORNER]).abs().amin(0).mean() > 0.1
    kinds = {"shape": ("disc", "cross"), "texture": ("plain", "checks"), "colour": (0.0, 3.0)}
    for family, changed in kinds.items():
        before, after = pair(family, seed, world(**{family: changed}))
        assert torch.equal(before[CORNER], after[CORNER])
        assert not torch.equal(before, after)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, hue=st.floats(0, 6.3))
def test_a_hue_changed_leaves_lightness_alone(seed: int, hue: float) -> None:
    before, after = pair("colour", seed, world(colour=(1.57, hue)))
    assert torch.allclose(lightness(before), lightness(after), atol=0.02)  # what is clipped at 0 and 1 aside


def test_hues_are_colours() -> None:
    before, after = pair("colour", 0, world(colour=(math.pi / 2, 0.0)))  # red, blue
    red, blue = (pictures[MIDDLE].mean((0, 2, 3)) for pictures in (before, after))
    assert red.argmax() == 0
    assert blue.argmax() == 2


def test_a_texture_changed_leaves_the_mean_of_the_object_nearly_alone() -> None:
    for name in set(TEXTURES) - {"plain"}:
        before, after = pair("texture", 1, world(texture=("plain", name)))
        inside = (slice(None), slice(None), slice(12, 20), slice(12, 20))
        assert (before[inside] - after[inside]).mean().abs() < 0.03, name
        assert after[inside].std((2, 3)).mean() > 2 * before[inside].std((2, 3)).mean(), name


def test_all_shapes_cover_the_same_area() -> None:
    made = World(tuple(SHAPES), ("plain",) * 8, (1.0,) * 8, ("night",) * 8, 4.0, 0.0)
    kinds = torch.zeros(8, 4, dtype=torch.long)
    kinds[:, 0] = torch.arange(8)
    seen = torch.stack([render(made, kinds, seed) for seed in range(30)])
    empty = World(tuple(SHAPES), ("plain",) * 8, (1.0,) * 8, ("fog",) * 8, 4.0, 0.0)
    other = torch.stack([render(empty, kinds, seed) for seed in range(30)])
    same = (seen - other).abs().amax(2) < 1e-3  # what a background does not reach is the object
    areas = same.float().mean((0, 2, 3)) * SIDE**2
    assert areas.min() > 120
    assert areas.max() / areas.min() < 1.5  # edges, wider round the slender ones, belong to both


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_differ_from_picture_to_picture_but_more_from_each_other(name: str) -> None:
    kinds = torch.zeros(20, 4, dtype=torch.long)
    means = {
        each: render(world(background=(each, each)), kinds, 3)[..., :6, :].mean((2, 3)).mean(0) for each in BACKGROUNDS
    }
    own = render(world(background=(name, name)), kinds, 3)
    assert own[CORNER].std(0).mean() > 0.02
    assert min(float((means[name] - means[each]).abs().max()) for each in means if each != name) > 0.03


def test_reliability_is_how_often_a_class_shows_its_own() -> None:
    labels = torch.arange(8000) % 4
    reliability = {"shape": 1.0, "texture": 0.0, "colour": 0.5, "background": 0.2}
    kinds = draw_kinds(labels, 4, reliability, 7)
    own = (kinds == labels[:, None]).float().mean(0)
    expected = [r + (1 - r) / 4 for r in reliability.values()]  # by chance also when drawn at random
    assert own.tolist() == pytest.approx(expected, abs=0.02)
    wrong = kinds != labels[:, None]
    both = (wrong[:, 1] & wrong[:, 2]).float().mean()
    assert both == pytest.approx(float(wrong[:, 1].float().mean() * wrong[:, 2].float().mean()), abs=0.02)
