"""What a script may require of a repair, each with the sentence that says why it is not met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suture.stats import Verdict, least_for_bound
from suture.views.text import count, listed
from suture.wording import percent, several

if TYPE_CHECKING:
    from suture.stages.verify import Verification

NAMED = 20  # broken examples that a sentence names; the result has them all


@dataclass(frozen=True)
class Check:
    """A requirement.

    Attributes:
        name: what is required.
        unmet: why it is not met; empty where it is.
        remark: what there is to say where it was not required, so that it can be neither.
    """

    name: str
    unmet: str = ""
    remark: str = ""


def checks(result: Verification, require: str | None = None, max_regression: float | None = None) -> list[Check]:
    """The verdict, the examples that may not break, and the bound on the regression rate where one was given.

    Args:
        require: the verdict that is required; without one, the check of the verdict cannot fail.
        max_regression: what the regression rate may be at most, with 95 % confidence.
    """
    found = [_verdict(result, require)]
    if result.must_keep is not None:
        found.append(Check(f"must keep: none of {several(result.must_keep, 'example')} breaks", _must_keep(result)))
    if max_regression is not None:
        over = result.regression_bound > max_regression
        name = f"regression rate at most {max_regression:.4g}"
        found.append(Check(name, _regression(result, max_regression) if over else ""))
    return found


def _verdict(result: Verification, require: str | None) -> Check:
    if require is None:
        remark = "" if result.verdict == Verdict.BETTER else f"nothing was required; {result.sentence}"
        return Check("verdict", remark=remark)
    met = result.verdict == require
    return Check(
        f"verdict: {require}", "" if met else f"the verdict is '{result.verdict}' and not '{require}' as required"
    )


def _must_keep(result: Verification) -> str:
    n = len(result.broken_must_keep)
    if not n:
        return ""
    said = f"{several(n, 'example')} that may not break {'is' if n == 1 else 'are'} broken"
    return f"{said}: {listed(result.broken_must_keep, NAMED)}"


def _regression(result: Verification, allowed: float) -> str:
    """Why the bound does not hold: the rate, what cannot be ruled out, and how many examples it would take."""
    right, needed = result.right_before, least_for_bound(allowed)
    said = (
        f"the repair broke {count(result.broken)} of {several(right, 'right example')} "
        f"({percent(result.regression_rate)}), and a regression rate up to {percent(result.regression_bound)} cannot "
        f"be ruled out (one-sided 95 % bound); at most {percent(allowed)} is allowed"
    )
    if needed is None:
        return f"{said}, which no number of examples can promise"
    if right < needed:
        return f"{said}, which takes at least {needed} right examples, none of them broken"
    return said
