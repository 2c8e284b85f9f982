"""Must keep: single examples that a repair may not break, whatever it gains elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from suture.case import Case
from suture.errors import DataError, MissingFileError
from suture.splits import SPLITS, writable
from suture.tasks import evaluate


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of the examples that may not break.

    Attributes:
        n: how many there are.
        wrong: those that were wrong before, so that no repair can break them.
        broken: right before, wrong after.
    """

    n: int
    wrong: list[str]
    broken: list[str]


def read_must_keep(path: str | Path) -> list[str]:
    """Names of examples from a text file, one a line; empty lines are nothing.

    Raises:
        MissingFileError: no such file.
        DataError: it names nothing.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}; --must-keep takes a list of examples, one a line")
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    names = [name for line in text.replace("\r", "\n").split("\n") if (name := writable(line.strip()))]
    if not names:
        raise DataError(f"{path} names no example; give one a line, or leave --must-keep out")
    return names


def check_kept(case: Case, repaired: nn.Module, names: Sequence[str | int]) -> Kept:
    """See which of the named examples are right before and wrong after.

    Args:
        names: as `Split.label` names examples: a file below the data's folder, or its position in the data. They may
            stand in any split; a name that several splits know means each of those examples.

    Raises:
        DataError: an example is not known.
    """
    places = places_of(case, names)
    wrong: list[str] = []
    broken: list[str] = []
    for split, positions in places.items():
        part = case.splits[split].only(positions)
        before, after = (
            evaluate(model, part, case.task, device=case.device, batch_size=case.batch_size,
                     name="the examples that must be kept")
            for model in (case.model, repaired)
        )  # fmt: skip
        for i, (was, now) in enumerate(zip(before.right, after.right, strict=True)):
            if not was:
                wrong.append(part.label(i))
            elif not now:
                broken.append(part.label(i))
    return Kept(n=sum(map(len, places.values())), wrong=wrong, broken=broken)


def places_of(case: Case, names: Sequence[str | int]) -> dict[str, list[int]]:
    """Split → positions of the named examples in it.

    Raises:
        DataError: an example is not known.
    """
    known: dict[str, list[tuple[str, int]]] = {}
    for split in dict.fromkeys(SPLITS if case.protocol != "paper" else SPLITS[:3]):  # there verify is diagnose
        for i, index in enumerate(case.splits[split].indices if split in case.splits else []):
            for name in {case.splits[split].label(i).strip(), str(index)}:
                known.setdefault(name, []).append((split, i))
    places: dict[str, set[int]] = {}
    for given in map(writable, names):
        found = known.get(given.removeprefix("./"))
        if found is None:
            raise DataError(f"no example is called '{given}'; {_example(case)}")
        for split, i in found:
            places.setdefault(split, set()).add(i)
    return {split: sorted(positions) for split, positions in places.items()}


def _example(case: Case) -> str:
    split = next(iter(case.splits.values()))
    return f"--must-keep names them as splits.csv of a run does, such as '{split.label(0)}', or by their number"
