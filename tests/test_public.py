"""What users may rely on: public names, and how little they cost to import."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import suture
from tests.golden.write import GOLDEN, HERE

HEAVY = (
    "torch", "numpy", "pandas", "matplotlib", "scipy", "sklearn", "transformers", "ray", "pydantic", "PIL", "jinja2",
    "safetensors", "torchvision",
)  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_lists(name: str) -> None:
    assert GOLDEN[name]() == (HERE / name).read_text(), "if this is wanted: make golden, and review the diff"


@pytest.mark.parametrize("name", suture.__all__)
def test_every_public_name_resolves_to_one_thing(name: str) -> None:
    thing = getattr(suture, name)
    assert getattr(suture, name) is thing
    assert isinstance(thing, ModuleType) is (name in suture.MODULES)
    assert inspect.getdoc(thing)


def test_functions_are_not_hidden_by_the_modules_they_live_in() -> None:
    for stage in ("scan", "localize", "diagnose", "treat", "verify"):
        importlib.import_module(f"suture.stages.{stage}")
        importlib.import_module(f"suture.views.{stage}")
        assert inspect.isfunction(getattr(suture, stage))


def test_names_for_type_checkers_are_the_names_there_are() -> None:
    tree = ast.parse(Path(suture.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    named = {f"{each.module}.{alias.name}" for each in block.body for alias in each.names}
    homes = {f"{home}.{name}" for home, names in suture.HOMES.items() for name in names}
    assert named == homes | {f"suture.{module}" for module in suture.MODULES}


def test_all_is_sorted_and_complete() -> None:
    lazy = {name for names in suture.HOMES.values() for name in names} | set(suture.MODULES)
    assert suture.__all__ == sorted(suture.__all__)
    assert set(suture.__all__) == lazy
    assert dir(suture) == sorted([*suture.__all__, "__version__"])


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert suture.__version__ == version("suture")


def test_other_names_are_refused_like_those_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'suture' has no attribute 'localise'"):
        _ = suture.localise


# Import budget


def loaded_by(code: str) -> list[str]:
    """Which heavy libraries a new process has loaded after some code."""
    after = f"import json, sys; sys.stderr.write(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    words = [sys.executable, "-W", "error", "-c", f"{code}\n{after}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import suture; dir(suture); suture.__version__",
        "import suture.errors, suture.registry, suture.groups",
        "from suture.cli.app import _run; _run(['--help'])",
        "from suture.cli.app import _run; _run(['--version'])",
    ],
    ids=["suture", "errors and groups", "--help", "--version"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_by(code) == []


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--help"],
        ["rnu"],
        ["run", "--size", "large"],
        ["run", "--model", "m:f", "--out", "absent", "--plan", "fulll"],
        ["treat", "absent", "--plan", "fulll"],
        ["treat", "absent", "--plan", "absent.toml"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded_to_read_a_command_line(words: list[str]) -> None:
    found = loaded_by(f"from suture.cli.app import _run; _run({words})")
    assert set(found) <= {"pydantic"}, "newer releases of typer read options with pydantic; nothing else is needed"


def test_the_budget_would_notice() -> None:
    assert "torch" in loaded_by("import suture; suture.load_model")
