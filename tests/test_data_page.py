"""docs/data.md does not lie: its data set can be diagnosed, with names, classes and metadata."""

import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import suture
from suture.images import ImageFormat
from suture.loading import load_data

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
GREY = ImageFormat(mean=(0.5,), std=(0.25,))


class Raw:
    """The example's pictures as a careless function would return them."""

    def __init__(self, data: object) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        x, label = self._data[i]  # type: ignore[index]
        return x * 0.25 + 0.5, label


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "photos.py").write_text(EXAMPLE)
    return load_data(f"{tmp_path / 'photos.py'}:data", GREY)


def test_the_example_is_a_data_set_with_all_that_is_read(data: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case = suture.Case(network(), data, image=GREY)
    assert case.classes == ["left", "right"]
    split = case.splits["verify"]
    assert split.label(0) == f"photo-{split.indices[0]}.png"
    found = suture.verify(case, suture.treat(case, [], "none"))
    assert {"camera = old", "camera = new"} <= set(found.per_slice["slice"])


def test_inputs_that_cannot_be_normalised_are_warned_about(data: object) -> None:
    with pytest.warns(UserWarning, match="have no value below 0, so they are not normalised by --mean and --std"):
        suture.Case(network(), Raw(data), image=GREY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suture.Case(network(), Raw(data), image=ImageFormat(mean=(0.0,), std=(1.0,)))
        suture.Case(network(), Raw(data))
