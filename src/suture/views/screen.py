"""What a run found, on one screen of a terminal: sentences by stage, and the numbers that the verdict rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from suture.views import (
    causes,
    diagnose,
    localize,
    localize_tables,
    opening,
    scan,
    slices,
    subgroups,
    suspects,
    treat_tables,
    verify,
    verify_tables,
)
from suture.views.grid import lines, stacked
from suture.wording import plain, several

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from suture.stages.diagnose import Diagnosis
    from suture.stages.localize import Localization
    from suture.stages.scan import Scan
    from suture.stages.treat import Treatment
    from suture.stages.verify import Verification


def screen(results: Mapping[str, Any]) -> Table:
    """Sentences of every stage that was done, Verify's table, and the verdict last; other tables are on the page.

    Args:
        results: stage → its result.
    """
    said = Table.grid(padding=(0, 2, 0, 0))
    for stage, result in results.items():
        for i, sentence in enumerate(SENTENCES[stage](result)):
            said.add_row(Text("" if i else stage.capitalize(), style="bold"), Text(plain(sentence)))
    if "verify" not in results:
        return stacked(said)
    proof: Verification = results["verify"]
    return stacked(said, verify_tables.grid(proof).rich(), lines([proof.sentence]))


def _scan(result: Scan) -> list[str]:
    rows = [(plain(str(row[0])), plain(str(row[1]))) for row in scan.grid(result).rows]
    return ["Epochs by damping regime: " + ", ".join(f"{name} {n}" for name, n in rows) + "."]


def _localize(result: Localization) -> list[str]:
    return [*(f"Warning: {text}" for text in localize_tables.warnings(result)), *localize.findings(result)]


def _diagnose(result: Diagnosis) -> list[str]:
    named = diagnose.summary(result)
    lead = [f"{named}."] if named else causes.sentences(result)[:1]
    more = subgroups.sentence(result), slices.brief(result), suspects.brief(result)
    said = [*diagnose.leads(result), *lead, *filter(None, more)]
    return said or [f"No confusions among {several(result.n_errors, 'error')}."]


def _treat(result: Treatment) -> list[str]:
    kept, *_ = treat_tables.findings(result)
    took = filter(None, [treat_tables.took(result)])
    return [*(f"Warning: {text}" for text in treat_tables.warnings(result)), kept, *took]


def _verify(result: Verification) -> list[str]:
    return [verify.lead(result), *verify_tables.remarks(result), *opening.caveats(result)]


SENTENCES: dict[str, Callable[[Any], list[str]]] = {
    "scan": _scan, "localize": _localize, "diagnose": _diagnose, "treat": _treat, "verify": _verify,
}  # fmt: skip
