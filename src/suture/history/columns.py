"""Which column of a log is which, whatever it is called.

A name is cut into words; words that only decorate ("train/loss_epoch", "lr-SGD/pg1", "group0/momentum") are left out,
and what remains must be a known name.
"""

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from suture.errors import DataError, UnknownNameError
from suture.history.family import is_preconditioned
from suture.registry import suggest

ROLES: dict[str, tuple[str, ...]] = {
    "epoch": ("epoch", "epochs"),
    "step": ("step", "steps", "iteration", "iterations", "iter", "iters", "update", "updates"),
    "batch": ("batch", "batches", "batch idx", "batch index", "minibatch"),
    "lr": ("lr", "learning rate", "learningrate", "alpha"),
    "momentum": ("momentum", "mu", "beta1", "beta 1", "betas 0", "adam beta1", "adam beta 1"),
    "loss": ("loss", "nll", "cross entropy", "crossentropy", "cross entropy loss"),
    "accuracy": (
        "accuracy", "acc", "top1", "top 1", "acc1", "acc 1", "top1 acc", "top 1 acc", "acc top1", "acc top 1",
        "top1 accuracy", "top 1 accuracy", "accuracy top1", "accuracy top 1", "categorical accuracy",
        "sparse categorical accuracy", "binary accuracy", "mean token accuracy", "token accuracy",
        "multiclassaccuracy", "multiclass accuracy",
    ),
    "curvature": (
        "curvature", "lambda max", "sharpness", "eigenvalue", "top eigenvalue", "max eigenvalue",
        "hessian eigenvalue", "hessian top eigenvalue", "hessian max eigenvalue",
    ),
    "optimizer": ("optimizer",),
}  # fmt: skip
"""Role → names, the usual ones first. A bare lambda is none of them: it is as often the factor of an L2 penalty."""

HELD_OUT = ("val", "valid", "validation", "eval", "evaluation", "dev", "heldout", "holdout", "test", "testing")
_DECORATION = {
    "train", "training", "trainer", "optim", "opt", "scheduler", "sched", "epoch", "step", "batch", "avg", "average",
    "mean", "value", "charts", "metrics", "metric", "scalars", "log", "logs", "global", "hyperparameters", "hparams",
    "param", "params", "group", "groups", "optimizer", "model", "current", *HELD_OUT,
}  # fmt: skip
_LISTED = 12  # names in an error message before it is cut
# Lightning's LearningRateMonitor: lr-SGD, lr-SGD-1, lr-SGD/pg1, lr-SGD-momentum.
_LIGHTNING = re.compile(r"lr-(?P<optimizer>[A-Za-z_]\w*?)(?:-\d+)?(?:/pg\d+)?(?P<momentum>-momentum)?")


@dataclass(frozen=True)
class Columns:
    """What was found.

    Attributes:
        names: role → name in the log.
        optimizer: what a column's name says about it, or None.
        notes: choices that a reader should know of.
    """

    names: dict[str, str]
    optimizer: str | None = None
    notes: list[str] = field(default_factory=list)


def find_columns(names: Sequence[str], chosen: Mapping[str, str], source: str) -> Columns:
    """The columns of a log by role.

    Args:
        names: as the log has them.
        chosen: role → name, decided by the user.

    Raises:
        UnknownNameError: the user chose a role or a column that does not exist.
        DataError: there is no learning rate; the message names the column that is most likely to be it.
    """
    found = {role: _named(role, name, names, source) for role, name in chosen.items()}
    roles = [(_role(name), name) for name in names]
    fitting = {role: [name for r, name in roles if r == role] for role in ROLES}
    for role, those in fitting.items():
        if those and role not in found:
            found[role] = min(those, key=lambda name: _rank(role, name))
    if "lr" not in found:
        raise DataError(_without_lr(names, source))
    notes = [
        f"{len(fitting[role])} {kinds} were logged; '{found[role]}' is the one that is scanned"
        for role, kinds in (("lr", "learning rates"), ("momentum", "momenta"))
        if role not in chosen and len(fitting[role]) > 1
    ]
    if "curvature" not in chosen and "curvature" in found:
        notes.append(f"'{found['curvature']}' is taken for the curvature λ of each epoch, unless one is given")
    return Columns(found, _optimizer(found), notes)


