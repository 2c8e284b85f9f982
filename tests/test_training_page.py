"""docs/training.md does not lie: its recipe trains as it says, its table has every field and its default."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from pydantic import BaseModel

from suture.cli.app import _run
from suture.physics import critical_momentum
from suture.training import TRAININGS, Recipe
from tests import pictures

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
WORDS = {"none": None, "no": False, "yes": True}


def test_the_recipe_that_is_shown_trains(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", pictures.files({"cat": 4, "dog": 4}))
    (tmp_path / "mine.toml").write_text(EXAMPLE)
    words = ["--model", pictures.network(tmp_path / "net.py"), "--data", str(data), "--out", str(tmp_path / "mine")]
    assert _run(["train", *words, "--preset", str(tmp_path / "mine.toml"), "--epochs", "2"]) == 0
    log = pd.read_csv(tmp_path / "mine" / "history.csv")
    assert len(log) == 2, "--epochs replaces what the file says"
    assert log["lr"].iloc[0] == 0.05
    assert log["momentum"].iloc[0] == pytest.approx(critical_momentum(0.05))
    recipe = json.loads((tmp_path / "mine" / "training.json").read_text())["recipe"]
    assert (recipe["weight_decay"], recipe["augment"]) == (1e-4, {"pad": 2, "flip": False})


def test_the_table_has_every_field_and_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \|", PAGE, re.MULTILINE)
    told = {name: WORDS.get(value, value) for name, value in rows}
    own = _defaults(Recipe())
    assert told.keys() == own.keys()
    assert {name: type(own[name])(value) if value is not None else None for name, value in told.items()} == own


def test_every_preset_is_named() -> None:
    chapter = PAGE[PAGE.index("## Presets") :]
    assert set(re.findall(r"`([\w-]+)`", chapter)) == set(TRAININGS)


def _defaults(recipe: BaseModel, inside: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in recipe:
        found |= _defaults(value, f"{name}.") if isinstance(value, BaseModel) else {inside + name: value}
    return found
