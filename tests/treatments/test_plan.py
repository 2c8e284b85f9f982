"""Plans as data: presets, TOML, and errors that name the field."""

from pathlib import Path
from typing import Literal

import pytest

from suture.errors import InvalidArgumentError, MissingFileError, UnknownNameError
from suture.treatments import (
    METHODS,
    PRESETS,
    STANDARD,
    Choice,
    Everything,
    FineTune,
    Job,
    Method,
    Plan,
    Treated,
    load_plan,
)
from suture.treatments.presets import ADAM


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
    assert load_plan("default", protocol="paper") == load_plan("A")


def test_the_default_is_auto() -> None:
    assert load_plan("default") == load_plan("auto")
    assert load_plan("auto").choose == Choice(max_regression=0.05, broken_costs=2, switch_se=1)


def test_a_plan_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[where]\nkind = "everything"\n[how]\nkind = "finetune"\n[how.recipe]\nepochs = 3\n')
    plan = load_plan(str(path))
    assert plan.name == "mine"
    assert plan.where == Everything()
    assert isinstance(plan.how, FineTune)
    assert plan.how.recipe.epochs == 3


def test_a_plan_on_a_named_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "bn_affine"\nweights = [0.5]\n')
    base = load_plan("bn_affine")
    assert load_plan(str(path)) == base.model_copy(update={"name": "mine", "weights": (0.5,)})
    path.write_text('name = "yours"\nbase = "bn_affine"\n')
    assert load_plan(str(path)) == base.model_copy(update={"name": "yours"})
    path.write_text('base = "bn_affine"\n[how]\nbatchnorm = "train"\n')
    assert load_plan(str(path)).how == FineTune(batchnorm="train")  # none of the base's recipe
    path.write_text('base = "outo"\n')
    with pytest.raises(InvalidArgumentError, match="no plan is called 'outo'; did you mean 'auto'"):
        load_plan(str(path))


def test_what_a_recipe_leaves_out_is_standard() -> None:
    how = FineTune.model_validate({"recipe": {"lr": 0.01}})
    assert how.recipe == STANDARD.model_copy(update={"lr": 0.01})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[how]\nkind = 'finetune'\nepoch = 3\n", "'how'.*'epoch': there is no such field; there are kind, recipe"),
        ("[how]\nkind = 'surgery'\n", "'how'.*no method of treatment is called 'surgery'; there are"),
        ("[how.recipe]\nepoch = 3\n", "'how'.*'recipe.epoch': there is no such field; did you mean 'epochs'"),
        ("wieghts = [0.5]\n", "'wieghts': there is no such field; did you mean 'weights'"),
        ("weights = 0.5\n", "'weights': it must be a list"),
        ("[where]\nkind = 'block'\n", "'where'.*did you mean 'blocks'"),
        ("[[guards]]\nkind = 'ewc'\nstrength = 0\n", "'guards.0'.*'strength'.*greater"),
        ("[how]\nkind = 'finetune'\n[how.recipe]\nepochs = 0\n", r"'how'.*'recipe.epochs'.*greater"),
        ("weights = [0.5, 1.5]\n", "'weights'.*at most 1"),
        ("where = ", "is not TOML"),
    ],
    ids=["misspelt", "kind", "deep", "field", "no list", "near miss", "guard", "range", "weight", "syntax"],
)
def test_bad_plans_name_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=words):
        load_plan(str(path))


def test_unknown_plans() -> None:
    with pytest.raises(UnknownNameError, match=r"no TOML file is called .Q.; there are auto, A, B"):
        load_plan("Q")
    with pytest.raises(MissingFileError, match=r"no file absent\.toml"):
        load_plan("absent.toml")


def test_a_method_of_one_s_own_is_a_class_in_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_things", dict(METHODS))  # other tests see what there was before

    @METHODS.register("test_only")
    class Mine(Method):
        kind: Literal["test_only"] = "test_only"
        share: float = 0.5

        def treat(self, job: Job) -> Treated:
            raise NotImplementedError

    plan = Plan.model_validate({"how": {"kind": "test_only", "share": 0.25}})
    assert plan.how == Mine(share=0.25)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_an_optimizer_brings_a_learning_rate_of_its_own() -> None:
    assert FineTune.model_validate({"recipe": {"optimizer": "adamw"}}).recipe == ADAM.recipe
    assert FineTune.model_validate({"recipe": {"optimizer": "adamw", "lr": 0.003}}).recipe.lr == 0.003
    assert FineTune.model_validate({"recipe": {"epochs": 3}}).recipe == STANDARD.model_copy(update={"epochs": 3})
    assert FineTune.model_validate({"recipe": {"optimizer": "adagrad"}}).recipe.momentum == 0
