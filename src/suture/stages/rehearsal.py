"""Rehearse: go through the schedules of a training without training."""

import pandas as pd
import torch

from suture.errors import InvalidArgumentError
from suture.history import History, Log, to_history
from suture.rundir import validated
from suture.training.loop import step_schedule
from suture.training.presets import Recipe, load_recipe

# Names of momentum schedules for the recipes that have them.
ALIASES = {"constant": "baseline", "critical": "physics", "inverse": "1cycle"}


def rehearse(recipe: Recipe | str, **changes: object) -> History:
    """The learning rate and momentum of every epoch of a recipe, with the very optimizer and schedules it builds.

    Args:
        recipe: a recipe; the name of one (``physics``, ``1cycle``, …) or of a momentum schedule (``constant``,
            ``critical``, ``inverse``); a number, which is a constant momentum; or a TOML file.
        changes: fields to set, such as ``epochs``, ``lr``, ``lr_min``.

    Raises:
        UnknownNameError: no recipe of that name.
        InvalidArgumentError: a field is out of range, or the schedule follows the accuracy of a training.
    """
    name = recipe if isinstance(recipe, str) else "a recipe"
    if isinstance(recipe, str):
        recipe = _named(recipe, changes)
    elif changes:
        recipe = validated(Recipe, recipe.fields_with(changes), name)
    if recipe.momentum == "hybrid" and recipe.switch_epoch is None:
        raise InvalidArgumentError(
            f"{name} switches when accuracy reaches {recipe.threshold:g}, which a schedule alone does not have; "
            "name an epoch as hybrid-ep52 does (switch_epoch), or scan the log of the training"
        )
    optimizer, schedules = recipe.build([torch.nn.Parameter(torch.zeros(1))])
    rows = []
    for epoch in range(1, recipe.epochs + 1):
        group = optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
        rows.append({"epoch": epoch, "lr": float(group["lr"]), "momentum": float(momentum)})
        optimizer.step()  # without gradients, so nothing moves; schedules want it called before theirs
        for schedule in schedules:
            step_schedule(schedule, {"accuracy": 0.0})
    names = {role: role for role in ("epoch", "lr", "momentum")}
    return to_history(Log(pd.DataFrame(rows, dtype=float), f"schedule {name}", names, optimizer=recipe.optimizer))


def _named(name: str, changes: dict[str, object]) -> Recipe:
    try:
        momentum = float(name)
    except ValueError:
        return load_recipe(ALIASES.get(name, name), **changes)
    return load_recipe("baseline", **{"momentum": momentum, **changes})
