"""Which files of a folder or of a zip are pictures, and of which class."""

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from suture.errors import DataError, MissingFileError
from suture.registry import suggest
from suture.wording import plain, several

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
BESIDE = {  # suffixes of what lies beside pictures and is none
    ".csv", ".db", ".htm", ".html", ".ini", ".json", ".log", ".md", ".rst", ".toml", ".tsv", ".txt", ".xml", ".yaml",
    ".yml",
}  # fmt: skip
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing", "dev"}
LARGEST_FILE = 256 * 1024**2  # bytes of one picture file; larger ones are refused as a zip bomb would be


@dataclass(frozen=True)
class Listing:
    """What lies in a directory or a zip, hidden files apart: names, and how to read a file."""

    pictures: list[str]
    others: list[str]
    folders: list[str]
    read: Callable[[str], bytes]


def open_directory(path: Path) -> Listing:
    """What lies below a directory."""
    files: list[str] = []
    folders: list[str] = []
    seen: set[str] = set()
    for folder, inside, here in os.walk(path, followlinks=True):
        below, real = Path(folder).relative_to(path), os.path.realpath(folder)
        if _is_hidden(below.as_posix()) or real in seen:  # links may lead in circles
            inside.clear()
            continue
        inside.sort()
        seen.add(real)
        folders.append(below.as_posix())
        files += [(below / file).as_posix() for file in here]
    return _listing(sorted(files), sorted(folders), lambda name: _bounded(path / name))


def _listing(files: list[str], folders: list[str], read: Callable[[str], bytes]) -> Listing:
    shown = [name for name in files if not _is_hidden(name)]
    pictures = [name for name in shown if _suffix(name) in SUFFIXES]
    return Listing(pictures, [name for name in shown if _suffix(name) not in SUFFIXES], folders, read)


def _bounded(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"larger than {LARGEST_FILE // 1024**2} MiB")
        return path.read_bytes()
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error


def open_zip(path: Path) -> Listing:
    """The same for a zip, which is read in place: nothing is unpacked; names may have backslashes."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        hint = f"; for a function in it write {path}:NAME" if path.suffix == ".py" else ""
        raise DataError(f"{path} is neither a folder of class folders nor a zip of one ({error}{hint})") from error
    entries = {entry.filename.replace("\\", "/"): entry for entry in archive.infolist()}
    names = sorted(entries)
    outside = next((name for name in names if {"..", "/"} & set(PurePosixPath(name).parts)), None)
    if outside is not None:
        raise DataError(f"'{outside}' of {path} lies outside the archive; make the zip again from its folder")

    def read(name: str) -> bytes:
        if entries[name].file_size > LARGEST_FILE:
            raise DataError(f"larger than {LARGEST_FILE // 1024**2} MiB")
        try:
            return archive.read(entries[name])
        except Exception as error:  # broken members raise zlib, zip and runtime errors alike
            raise DataError(str(error)) from error

    folders = [name for name in names if name.endswith("/") and not _is_hidden(name)]
    return _listing([name for name in names if not name.endswith("/")], folders, read)


def _is_hidden(name: str) -> bool:
    """What systems and editors leave behind: ``.ipynb_checkpoints``, ``__MACOSX``, ``._picture.png``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def known_suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))


def kinds(names: Iterable[str]) -> str:
    """Files counted by suffix: ``56 .heic, 1 without a suffix``."""
    counts = Counter(map(_suffix, names))
    return shortened([f"{count} {suffix or 'without a suffix'}" for suffix, count in counts.most_common()])


def shortened(words: Sequence[str], most: int = 5) -> str:
    return ", ".join([*words[:most], *(["and others"] if len(words) > most else [])])


def _depth(parts: list[tuple[str, ...]]) -> int:
    """How many folders stand around the class folders: those that the names of all pictures share."""
    depth = 0
    while all(len(p) > depth + 2 for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    return depth


def _in_class_folders(listing: Listing, names: list[str]) -> list[tuple[str, str]]:
    """(name, class) of those files that lie in class folders: the first folders below what all pictures share."""
    pictures = [PurePosixPath(name).parts for name in listing.pictures]
    depth = _depth(pictures)
    parts = [(name, PurePosixPath(name).parts) for name in names]
    return [(name, p[depth]) for name, p in parts if len(p) > depth + 1 and p[:depth] == pictures[0][:depth]]


def passed_over(listing: Listing) -> list[str]:
    """Files that may be pictures of a kind that is not read."""
    return [name for name, _ in _in_class_folders(listing, listing.others) if _suffix(name) not in BESIDE]


def labelled_pictures(listing: Listing, path: Path) -> list[tuple[str, str]]:
    """(name, class) of every picture."""
    if not listing.pictures:
        held = f" but {kinds(listing.others)}" if listing.others else ""
        raise DataError(f"{path} holds no pictures ({known_suffixes()}){held}")
    labelled = _in_class_folders(listing, listing.pictures)
    stray = next(iter(sorted(set(listing.pictures) - {name for name, _ in labelled})), None)
    if stray is not None:
        raise DataError(f"'{stray}' of {path} lies in no class folder; the layout is CLASS/PICTURE")
    labels = {label for _, label in labelled}
    if set(map(str.lower, labels)) <= SPLIT_NAMES:
        raise DataError(
            f"{path} holds the folders {', '.join(sorted(labels))}, which are splits and not classes; give "
            "one of them, or each with --diagnose, --repair and --verify"
        )
    _refuse_hollow(listing, labels, path)
    return labelled


def class_names(path: Path) -> tuple[str, ...]:
    """The names of a network's classes in the order of its outputs, one a line of a text file.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is no text, names no class, or one twice.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no file {path} of class names") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no text in UTF-8 with a class name a line ({error})") from error
    names = tuple(name for line in lines if (name := line.strip()))
    if not names:
        raise DataError(f"{path} names no class; write one a line, in the order of the network's outputs")
    twice = next((name for name, n in Counter(names).items() if n > 1), None)
    if twice is not None:
        raise DataError(f"{path} names the class '{plain(twice, 60)}' twice; a name stands for one output")
    return names


def numbered(labels: set[str], names: Sequence[str] | None, path: Path) -> list[str]:
    """The classes in the order of their numbers: those that are named, else the labels sorted.

    Raises:
        DataError: a label is not among the names.
    """
    if names is None:
        return sorted(labels)
    strange = sorted(labels - set(names))
    if strange:
        raise DataError(
            f"the class folder '{strange[0]}' of {path} is none of the {several(len(names), 'class', 'classes')} that "
            f"are named; {suggest(strange[0], list(names))}"
        )
    return list(names)


def _refuse_hollow(listing: Listing, labels: set[str], path: Path) -> None:
    """Refuse class folders without a picture: left out, they would shift the numbers of the others."""
    others = _in_class_folders(listing, listing.others)  # a zip need not list its folders
    folders = _in_class_folders(listing, [f"{folder}/x" for folder in listing.folders])
    missing = sorted({label for _, label in [*others, *folders]} - labels)
    if missing:
        held = [name for name, label in others if label == missing[0]]
        raise DataError(
            f"the class folder '{missing[0]}' of {path} holds no picture{f' but {kinds(held)}' if held else ''}; "
            "fill or remove it"
        )
