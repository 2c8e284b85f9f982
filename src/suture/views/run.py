"""A run directory as its readers see it: what was asked, and the stages that were finished."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from suture.errors import RunError
from suture.rundir import STAGES, RunDir, read_json
from suture.stages.diagnose import Diagnosis
from suture.stages.localize import Localization
from suture.stages.scan import Scan
from suture.stages.treat import Treatment
from suture.stages.verify import Verification
from suture.views.grid import Column, Grid
from suture.views.text import count
from suture.wording import plain

DATA = ("data", "diagnose", "repair", "verify")  # options that name data


@dataclass(frozen=True)
class Finished:
    """What a run directory holds; any stage may be missing, since a run can stop early.

    Attributes:
        path: the directory.
        case: what ``case.json`` says.
        scan, localize, diagnose, treat, verify: results, or None.
    """

    path: Path
    case: dict[str, Any]
    scan: Scan | None
    localize: Localization | None
    diagnose: Diagnosis | None
    treat: Treatment | None
    verify: Verification | None

    @property
    def asked(self) -> dict[str, Any]:
        """The request, or nothing when the run was made from Python objects."""
        return self.case.get("asked") or {}

    @property
    def weights(self) -> str | None:
        """File name of the weights that were treated."""
        return short(self.asked["weights"]) if self.asked.get("weights") else None

    @property
    def going_on(self) -> str:
        """What continues the run, whether it was stopped on purpose or killed."""
        until, command = ("--until", "suture run") if self.asked else ("until", "suture.run")
        return f"the same {command}, without {until}, goes on"

    @property
    def stopped(self) -> str:
        """How far a run without a verdict got."""
        done = [name for name in STAGES if getattr(self, name)]
        return f"the run stopped after {done[-1]}" if done else "no stage is finished"

    @property
    def title(self) -> str:
        """Model and data in a line."""
        model = short(self.asked["model"]).rpartition(":")[2] if self.asked.get("model") else "A model"
        data = self.asked.get("data") or self.asked.get("verify")
        return f"{model} on {short(data)}" if data else f"{model} and its errors"


def read_run(path: str | Path) -> Finished:
    """Read a run directory.

    Raises:
        RunError: it is no run directory, or a stage is damaged.
    """
    directory = RunDir(path)
    if not directory.case_file.is_file():
        raise RunError(f"{directory.path} is no run directory: it has no case.json; make one with suture run")
    kinds: dict[str, Any] = {
        "scan": Scan,
        "localize": Localization,
        "diagnose": Diagnosis,
        "treat": Treatment,
        "verify": Verification,
    }
    results: Any = {
        name: kind.load(directory.stage(name)) if directory.stored(name) else None for name, kind in kinds.items()
    }
    return Finished(path=directory.path, case=read_json(directory.case_file), **results)


def subtitle(run: Finished) -> str:
    """Weights, protocol, date and version in a line."""
    same = run.case.get("identity", {})
    parts = [
        _with_hash(run.weights, same.get("weights")),
        f"protocol {same['protocol']}" if same.get("protocol") else "",
        str(run.case.get("created", ""))[:10],
        f"suture {run.case.get('versions', {}).get('suture', '')}".strip(),
    ]
    return " · ".join(part for part in parts if part)


def identity(run: Finished) -> Grid:
    """What was asked, with versions and hashes."""
    asked, same, splits = run.asked, run.case.get("identity", {}), run.case.get("splits", {})
    rows = [
        ["model", short(asked["model"]) if asked.get("model") else "given as a Python object"],
        ["weights", _with_hash(run.weights, same.get("weights"))],
        *([name, short(asked[name])] for name in DATA if asked.get(name)),
        ["splits", " · ".join(f"{name} {count(n)}" for name, n in splits.items())],
        ["data, sha256", " · ".join(f"{name} {_start(digest)}" for name, digest in same.get("data", {}).items())],
        ["patch", _patch(run.treat)],
        ["protocol", _protocol(same.get("protocol"))],
        ["task", short(same["task"]) if same.get("task") else ""],
        ["groups", f"{len(same.get('groups', {}))} ({_spec(asked.get('groups'))})"],
        ["seed", str(same.get("seed", ""))],
        ["device", str(run.case.get("device", ""))],
        ["made", str(run.case.get("created", "")).replace("T", " ").replace("+00:00", " UTC")],
        ["versions", ", ".join(f"{name} {version}" for name, version in run.case.get("versions", {}).items())],
    ]  # fmt: skip
    return Grid("What was asked", [Column("Part"), Column("Value")], [row for row in rows if row[1]])


def short(path: str) -> str:
    """The last part of an absolute path, from whichever system it came; other names as they are."""
    kinds = (PurePosixPath(path), PureWindowsPath(path))
    return plain(next((kind.name for kind in kinds if kind.is_absolute() and kind.name), path))


def _patch(treatment: Treatment | None) -> str:
    """The weights that a patch leads from and to."""
    if treatment is None or not len(treatment.patch):
        return "empty" if treatment is not None else ""
    return f"from sha256 {_start(treatment.patch.base)} to {_start(treatment.patch.result)}"


def _start(digest: object) -> str:
    return f"{plain(digest)[:12]}…"


def _with_hash(name: str | None, sha256: str | None) -> str:
    return ", ".join(part for part in (name, f"sha256 {sha256[:12]}…" if sha256 else None) if part)


def _protocol(name: str | None) -> str:
    meaning = {
        "split": "split: errors are found, treated and verified on different examples",
        "paper": "paper: verified on the examples that were diagnosed, which is optimistic",
    }
    return meaning.get(str(name), str(name or ""))


def _spec(groups: Any) -> str:
    return "chosen by name" if isinstance(groups, dict) else str(groups or "given from Python")
