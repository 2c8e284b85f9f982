"""Pictures as data: every way in which folders, zips and files can be right or wrong."""

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from suture import images, listing
from suture.errors import DataError
from suture.images import ImageFolder, ImageFormat, decode, is_turned, pixels_of
from suture.listing import class_names
from suture.splits import Index
from tests import pictures

RGB = ImageFormat()
GREY = ImageFormat((0.0,), (1.0,))
B_PICTURE = {"b/y.png": pictures.encoded(pictures.pixels(2))}

Make = Callable[[Path, dict[str, bytes]], Path]


@pytest.fixture(params=["folder", "zip"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Writes the same files as a folder or as a zip."""
    if request.param == "zip":
        return lambda content: pictures.archive(tmp_path / "data.zip", content)
    return lambda content: pictures.folder(tmp_path / "data", content)


# What a good folder becomes


def test_classes_are_the_sorted_folder_names_and_files_keep_theirs(make: Make) -> None:
    data = ImageFolder(make(pictures.files({"dog": 2, "cat": 3})), RGB)
    assert data.classes == ["cat", "dog"]
    assert data.names == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    assert data.targets == [0, 0, 0, 1, 1]
    assert len(data) == 5
    assert data.skipped == []


def test_inputs_are_normalised_pixels(make: Make) -> None:
    image = ImageFormat((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    data = ImageFolder(make({"a/x.png": pictures.encoded(pictures.pixels(1))} | B_PICTURE), image)
    inputs, label = data[0]
    expected = (pictures.pixels(1) / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
    assert label == 0
    assert inputs.shape == (3, 8, 8)
    torch.testing.assert_close(inputs, torch.tensor(expected.transpose(2, 0, 1), dtype=torch.float32))


def test_several_pictures_at_once_are_those_one_by_one(make: Make) -> None:
    data = ImageFolder(make(pictures.files({"a": 3, "b": 3})), RGB)
    inputs, labels = data.read_batch([4, 0, 0])
    assert torch.equal(inputs, torch.stack([data[i][0] for i in (4, 0, 0)]))
    assert labels.tolist() == [1, 0, 0]


def test_without_room_for_a_cache_pictures_are_the_same(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(pictures.files({"a": 3, "b": 3}))
    cached = [x for x, _ in (ImageFolder(path, RGB)[i] for i in range(6))]
    monkeypatch.setattr(images, "CACHE_BYTES", 0)
    uncached = ImageFolder(path, RGB)
    assert all(torch.equal(x, uncached[i][0]) for i, x in enumerate(cached))
    assert torch.equal(uncached.read_batch([5, 1])[0], torch.stack([cached[5], cached[1]]))


def test_a_folder_around_the_class_folders_is_looked_through(make: Make) -> None:
    content = {f"photos/2026/{name}": data for name, data in pictures.files({"a": 1, "b": 1}).items()}
    assert ImageFolder(make(content), RGB).classes == ["a", "b"]


def test_folders_inside_a_class_belong_to_the_class(make: Make) -> None:
    content = pictures.files({"a": 2, "b/monday": 1, "b/tuesday": 1})
    data = ImageFolder(make(content), RGB)
    assert data.classes == ["a", "b"]
    assert data.targets == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["two words", "Größe", "<b>bold</b>", "犬", "100%", "a&b", "it's"], ids=ascii)
def test_class_names_may_be_any_text(make: Make, name: str) -> None:
    safe = name.replace("/", "∕")  # what no folder can be called
    data = ImageFolder(make(pictures.files({safe: 1, "zz": 1})), RGB)
    assert safe in data.classes


def test_suffixes_may_be_upper_case_and_other_files_are_left_alone(make: Make) -> None:
    content = {
        "a/1.PNG": pictures.encoded(pictures.pixels(1)),
        "a/2.JPeG": pictures.encoded(pictures.pixels(2), "JPEG"),
        "b/3.png": pictures.encoded(pictures.pixels(3)),
        "b/4.jfif": pictures.encoded(pictures.pixels(4), "JPEG"),
        "b/notes.txt": b"not a picture",
        "labels.csv": b"a,b",
    }
    assert ImageFolder(make(content), RGB).names == ["a/1.PNG", "a/2.JPeG", "b/3.png", "b/4.jfif"]


def test_files_that_may_be_pictures_of_another_kind_are_passed_over_and_counted(make: Make) -> None:
    other = {"photos/b/9.HEIC": b"?", "photos/b/more/8.heic": b"?", "photos/a/7": b"?"}
    beside = {f"photos/{name}": b"?" for name in ("a/Thumbs.db", "a/notes.txt", "a/.hidden", "setup.exe")}
    content = {f"photos/{name}": data for name, data in pictures.files({"a": 2, "b": 1}).items()}
    path = make(content | other | beside)
    data = ImageFolder(path, RGB)
    assert data.passed_over == ["photos/a/7", "photos/b/9.HEIC", "photos/b/more/8.heic"]
    (note,) = data.notes()
    said = "3 files in class folders passed over (2 .heic, 1 without a suffix), the first 'photos/a/7'; read are .bmp"
    assert note.startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    "litter", ["a/._1.png", ".ipynb_checkpoints/x/1.png", "a/.ipynb_checkpoints/1.png", "__MACOSX/a/1.png"]
)
def test_what_systems_and_editors_leave_behind_is_no_picture(make: Make, litter: str) -> None:
    data = ImageFolder(make(pictures.files({"a": 1, "b": 1}) | {litter: b"no picture"}), RGB)
    assert data.names == ["a/0.png", "b/0.png"]


def test_linked_class_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    real = pictures.folder(tmp_path / "elsewhere", pictures.files({"a": 2}))
    path = pictures.folder(tmp_path / "data", pictures.files({"b": 1}))
    (path / "a").symlink_to(real / "a")
    (path / "b" / "round").symlink_to(path)
    assert ImageFolder(path, RGB).names == ["a/0.png", "a/1.png", "b/0.png"]


def test_size_makes_pictures_of_different_sizes_equal(make: Make) -> None:
    content = {f"a/{n}.png": pictures.encoded(pictures.pixels(n, n, 9)) for n in (8, 12)} | B_PICTURE
    data = ImageFolder(make(content), ImageFormat(size=6))
    assert {tuple(data[i][0].shape) for i in range(3)} == {(3, 6, 6)}


# What is refused, and in which words


def refused(path: Path, *parts: str, image: ImageFormat = RGB, skip_bad: bool = False) -> None:
    with pytest.raises(DataError) as caught:
        ImageFolder(path, image, skip_bad=skip_bad)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in (*parts, str(path)):
        assert part in sentence


@pytest.mark.parametrize("content", [{}, {"a/": b""}, {"a/readme.txt": b"hello"}], ids=["nothing", "folder", "text"])
def test_no_pictures_at_all(make: Make, tmp_path: Path, content: dict[str, bytes]) -> None:
    (tmp_path / "data").mkdir()
    refused(make(content), "holds no pictures", ".png")


def test_an_empty_class_folder_is_named(make: Make) -> None:
    refused(make(pictures.files({"a": 1, "b": 1}) | {"empty/": b""}), "'empty'", "holds no picture")


def test_an_empty_class_folder_is_named_below_a_wrapping_folder(make: Make) -> None:
    content = {f"photos/{name}": data for name, data in pictures.files({"a": 1, "b": 1}).items()}
    refused(make(content | {"photos/empty/": b""}), "'empty'", "holds no picture")


def test_what_a_class_folder_without_pictures_holds_is_said(make: Make) -> None:
    other = {"c/1.heic": b"?", "c/2.HEIC": b"?", "c/notes.txt": b"?"}
    said = "the class folder 'c' of", "holds no picture but 2 .heic, 1 .txt; fill or remove it"
    refused(make(pictures.files({"a": 1, "b": 1}) | other), *said)


def test_what_a_folder_without_pictures_holds_is_said(make: Make) -> None:
    refused(make({"a/1.heic": b"?", "b/2.heic": b"?"}), "holds no pictures", ".webp) but 2 .heic")


def test_pictures_beside_the_class_folders(make: Make) -> None:
    refused(
        make(pictures.files({"a": 1}) | {"loose.png": pictures.encoded(pictures.pixels(1))}), "'loose.png'", "CLASS/"
    )


def test_pictures_without_any_class_folder(make: Make) -> None:
    refused(make({"1.png": pictures.encoded(pictures.pixels(1))}), "'1.png'", "CLASS/PICTURE")


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val", "TEST")], ids="-".join)
def test_splits_given_as_classes(make: Make, names: tuple[str, ...]) -> None:
    content = pictures.files({f"{split}/{c}": 1 for split in names for c in "ab"})
    refused(make(content), *names, "splits and not classes", "--diagnose")


def test_different_sizes_without_size(make: Make) -> None:
    content = {
        "a/1.png": pictures.encoded(pictures.pixels(1, 8, 9)),
        "a/2.png": pictures.encoded(pictures.pixels(2, 7, 6)),
    }
    refused(make(content), "'a/1.png' is 9x8", "'a/2.png' is 6x7", "--size")


def _broken() -> dict[str, bytes]:
    jpeg, png = pictures.encoded(pictures.pixels(5, 64, 64), "JPEG"), pictures.encoded(pictures.pixels(5, 64, 64))
    return {
        "empty.png": b"",
        "text.jpg": b"hello, I am a text file\n",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[: len(png) // 2],
        "scrambled.png": png[:40] + random.Random(0).randbytes(len(png) - 40),
        "bomb.png": _bomb(20_000),
        "half-bomb.png": _bomb(10_000),  # Pillow only warns of this one
        "text-bomb.png": _text_bomb(),
    }


def _bomb(side: int) -> bytes:
    """A small file that claims side² pixels."""
    return pictures.encoded(Image.new("1", (side, side)))


def _text_bomb() -> bytes:
    """A picture of four pixels with 70 MB of compressed text about it."""
    packed = zlib.compress(b"x" * 70_000_000)
    chunk = b"zTXt" + b"comment\0\0" + packed
    whole = pictures.encoded(pictures.pixels(1, 2, 2))
    return whole[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]


BROKEN = _broken()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named_and_only_left_out_on_request(make: Make, name: str) -> None:
    path = make(pictures.files({"a": 2, "b": 2}) | {f"a/{name}": BROKEN[name]})
    refused(path, f"'a/{name}'", "not a readable picture", "--skip-bad")
    data = ImageFolder(path, RGB, skip_bad=True)
    assert data.skipped == [f"a/{name}"]
    assert data.names == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert data.targets == [0, 0, 1, 1]


def test_of_pictures_left_out_the_classes_are_counted_and_the_first_is_named(make: Make) -> None:
    broken = {"b/1.png": b"no picture", "c/7.png": b"", "c/8.png": b"", "c/9.png": b""}
    path = make(pictures.files({"a": 2, "b": 3}) | broken)
    data = ImageFolder(path, RGB, skip_bad=True)
    said = "4 pictures left out that cannot be read (all 3 of class 'c', 1 of class 'b'), the first 'b/1.png'"
    assert data.notes() == [f"{path}: {said}"]
    assert data.classes == ["a", "b", "c"]


def test_a_folder_of_which_all_is_taken_as_it_lies_has_no_notes(make: Make) -> None:
    content = {f"a/{i}.jpg": _marked(1) for i in range(3)} | {"b/0.jpg": _marked(3, "PNG"), "b/labels.csv": b"?"}
    assert ImageFolder(make(content), RGB, skip_bad=True).notes() == []


def test_classes_that_are_named_number_the_folders(make: Make) -> None:
    path = make(pictures.files({"1": 1, "10": 2, "2": 1}))
    assert ImageFolder(path, RGB).targets == [0, 1, 1, 2]
    data = ImageFolder(path, RGB, classes=("0", "1", "2", "10"))
    assert (data.classes, data.targets) == (["0", "1", "2", "10"], [1, 3, 3, 2])
    assert [data[i][1] for i in range(4)] == data.read_batch(range(4))[1].tolist() == data.targets


def test_a_folder_of_no_class_that_is_named_is_refused(make: Make) -> None:
    path = make(pictures.files({"cat": 1, "dog": 2, "emu": 1}))
    said = rf"the class folder 'cat' of {path} is none of the 3 classes that are named; .*'cats'"
    with pytest.raises(DataError, match=said):
        ImageFolder(path, RGB, classes=["cats", "dog", "emu"])


def test_class_names_are_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes("\N{BYTE ORDER MARK}tench\r\n great white shark \r\n\r\nä\r\n".encode())
    assert class_names(file) == ("tench", "great white shark", "ä")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\n \n", "names no class"), (b"a\nb\na\n", "names the class 'a' twice"), (b"\xff\xfe\x00", "no text in UTF-8")],
    ids=["empty", "twice", "binary"],
)
def test_a_file_of_no_class_names_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        class_names(file)


ROWS = b"\xef\xbb\xbffile_name,camera,iso\nb/0.png,old,100\n./a/1.png,new,\na\\0.png,old,800\n"


@pytest.mark.parametrize("around", ["", "photos/"])
def test_a_table_beside_the_class_folders_is_metadata(make: Make, around: str) -> None:
    content = {around + name: data for name, data in pictures.files({"a": 2, "b": 1}).items()}
    data = ImageFolder(make(content | {around + "metadata.csv": ROWS, around + "b/metadata.csv": b"?"}), RGB)
    assert data.names == [around + "a/0.png", around + "a/1.png", around + "b/0.png"]
    assert data.metadata["camera"] == ["old", "new", "old"]
    assert data.metadata["iso"][::2] == [800, 100]
    assert np.isnan(data.metadata["iso"][1])
    assert data.notes() == []
    assert Index(data, "data").columns.keys() == {"camera", "iso"}


def test_what_a_table_and_pictures_do_not_share_is_said(make: Make) -> None:
    rows = ROWS + b"a/9.png,old,5\nc/0.png,new,5\n"
    path = make(pictures.files({"a": 3, "b": 2}) | {"metadata.csv": rows, "a/9.png": b"broken"})
    data = ImageFolder(path, RGB, skip_bad=True)
    assert data.metadata["camera"][3:] == ["old", pytest.approx(np.nan, nan_ok=True)]
    assert data.notes()[1:] == [
        f"{path}: metadata.csv has no row for 2 pictures, the first 'a/2.png'",
        f"{path}: metadata.csv has 1 row of no picture here, the first 'c/0.png'",
    ]


def test_a_table_of_other_pictures_is_said_and_gives_only_gaps(make: Make) -> None:
    path = make(pictures.files({"a": 1, "b": 1}) | {"metadata.csv": b"file_name,camera\n0.png,old\n"})
    data = ImageFolder(path, RGB)
    assert data.notes() == [f"{path}: metadata.csv has a row for none of the 2 pictures, the first is 'a/0.png'"]
    assert np.isnan(data.metadata["camera"]).all()


BAD_TABLES = {
    b"camera,iso\nold,1\n": ["no column file_name", "it has camera, iso"],
    b"file_name;camera\na/0.png;old\n": ["no column file_name", "it has file_name;camera"],
    b"": ["no table with commas"],
    b"\xff\xfe\x00f": ["no table with commas"],
    b"file_name,x\na,1\nb,2,3,4\n": ["no table with commas"],
    b"file_name,x\na/0.png,1\na/0.png,2\n": ["more than one row for 'a/0.png'"],
}


@pytest.mark.parametrize("rows", BAD_TABLES)
def test_a_broken_table_is_one_sentence(make: Make, rows: bytes) -> None:
    refused(make(pictures.files({"a": 1, "b": 1}) | {"metadata.csv": rows}), "metadata.csv", *BAD_TABLES[rows])


def test_what_is_wrong_with_a_picture_is_said_without_addresses_in_memory() -> None:
    for data in BROKEN.values():
        with pytest.raises(DataError) as caught:
            decode(data, RGB)
        assert "0x" not in str(caught.value)


def test_a_broken_first_picture_does_not_shift_the_others(make: Make) -> None:
    path = make({"a/0.png": b"broken", "a/1.png": pictures.encoded(pictures.pixels(7))} | B_PICTURE)
    data = ImageFolder(path, RGB, skip_bad=True)
    assert (data.pixels(0) == pictures.pixels(7)).all()
    assert (data.pixels(1) == pictures.pixels(2)).all()


def test_nothing_left_after_skipping(make: Make) -> None:
    refused(make({"a/0.png": b"broken", "b/1.png": b"too"}), "none of its 2 pictures", skip_bad=True)


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    path = pictures.folder(tmp_path / "data", pictures.files({"a": 1, "b": 1}))
    (path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    refused(path, "'a/gone.png'", "No such file")


def test_larger_files_than_any_picture_are_not_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LARGEST_FILE", 1024**2)
    refused(make(pictures.files({"a": 1}) | {"a/zeros.png": bytes(1024**2 + 1)}), "'a/zeros.png'", "larger than 1 MiB")


# Zips


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png"])
def test_names_that_lead_out_of_a_zip(tmp_path: Path, name: str) -> None:
    path = pictures.archive(
        tmp_path / "data.zip", pictures.files({"a": 1, "b": 1}) | {name: pictures.encoded(pictures.pixels(3))}
    )
    refused(path, f"'{name}'", "outside")
    assert list(tmp_path.iterdir()) == [path]
    assert not (tmp_path.parent / "x.png").exists()


def test_backslashes_in_a_zip_are_slashes(tmp_path: Path) -> None:
    content = {name.replace("/", "\\"): data for name, data in pictures.files({"x/a": 2, "x/b": 1}).items()}
    data = ImageFolder(pictures.archive(tmp_path / "data.zip", content), RGB)
    assert data.classes == ["a", "b"]
    assert data.names == ["x/a/0.png", "x/a/1.png", "x/b/0.png"]
    assert (data.pixels(1) == pictures.pixels(1)).all()
    refused(pictures.archive(tmp_path / "out.zip", content | {"..\\x.png": b""}), "outside")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and nothing more"], ids=["empty", "text", "torn"])
def test_a_file_that_is_no_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.zip"
    path.write_bytes(content)
    refused(path, "neither a folder of class folders nor a zip of one")


def test_a_function_that_was_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "data.py"
    path.write_text("def load(): ...")
    refused(path, f"{path}:NAME")


def test_a_zip_cut_short(tmp_path: Path) -> None:
    path = pictures.archive(tmp_path / "data.zip", pictures.files({"a": 3, "b": 3}))
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "nor a zip")


def test_a_damaged_picture_in_a_zip(tmp_path: Path) -> None:
    path = pictures.archive(tmp_path / "data.zip", pictures.files({"a": 1, "b": 1}))
    whole = bytearray(path.read_bytes())
    whole[60] ^= 0xFF  # inside the first picture
    path.write_bytes(whole)
    refused(path, "'a/0.png'", "CRC")


# Decoding


SIXTEEN = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
EIGHT = (SIXTEEN >> 8).astype(np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        pictures.encoded(Image.fromarray(SIXTEEN)),
        pictures.encoded(Image.fromarray(SIXTEEN), "TIFF"),
        pictures.encoded(Image.fromarray(SIXTEEN.astype(np.int32)), "TIFF"),
    ],
    ids=["png", "tiff", "tiff32"],
)
def test_sixteen_bits_keep_their_shades(data: bytes) -> None:
    assert (decode(data, GREY)[..., 0] == EIGHT).all()
    assert (decode(data, RGB) == EIGHT[..., None]).all()


def test_eight_bits_in_thirty_two_are_taken_as_they_are() -> None:
    values = np.arange(192, 256).reshape(8, 8)
    assert (decode(pictures.encoded(Image.fromarray(values.astype(np.int32)), "TIFF"), GREY)[..., 0] == values).all()
    assert (decode(pictures.encoded(Image.fromarray(values.astype(np.uint16))), GREY) == 0).all()  # sixteen, but dark


def _marked(orientation: object, form: str = "JPEG") -> bytes:
    """A picture 8 wide and 6 high with an orientation in its EXIF data."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return pictures.encoded(pictures.pixels(1, 6, 8), form, exif=exif)


@pytest.mark.parametrize(("form", "side"), [("JPEG", 6), ("WEBP", 6), ("PNG", 6), ("TIFF", 8)])
def test_pictures_are_taken_as_they_lie_except_those_that_pillow_turns(form: str, side: int) -> None:
    assert len(decode(_marked(6, form), RGB)) == side


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (_marked(6), True),
        (_marked(3, "WEBP"), True),
        (_marked(1), False),
        (_marked(0), False),
        (_marked(6, "TIFF"), False),
        (pictures.encoded(pictures.pixels(1), "JPEG"), False),
        (b"no picture", False),
        (b"", False),
    ],
    ids=["turned", "webp", "upright", "nonsense", "tiff", "none", "text", "empty"],
)
def test_orientations_are_read(data: bytes, expected: bool) -> None:
    assert is_turned(data) is expected


