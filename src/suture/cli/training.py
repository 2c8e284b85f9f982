"""Training: train a model file, and compare several models."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suture.cli.options import ClassesOpt, DebugOpt, ModelOpt

if TYPE_CHECKING:
    from suture.training.fit import Logger

PANEL = "Training"
PRESETS = "baseline, physics, 1cycle, hybrid-90, hybrid-ep52, ikfad, cubic-damping, adam, matched"
SizeOpt = Annotated[int | None, typer.Option("--size", min=1, help="Side in pixels that pictures are resized to.")]
MeanOpt = Annotated[str | None, typer.Option("--mean", help="Mean per channel, as a,b,c in units of [0, 1].")]
StdOpt = Annotated[str | None, typer.Option("--std", help="Deviation per channel, as a,b,c.")]
TaskOpt = Annotated[str, typer.Option("--task", help="classification, or FILE.py:Class.")]
DeviceOpt = Annotated[str, typer.Option("--device", help="auto takes a GPU if there is one.")]
SkipOpt = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs of this panel."""
    app.command(rich_help_panel=PANEL)(train)
    app.command(rich_help_panel=PANEL)(compare)


def train(
    model: ModelOpt,
    data: Annotated[str, typer.Option("--data", help="Folder of class folders, a zip of one, or FILE.py:FUNC.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of weights, log and checkpoint.")],
    test: Annotated[str | None, typer.Option("--test", help="Data to evaluate on after each epoch.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help=f"Recipe: {PRESETS}; or a TOML file of its fields, such as epochs or momentum (docs/training.md).",
        ),
    ] = "baseline",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the data.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate of the first epoch.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Examples per step.")] = None,
    size: SizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    classes: ClassesOpt = None,
    task: TaskOpt = "classification",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of everything random.")] = 42,
    device: DeviceOpt = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard event files too.")] = False,
    skip_bad: SkipOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Train a model with one of the paper's recipes, or one of your own; killed, it continues.

    Examples: suture train --model model.py:net --data photos.zip --size 32 --preset physics --epochs 30 --out net ·
    suture train --model model.py:net --data photos.zip --size 32 --preset mine.toml --out net
    """
    from suture.asked import Asked
    from suture.case import pick_device
    from suture.cli.repair import _print
    from suture.cli.words import classes_of, numbers
    from suture.errors import NonFiniteError
    from suture.history import load_history
    from suture.loading import load_model, load_object, load_task
    from suture.rundir import fingerprint
    from suture.stages.scan import scan
    from suture.training import fit
    from suture.training.presets import load_recipe
    from suture.wording import percent

    changes = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
    recipe = load_recipe(preset, **{name: value for name, value in changes.items() if value is not None})
    asked = Asked(
        model=model, data=data, verify=test, size=size, mean=numbers("--mean", mean), std=numbers("--std", std),
        classes=classes_of(classes), task=task, seed=seed, skip_bad=skip_bad,
    ).absolute()  # fmt: skip
    load_object(asked.model)  # imports what belongs to its code, which the directory is compared by
    examples = asked.read(str(asked.data))
    held_out = asked.read(asked.verify) if asked.verify else None

    doubt = recipe.augment.doubt(_first_input(examples))
    if doubt:
        typer.echo(f"warning: {doubt}", err=True)
    named = {
        "model": asked.model, "data": asked.data, "test": asked.verify, "size": size, "mean": asked.mean,
        "std": asked.std, "classes": classes and str(classes.resolve()), "task": asked.task, "skip_bad": skip_bad,
    }  # fmt: skip

    def loggers() -> list["Logger"]:
        from suture.integrations.trackers import TensorBoard

        return [TensorBoard(out)] if tensorboard else []

    result = fit(
        lambda: load_model(asked.model).train(), examples, load_task(asked.task), recipe, out, test=held_out,
        seed=seed, device=pick_device(device), image=asked.image, loggers=loggers,
        identity=fingerprint(asked.model_dump(mode="json"), asked.code), named=named,
    )  # fmt: skip
    if len(result.history):
        _print(scan(load_history(result.log)).table())
        last = result.history.iloc[-1]
        accuracy = last.get("test_accuracy", last["accuracy"])
        typer.echo(
            f"{result.weights}: epoch {last['epoch']:.0f}, loss {last['loss']:.4f}, accuracy {percent(accuracy, 2)}"
        )
    if result.stopped:
        raise NonFiniteError(result.stopped)


def _first_input(examples: Any) -> Any:
    with suppress(Exception):  # what is wrong with a stranger's data is said by the training
        return examples[0][0]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="NAME=MODEL@WEIGHTS…", help="Two models or more, each FILE.py:FUNC@WEIGHTS by a name."),
    ],
    data: Annotated[str, typer.Option("--data", help="Folder of class folders, a zip of one, or FILE.py:FUNC.")],
    out: Annotated[Path | None, typer.Option("--out", help="Directory for result.json and CSV tables.")] = None,
    size: SizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    classes: ClassesOpt = None,
    task: TaskOpt = "classification",
    device: DeviceOpt = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples per evaluation step.")] = 128,
    skip_bad: SkipOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Say who gets what wrong: several models on one data set, against each other and against chance.

    Example: suture compare small=model.py:net20@a.pt large=model.py:net44@b.pt --data photos.zip --size 32
    """
    from suture.asked import Asked
    from suture.cli.repair import _print
    from suture.cli.words import classes_of, numbers
    from suture.errors import InvalidArgumentError
    from suture.loading import load_model
    from suture.stages.compare import compare as compare_models

    named: dict[str, tuple[str, str | None]] = {}
    for text in models:
        name, equals, rest = text.partition("=")
        spec, _, weights = rest.partition("@")
        if not (name and equals and spec):
            raise InvalidArgumentError(f"'{text}' names no model; write NAME=FILE.py:FUNC@WEIGHTS")
        if name in named:
            raise InvalidArgumentError(f"two models are called '{name}'; give each its own name")
        named[name] = (spec, weights or None)
    asked = Asked(
        model="", size=size, mean=numbers("--mean", mean), std=numbers("--std", std), classes=classes_of(classes),
        skip_bad=skip_bad,
    )  # fmt: skip
    result = compare_models(
        {name: load_model(spec, weights) for name, (spec, weights) in named.items()},
        asked.read(data), task=task, device=device, batch_size=batch_size,
    )  # fmt: skip
    if out is not None:
        result.save(out)
    _print(result.table())
