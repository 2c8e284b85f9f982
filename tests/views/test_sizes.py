"""The page stays small and says what it can, whatever the data are: the cases that are hard to fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture.images import SHOWN, shrunk
from suture.stages.verify import Verification
from suture.views.page import report
from suture.views.render import LARGEST, thumbnail
from tests.views.results import HOSTILE, diagnosed, localized, noise, scanned, searched, verified, write_run
from tests.views.test_explorer import crowd, with_examples
from tests.views.test_page import read

LIMIT = 2_000_000  # bytes


def full(names: list[str], side: int, channels: int = 3) -> Verification:
    """A result with as many pictures as there may be; every one is noise, which no format makes small."""
    result = with_examples(verified(names), per_cell=8)
    rows = result.gallery.iloc[[0] * 24 + [-1] * 24].reset_index(drop=True)
    pictures = {"fixed": noise(24, side, side, channels), "broken": noise(24, side, side, channels)}
    return replace(
        result, gallery=rows, pictures=pictures | {"examples": noise(len(result.examples), side, side, channels)}
    )  # fmt: skip


@pytest.mark.parametrize("side", [8, 32, 64, 512])
def test_ten_classes_with_all_their_pictures_stay_below_two_megabytes(tmp_path: Path, side: int) -> None:
    names = [f"class {i}" for i in range(10)]
    small = min(side, SHOWN)  # Verify keeps larger ones smaller
    run = write_run(tmp_path, scanned(), localized(), searched(), full(names, small))
    path = report(run)
    assert path.stat().st_size < LIMIT * 0.8, "Diagnose has pictures too"
    assert len(read(path).all("img")) > 48 + 40


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (96, 40, 3), (512, 512, 1), (512, 512, 3), (64, 64, 4)])
def test_a_thumbnail_of_any_picture_is_small(shape: tuple[int, ...]) -> None:
    drawn = str(thumbnail(noise(*shape), "noise"))
    assert len(drawn) < 15_000
    assert ("crisp" in drawn) == (max(shape) <= 40)
    assert LARGEST < 512


@pytest.mark.parametrize("channels", [1, 3])
def test_large_pictures_are_kept_smaller_in_proportion(channels: int) -> None:
    assert shrunk(noise(2, 384, 768, channels)).shape == (2, SHOWN // 2, SHOWN, channels)
    same = noise(2, 100, 50, channels)
    assert np.array_equal(shrunk(same), same)


def test_a_thousand_classes_and_groups(tmp_path: Path) -> None:
    run = write_run(tmp_path, localized([f"group {i}" for i in range(1000)]), crowd(1000))
    path = report(run)
    assert path.stat().st_size < LIMIT
    assert "of 1,000" in read(path).text


def test_one_class_and_a_class_whose_name_is_code(tmp_path: Path) -> None:
    one = verified(["only"])
    page = read(report(write_run(tmp_path / "a", replace(one, pairs=one.pairs.iloc[:0]))))
    assert "Accuracy per class" in page.text
    hostile = read(report(write_run(tmp_path / "b", diagnosed(HOSTILE), with_examples(verified(HOSTILE)))))
    assert not hostile.all("script")
    assert HOSTILE[0] in hostile.text


class Sum(nn.Module):
    """Logits from the mean of an input of any shape; its bias is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-4.0], [4.0]]))
            self.head.bias.copy_(torch.tensor([0.0, 2.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x.flatten(1).mean(1, keepdim=True))
        return logits


def data(*shape: int) -> list[tuple[torch.Tensor, int]]:
    """Two classes around ±0.2."""
    drawn = torch.Generator().manual_seed(1)
    return [(torch.randn(shape, generator=drawn) * 0.1 + (0.2 if i % 2 else -0.2), i % 2) for i in range(80)]


SHAPES: dict[str, tuple[int, ...]] = {
    "tabular": (6,), "8x8": (1, 8, 8), "grey": (1, 40, 40), "rgb": (3, 24, 24), "4 channels": (4, 16, 16),
    "512x512": (3, 512, 512),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_inputs_of_any_shape_give_a_page(tmp_path: Path, name: str) -> None:
    model = Sum()
    patched = {"head.bias": torch.zeros(2)}
    case = suture.Case(model, data(*SHAPES[name]), classes=["<b>low</b>", "high"], batch_size=16)
    undo, patch = _patches(case, patched)
    assert undo
    result = suture.verify(case, patch)
    assert result.fixed > 0
    assert result.gallery["sure_before"].notna().all()
    assert len(result.examples) > 0
    shown = name not in ("tabular", "4 channels")
    assert ("fixed" in result.pictures) == shown == ("examples" in result.pictures)
    path = report(write_run(tmp_path, result))
    page = read(path)
    assert path.stat().st_size < LIMIT
    assert "<b>low</b>" in page.text
    assert "example " in page.text or shown


def _patches(case: suture.Case, tensors: dict[str, torch.Tensor]) -> tuple[suture.Patch, suture.Patch]:
    """Undo and patch that set some tensors."""
    from suture.patch import base_sha256, canonical_state

    state = canonical_state(case.model)
    base, result = base_sha256(state), base_sha256({**state, **tensors})
    old = {name: state[name] for name in tensors}
    return suture.Patch(old, result, base, "undo"), suture.Patch(tensors, base, result, "mine")


def test_more_examples_do_not_make_the_page_larger(tmp_path: Path) -> None:
    results = {n: replace(verified(), n=n, fixed=n // 10, broken=n // 50) for n in (200, 100_000)}
    sizes = [report(write_run(tmp_path / str(n), result)).stat().st_size for n, result in results.items()]
    assert abs(sizes[1] - sizes[0]) < 2_000