def test_pictures_marked_as_turned_are_said_wherever_they_lie(make: Make) -> None:
    upright = {f"a/{i:02}.jpg": _marked(1) for i in range(60)}
    path = make(upright | {f"b/{i}.jpg": _marked(6 if i else 1) for i in range(4)})
    (note,) = ImageFolder(path, RGB).notes()
    assert note.startswith(f"{path}: 1 of 32 pictures looked at, the first 'b/2.jpg', are marked in their EXIF data")


@pytest.mark.parametrize("values", [np.linspace(0, 1, 64, dtype=np.float32), np.arange(64, dtype=np.int32) * 10**6])
def test_pixels_without_a_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="8 or 16 bits"):
        decode(pictures.encoded(Image.fromarray(values.reshape(8, 8)), "TIFF"), RGB)


def test_grey_pictures_get_three_equal_channels_when_three_are_asked_for() -> None:
    grey = pictures.pixels(1, channels=1)
    assert (decode(pictures.encoded(grey), RGB) == np.repeat(grey, 3, axis=2)).all()


def test_colour_becomes_grey_when_one_channel_is_asked_for() -> None:
    assert decode(pictures.encoded(pictures.pixels(1)), GREY).shape == (8, 8, 1)


def test_transparency_is_dropped() -> None:
    colour = pictures.pixels(1)
    veiled = np.concatenate([colour, np.full((8, 8, 1), 7, np.uint8)], axis=2)
    assert (decode(pictures.encoded(veiled), RGB) == colour).all()