def is_held_out(name: str) -> bool:
    """Whether a column's name says that it was measured on data that was not trained on."""
    return any(word in HELD_OUT for word in _words(name))


def has_lr(names: Sequence[str]) -> bool:
    """Whether one of the columns is a learning rate."""
    return any(_role(name) == "lr" for name in names)


def nearest(role: str, names: Sequence[str]) -> str | None:
    """The column that is most likely to be a misspelt name of a role; None when none is near."""
    best, score = None, 0.55
    for name in names:
        words = _words(name)
        for known in ROLES[role]:
            near = difflib.SequenceMatcher(None, " ".join(words), known).ratio()
            near = max(near, 0.6) if set(words) & set(known.split()) else near  # "rate", "lr of the head"
            if near > score:
                best, score = name, near
    return best


def _without_lr(names: Sequence[str], source: str) -> str:
    listed = ", ".join(name if len(name) <= 40 else name[:37] + "…" for name in names[:_LISTED])
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    near = nearest("lr", names)
    what = (
        f"if '{near}' is it, say --column {shlex.quote(f'lr={near}')} (in Python columns={{'lr': {near!r}}})"
        if near
        else "scan needs it, under a name such as learning_rate or train/lr"
    )
    return f"{source} has no column 'lr' but {listed}{more}; {what}"


def _named(role: str, name: str, names: Sequence[str], source: str) -> str:
    if role not in ROLES:
        raise UnknownNameError(f"no column of a log is called for as '{role}'; {suggest(role, list(ROLES))}")
    for known in names:
        if known.strip().lower() == name.strip().lower():
            return known
    raise UnknownNameError(f"{source} has no column '{name}'; {suggest(name, list(names))}")


def _role(name: str) -> str | None:
    lightning = _LIGHTNING.fullmatch(name.strip())
    if lightning and lightning["optimizer"] not in ("min", "max", "scale"):
        return "momentum" if lightning["momentum"] else "lr"
    words = _words(name)
    # Numbers count param groups, but top-5 is no accuracy.
    for form, roles in zip(_forms(words), (ROLES, ROLES, ("lr", "momentum")), strict=True):
        for role in roles:
            if form in ROLES[role]:
                return role
    rest = {word for word in words if word not in HELD_OUT and word != "train"}
    if words and rest <= _DECORATION and not (set(words) & set(HELD_OUT)):
        return next((role for role in ("batch", "step", "epoch", "optimizer") if role in rest), None)
    return None


def _forms(words: list[str]) -> tuple[str, str, str]:
    """A name as it is, without decoration, and without numbers as well."""
    bare = [word for word in dict.fromkeys(words) if word not in _DECORATION]
    return " ".join(words), " ".join(bare), " ".join(word for word in bare if not word.isdigit())


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.sub(r"(?:pg|group)\d+|[^a-z0-9µμλα]+", " ", spaced.lower()).translate(_GREEK).split()


_GREEK = str.maketrans({"μ": "mu", "µ": "mu", "λ": "lambda", "α": "alpha"})


def _rank(role: str, name: str) -> tuple[bool, int, int, bool, bool]:
    """Smaller is better: training's loss, held-out accuracy; then the usual name; then by epoch before by step."""
    words = _words(name)
    held = next((i for i, word in enumerate(HELD_OUT, start=1) if word in words), 0)
    wrong = bool(held) if role != "accuracy" else not held
    usual = next((ROLES[role].index(form) for form in _forms(words) if form in ROLES[role]), 0)
    return wrong, held, usual, "step" in words, "epoch" not in words


def _optimizer(found: Mapping[str, str]) -> str | None:
    for role in ("lr", "momentum"):
        match = _LIGHTNING.fullmatch(found.get(role, "").strip())
        if match and is_preconditioned(match["optimizer"]) is not None:
            return match["optimizer"]
    return "Adam" if "beta" in found.get("momentum", "").lower() else None
