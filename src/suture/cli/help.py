"""Help: the demo, and what is installed."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from suture.cli.options import DebugOpt

PANEL = "Help"
LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "safetensors",
    "pydantic",
    "matplotlib",
    "scikit-learn",
)
EXTRAS = {"vision": ("torchvision",), "labels": ("cleanlab",)}


def add_to(app: typer.Typer) -> None:
    """Register the verbs of this panel."""
    app.command(rich_help_panel=PANEL)(demo)
    app.command(rich_help_panel=PANEL)(doctor)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Run directory of the demo.")] = Path("demo-run"),
    debug: DebugOpt = False,
) -> None:
    """Train a small network, find what is wrong with it, repair it and prove the repair.

    Example: suture demo --out demo-run
    """
    import torch

    from suture.asked import Asked
    from suture.claim import refuse_strangers
    from suture.cli.repair import show_summary
    from suture.demo import FORMAT, prepare
    from suture.pipeline import run

    torch.set_num_threads(1)  # more are no faster on so small a network, and would train another one
    refuse_strangers(out)  # before seconds of training
    typer.echo("Clean digits are learnt, then blurred and noisy ones are met. The same by hand:", err=True)
    weights, history, plan = (out / "model" / n for n in ("weights.safetensors", "history.csv", "plan.toml"))
    mean, std = FORMAT.mean[0], FORMAT.std[0]
    typer.echo(
        f"  suture run --model suture.demo:network --weights {quote(str(weights))} --data suture.demo:photographed "
        f"--mean {mean} --std {std} --plan {quote(str(plan))} --history {quote(str(history))} --out {quote(str(out))}",
        err=True,
    )
    prepare(out / "model")
    asked = Asked(
        model="suture.demo:network",
        weights=str(weights),
        data="suture.demo:photographed",
        mean=(mean,),
        std=(std,),
    ).absolute()
    results = run(
        asked.case(),
        out,
        history=history,
        plan=str(plan),
        asked=asked,
        say=lambda line: typer.echo(line, err=True),
    )
    show_summary(dict(results), out)


def doctor(debug: DebugOpt = False) -> None:
    """Show versions, devices and extras.

    Example: suture doctor
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    def found(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    typer.echo(f"suture        {version('suture')}")
    typer.echo(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in LIBRARIES:
        typer.echo(f"{package:13} {found(package)}")
    for extra, packages in EXTRAS.items():
        for package in packages:
            hint = "" if found(package) != "not installed" else f" (pip install suture[{extra}])"
            typer.echo(f"{package:13} {found(package)}{hint}")
    typer.echo(f"device        {_device()}")
    typer.echo(f"threads       {torch.get_num_threads()}")


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return "cpu"
