"""One cell: what its key depends on, what it may return, what it leaves behind."""

import json

import pytest

import suture.studies.cells as cells
from suture.errors import InvalidArgumentError, SutureError
from suture.studies.cells import attempt, load_function, tasks
from suture.studies.grid import Cell

HERE = "tests.studies.functions:"


def task(folder, function="square", **point):
    return tasks(HERE + function, [Cell(point, point)], folder)[0]


def key(function, folder, **parameters):
    return tasks(function, [Cell(parameters, parameters)], folder)[0].key


def test_a_finished_cell_has_its_result_and_its_log(tmp_path):
    this = task(tmp_path, x=3)
    assert this.rows() is None
    assert attempt(this) is None
    assert this.rows() == [{"x": 3, "y": 9}]
    stored = json.loads((this.directory / "result.json").read_text())
    assert stored["key"] == this.key
    assert stored["parameters"] == {"x": 3}
    assert stored["seconds"] >= 0
    assert (this.directory / "log.txt").read_text() == "x is 3\nto the other stream\n"
    assert sorted(p.name for p in this.directory.iterdir()) == ["log.txt", "result.json"]


def test_a_failed_cell_has_its_traceback_until_it_succeeds(tmp_path, monkeypatch):
    this = task(tmp_path, "some_fail", x=2)
    assert attempt(this) == "ValueError: two is too much"
    assert this.rows() is None
    error = (this.directory / "error.txt").read_text()
    assert error.startswith("Traceback")
    assert "functions.py" in error
    monkeypatch.setattr("tests.studies.functions.some_fail", lambda x: {"y": x})
    cells._loaded.cache_clear()
    assert attempt(this) is None
    assert not (this.directory / "error.txt").exists()
    cells._loaded.cache_clear()


def test_a_cell_that_exits_has_failed(tmp_path):
    assert attempt(task(tmp_path, "some_fail", x=3)) == "SystemExit: 7"


def test_an_interrupt_gets_out(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        attempt(task(tmp_path, "interrupted", x=2))


def test_another_key_is_no_answer(tmp_path):
    this = task(tmp_path, x=3)
    attempt(this)
    stored = json.loads((this.directory / "result.json").read_text())
    (this.directory / "result.json").write_text(json.dumps(stored | {"key": "of something else"}))
    assert this.rows() is None


def test_numbers_of_numpy_become_plain_and_what_is_not_finite_missing(tmp_path):
    this = task(tmp_path, "kinds", kind="numpy")
    assert attempt(this) is None
    assert this.rows() == [{"kind": "numpy", "a": 0.5, "b": 3, "c": True, "d": 2.0, "e": "s"}]
    this = task(tmp_path, "kinds", kind="missing")
    assert attempt(this) is None
    assert this.rows() == [{"kind": "missing", "nan": None, "inf": None, "none": None}]
    assert (this.directory / "log.txt").read_text() == "'nan' is nan: kept as missing\n'inf' is inf: kept as missing\n"


def test_several_rows_or_none(tmp_path):
    this = task(tmp_path, "several", n=2)
    attempt(this)
    assert this.rows() == [{"n": 2, "i": 0, "even": True}, {"n": 2, "i": 1, "even": False}]
    this = task(tmp_path, "kinds", kind="empty")
    attempt(this)
    assert this.rows() == []


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("nothing", "a cell returns a row (name → value) or a list of rows, not a NoneType"),
        ("number", "a cell returns a row (name → value) or a list of rows, not a int"),
        ("mixed", "a cell returns a row (name → value) or a list of rows, not a list"),
        ("nested", "'a' is a list; a row holds numbers, texts, true, false and None"),
        ("numbered", "the names of a row are texts, not 1"),
        ("axis", "'kind' is an axis of the study; return it under another name"),
    ],
)
def test_what_no_row_can_hold_fails_the_cell(kind, sentence, tmp_path):
    assert attempt(task(tmp_path, "kinds", kind=kind)) == f"DataError: {sentence}"


def test_a_cell_may_keep_files_and_finds_them_again(tmp_path):
    this = task(tmp_path, "keeps_files", x=1)
    attempt(this)
    assert this.rows() == [{"x": 1, "again": False}]
    (this.directory / "result.json").unlink()
    attempt(this)
    assert this.rows() == [{"x": 1, "again": True}]


