"""Optimizers and schedules of the learning rate by name: ours and torch's."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from suture.errors import InvalidArgumentError
from suture.optimizers import CADAM, IKFAD, CubicDamping
from suture.registry import suggest

NO_OPTIMIZERS = {
    "lbfgs": "lbfgs computes the loss several times a step, which a training does once; take sgd or adam",
    "sparseadam": "sparseadam takes sparse gradients, and those of a network are dense; take adam",
    "muon": "muon takes matrices alone, and a network has biases and kernels too; take adamw",
}
NO_SCHEDULES = {
    "lambdalr": "lambdalr takes a function, which a recipe cannot hold; take multisteplr",
    "multiplicativelr": "multiplicativelr takes a function, which a recipe cannot hold; take exponentiallr",
    "sequentiallr": "sequentiallr takes other schedules, which a recipe cannot hold; take onecyclelr or multisteplr",
    "chainedscheduler": "chainedscheduler takes other schedules, which a recipe cannot hold; take one of them",
    "reducelronplateau": "reducelronplateau follows a metric, which not every training measures; take step",
}


def _classes(module: object, base: type, refused: Iterable[str]) -> dict[str, Any]:
    """Public classes of a module by their names in lower case."""
    found = {name.lower(): kind for name, kind in sorted(vars(module).items()) if not name.startswith("_")}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base and name not in refused
    }


# The usual ones come first, since an error message lists the first few.
OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "cubic_damping": CubicDamping,
    "ikfad": IKFAD,
    "cadam": CADAM,
} | _classes(torch.optim, Optimizer, NO_OPTIMIZERS)

SCHEDULES: dict[str, type[LRScheduler]] = {
    "cosine": lr_scheduler.CosineAnnealingLR,
    "constant": lr_scheduler.ConstantLR,
    "linear": lr_scheduler.LinearLR,
    "step": lr_scheduler.StepLR,
} | _classes(lr_scheduler, LRScheduler, NO_SCHEDULES)

SGD_FAMILY = ("sgd", "asgd", "cubic_damping", "ikfad")
ADAM_LR = 5e-4  # of the plan for networks that Adam trained
FALL = 100  # times, from lr to lr_min, as in the paper's surgical correction
LEAST_FALL = 10  # times; a learning rate that would fall less gets an end of its own
LR_MIN = 1e-4  # of SGD and its kin (Table 16)
FIELDS = ("lr", "momentum", "weight_decay")  # of a recipe, and so no options


def known_name(name: str, known: Mapping[str, object], refused: Mapping[str, str], kind: str) -> str:
    """The name in lower case.

    Raises:
        InvalidArgumentError: there is no such thing, or none that a training can use; why is said.
    """
    lower = name.lower()
    if lower in refused:
        raise InvalidArgumentError(refused[lower])
    if lower not in known:
        raise InvalidArgumentError(f"no {kind} is called '{name}'; {suggest(lower, list(known))}")
    return lower


def parameters_of(kind: type[Optimizer] | type[LRScheduler]) -> dict[str, inspect.Parameter]:
    """What a constructor takes besides what it is built on."""
    _, *rest = inspect.signature(kind).parameters.items()
    return {name: parameter for name, parameter in rest if name != "last_epoch"}


def family(optimizer: str) -> str:
    """Optimizers of one family understand lr alike: sgd, adam, or an optimizer's own name."""
    if optimizer in SGD_FAMILY:
        return "sgd"
    return "adam" if "betas" in parameters_of(OPTIMIZERS[optimizer]) else optimizer


def lacks(optimizer: str) -> set[str]:
    """The fields that an optimizer has no use for: momentum, weight_decay, both or none."""
    takes = parameters_of(OPTIMIZERS[optimizer])
    found = set() if "weight_decay" in takes else {"weight_decay"}
    return found if "momentum" in takes or "betas" in takes else found | {"momentum"}


