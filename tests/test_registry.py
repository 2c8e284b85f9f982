"""Names are found, suggested, and never overwritten."""

import pytest

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.localizers import LOCALIZERS, RULES
from suture.registry import LISTED, Registry, suggest
from suture.tasks import TASKS


@pytest.fixture
def shapes() -> Registry[int]:
    """A registry of three."""
    registry: Registry[int] = Registry("shape")
    for sides, name in enumerate(("circle", "line", "triangle"), start=1):
        registry.register(name)(sides)
    return registry


def test_it_is_a_mapping_in_the_order_of_registration(shapes: Registry[int]) -> None:
    assert dict(shapes) == {"circle": 1, "line": 2, "triangle": 3}
    assert list(shapes) == ["circle", "line", "triangle"]
    assert len(shapes) == 3
    assert "line" in shapes
    assert "square" not in shapes
    assert shapes.get("square") is None


def test_register_gives_back_what_it_got() -> None:
    thing = object()
    assert Registry("thing").register("name")(thing) is thing


def test_a_name_is_not_taken_twice(shapes: Registry[int]) -> None:
    with pytest.raises(InvalidArgumentError, match="a shape called 'line' exists already; choose another name"):
        shapes.register("line")(4)
    assert shapes["line"] == 2


def test_a_function_or_class_that_is_defined_once_more_takes_its_own_place() -> None:
    registry: Registry[object] = Registry("thing")

    def cell(version: int) -> object:  # as a notebook's cell that is run again
        def score() -> int:
            return version

        class Score: ...

        registry.register("class")(Score)
        return registry.register("function")(score)

    first, second = cell(1), cell(2)
    assert registry["function"] is second is not first
    assert list(registry) == ["class", "function"]

    def score() -> int:  # of the same name, and from somewhere else
        return 3

    with pytest.raises(InvalidArgumentError, match="'function' exists already"):
        registry.register("function")(score)


@pytest.mark.parametrize(("name", "meant"), [("circel", "circle"), ("Line", "line"), ("triangles", "triangle")])
def test_a_near_miss_is_answered_with_the_name(shapes: Registry[int], name: str, meant: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        shapes[name]
    assert str(caught.value) == f"no shape is called '{name}'; did you mean '{meant}'?"


def test_a_far_miss_is_answered_with_the_list(shapes: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match="no shape is called 'xyz'; there are circle, line, triangle"):
        shapes["xyz"]


def test_an_unknown_name_is_a_key_error(shapes: Registry[int]) -> None:
    with pytest.raises(KeyError):
        shapes["xyz"]


def test_long_lists_are_cut_and_the_rest_is_counted() -> None:
    names = [f"name{i}" for i in range(LISTED + 3)]
    assert suggest("?", names).endswith(f"name{LISTED - 1} and 3 more")
    assert suggest("?", names[:LISTED]).endswith(f"name{LISTED - 1}")
    assert suggest("?", []) == "there are none"


@pytest.mark.parametrize("registry", [LOCALIZERS, RULES, TASKS], ids=lambda registry: registry.kind)
def test_everything_registered_says_what_it_is(registry: Registry[object]) -> None:
    assert registry
    for name, thing in registry.items():
        assert thing.__doc__, name
        assert name == name.strip().lower(), name