def test_palettes_become_colours_without_a_warning() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert (decode(pictures.encoded(palette, transparency=b"\x00\x01"), RGB) == [9, 8, 7]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr"])
def test_other_modes_become_colours(mode: str) -> None:
    picture = Image.fromarray(pictures.pixels(1)).convert(mode)
    expected = np.asarray(picture.convert("RGB"))
    assert (decode(pictures.encoded(picture, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"), RGB) == expected).all()


def test_of_a_moving_picture_the_first_frame_counts() -> None:
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    moving = pictures.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(moving, GREY) == 10).all()


# The format


def test_pixels_is_the_inverse_of_normalise() -> None:
    image = ImageFormat((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for seed in range(5):
        assert (image.pixels(image.normalise(pictures.pixels(seed))) == pictures.pixels(seed)).all()


@pytest.mark.parametrize(
    ("mean", "std", "part"),
    [
        ((0.5, 0.5), (0.5, 0.5), "--mean has 2 and --std 2 values"),
        ((0.5,), (0.5, 0.5, 0.5), "--mean has 1 and --std 3 values"),
        ((), (), "--mean has 0"),
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "divided by 255"),
        ((float("nan"),), (1.0,), "--mean must lie between 0 and 1"),
        ((0.5,), (0.0,), "--std must be positive"),
        ((0.5,), (-1.0,), "--std must be positive"),
        ((0.5,), (float("nan"),), "--std must be positive"),
        ((0.5,), (float("inf"),), "--std must be positive"),
    ],
)
def test_formats_that_make_no_sense(mean: tuple[float, ...], std: tuple[float, ...], part: str) -> None:
    with pytest.raises(DataError, match=part):
        ImageFormat(mean, std)


@pytest.mark.parametrize("size", [0, -1])
def test_a_picture_has_a_size(size: int) -> None:
    with pytest.raises(DataError, match="--size must be at least 1"):
        ImageFormat(size=size)


@pytest.mark.parametrize(
    "inputs",
    [torch.zeros(2), torch.zeros(2, 8, 8), torch.zeros(3, 3, 8), [1, 2], None],
    ids=["vector", "two channels", "a strip", "list", "nothing"],
)
def test_what_is_no_picture_is_not_shown_as_one(inputs: object) -> None:
    assert pixels_of(inputs, RGB) is None


def test_a_picture_of_unknown_format_is_stretched() -> None:
    shown = pixels_of(torch.linspace(-5, 5, 64).reshape(1, 8, 8), None)
    assert shown is not None
    assert (shown.min(), shown.max()) == (0, 255)