def test_the_key_is_of_function_parameters_and_version(tmp_path, monkeypatch):
    first = key(HERE + "square", tmp_path, x=3)
    assert key(HERE + "square", tmp_path / "elsewhere", x=3) == first
    assert len({first, key(HERE + "square", tmp_path, x=4), key(HERE + "kinds", tmp_path, x=3)}) == 3
    assert key(HERE + "square", tmp_path, x=3.0) != first
    monkeypatch.setattr(cells, "version", lambda name: "99")
    assert key(HERE + "square", tmp_path, x=3) != first


def test_the_key_is_of_the_source_of_a_file_and_not_of_its_place(tmp_path):
    def written(folder, text):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "code.py").write_text(text)
        return key(f"{tmp_path / folder / 'code.py'}:f", tmp_path)

    first = written("a", "def f(): return {}\n")
    assert written("b", "def f(): return {}\n") == first
    assert written("b", "def f(): return {'x': 1}\n") != first


def test_the_key_is_of_every_file_of_a_package_whose_init_has_the_function(tmp_path, monkeypatch):
    package = tmp_path / "some_package_of_cells"
    package.mkdir()
    (package / "__init__.py").write_text("def f(): return {}\n")
    (package / "part.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    first = key("some_package_of_cells:f", tmp_path)
    (package / "part.py").write_text("x = 2\n")
    assert key("some_package_of_cells:f", tmp_path) != first


def test_the_key_is_of_the_content_of_files_that_parameters_name(tmp_path):
    data, code = tmp_path / "data.txt", tmp_path / "model.py"
    data.write_text("1")
    code.write_text("x = 1")

    def now(path=data):
        return key(HERE + "reads", tmp_path, path=str(path)), key(HERE + "anything", tmp_path, m=[f"{code}:net"])

    first = now()
    assert now() == first
    copy = tmp_path / "copy.txt"
    copy.write_text("1")
    assert now(copy) == first
    data.write_text("2")
    code.write_text("x = 2")
    assert not set(now()) & set(first)
    key(HERE + "reads", tmp_path, path="x" * 100_000)  # a long text is no path


def test_changed_source_is_loaded_anew(tmp_path):
    path = tmp_path / "code.py"
    path.write_text("n = []\ndef f():\n    n.append(1)\n    return {'calls': len(n)}\n")
    where = f"{path}:f"
    for expected in (1, 2):  # what the file keeps in memory is kept
        (this,) = tasks(where, [Cell({}, {})], tmp_path / str(expected))
        attempt(this)
        assert this.rows() == [{"calls": expected}]
    path.write_text("def f():\n    return {'calls': -1}\n")
    (this,) = tasks(where, [Cell({}, {})], tmp_path / "third")
    attempt(this)
    assert this.rows() == [{"calls": -1}]


def test_names_of_folders_are_harmless(tmp_path):
    for value in ("../../etc/passwd", "a/b", ".", "..", "", "x" * 500, "ä\n\x00", "-rf"):
        this = task(tmp_path, "kinds", kind=value)
        assert this.directory.parent == tmp_path
        assert len(this.directory.name) < 100
        this.directory.mkdir()
    assert len(list(tmp_path.iterdir())) == 8


@pytest.mark.parametrize(
    ("spec", "names", "sentence"),
    [
        (HERE + "square", ["x", "shif"], "takes no parameter 'shif'; did you mean 'shift'?"),
        (HERE + "square", ["shift"], "needs the parameter 'x'; give it under fixed or axes"),
        (HERE + "NOT_A_FUNCTION", [], "is a int and no function"),
        ("builtins:min", [], "does not tell its parameters"),
        ("tests.studies.functions.sub:f", [], "No module named 'tests.studies.functions.sub'"),
        (HERE + "squar", [], "has no 'squar'; did you mean 'square'?"),
        ("no.such.module:f", [], "No module named 'no'"),
        ("nonsense", [], "'nonsense' names no object"),
        ("/nowhere/code.py:f", [], "there is no file /nowhere/code.py"),
    ],
)
def test_functions_that_cannot_be_called_so(spec, names, sentence):
    with pytest.raises(SutureError, match=sentence.replace("?", r"\?")) as caught:
        load_function(spec, names)
    assert caught.value.exit_code == 2


def test_functions_with_open_parameters_and_a_directory():
    assert callable(load_function(HERE + "anything", ["x", "y"]))
    assert callable(load_function(HERE + "keeps_files", ["x"]))
    with pytest.raises(InvalidArgumentError, match="needs the parameter 'x'"):
        load_function(HERE + "keeps_files", [])


def test_a_file_that_is_no_text_is_told_and_not_our_fault(tmp_path):
    (tmp_path / "code.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgumentError, match=r"importing .*code\.py failed: SyntaxError"):
        load_function(f"{tmp_path / 'code.py'}:f", [])
