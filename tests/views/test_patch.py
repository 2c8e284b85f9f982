"""A patch on its page, in the terminal, as Markdown and JSON: what is known, and names that do nothing."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from suture.patch import PATCH, UNDO, Inspection, between, inspect
from suture.views import patch as view
from suture.views.style import svg
from tests.views.results import HOSTILE, SCRIPT
from tests.views.test_page import Page

BEFORE = {"conv.w": torch.ones(4), "layer1.0.w": torch.ones(2, 2), "layer1.1.w": torch.ones(3), "fc.b": torch.zeros(2)}
AFTER = BEFORE | {
    "layer1.0.w": torch.full((2, 2), 1.5),
    "layer1.1.w": torch.tensor([1.0, 1, 1.3]),
    "fc.b": torch.ones(2),
}


def looked_at(folder: Path, *, undo: bool = True, after: dict[str, Any] = AFTER, **more: Any) -> Inspection:
    """An inspection of a patch with its undo beside it, or alone."""
    before = {name: BEFORE.get(name, torch.zeros_like(tensor)) for name, tensor in after.items()}
    patch, back = between(before, after, "A")
    replace(patch, **more).save(folder / PATCH)
    if undo:
        back.save(folder / UNDO)
    return inspect(folder / PATCH)


def printed(result: Inspection, width: int = 100) -> str:
    """What a terminal shows, colours included."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(view.table(result), highlight=False)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_everything_that_is_known_is_shown(tmp_path: Path) -> None:
    result = looked_at(tmp_path, metrics={"fixed": 9, "broken": 2, "accuracy": 0.81234})
    page = Page(view.page(result))
    for text in (page.text, " ".join(view.markdown(result).split()), " ".join(printed(result).split())):
        for word in ("A", result.patch.base, result.patch.result, "fixed", "9", "0.8123", "layer1", "fc", "from zero"):
            assert word in text
        assert "7 (77.8" in text.replace("\\", "")  # of 9 numbers, 4 + 1 + 2 have other bits
        assert "not known" not in text
    assert "suture apply patch.safetensors --weights WEIGHTS" in page.text
    assert len(page.all("img")) == 1


def test_json_has_every_tensor_and_null_for_what_is_not_known(tmp_path: Path) -> None:
    data = json.loads(json.dumps(view.to_json(looked_at(tmp_path, metrics={"net": 7})), allow_nan=False))
    assert (data["kind"], data["plan"], data["metrics"]) == ("patch", "A", {"net": 7.0})
    assert (data["tensors"], data["parameters"], data["changed"]) == (3, 9, 7)
    assert list(data["by_group"]) == ["fc", "layer1"]
    assert list(data["by_tensor"]) == ["fc.b", "layer1.0.w", "layer1.1.w"]
    assert data["by_tensor"]["layer1.0.w"] == {
        "group": "layer1", "dtype": "float32", "shape": "2 × 2", "parameters": 4, "changed": 4.0, "norm_before": 2.0,
        "norm_change": 1.0, "change": 0.5, "finite": True,
    }  # fmt: skip
    assert data["by_tensor"]["fc.b"]["change"] is None
    (tmp_path / UNDO).unlink()
    alone = view.to_json(inspect(tmp_path / PATCH))
    assert alone["change"] is alone["changed"] is alone["by_group"]["fc"]["change"] is None


def test_a_patch_alone_says_what_is_missing(tmp_path: Path) -> None:
    result = looked_at(tmp_path, undo=False)
    for text in (Page(view.page(result)).text, view.markdown(result), " ".join(printed(result).split())):
        assert "There is no undo.safetensors beside it" in text.replace("\\", "")
        assert "moved" not in text.replace("values moved", "")
    assert not Page(view.page(result)).all("img")


def test_an_empty_patch(tmp_path: Path) -> None:
    result = looked_at(tmp_path, after=BEFORE)
    for text in (Page(view.page(result)).text, view.markdown(result), printed(result)):
        assert "It changes nothing." in text
    assert "suture apply" not in view.page(result)
    assert b"changes nothing" in svg(lambda: view.figure(result))


def test_values_that_are_not_finite_are_said_first(tmp_path: Path) -> None:
    result = looked_at(tmp_path, after=AFTER | {"fc.b": torch.tensor([float("nan"), 1])})
    for text in (Page(view.page(result)).text, view.markdown(result), " ".join(printed(result).split())):
        assert "NaN or infinite values stand in fc.b: do not apply it." in text
    json.dumps(view.to_json(result), allow_nan=False)
    assert svg(lambda: view.figure(result))


def test_a_route_says_when_it_answers(tmp_path: Path) -> None:
    result = looked_at(tmp_path, margin=0.25)
    assert "only where it is surer than the original by more than 0.250" in Page(view.page(result)).text
    assert view.to_json(result)["margin"] == 0.25


def test_an_undo_file_leads_back(tmp_path: Path) -> None:
    looked_at(tmp_path)
    page = Page(view.page(inspect(tmp_path / UNDO)))
    assert "undo: leads back from a repair" in page.text
    assert "suture revert undo.safetensors" in page.text
    assert "suture apply" not in page.text


def test_names_of_strangers_do_nothing(tmp_path: Path) -> None:
    after = {f"{name}.{i}": torch.ones(2) for i, name in enumerate(HOSTILE)}
    words = {name[:300]: float(i) for i, name in enumerate(HOSTILE)}
    aliases = {f"{name} copy": f"{name}.{i}" for i, name in enumerate(HOSTILE)}
    for i, plan in enumerate(HOSTILE):
        result = looked_at(tmp_path / str(i), after=after, metrics=words, plan=plan, version=plan, aliases=aliases)
        html = view.page(result)
        page = Page(html)
        assert not page.all("script")
        assert all(set(image) <= {"src", "alt", "class"} for image in page.all("img"))
        assert SCRIPT not in html
        assert "{{ 7 * 7 }}" in page.text
        assert SCRIPT not in view.markdown(result)
        for text in (html, view.markdown(result), printed(result)):
            assert "\x1b[31m" not in text
            assert "\u202e" not in text
        assert "[bold]no[/]" in printed(result, 400)
        assert result.tensors.index[0] in view.to_json(result)["by_tensor"]


def test_a_file_name_is_one_word_of_the_command(tmp_path: Path) -> None:
    looked_at(tmp_path)
    odd = tmp_path / "a b; rm -rf $HOME `x` <i>.safetensors"
    (tmp_path / PATCH).rename(odd)
    page = Page(view.page(inspect(odd)))
    assert "suture apply 'a b; rm -rf $HOME `x` <i>.safetensors' --weights" in page.text
    assert not page.all("i")


@pytest.mark.parametrize("undo", [True, False])
def test_thousands_of_tensors_fit_a_page(tmp_path: Path, undo: bool) -> None:
    after = {f"block{i}.w": torch.full((1 + i % 7,), 1.0 + i) for i in range(2_000)}
    result = looked_at(tmp_path, after=after, undo=undo)
    html = view.page(result)
    assert len(html) < 100_000
    assert f"{view.LONGEST} of 2,000 groups, those that moved most." in html or not undo
    assert len(printed(result).splitlines()) < 200
    assert len(view.to_json(result)["by_tensor"]) == 2_000
    assert svg(lambda: view.figure(result))
