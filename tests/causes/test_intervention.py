"""Networks that read one feature: the family that is named is theirs, and none where it was not asked."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suture.case import Case
from suture.causes import PROBES, Probe, UnchangedError, find_causes
from suture.causes.margins import Pair, equal_energy, normalised, pictures_of, shown
from suture.errors import DataError, InvalidArgumentError, NonFiniteError, UnknownNameError
from suture.images import ImageFormat
from tests import toys
from tests.causes import scenes


def of(family: str) -> list[str]:
    """The names of a family's probes."""
    return [name for name, p in PROBES.items() if p.family == family]


@pytest.mark.parametrize("family", scenes.SCENES)
@pytest.mark.parametrize("seed", [101, 102])
def test_the_family_that_the_network_reads_is_named(family: str, seed: int) -> None:
    case, errors = scenes.case(*scenes.SCENES[family], seed=seed, errors=10)
    found = find_causes(case, errors, 0, 1)
    assert found.answer == family, found.probes
    row = found.probes.loc[found.cause]
    assert row["p"] < 0.05
    assert row["excess_low"] > 0
    assert row["low"] < row["change"] < row["high"]
    assert row["share"] > 0.5
    assert found.families.loc[family, "stands_out"] >= 1
    assert found.n_correct == (30, 30)


@pytest.mark.parametrize(
    ("read", "asked"),
    [("colour", "texture"), ("colour", "shape"), ("texture", "colour"), ("shape", "colour"), ("background", "texture")],
)
def test_undetermined_where_the_feature_was_not_asked(read: str, asked: str) -> None:
    case, errors = scenes.case(*scenes.SCENES[read], seed=7)
    found = find_causes(case, errors, 0, 1, probes=of(asked))
    assert found.answer == "undetermined", found.probes
    assert found.cause is None
    assert list(found.families.index) == [asked]


def test_undetermined_for_a_network_that_looks_at_nothing() -> None:
    case, errors = scenes.case(lambda p: 0 * p.mean((1, 2, 3)) + 0.1, scenes.coloured)
    found = find_causes(case, errors, 0, 1)
    assert found.answer == "undetermined"
    assert (found.probes["change"] == 0).all()
    assert (found.probes["p"] == 1).all()


def test_a_given_mask_and_a_salient_one() -> None:
    case, errors = scenes.case(*scenes.SCENES["background"], seed=3)
    given = find_causes(case, errors, 0, 1, masks=scenes.discs(len(case.splits["diagnose"])))
    assert given.answer == "background"
    # The network looks at the background alone, which saliency takes for the foreground: a limit, stated there.
    salient = find_causes(case, errors, 0, 1, masks="salient", probes=of("background"))
    assert salient.probes["share"].max() < given.probes.loc["background_fill", "share"] / 2


def test_the_table_of_examples_is_the_change_of_margin() -> None:
    case, errors = scenes.case(*scenes.SCENES["colour"])
    found = find_causes(case, errors, 0, 1, probes=["gray"])
    inputs = torch.stack([case.splits["diagnose"][i][0] for i in errors])
    before = case.model(inputs).detach()
    pictures = pictures_of(inputs, case.image)
    after = case.model(normalised(PROBES["gray"](pictures), case.image, inputs)).detach()
    change = (after[:, 0] - after[:, 1]) - (before[:, 0] - before[:, 1])
    assert found.examples.index.tolist() == errors
    assert np.allclose(found.examples["gray"], change, atol=1e-4)
    assert np.allclose(found.examples["margin"], before[:, 0] - before[:, 1], atol=1e-4)
    assert found.probes.loc["gray", "change"] == pytest.approx(found.examples["gray"].mean())


def test_the_same_twice_and_the_model_as_it_was() -> None:
    case, errors = scenes.case(*scenes.SCENES["texture"])
    state = {name: value.clone() for name, value in case.model.state_dict().items()}
    first, second = (find_causes(case, errors, 0, 1, probes=["blur", "noise"]) for _ in range(2))
    assert first.probes.equals(second.probes)
    assert all(torch.equal(value, state[name]) for name, value in case.model.state_dict().items())


def test_random_changes_are_as_large() -> None:
    pictures = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("gray", "blur", "tiles_4", "background_fill", "brightness"):
        changed = PROBES[name](pictures)
        random = equal_energy(pictures, changed, 5)
        assert ((random >= 0) & (random <= 1)).all()
        wanted, got = ((other - pictures).flatten(1).norm(dim=1) for other in (changed, random))
        assert torch.allclose(got, wanted, rtol=0.01), name
        assert torch.equal(random, equal_energy(pictures, changed, 5))
    assert torch.equal(equal_energy(pictures, pictures, 0), pictures)


