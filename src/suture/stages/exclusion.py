"""Examples that a treatment does without: those that are named, or those whose label is probably wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from suture.case import Case
from suture.causes.label_errors import suspects_of
from suture.errors import DataError, InvalidArgumentError
from suture.splits import Splits, writable
from suture.wording import percent

SUSPECTS = "suspects"
TREATED_ON = ("repair", "select")

Exclude = str | Sequence[int | str]
"""``"suspects"``, or examples: positions in `repair`, or names as `Split.label` gives them, of `repair` or `select`."""


@dataclass(frozen=True)
class LeftOut:
    """How many examples a treatment does without, and sentences on it."""

    n: int = 0
    account: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


NOBODY = LeftOut()


def without(case: Case, exclude: Exclude | None) -> tuple[Case, LeftOut]:
    """The case without some examples of `repair` and `select`, and what to say of it; the case given stays whole."""
    if exclude is None:
        return case, NOBODY
    suspected = isinstance(exclude, str) and exclude == SUSPECTS  # a column of a table compares entry by entry
    out = _suspects(case) if suspected else _named(case, exclude)
    kept = {name: [i for i in range(len(case.splits[name])) if i not in out[name]] for name in out}
    for name, positions in kept.items():
        if not positions:
            raise DataError(f"no example of '{name}' would be left to treat with; exclude fewer")
    fewer = {name: case.splits[name].only(part) for name, part in kept.items()}
    reduced = case.replace(splits=Splits(case.splits | fewer))
    n = sum(map(len, out.values()))
    counts = " and ".join(f"{len(out[name])} of {len(case.splits[name])} examples of '{name}'" for name in out)
    if not suspected:
        return reduced, LeftOut(n, [f"left out as asked: {counts}"])
    said = f"left out because their labels are suspected to be wrong: {counts}"
    return reduced, LeftOut(n, [said], [_errors_lost(case, out)] if n else [])


def _suspects(case: Case) -> dict[str, set[int]]:
    return {name: set(suspects_of(case, name)["position"]) for name in TREATED_ON}


def _named(case: Case, names: Exclude) -> dict[str, set[int]]:
    """Split → positions of the examples that are named; those of `diagnose` or `verify` are never treated on."""
    if isinstance(names, str):
        raise InvalidArgumentError(f"exclude takes '{SUSPECTS}' or a list of examples, not '{names}'")
    known: dict[str, list[tuple[str, int]]] = {}
    for split in TREATED_ON:
        for i in range(len(case.splits[split])):
            known.setdefault(case.splits[split].label(i), []).append((split, i))
    out: dict[str, set[int]] = {split: set() for split in TREATED_ON}
    n = len(case.splits["repair"])
    for name in names:
        places = known.get(writable(name), []) if isinstance(name, str) else [("repair", int(name))] * (0 <= name < n)
        if not places:
            called = f"is called '{name}'" if isinstance(name, str) else f"of 'repair' has position {name}"
            raise DataError(f"no example {called}; give positions in 'repair' or names such as '{next(iter(known))}'")
        for split, i in places:
            out[split].add(i)
    return out


def _errors_lost(case: Case, out: dict[str, set[int]]) -> str:
    """What leaving out suspects costs: most of them are errors, and a network that fails suspects right labels too."""
    wrong = lost = 0
    for name, positions in out.items():
        own = case.splits[name].without_extra()  # further examples are never suspected
        errors = {own.indices[i] for i in case.outcomes(own).errors}
        wrong, lost = wrong + len(errors), lost + len(errors & {case.splits[name].indices[i] for i in positions})
    n = sum(map(len, out.values()))
    return (
        f"the {n} examples left out are {percent(lost / max(wrong, 1), 0)} of the model's errors on 'repair' and "
        "'select'; where it fails for another reason than wrong labels, these are what a repair learns from, so look "
        "at them"
    )
