"""Repair: run, its five stages, and the report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from suture.cli.logs import scan
from suture.cli.options import (
    BaselinesOpt,
    BudgetOpt,
    CausesOpt,
    ClassesOpt,
    DataOpt,
    DebugOpt,
    JUnitOpt,
    LocalizersOpt,
    MemoryOpt,
    ModelOpt,
    MustKeepOpt,
    PlanOpt,
    RegressionOpt,
    RequireOpt,
    RuleOpt,
    RunArg,
    SuspectsOpt,
    TwinOpt,
    WeightsOpt,
)
from suture.cli.patches import report_patch
from suture.cli.verify import check_require, forget_junit, gate, verify, write_junit
from suture.cli.words import check_names, check_plan, classes_of, groups_of, memory_of, model_of, names, numbers
from suture.wording import plain

# Heavy modules are imported when a verb runs, so that --help is quick.

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
    repair_extra: Annotated[
        list[str] | None,
        typer.Option(
            "--repair-extra",
            help="More examples to train on; nothing is chosen on them. Such as training images sent through the "
            "deployed camera. May be given several times.",
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, help="Side in pixels that pictures are resized to.")
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="Mean per channel, as a,b,c in units of [0, 1].")] = None,
    std: Annotated[str | None, typer.Option("--std", help="Deviation per channel, as a,b,c.")] = None,
    classes: ClassesOpt = None,
    task: Annotated[str, typer.Option("--task", help="classification, or FILE.py:Class.")] = "classification",
    groups: Annotated[
        str, typer.Option("--groups", help="top, block, tensor, or a JSON file {name: \\[glob]}.")
    ] = "top",
    protocol: Annotated[
        str, typer.Option("--protocol", help="split, or paper: verify is diagnose, which is optimistic.")
    ] = "split",
    plan: PlanOpt = "default",
    budget: BudgetOpt = None,
    twin: TwinOpt = False,
    baselines: BaselinesOpt = False,
    exclude_suspects: SuspectsOpt = False,
    localizers: LocalizersOpt = "default",
    rule: RuleOpt = "default",
    max_memory: MemoryOpt = None,
    causes: CausesOpt = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Weights of a healthy twin.")] = None,
    history: Annotated[
        str | None, typer.Option("--history", help="Training log (CSV with lr, momentum) for Scan.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of everything random.")] = 42,
    device: Annotated[str, typer.Option("--device", help="auto takes a GPU if there is one.")] = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples per evaluation step.")] = 128,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage to do.")] = None,
    redo: Annotated[str | None, typer.Option("--redo", metavar="STAGE", help="First stage to do again.")] = None,
    require: RequireOpt = None,
    max_regression: RegressionOpt = None,
    must_keep: MustKeepOpt = None,
    junit: JUnitOpt = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")] = False,
    debug: DebugOpt = False,
) -> None:
    """Find what is wrong, repair it, and prove the repair; make a run directory.

    Example: suture run --model model.py:net --weights w.safetensors --data photos.zip --size 32 --out run
    """
    check_plan(plan, model)
    from suture.asked import Asked
    from suture.errors import InvalidArgumentError
    from suture.pipeline import check_stages
    from suture.pipeline import run as run_pipeline
    from suture.stages.must_keep import read_must_keep
    from suture.treatments import Plan, load_plan, within

    def chosen() -> Plan:  # once the model's code is there, which may register plans, methods and localizers
        check_names(localizers, rule)
        return within(load_plan(plan, protocol), budget)

    check_require(require)
    check_stages(until, redo)
    memory = memory_of("--max-memory", max_memory)
    if until == "scan" and history is None:
        raise InvalidArgumentError("--until scan needs --history, the training log that is scanned")
    asking = {"--junit": junit, "--require": require, "--max-regression": max_regression, "--must-keep": must_keep}
    if until not in (None, "verify") and (given := [name for name, value in asking.items() if value is not None]):
        raise InvalidArgumentError(f"{given[0]} asks for a verdict, which --until {until} does not reach")
    forget_junit(junit)
    kept = read_must_keep(must_keep) if must_keep is not None else None
    asked = Asked(
        model=model, weights=weights, data=data, diagnose=diagnose, repair=repair, verify=verify,
        repair_extra=tuple(repair_extra) if repair_extra else None, size=size,
        mean=numbers("--mean", mean), std=numbers("--std", std), classes=classes_of(classes), task=task,
        groups=groups_of(groups),
        protocol=protocol, reference=reference, seed=seed, device=device, batch_size=batch_size, skip_bad=skip_bad,
    ).absolute()  # fmt: skip
    results = run_pipeline(
        asked.case(chosen), out, history=history, localizers=names(localizers), rule=rule, plan=chosen(), twin=twin,
        baselines=baselines, exclude_suspects=exclude_suspects, must_keep=kept, until=until, redo=redo, asked=asked,
        say=_say, max_memory=memory, causes=causes,
    )  # fmt: skip
    show_summary(results, out)
    if "verify" in results:
        verdict: Any = results["verify"]
        if junit is not None:
            write_junit(junit, verdict, str(out), require, max_regression)
        gate(verdict, require, max_regression)


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

    memory = memory_of("--max-memory", max_memory)
    if export is not None and export not in FILES:
        raise InvalidArgumentError(f"no export is called '{export}'; {suggest(export, list(FILES))}")
    if out is not None and export is None:
        raise InvalidArgumentError("--out goes with --export, which writes the file")
    asked_for_nothing = (localizers, rule, max_memory) == ("default", "default", None)
    this, result = _staged(
        run,
        lambda this: (
            (this.stored("localize") if asked_for_nothing else None) or this.localize(names(localizers), rule, memory)
        ),
        check=lambda: check_names(localizers, rule),
    )
    if export is not None:
        made = result.export(export, this.case.model)
        path = out or run / FILES[export]
        write_atomic(path, made.text)
        for line in [*made.lines, str(path)]:
            typer.echo(line)


def diagnose(run: RunArg, causes: CausesOpt = None, debug: DebugOpt = False) -> None:
    """Say which class is taken for which, which group has to do with it, and what takes the confusion away.

    Example: suture diagnose run --causes 8
    """
    stored = causes is None  # what was found stays as it was asked for
    _stage(run, lambda this: (this.stored("diagnose") if stored else None) or this.diagnose(causes))


def treat(
    run: RunArg,
    plan: PlanOpt = "default",
    budget: BudgetOpt = None,
    twin: TwinOpt = False,
    baselines: BaselinesOpt = False,
    exclude_suspects: SuspectsOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Repair a copy by a plan and write the patch; continues after the last finished epoch.

    Examples: suture treat run --plan full · suture treat run --plan mine.toml --baselines
    """
    check_plan(plan, model_of(run))
    from suture.stages.exclusion import SUSPECTS
    from suture.treatments import load_plan, within

    exclude = SUSPECTS if exclude_suspects else None
    _stage(
        run,
        lambda this: this.treat(
            within(load_plan(plan, this.case.protocol), budget), exclude=exclude, twin=twin, baselines=baselines
        ),
        check=lambda: within(load_plan(plan), budget),
    )


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|PATCH...", help="Run directory, several, or a patch.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where to write; by default in the run directory, beside the patch, or here for several runs."
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="html, md, json, or junit for one run.")] = "html",
    debug: DebugOpt = False,
) -> None:
    """Write the page that shows a run, several side by side, or a patch: one HTML file, no network.

    With --format a summary as Markdown, data as JSON, or the verdict as JUnit XML.

    Examples: suture report run --format md --out summary.md · suture report a b --out both.html ·
    suture report run/treat/patch.safetensors
    """
    from suture.errors import InvalidArgumentError
    from suture.views import runs as several
    from suture.views.export import FORMATS, SUFFIXES, export

    for path in runs:
        if (path / "adapter_config.json").exists():
            raise InvalidArgumentError(
                f"{path} is a LoRA adapter, which does not say what weights it is for; suture verify --patch judges "
                "it, and suture apply merges it"
            )
    patches = [path for path in runs if path.is_file() or path.suffix == ".safetensors"]
    if patches and len(runs) > 1:
        raise InvalidArgumentError(f"{patches[0]} is no run directory; several reports compare runs, so give it alone")
    allowed = several.FORMATS if patches or len(runs) > 1 else FORMATS
    if form not in allowed:
        what = " with a patch" if patches else " with several runs" if len(runs) > 1 else ""
        raise InvalidArgumentError(f"--format takes {', '.join(allowed)}{what}, not '{form}'")
    if patches:
        report_patch(runs[0], out, form)
        return
    if len(runs) > 1:
        found = several.read_runs(runs)
        path = out or Path(f"suture-runs.{form}")
        several.export(found, form, path)
        _print(several.table(found))
    else:
        path = out or runs[0] / f"report.{SUFFIXES.get(form, form)}"
        export(runs[0], form, path)
    typer.echo(path)


def show_summary(results: dict[str, Any], out: Path) -> None:
    """What a run found, on a screen, and where all of it is."""
    from suture.views.screen import screen

    _print(screen(results))
    typer.echo(f"report: {out / 'report.html'}")


def _stage(path: Any, do: Any, check: Any = None) -> Any:
    return _staged(path, do, check)[1]


def _staged(path: Any, do: Any, check: Any = None) -> Any:
    """The run and the result of a stage, whose table is shown."""
    from suture.pipeline import open_run

    this = open_run(path, _say, check)
    with this.claimed():
        result = do(this)
    _print(result.table())
    return this, result


def _say(message: str) -> None:
    typer.echo(plain(message), err=True)


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table, highlight=False)
