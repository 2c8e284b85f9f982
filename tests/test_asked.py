"""What was asked, as data: the same case again, from any directory."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from suture.asked import Asked
from suture.errors import DataError, InvalidArgumentError, SplitOverlapError
from suture.images import ImageFormat
from suture.loading import load_model
from suture.moments import beside, measure_moments, save_moments
from tests import pictures, toys

TOYS = Path(toys.__file__)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """A tiny network on a tiny folder."""
    data = pictures.folder(tmp_path / "data", pictures.files({"cat": 10, "dog": 10}))
    return Asked(model=pictures.network(tmp_path / "model.py"), data=str(data))


def test_the_same_words_give_the_same_case(asked: Asked) -> None:
    first = asked.case()
    torch.manual_seed(99)
    assert asked.case().fingerprint == first.fingerprint
    assert first.classes == ["cat", "dog"]
    assert first.image == ImageFormat()


def test_weights_that_no_file_gives_come_from_the_seed_and_leave_the_generator_alone(asked: Asked) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    case = asked.case()
    assert torch.equal(torch.rand(1), expected)
    other = asked.model_copy(update={"seed": 43}).case()
    assert case.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"size": 6}, True),
        ({"mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0)}, True),
        ({"mean": (0.0, 0.0, 0.0), "std": (0.5, 0.5, 0.5)}, True),
        ({"seed": 43}, True),
        ({"groups": "tensor"}, True),
        ({"groups": {"all": ["*"]}}, True),
        ({"protocol": "paper"}, True),
        ({"batch_size": 64}, True),
        ({"classes": ("dog", "cat")}, True),
        ({"classes": ("cat", "dog")}, False),
        ({"device": "cpu"}, False),
        ({"skip_bad": True}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_case_changes_with_what_is_asked(asked: Asked, change: dict[str, object], differs: bool) -> None:
    changed = Asked.model_validate(asked.model_dump() | change)
    assert (changed.case().fingerprint != asked.case().fingerprint) is differs


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ImageFormat((0.0,) * 3, (1.0,) * 3)),
        ({"size": 4}, ImageFormat((0.0,) * 3, (1.0,) * 3, 4)),
        ({"mean": (0.5,), "std": (0.2,)}, ImageFormat((0.5,), (0.2,))),
    ],
    ids=["nothing", "size", "both"],
)
def test_what_is_not_said_about_pixels(given: dict[str, object], expected: ImageFormat) -> None:
    assert Asked.model_validate({"model": "m:f"} | given).image == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mean": (0.5,) * 3}, "--mean is given without --std; give both, .*: --std 1,1,1 if"),
        ({"std": (0.5,)}, "--std is given without --mean; give both, .*: --mean 0 if"),
    ],
)
def test_a_mean_and_a_deviation_go_together(given: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        _ = Asked.model_validate({"model": "m:f"} | given).image


@pytest.mark.parametrize("given", [{"mean": (0.5, 0.5)}, {"mean": (0.5,), "std": (0.5,) * 3}, {"mean": (127.5,)}])
def test_pixels_that_make_no_sense(given: dict[str, object]) -> None:
    with pytest.raises(DataError, match="--mean"):
        _ = Asked.model_validate({"model": "m:f"} | given).image


def test_paths_are_made_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("w.pt", "r.pt", "model.py", "data.zip"):
        Path(name).touch()
    for folder in ("classification", "my.package:net"):
        Path(folder).mkdir()
    asked = Asked(model="model.py:net", weights="w.pt", data="data.zip", reference="r.pt").absolute()
    assert asked.model == f"{tmp_path}/model.py:net"
    assert asked.weights == f"{tmp_path}/w.pt"
    assert asked.data == f"{tmp_path}/data.zip"
    assert asked.reference == f"{tmp_path}/r.pt"
    assert asked.task == "classification"
    by_name = Asked(model="my.package:net", verify="data.py:load", diagnose="absent", task="t.py:Mine").absolute()
    assert by_name.model == "my.package:net"
    assert by_name.verify == f"{tmp_path}/data.py:load"
    assert by_name.diagnose == "absent"
    assert by_name.task == f"{tmp_path}/t.py:Mine"


def test_json_and_back(asked: Asked) -> None:
    assert Asked.model_validate(asked.model_dump(mode="json")) == asked
    assert Asked.model_validate_json(asked.model_dump_json()).case().fingerprint == asked.case().fingerprint


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="wieghts"):
        Asked.model_validate({"model": "m:f", "wieghts": "w.pt"})


def test_the_code_is_that_of_the_files_named(tmp_path: Path) -> None:
    spec = pictures.network(tmp_path / "model.py")
    asked = Asked(model=spec, data=f"{TOYS}:data")
    before = asked.code
    assert len(before) == 2
    assert Asked(model=spec, weights="w.pt", data=f"{TOYS}:points", seed=3).code == before
    pictures.network(tmp_path / "model.py", classes=3)
    assert asked.code[0] != before[0]
    assert asked.code[1] == before[1]


def test_three_folders_for_three_splits(tmp_path: Path) -> None:
    folders = {
        name: str(pictures.folder(tmp_path / name, pictures.files({"cat": 8, "dog": 8}, seed=i)))
        for i, name in enumerate(("diagnose", "repair", "verify"))
    }
    case = Asked(model=pictures.network(tmp_path / "model.py"), **folders).case()
    assert {name: len(split) for name, split in case.splits.items()} == {
        "diagnose": 16, "repair": 12, "select": 4, "verify": 16,
    }  # fmt: skip
    assert case.splits["verify"].label(3) == "cat/3.png"


def test_the_same_picture_in_another_file_type_is_found(tmp_path: Path) -> None:
    first = pictures.files({"cat": 4, "dog": 4}, seed=1)
    second = pictures.files({"cat": 4, "dog": 4}, seed=2)
    copy = pictures.encoded(pictures.pixels(10_002), "BMP")  # the pixels of cat/2.png above
    paths = [
        str(pictures.folder(tmp_path / name, content))
        for name, content in (
            ("a", first),
            ("b", second | {"dog/renamed.bmp": copy}),
            ("c", pictures.files({"cat": 4, "dog": 4}, seed=3)),
        )
    ]
    asked = Asked(model=pictures.network(tmp_path / "model.py"), diagnose=paths[0], repair=paths[1], verify=paths[2])
    with pytest.raises(SplitOverlapError, match=r"dog/renamed\.bmp, there cat/2\.png"):
        asked.case()


@pytest.mark.filterwarnings("ignore:.* has one class")
@pytest.mark.parametrize(
    ("counts", "part"),
    [
        ({"cat": 4}, "'verify' lacks the class folder 'dog'"),
        ({"cat": 4, "dog": 4, "emu": 4}, "lacks the class folder 'emu'"),
    ],
    ids=["fewer", "more"],
)
def test_classes_must_be_the_same_in_every_split(tmp_path: Path, counts: dict[str, int], part: str) -> None:
    both = {"cat": 4, "dog": 4}
    paths = [
        str(pictures.folder(tmp_path / str(i), pictures.files(count, seed=i)))
        for i, count in enumerate((both, both, counts))
    ]
    asked = Asked(model=pictures.network(tmp_path / "model.py"), diagnose=paths[0], repair=paths[1], verify=paths[2])
    with pytest.raises(DataError, match=part):
        asked.case()


def test_further_examples_from_several_places(asked: Asked, tmp_path: Path) -> None:
    first, second = (
        str(pictures.folder(tmp_path / name, pictures.files({"cat": count, "dog": count}, seed=seed)))
        for name, count, seed in (("b", 3, 1), ("c", 5, 2))
    )
    plain = len(asked.case().splits["repair"])
    words = asked.model_dump(mode="json")
    both = Asked.model_validate(words | {"repair_extra": [first, second]}).case().splits["repair"]
    one = Asked.model_validate(words | {"repair_extra": first}).case().splits["repair"]  # as earlier releases wrote it
    assert (len(one), len(both)) == (plain + 6, plain + 16)
    assert len(both.without_extra()) == plain
    assert both.label(plain + 15) == "dog/4.png"
    assert both.strata[-8:] == [0, 0, 0, 1, 1, 1, 1, 1]


def test_further_examples_need_the_same_classes_wherever_they_are_from(asked: Asked, tmp_path: Path) -> None:
    dogs = pictures.files({"ant": 3, "dog": 3}, seed=2)
    same = str(pictures.folder(tmp_path / "b", pictures.files({"cat": 3, "dog": 3}, seed=1)))
    other = str(pictures.folder(tmp_path / "c", dogs))
    with pytest.raises(DataError, match=f"'data' lacks the class folder 'ant' that '{other}' has"):
        asked.model_copy(update={"repair_extra": (same, other)}).case()
    (tmp_path / "number.py").write_text("def number(): return 3\n")
    with pytest.raises(DataError, match="the data for repair_extra is int; it needs a length"):
        asked.model_copy(update={"repair_extra": (same, f"{tmp_path}/number.py:number")}).case()


def test_paths_of_further_examples_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("more.zip").touch()
    asked = Asked(model="m:f", repair_extra=("more.zip", "more.py:load")).absolute()
    assert asked.repair_extra == (f"{tmp_path}/more.zip", f"{tmp_path}/more.py:load")
    Path("more.py").write_text("")
    before = asked.code[1]
    assert len(asked.code) == 2
    Path("more.py").write_text("# other")
    assert asked.code[1] != before


def test_a_record_of_moments_beside_the_weights_comes_with_the_case(asked: Asked, tmp_path: Path) -> None:
    model = load_model(asked.model)
    weights = tmp_path / "net.safetensors"
    save_file(model.state_dict(), weights)
    with_weights = asked.model_copy(update={"weights": str(weights)})
    without = with_weights.case()
    assert without.moments == {}
    record = measure_moments(without.model, without.splits["diagnose"], without.task, device=torch.device("cpu"))
    save_moments(record, beside(weights))
    case = with_weights.case()
    assert list(case.moments) == list(record)
    assert case.fingerprint != without.fingerprint
    beside(weights).write_bytes(b"nonsense")
    with pytest.raises(InvalidArgumentError, match="no record of moments"):
        with_weights.case()
