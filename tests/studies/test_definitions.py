"""Study files: the catalog, and files by people who never read the manual."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suture.errors import InvalidArgumentError, MissingFileError, SutureError, UnknownNameError
from suture.studies.cells import load_function
from suture.studies.definitions import CATALOG, catalog, load_study
from suture.studies.grid import expand
from suture.studies.tables import columns_of

GOOD = 'title = "t"\ncell = "m:f"\n'


@pytest.mark.parametrize("name", catalog())
def test_every_study_of_the_catalog_is_valid_and_its_cells_resolve(name):
    definition = load_study(name)
    study = definition.study
    assert definition.name == name
    assert study.title
    assert len(study.title) <= 80
    for preset in (None, *study.presets):
        cells = expand(study, preset)
        assert callable(load_function(study.cell, list(cells[0].parameters)))
        # What is asked to be shown of the grid exists; columns of results are seen when it is done.
        assert columns_of([cells[0].point]) == list(study.axes)


def test_the_catalog_knows_its_files():
    assert "paper/audit" in catalog()
    assert len(catalog()) == len(list(CATALOG.rglob("*.toml")))


def test_a_file_is_called_by_its_stem_and_its_cell_is_beside_it(tmp_path):
    (tmp_path / "mine.toml").write_text('title = "t"\ncell = "sub/code.py:f"\n')
    found = load_study(tmp_path / "mine.toml")
    assert (found.name, found.cell) == ("mine", "sub/code.py:f")
    assert found.study.cell == f"{tmp_path}/sub/code.py:f"


def test_a_module_is_left_as_it_is(tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load_study(str(tmp_path / "mine.toml")).study.cell == "m:f"


def test_names_that_do_not_exist(tmp_path):
    with pytest.raises(UnknownNameError, match=r"no study is called 'paper/audi'; did you mean 'paper/audit'\?"):
        load_study("paper/audi")
    with pytest.raises(MissingFileError, match=r"there is no file .*none\.toml"):
        load_study(tmp_path / "none.toml")
    with pytest.raises(UnknownNameError, match="no study is called"):
        load_study("../catalog/paper/audit")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'title' is missing; 'cell' is missing"),
        (GOOD + "axis = 3", "unknown key 'axis', did you mean 'axes'?"),
        (GOOD + "[table]\ncolumn = []", r"unknown key 'table\.column', did you mean 'columns'?"),
        (GOOD + "[presets.small]\naxis = {}", r"unknown key 'presets\.small\.axis', did you mean 'axes'?"),
        (GOOD + "[presets]\nsmall = 3", r"'presets\.small' must be a table, got 3"),
        ("title = 3\ncell = 'm:f'", "'title' must be a text, got 3"),
        (GOOD + "axes = 3", "'axes' must be a table, got 3"),
        (GOOD + "[axes]\nseed = 3", r"'axes\.seed' must be a list, got 3"),
        (GOOD + "[[axes]]\nseed = [3]", "'axes' must be a table, got"),
        (GOOD + "include = [3]", r"'include\.0' must be a table, got 3"),
        (GOOD + "[table]\nby = 'method'", r"'table\.by' must be a list, got 'method'"),
        (GOOD + "[axes]\nday = [2026-01-01]", r"axes\.day is a date; write it as a text"),
        (GOOD + "[axes]\nx = [nan]", r"axes\.x is nan"),
        (GOOD + "a = 1\nb = 2\nc = 3\nd = 4\ne = 5", "unknown key 'a', .*; and 2 more"),
        (GOOD + "[presets.p]\naxes = {b = [1]}", r"presets\.p\.axes: the study has no axis 'b'"),
        ("title = ", "this is not TOML"),
        ("title = 't'\ntitle = 't'", "this is not TOML"),
        ("x = " + "[" * 20_000, "this is not TOML"),
    ],
)
def test_bad_files_get_a_sentence_that_names_the_file(text, sentence, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=sentence) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_file_that_is_no_text_and_a_folder(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00title")
    with pytest.raises(InvalidArgumentError, match="this is not TOML"):
        load_study(tmp_path / "binary.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(MissingFileError, match="there is no file"):
        load_study(tmp_path / "folder.toml")


KEYS = st.sampled_from(["title", "cell", "axes", "fixed", "include", "exclude", "presets", "table", "x.y", '"a b"'])
VALUES = st.sampled_from(
    [
        '"t"',
        "3",
        "true",
        "nan",
        "[]",
        "[1, 2]",
        "{}",
        "{a = [1]}",
        "[{a = 1}]",
        "{small = {axes = {a = [2]}}}",
        "1979-05-27",
    ]
)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=8))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_whatever_a_file_says_it_is_a_study_or_a_sentence(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in lines))
    sentence = ""
    try:
        expand(load_study(path).study)
    except SutureError as error:
        sentence = str(error)
    assert "\n" not in sentence
