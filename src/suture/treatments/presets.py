"""Named plans, and plans from TOML files."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from suture.errors import InvalidArgumentError, MissingFileError, UnknownNameError
from suture.registry import suggest
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
    if not path.is_file():
        raise MissingFileError(f"there is no plan file {path}")
    try:
        return Plan.model_validate({"name": path.stem} | tomllib.loads(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidArgumentError(f"{path}: '{where}': {first['msg']}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path} is not TOML ({error})") from error
