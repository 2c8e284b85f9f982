"""Patches: apply and revert, always into a new file; and what `report` says of one."""

from pathlib import Path
from typing import Annotated

import typer

from suture.cli.options import DebugOpt, NewFileOpt, PatchArg

PANEL = "Patches"


def add_to(app: typer.Typer) -> None:
    """Register the verbs of this panel."""
    app.command(rich_help_panel=PANEL)(apply)
    app.command(rich_help_panel=PANEL)(revert)


def apply(
    patch: Annotated[
        Path,
        typer.Argument(
            metavar="PATCH",
            help="patch.safetensors of a treatment, or the directory of a LoRA adapter of PEFT.",
            show_default=False,
        ),
    ],
    weights: Annotated[str, typer.Option("--weights", help="Weights that the patch was made for.")],
    out: NewFileOpt,
    weight: Annotated[float, typer.Option("--weight", help="1 applies it in full, 0.5 goes half way.")] = 1.0,
    debug: DebugOpt = False,
) -> None:
    """Apply a patch to a weights file and write a new one.

    An adapter is merged. It does not say which weights it is for, so only names and shapes are checked.

    Example: suture apply run/treat/patch.safetensors --weights w.pt --out repaired.pt
    """
    from suture.errors import InvalidArgumentError
    from suture.patch import apply as apply_patch
    from suture.patch import load_adapter, load_patch, same_bits
    from suture.weights import load_checkpoint

    if patch.is_dir():
        adapter = load_adapter(patch)
        checkpoint = load_checkpoint(weights, names=adapter.names)
        loaded, _ = adapter.patch(checkpoint.state)
    else:
        loaded = load_patch(patch)
        checkpoint = load_checkpoint(weights, names=set(loaded.tensors))
    if loaded.margin is not None:
        raise InvalidArgumentError(
            f"{patch} is a route, which needs the old network beside the new one: use suture.patched(model, patch) in "
            "Python"
        )
    _refuse_existing(out)
    state, _ = apply_patch(checkpoint.state, loaded, weight)
    checkpoint.save(out, state)
    changed = sum(not same_bits(state[name], tensor) for name, tensor in checkpoint.state.items())
    typer.echo(f"{out}: {changed} of {len(state)} tensors changed")


def revert(
    patch: PatchArg,
    weights: Annotated[str, typer.Option("--weights", help="Patched weights.")],
    out: NewFileOpt,
    debug: DebugOpt = False,
) -> None:
    """Undo a patch: write the original weights again, bit by bit.

    PATCH is patch.safetensors, with undo.safetensors beside it, or the undo file itself.

    Example: suture revert run/treat/patch.safetensors --weights repaired.pt --out original.pt
    """
    from suture.errors import MissingFileError
    from suture.patch import UNDO, load_patch, same_bits
    from suture.patch import revert as revert_patch
    from suture.weights import load_checkpoint

    undo = load_patch(patch)
    if not undo.undo:
        beside = patch.with_name(UNDO)
        if not beside.is_file():
            raise MissingFileError(f"there is no {beside}; give the undo file that was written beside the patch")
        undo = load_patch(beside)
    checkpoint = load_checkpoint(weights, names=set(undo.tensors))
    _refuse_existing(out)
    state = revert_patch(checkpoint.state, undo)
    checkpoint.save(out, state)
    changed = sum(not same_bits(state[name], tensor) for name, tensor in checkpoint.state.items())
    typer.echo(f"{out}: {changed} of {len(state)} tensors restored" if changed else f"{out}: nothing was patched")


def report_patch(patch: Path, out: Path | None, form: str) -> None:
    """What `report` does with a file: a table here, and a page, a summary or data beside the patch or at `out`."""
    from rich.console import Console

    from suture.errors import DataError, InvalidArgumentError
    from suture.patch import inspect
    from suture.views.patch import export, table

    if patch.suffix != ".safetensors":
        raise DataError(f"{patch} is no patch, which is a .safetensors file; give a run directory or such a file")
    path = out or patch.with_suffix(f".report.{form}")  # notes of the user's own may be called patch.md
    if path.suffix == ".safetensors":
        raise InvalidArgumentError(f"--out {path} is named like weights or a patch; a report is {form}")
    result = inspect(patch)
    Console().print(table(result), highlight=False)
    export(result, form, path)
    typer.echo(path)


def _refuse_existing(out: Path) -> None:
    from suture.errors import InvalidArgumentError

    if out.exists():
        raise InvalidArgumentError(f"{out} exists; files are never changed in place, so choose another --out")
