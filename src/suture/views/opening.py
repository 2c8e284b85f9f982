"""What the page shows before anyone scrolls: the verdict in a sentence, where, how sure, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suture.stats import Verdict
from suture.views import baselines, subgroups
from suture.views.diagnose import summary
from suture.views.localize_tables import warnings
from suture.views.render import image
from suture.views.style import BLUE, FAINT, INK, MUTED, VERMILLION, axes, label, name_rows
from suture.views.text import count, listed, percent
from suture.views.verify import headline
from suture.views.verify_tables import harm_elsewhere, said_of
from suture.wording import plain, several

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from suture.stages.diagnose import Diagnosis
    from suture.stages.localize import Localization
    from suture.stages.treat import Treatment
    from suture.stages.verify import Verification
    from suture.views.run import Finished

TONES = {
    Verdict.BETTER: ("good", "▲"),
    Verdict.WORSE: ("bad", "▼"),
    Verdict.NO_CHANGE: ("even", "="),
    Verdict.CANNOT_TELL: ("open", "?"),
}
NAMED = 4  # groups that are named


def opening(run: Finished) -> dict[str, Any]:
    """What ``verdict.html.j2`` shows."""
    verification = run.verify
    tone, mark = TONES[verification.verdict] if verification else ("open", "")
    doubts = warnings(run.localize) if run.localize else []
    doubts += caveats(verification) if verification else []
    return {
        "tone": tone,
        "mark": mark,
        "sentence": said_of(verification) if verification else _unfinished(run),
        "reason": headline(verification)["reason"] if verification and _says_more(verification) else "",
        "numbers": headline(verification) if verification else None,
        "n": verification.n if verification else 0,
        "where": where(run.localize, run.treat, run.diagnose),
        "caveats": list(dict.fromkeys(doubts)),  # a stage repeats what another one said
        "chart": _chart(verification) if verification and verification.n else None,
    }


def _unfinished(run: Finished) -> str:
    return f"Not verified yet: {run.stopped}; {run.going_on}"


def _says_more(result: Verification) -> bool:
    """Whether the verdict has a reason beside the numbers in the sentence: what unseen means, how many would do."""
    return result.n > 0 and result.verdict in (Verdict.CANNOT_TELL, Verdict.NO_CHANGE)


def _nothing(treatment: Treatment) -> str:
    """That nothing was treated, and whether that is for want of a candidate or of a gain."""
    return "nothing: no candidate was worth keeping" if len(treatment.tried) > 1 else "nothing"


def where(
    localization: Localization | None, treatment: Treatment | None, diagnosis: Diagnosis | None = None
) -> list[tuple[str, str]]:
    """Which group is sick and how sure that is, what causes errors or goes with them, and which groups were treated."""
    found = []
    if localization is not None and localization.n_errors:
        found.append(("Sick group", _top(localization)))
    if diagnosis is not None and (causes := summary(diagnosis)):
        found.append(("Cause", causes))
    if diagnosis is not None and (values := subgroups.brief(diagnosis)):
        found.append(("More is wrong under", values))
    if treatment is not None:
        groups = f"{listed(treatment.groups, NAMED)}, by {plain(treatment.kept, 40)}"
        found.append(("Treated", groups if len(treatment.patch) else _nothing(treatment)))
    elif localization is not None:
        flagged = listed(localization.flagged, NAMED) or "no group"
        found.append(("Flagged for treatment", f"{flagged}, by {plain(localization.rule, 40)}"))
    return found


def _top(localization: Localization) -> str:
    if localization.top is None:
        return "no group stands out"
    sure = localization.confidence
    return plain(localization.top, 60) + (f", the same in {percent(sure, 0)} of resamples" if sure is not None else "")


def caveats(result: Verification) -> list[str]:
    """What to hold against the verdict, in short; the section on Verify says more."""
    found = [f"{text[:1].upper()}{text[1:]}." for text in result.warnings]
    if result.optimistic:
        found.append("Optimistic: these examples were diagnosed too (protocol paper), so they are not unseen.")
    if result.broken_must_keep:
        n = len(result.broken_must_keep)
        found.append(f"{several(n, 'example')} that may not break {'is' if n == 1 else 'are'} broken.")
    found += [said for said in (harm_elsewhere(result), baselines.beaten_by(result)) if said]
    if result.looks > 1:
        found.append(f"These examples were looked at {result.looks} times; a verdict is worth most at the first look.")
    return found


def _chart(result: Verification) -> Markup:
    alt = (
        f"Accuracy before {percent(result.accuracy_before)} and after {percent(result.accuracy_after)}; "
        f"{count(result.fixed)} fixed, {count(result.broken)} broken."
    )
    return image(lambda: figure(result), alt)


def figure(result: Verification, ax: Axes | None = None) -> Axes:
    """Accuracy before and after with 95 % Wilson intervals, and below them the examples that changed.

    Worry when the red part of the lower bar is not much shorter than the blue one.
    """
    from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # noqa: PLC0415

    ax = ax or axes(2.0, 4.2)
    after = BLUE if result.accuracy_after >= result.accuracy_before else VERMILLION
    for place, share, interval, colour in (
        (0, result.accuracy_before, result.interval_before, MUTED),
        (1, result.accuracy_after, result.interval_after, after),
    ):
        spread = [[100 * max(share - interval.low, 0)], [100 * max(interval.high - share, 0)]]
        ax.barh(place, 100 * share, height=0.66, color=colour, xerr=spread, ecolor=INK, error_kw={"elinewidth": 1.2})
        ax.annotate(
            label(percent(share)), (100, place), (6, 0), textcoords="offset points", va="center", color=INK,
            fontweight="bold", fontsize="small", annotation_clip=False,
        )  # fmt: skip
    name_rows(ax, ["before", "after"])
    ax.set_xlim(0, 100)
    ax.tick_params(labelsize="small", color=MUTED, labelcolor=INK)
    ax.set_title("Accuracy (%), with 95 % interval", loc="left", fontsize="small", fontweight="bold", color=INK)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(MUTED)
    below = make_axes_locatable(ax).append_axes("bottom", size="26%", pad=0.62)
    _changed(below, result.fixed, result.broken)
    return ax


def _changed(ax: Axes, fixed: int, broken: int) -> None:
    """One bar: the examples that changed, fixed and broken."""
    total = fixed + broken
    said = f"{count(fixed)} fixed, {count(broken)} broken" if total else "No example changed"
    ax.barh(0, fixed, height=1, color=BLUE)
    ax.barh(0, broken, left=fixed, height=1, color=VERMILLION, hatch="///", edgecolor="white", linewidth=0)
    ax.set_xlim(0, max(total, 1))
    ax.set_ylim(-0.5, 0.5)
    ax.set_facecolor(FAINT)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_title(label(said), loc="left", fontsize="small", fontweight="bold", color=INK, pad=3)