def test_nothing_changed_is_an_error_and_a_probe_nobody_named_is_left_out() -> None:
    case, errors = gray_case(channels=1)
    with pytest.raises(UnchangedError, match="'gray' changed 0 of 8 pictures"):
        find_causes(case, errors, 0, 1, probes=["gray"])
    same = Probe("same", "other", lambda pictures, strength, generator: pictures)
    with pytest.raises(UnchangedError, match="'same'"):
        find_causes(case, errors, 0, 1, probes=[same, "blur"])
    found = find_causes(case, errors, 0, 1)
    assert sorted(found.skipped) == sorted(of("colour"))
    assert found.examples["gray"].isna().all()
    assert "gray" not in found.probes.index


def gray_case(channels: int, side: int = 8, image: ImageFormat | None = None) -> tuple[Case, list[int]]:
    """Eight errors among pictures of some channels, lightness being what the network reads."""

    class Light(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([-9.0, 9.0]))

        def forward(self, x: Tensor) -> Tensor:
            return (x.mean((1, 2, 3)) - 0.5)[:, None] * self.scale

    generator = torch.Generator().manual_seed(0)
    kinds = torch.tensor([0] * 10 + [1] * 18)
    noise = torch.rand(28, channels, side, side, generator=generator)
    pictures = 0.5 * noise + 0.1 + 0.3 * kinds[:, None, None, None]
    labels = [0] * 10 + [1] * 10 + [0] * 8
    return Case(Light(), diagnose=list(zip(pictures, labels, strict=True)), image=image), list(range(20, 28))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (4, 9)])
def test_lightness_is_neither_of_the_four_features(channels: int, side: int) -> None:
    case, errors = gray_case(channels, side)
    assert find_causes(case, errors, 0, 1).answer == "other"


def test_no_correct_examples_leave_it_undetermined() -> None:
    case, errors = scenes.case(*scenes.SCENES["colour"], right=1)
    found = find_causes(case, errors, 0, 1, probes=["gray"])
    assert found.answer == "undetermined"
    assert np.isnan(found.probes.loc["gray", "excess"])
    assert found.families.empty


def test_refusals() -> None:
    case, errors = scenes.case(*scenes.SCENES["colour"])
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (InvalidArgumentError, "no errors", {"positions": []}),
        (InvalidArgumentError, "no example of '0'", {"positions": [40]}),
        (InvalidArgumentError, "no example of", {"positions": [10_000]}),
        (InvalidArgumentError, "no confusion", {"predicted": 0}),
        (InvalidArgumentError, "2 classes", {"predicted": 2}),
        (UnknownNameError, "did you mean 'blur'", {"probes": ["blurr"]}),
        (InvalidArgumentError, "no mask", {"masks": "grabcut"}),
        (DataError, "3 masks for 76", {"masks": scenes.discs(3), "probes": ["background_fill"]}),
        (DataError, "shape", {"masks": torch.zeros(76, 4, 4, dtype=torch.bool), "probes": ["background_fill"]}),
        (UnchangedError, "fewest", {"positions": errors[:2], "probes": ["gray"]}),
    ]
    for kind, match, change in wrong:
        arguments = {"positions": errors, "true": 0, "predicted": 1} | change
        with pytest.raises(kind, match=match):
            find_causes(case, **arguments)


def test_inputs_that_are_no_pictures_or_not_normalised_so() -> None:
    points = Case(nn.Linear(2, 3), diagnose=toys.points(30, seed=1))
    right = [i for i, label in enumerate(points.splits["diagnose"].strata) if label == 0]
    with pytest.raises(DataError, match="inputs of this case are none"):
        find_causes(points, right[:4], 0, 1)
    case, errors = scenes.case(*scenes.SCENES["colour"])
    case.image = None
    with pytest.raises(DataError, match="ImageFormat"):
        find_causes(case, errors, 0, 1)
    case.image = ImageFormat((0.5,), (0.5,))
    with pytest.raises(DataError, match="3 channels and --mean 1"):
        find_causes(case, errors, 0, 1)


def test_scores_that_are_not_finite_are_said() -> None:
    case, errors = scenes.case(lambda p: (p.amin((1, 2, 3)) - 2).sqrt(), scenes.coloured)
    batch = next(iter(shown(case, errors)))
    with pytest.raises(NonFiniteError, match="margins mean nothing"):
        Pair(0, 1).margins(case, batch.pictures, batch.batch)
