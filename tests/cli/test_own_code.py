"""What the file of a model registers, the command line knows by name."""

import json
from pathlib import Path

import pytest

from suture.localizers import LOCALIZERS
from suture.treatments import METHODS, PRESETS
from tests.cli.conftest import Suture, Toy

CODE = """
import copy
from typing import Literal

import pandas as pd
import torch

import suture
from suture.treatments import METHODS, PRESETS, Candidate, Cost, Everything, Method, Plan, Treated
from tests.toys import untrained


@suture.localizer("first_of_all")
def first_of_all(evidence):
    return pd.Series({group: -float(i) for i, group in enumerate(evidence.groups)})


@METHODS.register("shrink")
class Shrink(Method):
    kind: Literal["shrink"] = "shrink"
    factor: float = 0.9

    def treat(self, job):
        model = copy.deepcopy(job.model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self.factor)
        return Treated({job.name: Candidate(model)}, pd.DataFrame(), Cost())


PRESETS.register("halved")(Plan(name="halved", where=Everything(), how=Shrink(factor=0.5)))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model's file; what it registers is gone after the test."""
    for registry in (LOCALIZERS, METHODS, PRESETS):
        monkeypatch.setattr(registry, "_things", dict(registry._things))  # type: ignore[attr-defined]
    path = tmp_path / "own.py"
    path.write_text(CODE)
    return f"{path}:untrained"


def test_a_plan_and_a_localizer_of_one_s_own(suture: Suture, toy: Toy, own: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('where = { kind = "everything" }\nhow = { kind = "shrink", factor = 0.8 }\n')
    run = tmp_path / "run"
    words = ("--model", own, "--localizers", "first_of_all", "--rule", "first", "--until", "treat")
    answer = suture(*toy.run(run, *words, "--plan", "halved"))
    assert answer.code == 0, answer.err
    found = json.loads((run / "localize" / "result.json").read_text())
    assert (list(found["scores"]), found["flagged"]) == (["first_of_all"], [next(iter(found["groups"]))])
    treated = json.loads((run / "treat" / "result.json").read_text())
    assert (treated["plan"]["name"], treated["plan"]["how"]) == ("halved", {"kind": "shrink", "factor": 0.5})
    assert suture("treat", run, "--plan", tmp_path / "mine.toml").code == 0
    treated = json.loads((run / "treat" / "result.json").read_text())
    assert treated["plan"]["how"] == {"kind": "shrink", "factor": 0.8}
    assert suture("treat", run, "--plan", "halved").code == 0


def test_what_nobody_registered_is_refused_before_anything_is_written(
    suture: Suture, toy: Toy, own: str, tmp_path: Path
) -> None:
    for word, name in (("--plan", "halve"), ("--localizers", "first_of_al")):
        answer = suture(*toy.run(tmp_path / "run", "--model", own, word, name))
        assert answer.code == 2
        assert f"did you mean '{'halved' if word == '--plan' else 'first_of_all'}'?" in answer.error
    assert not (tmp_path / "run").exists()


def test_a_package_that_cannot_be_imported_registers_nothing(
    suture: Suture, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    answer = suture(*toy.run(tmp_path / "run", "--model", "broken_package.net:build", "--plan", "mine"))
    assert answer.code == 2
    assert "no plan and no TOML file is called 'mine'" in answer.error
