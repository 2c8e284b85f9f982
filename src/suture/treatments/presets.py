"""Named plans, and plans from TOML files."""

from pathlib import Path

from suture.errors import UnknownNameError
from suture.registry import suggest
from suture.rundir import read_toml
from suture.treatments.plan import FineTune, Flagged, Nothing, Plan

PRESETS: dict[str, Plan] = {
    # Method A (paper, section 5.5 and Table 16): flagged groups, 30 epochs, cosine 0.01 → 1e-4, critical momentum.
    "A": Plan(name="A", where=Flagged(), how=FineTune(batchnorm="train")),
    "none": Plan(name="none", where=Flagged(), how=Nothing()),
}
DEFAULT = "A"


def load_plan(plan: str | Plan) -> Plan:
    """A plan by name (``"default"``, ``"A"``, ``"none"``), from a TOML file, or as it is.

    Raises:
        UnknownNameError: no preset of that name.
        MissingFileError: no such file.
        InvalidArgumentError: the file is no plan; the first wrong field is named.
    """
    if isinstance(plan, Plan):
        return plan
    name = DEFAULT if plan == "default" else plan
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".toml"):
        raise UnknownNameError(f"no plan is called '{name}'; {suggest(name, list(PRESETS))}, or give a TOML file")
    path = Path(name)
    plan_from_file = read_toml(path, Plan)
    named = "name" in plan_from_file.model_fields_set
    return plan_from_file if named else plan_from_file.model_copy(update={"name": path.stem})
