"""Plans as data: presets, TOML, and errors that name the field."""

from pathlib import Path

import pytest

from suture.demo import PLAN
from suture.errors import InvalidArgumentError, MissingFileError, UnknownNameError
from suture.treatments import PRESETS, Everything, FineTune, Plan, load_plan


@pytest.mark.parametrize("name", PRESETS)
def test_presets_know_their_name_and_survive_json(name: str) -> None:
    plan = load_plan(name)
    assert plan.name == name
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_method_a_is_the_paper_s() -> None:
    how = load_plan("A").how
    assert isinstance(how, FineTune)
    recipe = how.recipe
    assert (recipe.epochs, recipe.lr, recipe.lr_min, recipe.momentum) == (30, 0.01, 1e-4, "critical")
    assert how.batchnorm == "train"
    assert load_plan("default") == load_plan("A")


def test_a_plan_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[where]\nkind = "everything"\n[how]\nkind = "finetune"\n[how.recipe]\nepochs = 3\n')
    plan = load_plan(str(path))
    assert plan.name == "mine"
    assert plan.where == Everything()
    assert isinstance(plan.how, FineTune)
    assert plan.how.recipe.epochs == 3


def test_the_demo_s_plan_is_method_a_without_mirroring(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(PLAN)
    plan, a = load_plan(str(tmp_path / "demo.toml")), load_plan("A")
    assert isinstance(plan.how, FineTune)
    assert isinstance(a.how, FineTune)
    assert not plan.how.recipe.augment.flip
    same = {"augment": a.how.recipe.augment}
    assert plan.how.recipe.model_copy(update=same) == a.how.recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[how]\nkind = 'finetune'\nepoch = 3\n", "how.finetune.epoch"),
        ("[how]\nkind = 'surgery'\n", "'how'"),
        ("[how]\nkind = 'finetune'\n[how.recipe]\nepochs = 0\n", r"how.finetune.recipe.epochs.*greater"),
        ("where = ", "is not TOML"),
    ],
    ids=["misspelt", "kind", "range", "syntax"],
)
def test_bad_plans_name_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=words):
        load_plan(str(path))


def test_unknown_plans() -> None:
    with pytest.raises(UnknownNameError, match="there are A, none, or give a TOML file"):
        load_plan("Q")
    with pytest.raises(MissingFileError, match=r"no file absent\.toml"):
        load_plan("absent.toml")
