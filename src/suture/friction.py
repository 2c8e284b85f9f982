"""Friction that a training with iKFAD accumulated, kept beside the weights that it led to."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from suture.errors import InvalidArgumentError
from suture.optimizers import IKFAD
from suture.rundir import replacing

SUFFIX = ".friction.safetensors"

Friction = Mapping[str, Tensor]
"""Parameter → Σ hξ of each of its numbers, of the parameter's shape; without unit."""


def friction_of(optimizer: object, model: nn.Module) -> dict[str, Tensor]:
    """What an optimizer has accumulated; empty where it is not iKFAD or made no step."""
    if not isinstance(optimizer, IKFAD):
        return {}
    states = {name: optimizer.state[p] for name, p in model.named_parameters() if p in optimizer.state}
    return {name: state["friction"].detach().cpu().contiguous() for name, state in states.items()}


def save_friction(friction: Friction, path: Path) -> None:
    """Write it as safetensors, atomically."""
    with replacing(path) as temporary:
        save_file(dict(friction), temporary)


def load_friction(path: Path) -> dict[str, Tensor]:
    """Read it.

    Raises:
        InvalidArgumentError: the file cannot be read.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InvalidArgumentError(f"{path} is no record of friction ({str(error).splitlines()[0]})") from error


def fitting(model: nn.Module, friction: Friction) -> dict[str, Tensor]:
    """The same; refused when it is of another network.

    Raises:
        InvalidArgumentError: a name or a shape is not the model's, or a number is not finite.
    """
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, values in friction.items():
        if shapes.get(name) != values.shape or not bool(values.isfinite().all()):
            raise InvalidArgumentError(
                f"the friction of '{name}' does not fit the model; is it of this model's training?"
            )
    return dict(friction)


def friction_beside(weights: Path) -> Path:
    """Where it lies: ``net.safetensors`` → ``net.friction.safetensors``."""
    return weights.with_name(f"{weights.stem}{SUFFIX}")
