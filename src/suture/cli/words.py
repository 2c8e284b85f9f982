"""Words of the command line as values; what makes no sense is said before anything is loaded."""

import re
from pathlib import Path

# What `suture.treatments` calls its plans, in its order: to import that takes seconds.
PLANS = (
    "auto", "A", "B", "C", "D", "E", "adam", "flagged", "early", "per_block", "iterative", "ewc", "distill", "route",
    "lora", "none", "bn_recalibrate", "bn_affine", "last_layer", "arachne", "full", "full_l2sp", "random_groups",
)  # fmt: skip


def check_plan(plan: str, model: str) -> None:
    """Say that there is no such plan, or no TOML in its file, before anything heavy is imported.

    Args:
        model: as ``--model`` names it; where its code may register plans, only that code can tell.

    Raises:
        UnknownNameError: no plan of that name.
        MissingFileError: no such file.
        InvalidArgumentError: the file is not TOML.
    """
    from suture.errors import UnknownNameError
    from suture.registry import suggest
    from suture.rundir import toml_in

    if plan == "default" or plan in PLANS:
        return
    if not plan.endswith(".toml"):
        if _may_register(model):
            return
        raise UnknownNameError(f"no plan and no TOML file is called '{plan}'; {suggest(plan, list(PLANS))}")
    toml_in(Path(plan))


def classes_of(path: Path | None) -> tuple[str, ...] | None:
    """The names in the file of ``--classes``; None without one."""
    from suture.listing import class_names

    return class_names(path) if path is not None else None


def model_of(run: Path) -> str:
    """What a run's ``--model`` was; empty where there is no telling, which is said when the run is opened."""
    from contextlib import suppress

    from suture.errors import SutureError
    from suture.rundir import RunDir, read_json

    with suppress(SutureError, OSError, KeyError, TypeError):
        return str(read_json(RunDir(run).case_file)["asked"]["model"])
    return ""


def _may_register(model: str) -> bool:
    """Whether code of a user's own, as a model's spec names it, mentions suture; the module itself is not imported."""
    from importlib.util import find_spec

    where = model.rpartition(":")[0]
    try:
        found = Path(where) if where.endswith(".py") else Path(getattr(find_spec(where), "origin", None) or "")
        return found.is_file() and "suture" in found.read_text()
    except Exception:  # to find a module imports the packages around it, which may raise anything: said later
        return False


def check_names(localizers: str, rule: str) -> None:
    """Say what is misspelt before anything is loaded, and before a finished stage is done again."""
    from suture.localizers import LOCALIZERS, RULES

    for name in [] if localizers in ("default", "all") else names(localizers):
        LOCALIZERS[name]
    if rule != "default":
        RULES[rule]


def numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    from suture.errors import InvalidArgumentError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidArgumentError(f"{flag} takes numbers separated by commas, not '{text}'") from None


def memory_of(flag: str, text: str | None) -> int | None:
    """``500MB``, ``2 GiB`` or a plain number as bytes."""
    from suture.errors import InvalidArgumentError

    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    number = float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2].lower() or " ") if found else 0
    if number < 1:
        raise InvalidArgumentError(f"{flag} takes a number of bytes, such as 500MB or 2GiB, not '{text}'")
    return int(number)


def names(text: str) -> str | list[str]:
    return text if text in ("default", "all") else [name.strip() for name in text.split(",")]


def groups_of(text: str) -> str | dict[str, list[str]]:
    from suture.errors import InvalidArgumentError, RunError
    from suture.rundir import read_json

    if not text.endswith(".json"):
        return text
    try:
        spec = read_json(Path(text))
    except RunError as error:
        raise InvalidArgumentError(f"{text} is no JSON") from error
    if not isinstance(spec, dict) or not all(
        isinstance(globs, list) and all(isinstance(glob, str) for glob in globs) for globs in spec.values()
    ):
        raise InvalidArgumentError(f"{text} must hold {{name: [glob, …]}}")
    return spec