def usual(optimizer: str, given: Mapping[str, object]) -> dict[str, Any]:
    """What a recipe of an optimizer says in fields that are not given, where that is not what SGD's says."""
    takes = parameters_of(OPTIMIZERS[optimizer])
    found: dict[str, Any] = dict.fromkeys(lacks(optimizer), 0.0)
    if family(optimizer) != "sgd":
        # RMSprop is Adam without momentum: both make steps of about lr, however large the gradient.
        alike = "betas" in takes or optimizer == "rmsprop"
        lr = given.get("lr", found.setdefault("lr", ADAM_LR if alike else takes["lr"].default))
        found["lr_min"] = lr / FALL if isinstance(lr, int | float) else 0.0  # what is no number is refused later
        if "betas" in takes:
            found["momentum"] = takes["betas"].default[0]
        elif "momentum" in takes:
            found["momentum"] = float(takes["momentum"].default)
    elif isinstance(lr := given.get("lr"), int | float) and lr < LEAST_FALL * LR_MIN:
        found["lr_min"] = lr / FALL
    options = given.get("options")
    betas = options.get("betas") if isinstance(options, Mapping) else None
    if "betas" in takes and isinstance(betas, list | tuple) and betas:
        found["momentum"] = betas[0]
    return {name: value for name, value in found.items() if name not in given}


def make_optimizer(
    name: str, parameters: Any, options: Mapping[str, Any], *, lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    """An optimizer by name; momentum is betas[0] for the Adam family, and what one does not have is left out."""
    kind = OPTIMIZERS[name]
    takes, settings = parameters_of(kind), _tuples(options)
    if "betas" in takes:
        settings["betas"] = (momentum, *settings.get("betas", takes["betas"].default)[1:])
    elif "momentum" in takes:
        settings["momentum"] = momentum
    if "weight_decay" in takes:
        settings["weight_decay"] = weight_decay
    return kind(parameters, lr=lr, **settings)  # type: ignore[call-arg]


def make_schedule(
    name: str, optimizer: Optimizer, options: Mapping[str, Any], *, epochs: int, lr: float, lr_min: float
) -> LRScheduler:
    """A schedule by name, to be stepped after each epoch; options replace what the recipe says of them.

    Raises:
        InvalidArgumentError: something it needs is neither in the recipe nor in the options.
    """
    kind = SCHEDULES[name]
    takes = parameters_of(kind)
    known = {
        "T_max": epochs, "T_0": epochs, "total_iters": epochs, "total_steps": epochs,
        "step_size": math.ceil(epochs / 3), "step_size_up": math.ceil(epochs / 2),
        "eta_min": lr_min, "base_lr": lr_min, "max_lr": lr,
        "cycle_momentum": False,  # momentum is the recipe's
    }  # fmt: skip
    ours: dict[str, dict[str, Any]] = {
        "constant": {"factor": 1.0},
        "linear": {"start_factor": 1.0, "end_factor": lr_min / lr},
    }
    filled = {each: value for each, value in known.items() if each in takes}
    settings = filled | ours.get(name, {}) | _tuples(options)
    for each, parameter in takes.items():
        if parameter.default is parameter.empty and each not in settings:
            raise InvalidArgumentError(f"{name} needs {each}; write schedule_options = {{ {each} = … }}")
    return kind(optimizer, **settings)


def refuse_unknown(name: str, kind: type[Optimizer] | type[LRScheduler], options: Mapping[str, Any]) -> None:
    """Refuse options that a constructor does not take.

    Raises:
        InvalidArgumentError: with the option that was probably meant.
    """
    reserved = FIELDS if issubclass(kind, Optimizer) else ()
    known = [each for each in parameters_of(kind) if each not in reserved]
    for each in options:
        if each in reserved:
            raise InvalidArgumentError(
                f"'{each}' is a field of the recipe itself; move it out of the options of {name}"
            )
        if each not in known:
            raise InvalidArgumentError(f"{name} has no option '{each}'; {suggest(each, known)}")


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
