"""The verb verify, and the gates that scripts and CI rely on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suture.cli.options import ClassesOpt, DebugOpt, JUnitOpt, MustKeepOpt, RegressionOpt, RequireOpt, WeightsOpt
from suture.cli.words import classes_of, numbers

if TYPE_CHECKING:
    from suture.asked import Asked
    from suture.stages.verify import Verification


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
    classes: ClassesOpt = None,
    task: Annotated[
        str | None, typer.Option("--task", help="What the model of --patch does: classification, or FILE.py:Class.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the bootstrap, with --patch (default: 42).")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Where to run, with --patch (default: auto).")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Examples per step, with --patch (default: 128).")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="With --patch, leave out pictures that cannot be read.")
    ] = False,
    untouched: Annotated[
        str | None,
        typer.Option(
            "--untouched", help="Data that the repair was not about, on which drift of the outputs is measured."
        ),
    ] = None,
    must_keep: MustKeepOpt = None,
    require: RequireOpt = None,
    max_regression: RegressionOpt = None,
    junit: JUnitOpt = None,
    debug: DebugOpt = False,
) -> None:
    """Count what a repair fixed and broke on unseen data.

    Examples: suture verify run --require better --max-regression 0.05 --junit gate.xml ·
    suture verify run --untouched photos --must-keep golden.txt ·
    suture verify --patch patch.safetensors --model model.py:net --weights w.safetensors --data photos
    """
    from suture.cli.repair import _print, _stage
    from suture.errors import InvalidArgumentError
    from suture.stages.must_keep import read_must_keep

    check_require(require)
    if (run is None) == (patch is None):
        raise InvalidArgumentError("give a run directory, or --patch with --model, --weights and --data")
    kept = read_must_keep(must_keep) if must_keep is not None else None
    forget_junit(junit)
    own = {
        "--model": model, "--weights": weights, "--data": data, "--size": size, "--mean": mean, "--std": std,
        "--classes": classes, "--task": task, "--seed": seed, "--device": device, "--batch-size": batch_size,
        "--skip-bad": skip_bad or None,
    }  # fmt: skip
    given = {flag: value for flag, value in own.items() if value is not None}
    if patch is not None:
        result = _of_patch(patch, given, untouched, kept)
        _print(result.table())
    else:
        if given:
            raise InvalidArgumentError(f"{next(iter(given))} goes with --patch; a run knows its own")
        result = _stage(run, lambda this: this.verify(_data(untouched, this.asked), kept))
    if junit is not None:
        write_junit(junit, result, str(run or patch), require, max_regression)
    gate(result, require, max_regression)


def write_junit(
    path: Path, result: "Verification", title: str, require: str | None, max_regression: float | None
) -> None:
    """The gates as JUnit XML, met or not."""
    from suture.rundir import write_atomic
    from suture.views.junit import junit

    write_atomic(path, junit(result, title, require=require, max_regression=max_regression))


def forget_junit(path: Path | None) -> None:
    """Delete the file of an earlier run: should this one end before its verdict, CI must not find the old one."""
    if path is not None and path.is_file():
        path.unlink()


def _of_patch(
    patch: Path, given: dict[str, Any], untouched: str | None, kept: list[str] | None
) -> "Verification":  # fmt: skip
    from suture.asked import Asked
    from suture.errors import InvalidArgumentError, MissingFileError
    from suture.patch import canonical_state, load_adapter, load_patch
    from suture.stages.verify import verify as verify_patch

    for flag in ("--model", "--data"):
        if flag not in given:
            raise InvalidArgumentError(f"--patch needs {flag} too")
    if not patch.exists():
        raise MissingFileError(f"there is no patch {patch}")
    words = {flag.removeprefix("--").replace("-", "_"): value for flag, value in given.items()}
    words["verify"] = words.pop("data")
    words |= {name: numbers(f"--{name}", words.get(name)) for name in ("mean", "std")}
    asked = Asked(**words | {"classes": classes_of(words.get("classes"))})
    case = asked.case()
    made = load_adapter(patch).patch(canonical_state(case.model))[0] if patch.is_dir() else load_patch(patch)
    return verify_patch(case, made, untouched=_data(untouched, asked), must_keep=kept)


def _data(name: str | None, asked: "Asked") -> Any:
    """The untouched data, read as the others are; their classes are matched by name, as they may be others."""
    from suture.loading import load_data

    return load_data(name, asked.image, skip_bad=asked.skip_bad, one_class=True) if name is not None else None


def gate(result: "Verification", require: str | None, max_regression: float | None) -> None:
    """Say everything that was required and is not met.

    Raises:
        RequirementError: the verdict is another, an example that may not break did, or the promised bound on the
            regression rate does not hold.
    """
    from suture.errors import RequirementError
    from suture.views.checks import checks

    unmet = [check.unmet for check in checks(result, require, max_regression) if check.unmet]
    if unmet:
        raise RequirementError("; ".join(unmet))


def check_require(require: str | None) -> None:
    """Refuse a requirement that is none.

    Raises:
        InvalidArgumentError: it is not ``better``.
    """
    from suture.errors import InvalidArgumentError

    if require not in (None, "better"):
        raise InvalidArgumentError(f"--require takes 'better', not '{require}'")
