"""What Localize was asked for, checked before any long work: localizers, rule, model, reference."""

from collections.abc import Sequence

import torch
from torch import nn

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.localizers.flagging import RULES
from suture.localizers.registry import DEFAULT, LOCALIZERS, Localizer
from suture.tasks import fetch, forward, to_device

PAPER = ("grad_norm", "relative", "rms")  # what protocol "paper" reads, whatever the default is by now
TRIED = 8  # examples on which the model must give the same twice
DEFAULT_RULE = {"split": "pays", "paper": "above_median"}


def chosen(
    case: Case, localizers: str | Sequence[str], rule: str = "default"
) -> tuple[dict[str, Localizer], dict[str, str], bool]:
    """The localizers that are meant, those that are left out with the reason, and whether they were named.

    Args:
        localizers: ``"default"``, ``"all"``, a name, or names; the first one decides.
        rule: one that reads scores, as all but ``pays`` do, needs a score of every group: ``grad_norm`` then comes
            first, unless localizers are named.

    Raises:
        UnknownNameError: no such localizer.
        InvalidArgumentError: none or one twice, or one that needs a reference which the case lacks.
    """
    named = localizers not in ("default", "all")
    names = _names(case, localizers, rule)
    if not names or len(set(names)) < len(names):
        raise InvalidArgumentError("localizers must be one or more different names")
    found, skipped = {name: LOCALIZERS[name] for name in names}, {}
    for name, localizer in found.items():
        if localizer.needs == "reference" and case.reference is None:
            skipped[name] = "it compares with a healthy reference; give suture run a --reference"
            if named:
                raise InvalidArgumentError(f"the localizer '{name}' cannot be used here: {skipped[name]}")
    return {name: localizer for name, localizer in found.items() if name not in skipped}, skipped, named


def _names(case: Case, localizers: str | Sequence[str], rule: str) -> list[str]:
    if not isinstance(localizers, str):
        return list(localizers)
    if localizers not in ("default", "all"):
        return [localizers]
    usual: tuple[str, ...] = PAPER if case.protocol == "paper" else DEFAULT
    if _named(case, rule) != "pays":
        usual = tuple(sorted(usual, key=lambda name: name != PAPER[0]))  # a stable sort: only it moves
    return [*usual, *(name for name in LOCALIZERS if name not in usual and localizers == "all")]


def _named(case: Case, rule: str) -> str:
    return DEFAULT_RULE[case.protocol] if rule == "default" else rule


def rule_of(case: Case, rule: str, first: Localizer) -> str:
    """The name of the flagging rule that is meant.

    Raises:
        UnknownNameError: no such rule.
        InvalidArgumentError: under protocol "paper", a rule that is not the paper's; or one that cannot work with
            the localizer that it would read.
    """
    name = _named(case, rule)
    RULES[name]
    if case.protocol == "paper" and name != "above_median":
        raise InvalidArgumentError(f"protocol 'paper' flags by above_median, not by '{name}'; leave the rule out")
    if name == "exceeds_null" and first.reads != "gradients":
        raise InvalidArgumentError(
            f"the rule 'exceeds_null' needs a score on correct examples, which '{first.name}' does not have; put a "
            "localizer that reads gradients first, such as grad_norm"
        )
    return name


def refuse_strange_reference(case: Case) -> None:
    """Refuse a reference of another architecture.

    Raises:
        InvalidArgumentError: its parameters are not those of the model.
    """
    if case.reference is None:
        return
    own, theirs = (
        {name: tuple(p.shape) for name, p in model.named_parameters()} for model in (case.model, case.reference)
    )
    strange = [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]
    if strange:
        ours, other = (shapes.get(strange[0], "absent") for shapes in (own, theirs))
        raise InvalidArgumentError(
            f"the reference is no twin of the model: '{strange[0]}' is {ours} in the model and {other} in the reference"
        )


def refuse_random_outputs(case: Case) -> None:
    """Refuse a model that answers the same inputs differently, in eval mode; a few examples are tried.

    Raises:
        InvalidArgumentError: it does; the dropout layers that are left on are named.
    """
    split, task, model = case.splits["diagnose"], case.task, case.model.eval()
    batch = to_device(fetch(split, list(range(min(TRIED, len(split)))), task), case.device)
    with torch.no_grad():
        outputs = [forward(model, batch, task, "the examples of 'diagnose'") for _ in range(2)]
        first, second = (task.losses(each, batch).double() for each in outputs)
    if first.shape == second.shape and torch.allclose(first, second, rtol=1e-3, atol=1e-6, equal_nan=True):
        return
    on = [name for name, module in model.named_modules() if module.training and _drops(module)]
    cause = (
        f"dropout is left on in {', '.join(on[:3])}, whatever eval() says"
        if on
        else "is dropout left on (F.dropout without training=self.training), or another random layer?"
    )
    raise InvalidArgumentError(f"the model gives different outputs for the same inputs, in eval mode; {cause}")


def _drops(module: nn.Module) -> bool:
    return any("Dropout" in cls.__name__ for cls in type(module).__mro__)
