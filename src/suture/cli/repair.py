"""Repair: run, its five stages, and the report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suture.cli.logs import scan
from suture.cli.options import (
    DataOpt,
    DebugOpt,
    LocalizersOpt,
    MemoryOpt,
    ModelOpt,
    PlanOpt,
    RegressionOpt,
    RequireOpt,
    RuleOpt,
    RunArg,
    WeightsOpt,
)
from suture.cli.words import check_names, groups_of, memory_of, names, numbers

# Heavy modules are imported when a verb runs, so that --help is quick.

if TYPE_CHECKING:
    from suture.stages.verify import Verification

PANEL = "Repair"


def add_to(app: typer.Typer) -> None:
    """Register the verbs of this panel."""
    for verb in (run, scan, localize, diagnose, treat, verify, report):
        app.command(rich_help_panel=PANEL)(verb)


def run(
    model: ModelOpt,
    out: Annotated[Path, typer.Option("--out", help="Run directory; the same command continues in it.")],
    weights: WeightsOpt = None,
    data: DataOpt = None,
    diagnose: Annotated[str | None, typer.Option("--diagnose", help="Data in which errors are found.")] = None,
    repair: Annotated[str | None, typer.Option("--repair", help="Data on which treatment trains.")] = None,
    verify: Annotated[str | None, typer.Option("--verify", help="Data that is looked at once, at the end.")] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, help="Side in pixels that pictures are resized to.")
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="Mean per channel, as a,b,c in units of [0, 1].")] = None,
    std: Annotated[str | None, typer.Option("--std", help="Deviation per channel, as a,b,c.")] = None,
    task: Annotated[str, typer.Option("--task", help="classification, or FILE.py:Class.")] = "classification",
    groups: Annotated[
        str, typer.Option("--groups", help="top, block, tensor, or a JSON file {name: \\[glob]}.")
    ] = "top",
    protocol: Annotated[
        str, typer.Option("--protocol", help="split, or paper: verify is diagnose, which is optimistic.")
    ] = "split",
    plan: PlanOpt = "default",
    localizers: LocalizersOpt = "default",
    rule: RuleOpt = "default",
    max_memory: MemoryOpt = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Weights of a healthy twin.")] = None,
    history: Annotated[
        str | None, typer.Option("--history", help="Training log (CSV with lr, momentum) for Scan.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 42,
    device: Annotated[str, typer.Option("--device", help="auto takes a GPU if there is one.")] = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples per evaluation step.")] = 128,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage to do.")] = None,
    redo: Annotated[str | None, typer.Option("--redo", metavar="STAGE", help="First stage to do again.")] = None,
    require: RequireOpt = None,
    max_regression: RegressionOpt = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")] = False,
    debug: DebugOpt = False,
) -> None:
    """Find what is wrong, repair it, and prove the repair; make a run directory.

    Example: suture run --model model.py:net --weights w.safetensors --data photos.zip --size 32 --out run
    """
    from suture.asked import Asked
    from suture.errors import InvalidArgumentError
    from suture.pipeline import checked
    from suture.pipeline import run as run_pipeline

    _check_require(require)
    check_names(localizers, rule)
    memory = memory_of("--max-memory", max_memory)
    checked(plan, until, redo)
    if until == "scan" and history is None:
        raise InvalidArgumentError("--until scan needs --history, the training log that is scanned")
    asked = Asked(
        model=model, weights=weights, data=data, diagnose=diagnose, repair=repair, verify=verify, size=size,
        mean=numbers("--mean", mean), std=numbers("--std", std), task=task, groups=groups_of(groups),
        protocol=protocol, reference=reference, seed=seed, device=device, batch_size=batch_size, skip_bad=skip_bad,
    ).absolute()  # fmt: skip
    results = run_pipeline(
        asked.case(), out, history=history, localizers=names(localizers), rule=rule, plan=plan, until=until,
        redo=redo, asked=asked, say=_say, max_memory=memory,
    )  # fmt: skip
    show_summary(results, out)
    if "verify" in results:
        _gate(results["verify"], require, max_regression)


def localize(
    run: RunArg,
    localizers: LocalizersOpt = "default",
    rule: RuleOpt = "default",
    max_memory: MemoryOpt = None,
    export: Annotated[
        str | None, typer.Option("--export", help="Write the flagged groups for another tool: peft, axolotl or json.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where --export writes; by default in the run directory.")
    ] = None,
    debug: DebugOpt = False,
) -> None:
    """Score every group of a run beside its nulls, say which one is sick, and flag those whose treatment pays.

    Examples: suture localize run --localizers grad_norm,relative · suture localize run --export peft --out lora.json
    """
    from suture.errors import InvalidArgumentError
    from suture.registry import suggest
    from suture.rundir import write_atomic
    from suture.views.targets import FILES

    check_names(localizers, rule)
    memory = memory_of("--max-memory", max_memory)
    if export is not None and export not in FILES:
        raise InvalidArgumentError(f"no export is called '{export}'; {suggest(export, list(FILES))}")
    if out is not None and export is None:
        raise InvalidArgumentError("--out goes with --export, which writes the file")
    this, result = _staged(run, lambda this: this.localize(names(localizers), rule, memory))
    if export is not None:
        made = result.export(export, this.case.model)
        path = out or run / FILES[export]
        write_atomic(path, made.text)
        for line in [*made.lines, str(path)]:
            typer.echo(line)


def diagnose(run: RunArg, debug: DebugOpt = False) -> None:
    """Say which class is taken for which, and which group has most to do with it.

    Example: suture diagnose run
    """
    _stage(run, lambda this: this.diagnose())


def treat(run: RunArg, plan: PlanOpt = "default", debug: DebugOpt = False) -> None:
    """Repair the flagged groups of a copy and write the patch; continues after the last finished epoch.

    Example: suture treat run --plan A
    """
    _stage(run, lambda this: this.treat(plan))


def verify(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)] = None,
    patch: Annotated[Path | None, typer.Option("--patch", help="Somebody else's patch, in place of a run.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model that --patch is for.")] = None,
    weights: WeightsOpt = None,
    data: Annotated[str | None, typer.Option("--data", help="Data to verify --patch on, all of it.")] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, help="Side in pixels that pictures are resized to.")
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="Mean per channel, as a,b,c.")] = None,
    std: Annotated[str | None, typer.Option("--std", help="Deviation per channel, as a,b,c.")] = None,
    require: RequireOpt = None,
    max_regression: RegressionOpt = None,
    debug: DebugOpt = False,
) -> None:
    """Count what a repair fixed and broke on unseen data.

    Examples: suture verify run --require better ·
    suture verify --patch patch.safetensors --model model.py:net --weights w.safetensors --data photos
    """
    from suture.errors import InvalidArgumentError

    _check_require(require)
    if (run is None) == (patch is None):
        raise InvalidArgumentError("give a run directory, or --patch with --model, --weights and --data")
    if patch is not None:
        result = _verify_patch(patch, model, weights, data, size, mean, std)
        _print(result.table())
    else:
        own = {"--model": model, "--weights": weights, "--data": data, "--size": size, "--mean": mean, "--std": std}
        superfluous = [flag for flag, value in own.items() if value is not None]
        if superfluous:
            raise InvalidArgumentError(f"{superfluous[0]} goes with --patch; a run knows its own")
        result = _stage(run, lambda this: this.verify())
    _gate(result, require, max_regression)


def report(
    run: RunArg,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write; by default in the run directory.")] = None,
    form: Annotated[str, typer.Option("--format", help="html, md or json.")] = "html",
    debug: DebugOpt = False,
) -> None:
    """Write the page that shows a run: one HTML file, no network; or a summary as Markdown or JSON.

    Example: suture report run --format md --out summary.md
    """
    from suture.errors import InvalidArgumentError
    from suture.views.export import FORMATS, export

    path = out or run / f"report.{form}"
    if form not in FORMATS:
        raise InvalidArgumentError(f"--format takes {', '.join(FORMATS)}, not '{form}'")
    export(run, form, path)
    typer.echo(path)


def show_summary(results: dict[str, Any], out: Path) -> None:
    """Tables of what a run found, and where the page is."""
    for result in results.values():
        _print(result.table())
    if "verify" in results:
        typer.echo(results["verify"].sentence)
    typer.echo(f"report: {out / 'report.html'}")


def _stage(path: Any, do: Any) -> Any:
    return _staged(path, do)[1]


def _staged(path: Any, do: Any) -> Any:
    """The run and the result of a stage, whose table is shown."""
    from suture.pipeline import open_run

    this = open_run(path, _say)
    with this.claimed():
        result = do(this)
    _print(result.table())
    return this, result


def _verify_patch(
    patch: Path, model: str | None, weights: str | None, data: str | None, size: int | None,
    mean: str | None, std: str | None,
) -> "Verification":  # fmt: skip
    from suture.asked import Asked
    from suture.errors import InvalidArgumentError
    from suture.stages.verify import verify as verify_patch

    if model is None or data is None:
        raise InvalidArgumentError(f"--patch needs {'--model' if model is None else '--data'} too")
    asked = Asked(
        model=model,
        weights=weights,
        verify=data,
        size=size,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
    )
    return verify_patch(asked.case(), str(patch))


def _gate(result: Any, require: str | None, max_regression: float | None) -> None:
    from suture.errors import RequirementError

    if require is not None and result.verdict != require:
        raise RequirementError(f"the verdict is '{result.verdict}' and not '{require}' as required")
    if max_regression is not None and result.regression_rate > max_regression:
        raise RequirementError(
            f"the repair broke {result.regression_rate:.1%} of what was right; at most {max_regression:.1%} is allowed"
        )


def _check_require(require: str | None) -> None:
    from suture.errors import InvalidArgumentError

    if require not in (None, "better"):
        raise InvalidArgumentError(f"--require takes 'better', not '{require}'")


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table, highlight=False)
