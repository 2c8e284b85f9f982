"""From axes to cells, and grids that contradict themselves."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.studies.grid import LARGEST, Study, expand

BASE = {"title": "t", "cell": "m:f"}


def study(**parts):
    return Study.model_validate(BASE | parts)


def points(*arguments, **parts):
    return [cell.point for cell in expand(study(**parts), *arguments)]


def test_the_last_axis_runs_fastest():
    assert points(axes={"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_without_axes_there_is_one_cell():
    (cell,) = expand(study(fixed={"n": 3}))
    assert (cell.point, cell.parameters, cell.label) == ({}, {"n": 3}, "cell")


def test_fixed_parameters_reach_every_cell_and_stay_out_of_its_label():
    cells = expand(study(fixed={"n": 3}, axes={"a": [1, 2.5, True, [1, "x"], {"k": 1}]}))
    assert [cell.parameters for cell in cells] == [{"n": 3, "a": a} for a in (1, 2.5, True, [1, "x"], {"k": 1})]
    assert [cell.label for cell in cells] == ["a=1", "a=2.5", "a=true", 'a=[1, "x"]', 'a={"k": 1}']


def test_exclude_drops_every_cell_with_all_of_its_values_and_include_adds_at_the_end():
    found = points(
        axes={"a": [1, 2], "b": ["x", "y"]}, exclude=[{"a": 1, "b": "x"}, {"b": "y"}], include=[{"b": "z", "a": 9}]
    )
    assert found == [{"a": 2, "b": "x"}, {"a": 9, "b": "z"}]


def test_an_empty_exclude_drops_nothing():
    assert len(points(axes={"a": [1, 2]}, exclude=[{}])) == 2


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.sampled_from([0, 0.0, False, "", "x", "é", -1, 2.5]), min_size=1),
        max_size=4,
    )
)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_cells_are_the_product_of_the_axes_each_once(axes):
    axes = {axis: list({json.dumps(value): value for value in values}.values()) for axis, values in axes.items()}
    cells = expand(study(axes=axes))
    assert len(cells) == math.prod(map(len, axes.values()))
    assert len({json.dumps(cell.point) for cell in cells}) == len(cells)
    assert all(list(cell.point) == list(axes) for cell in cells)


def test_true_and_one_and_one_point_zero_are_three_values():
    assert len(points(axes={"a": [1, 1.0, True]})) == 3
    assert points(axes={"a": [1, True]}, exclude=[{"a": True}]) == [{"a": 1}]


def test_presets_replace_values_and_whole_lists():
    parts = {
        "fixed": {"n": 200, "k": 1},
        "axes": {"seed": [1, 2, 3], "method": ["a", "b"]},
        "include": [{"seed": 9, "method": "a"}],
        "exclude": [{"seed": 3}],
        "presets": {
            "small": {"fixed": {"n": 2}, "axes": {"seed": [1]}, "include": []},
            "other": {"exclude": []},
        },
    }
    assert len(points(**parts)) == 5
    small = expand(study(**parts), "small")
    assert [cell.point for cell in small] == [{"seed": 1, "method": "a"}, {"seed": 1, "method": "b"}]
    assert small[0].parameters == {"n": 2, "k": 1, "seed": 1, "method": "a"}
    assert len(points("other", **parts)) == 7


def test_an_unknown_preset_is_answered_with_the_near_one():
    with pytest.raises(UnknownNameError, match=r"no preset is called 'smal'; did you mean 'small'\?"):
        expand(study(presets={"small": {}}), "smal")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"axes": {"a": []}}, r"axes\.a is empty"),
        ({"axes": {"a": [1, 2, 1]}}, r"axes\.a has 1 twice"),
        ({"axes": {"a b": [1]}}, "'a b' cannot be the name of a parameter"),
        ({"axes": {"directory": [1]}}, "'directory' cannot be the name of a parameter"),
        ({"fixed": {"a": 1}, "axes": {"a": [1]}}, "'a' is both an axis and fixed"),
        ({"fixed": {"a": math.inf}}, r"fixed\.a is inf, which results cannot hold"),
        ({"axes": {"a": [[1, math.nan]]}}, r"axes\.a is nan"),
        ({"axes": {"a": [{"b": object()}]}}, r"axes\.a is a object; write it as a text"),
        ({"axes": {"a": [1]}, "include": [{"b": 1}]}, "include: the study has no axis 'b'; there are a"),
        ({"axes": {"a": [1], "b": [1]}, "include": [{"a": 2}]}, "include: 'b' is missing; give every axis a value"),
        ({"axes": {"a": [1]}, "include": [{"a": 1}]}, "the cell a=1 is listed twice"),
        ({"axes": {"a": [1]}, "exclude": [{"aa": 1}]}, "exclude: the study has no axis 'aa'"),
        (
            {"axes": {"method": ["physics"]}, "exclude": [{"method": "phisics"}]},
            "exclude: phisics is no value of the axis 'method'; did you mean 'physics'?",
        ),
        ({"axes": {"a": [1]}, "exclude": [{"a": 1}]}, "exclude leaves no cell"),
    ],
)
def test_grids_that_contradict_themselves(parts, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        expand(study(**parts))


def test_a_preset_cannot_bring_an_axis():
    with pytest.raises(InvalidArgumentError, match=r"presets\.p\.axes: the study has no axis 'b'"):
        expand(study(axes={"a": [1]}, presets={"p": {"axes": {"b": [1]}}}), "p")


def test_an_exploding_grid_is_refused_before_it_is_built():
    with pytest.raises(InvalidArgumentError, match="the axes make 10,000,000,000 cells; at most 100,000"):
        expand(study(axes={name: list(range(100)) for name in "abcde"}))
    assert len(expand(study(axes={"a": list(range(1000))}))) == 1000 < LARGEST
