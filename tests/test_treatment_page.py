"""docs/treatment.md does not lie: its plans can be read, its tables have every name, its method works."""

import re
from pathlib import Path

import pytest
from torch import nn

from suture.treatments import GUARDS, METHODS, PRESETS, WHERES, Plan, load_plan

PAGE = (Path(__file__).parents[1] / "docs" / "treatment.md").read_text(encoding="utf-8")
PLANS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def chapter(title: str) -> str:
    return PAGE[PAGE.index(f"# {title}\n") :].split("\n#", 1)[0]


@pytest.mark.parametrize("text", PLANS, ids=range(len(PLANS)))
def test_a_plan_that_is_shown_can_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "shown.toml").write_text(text)
    assert load_plan(str(tmp_path / "shown.toml"))


def test_what_is_said_to_be_the_default_is() -> None:
    (text,) = (plan for plan in PLANS if "[how.recipe]" in plan)
    shown = dict(re.findall(r"^(\w+) = ([^ \n]+)", text[text.index("[how.recipe]") :], re.MULTILINE))
    recipe = METHODS["finetune"]().recipe  # type: ignore[attr-defined]
    assert {name: float(value) for name, value in shown.items()} == {name: getattr(recipe, name) for name in shown}
    assert len(shown) == 6


@pytest.mark.parametrize(("title", "registry"), [("Where", WHERES), ("How", METHODS), ("Guards", GUARDS)])
def test_tables_name_what_there_is(title: str, registry: list[str]) -> None:
    rows = [line.split("|")[1] for line in chapter(title).splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(registry)


def test_every_preset_has_a_purpose() -> None:
    rows = [line.split("|")[1] for line in chapter("Presets").splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(PRESETS)


def test_a_method_of_one_s_own_is_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", chapter("A method of one's own"), re.DOTALL)[0]
    added = dict[str, type[nn.Module]]()
    monkeypatch.setattr(METHODS, "register", lambda name: lambda kind: added.setdefault(name, kind))
    exec(compile(code, "treatment.md", "exec"), {"__name__": "mine"})
    assert added["shrink"].__doc__ == "Multiply the chosen places by a factor."
    assert Plan.model_validate({"how": added["shrink"](factor=0.8)}).how.kind == "shrink"
