"""What a check finds, how a printed number is compared, and the registry of checks by place in the paper."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from suture.errors import UnknownNameError
from suture.registry import suggest


class Verdict(StrEnum):
    """What recomputing can say about a printed number."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNDECIDED = "cannot be decided"


@dataclass(frozen=True)
class Finding:
    """One number of the paper, beside what it comes to.

    Attributes:
        what: which number.
        paper: as printed.
        recomputed: the same from the paper's own formulas and tables, with a digit more where that helps.
        verdict: whether they agree.
        why: one line: the computation, or what is missing for one.
    """

    what: str
    paper: str
    recomputed: str
    verdict: Verdict
    why: str


Check = Callable[[], Iterator[Finding]]

CHECKS: dict[str, list[Check]] = {}
"""Place in the paper → its checks, in the order in which they are defined."""


def check(place: str) -> Callable[[Check], Check]:
    """Decorator that registers a check under the section or table whose numbers it recomputes."""

    def add(function: Check) -> Check:
        CHECKS.setdefault(place, []).append(function)
        return function

    return add


def findings_at(place: str) -> list[dict[str, str]]:
    """What all checks of a place find, as rows with the columns where, what, paper, recomputed, verdict, why.

    Raises:
        UnknownNameError: nothing is checked at this place.
    """
    if place not in CHECKS:
        raise UnknownNameError(f"nothing is checked at '{place}'; {suggest(place, list(CHECKS))}")
    return [{"where": place} | asdict(finding) for function in CHECKS[place] for finding in function()]


def decided(agrees: bool) -> Verdict:
    """Agrees or differs."""
    return Verdict.AGREES if agrees else Verdict.DIFFERS


def rounds_to(value: float, printed: str) -> bool:
    """Whether a value, rounded to as many decimals as are printed, can be what is printed.

    A value half way between two printed numbers may be rounded either way.

    >>> rounds_to(0.3675, "0.37"), rounds_to(1.155, "1.4"), rounds_to(-0.0794, "-0.079")
    (True, False, True)
    """
    decimals = len(printed.partition(".")[2])
    half = 0.5 / 10.0**decimals
    return abs(value - float(printed)) <= half * (1 + 1e-9)


def compared(what: str, printed: str, value: float, why: str, *, unit: str = "", more: int = 1) -> Finding:
    """A finding about one printed number.

    Args:
        what: which number.
        printed: as printed, without its unit; a sign is part of it.
        value: recomputed, in the same unit.
        why: one line.
        unit: follows both numbers.
        more: how many decimals to show beyond the printed ones.
    """
    decimals = len(printed.partition(".")[2]) + more
    sign = "+" if printed.startswith("+") else ""
    recomputed = f"{value:{sign}.{decimals}f}{unit}"
    return Finding(what, f"{printed}{unit}", recomputed, decided(rounds_to(value, printed)), why)
