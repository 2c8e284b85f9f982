"""The verb of the panel Repair that reads training logs: scan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suture.cli.options import DebugOpt

# Heavy modules are imported when the verb runs, so that --help is quick.

if TYPE_CHECKING:
    from suture.stages.scan import Scan

_DEFAULT = {
    "form": "paper", "curvature": None, "tolerance": 0.05, "thresholds": [0.80, 0.85, 0.90, 0.92, 0.95],
    "early": [1, 10, 50],
}  # fmt: skip
SCHEDULES = "constant, physics, 1cycle, hybrid-ep52, matched, a number (constant momentum), or a TOML recipe"


def scan(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN|LOG",
            help="Run directory, or training logs: CSV, JSON, TensorBoard, Lightning's metrics.csv, Hugging "
            "Face's trainer_state.json, or the directory of one. Several are put side by side.",
            show_default=False,
        ),
    ] = None,
    history: Annotated[str | None, typer.Option("--history", help="Training log, when RUN is given.")] = None,
    schedule: Annotated[
        list[str] | None, typer.Option("--schedule", metavar="NAME", help=f"A schedule alone: {SCHEDULES}.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Of --schedule.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate that --schedule begins with.")] = None,
    lr_min: Annotated[float | None, typer.Option("--lr-min", help="Learning rate that its cosine ends at.")] = None,
    steps_per_epoch: Annotated[
        int | None, typer.Option("--steps-per-epoch", min=1, help="Optimizer steps, where a log does not say.")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="Its name, such as adamw, where a log does not say.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="ROLE=NAME", help="Unusual column or tag, such as accuracy=top1_val."),
    ] = None,
    form: Annotated[str, typer.Option("--form", help="Critical momentum: paper, exact or nesterov.")] = "paper",
    curvature: Annotated[
        float | None, typer.Option("--curvature", help="Of every epoch; by default the log's own, else 1.")
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", help="Half width of the critical band.")] = 0.05,
    thresholds: Annotated[
        str, typer.Option("--thresholds", help="Accuracies in per cent whose first epoch is looked for.")
    ] = "80,85,90,92,95",
    early: Annotated[str, typer.Option("--early", help="Epochs whose accuracy is listed.")] = "1,10,50",
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory for scan.html with figures, result.json and epochs.csv.")
    ] = None,
    debug: DebugOpt = False,
) -> None:
    """Say which epochs of a training were underdamped, critical or overdamped, and how its curves moved.

    Examples: suture scan history.csv · suture scan runs/version_0 runs/version_1 --out scans ·
    suture scan --schedule physics --schedule constant --epochs 200 --lr 0.1 --lr-min 1e-4
    """
    from suture.cli.repair import _print, _stage
    from suture.cli.words import numbers
    from suture.errors import InvalidArgumentError
    from suture.views import scans as side_by_side

    sources, schedule = sources or [], schedule or []
    settings = {
        "form": form, "curvature": curvature, "tolerance": tolerance,
        "thresholds": _shares(numbers("--thresholds", thresholds) or ()),
        "early": _whole("--early", numbers("--early", early) or ()),
    }  # fmt: skip
    reading = {"optimizer": optimizer, "steps_per_epoch": steps_per_epoch, "columns": _columns(column)}
    asked = {"epochs": epochs, "lr": lr, "lr_min": lr_min}
    changed = any(reading.values()) or settings != _DEFAULT
    if history is not None:
        if len(sources) != 1 or schedule or not sources[0].is_dir():
            given = f"{sources[0]} is" if len(sources) == 1 else "give"
            raise InvalidArgumentError(f"{given} no run directory, so --history has no meaning; give one log")
        if changed:
            raise InvalidArgumentError("options of a scan go with a log alone; the scan of a run has none")
        _stage(sources[0], lambda this: this.scan(history))
        return
    if not sources and not schedule:
        raise InvalidArgumentError("give RUN, LOG or --schedule; see suture scan --help")
    if not schedule and any(value is not None for value in asked.values()):
        raise InvalidArgumentError("--epochs, --lr and --lr-min go with --schedule")
    if not sources and any(reading.values()):
        raise InvalidArgumentError("--optimizer, --steps-per-epoch and --column go with a log")
    found = {
        **dict(
            zip(_labels(sources), [_scanned(source, settings, reading, changed) for source in sources], strict=True)
        ),
        **{name: _rehearsed(name, settings, asked) for name in schedule},
    }
    if out is not None:
        _save(found, out)
    _print(next(iter(found.values())).table() if len(found) == 1 else side_by_side.table(found))


def _scanned(source: Path, settings: dict[str, Any], reading: dict[str, Any], changed: bool) -> "Scan":
    """The scan of a log, or the one a run directory holds."""
    from suture.errors import InvalidArgumentError
    from suture.rundir import RunDir
    from suture.stages.scan import Scan
    from suture.stages.scan import scan as scan_log

    run = RunDir(source)
    if not run.case_file.is_file():
        return scan_log(source, **settings, **reading)
    if run.key("scan") is None:
        raise InvalidArgumentError(f"{source} has no finished scan; give its training log with --history")
    if changed:
        raise InvalidArgumentError(
            f"{source} was scanned already; give its training log to scan that with other options"
        )
    return Scan.load(run.stage("scan"))


def _rehearsed(name: str, settings: dict[str, Any], asked: dict[str, Any]) -> "Scan":
    from suture.stages.rehearsal import rehearse
    from suture.stages.scan import scan as scan_log

    return scan_log(rehearse(name, **{key: value for key, value in asked.items() if value is not None}), **settings)


def _shares(thresholds: tuple[float, ...]) -> list[float]:
    """Percentages, or shares where none is above 1."""
    return [t / 100 if max(thresholds) > 1 else t for t in thresholds]


def _whole(flag: str, numbers: tuple[float, ...]) -> list[int]:
    from suture.errors import InvalidArgumentError

    wrong = [number for number in numbers if number != int(number)]
    if wrong:
        raise InvalidArgumentError(f"{flag} takes whole numbers, not {wrong[0]:g}")
    return [int(number) for number in numbers]


def _columns(pairs: list[str] | None) -> dict[str, str] | None:
    from suture.errors import InvalidArgumentError

    for pair in pairs or []:
        if "=" not in pair:
            raise InvalidArgumentError(f"--column takes ROLE=NAME, such as lr=rate, not '{pair}'")
    return {role: name for role, _, name in (pair.partition("=") for pair in pairs)} if pairs else None


def _labels(sources: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for length in range(1, max((len(source.parts) for source in sources), default=0) + 1):
        names = ["/".join(source.parts[-length:]) for source in sources]
        if len(set(names)) == len(names):
            return names
    return [f"{i}: {source}" for i, source in enumerate(sources, start=1)]  # the same one twice


def _save(found: "dict[str, Scan]", out: Path) -> None:
    """The page, and each scan as its data."""
    from suture.rundir import write_atomic
    from suture.views import scans as side_by_side

    for place, result in enumerate(found.values(), start=1):
        result.save(out if len(found) == 1 else out / str(place))
    write_atomic(out / "scan.html", str(side_by_side.page(found)))
    typer.echo(f"scan: {out / 'scan.html'}")
