"""Friction: where an iKFAD optimizer has to brake most."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from suture.errors import InvalidArgumentError
from suture.localizers.brief import depends, drawn
from suture.localizers.evidence import Evidence
from suture.localizers.network import trainable, twin, unknown
from suture.localizers.registry import localizer
from suture.optimizers import IKFAD
from suture.tasks import plain_recurrence
from suture.training import train

STEPS, BATCH_SIZE = 20, 50
LR, MOMENTUM, CLIP = 0.01, 0.9, 1.0


@localizer("friction", reads="network", nulls=("correct", "random"))
def friction(evidence: Evidence) -> pd.Series:
    """Σ hξ of iKFAD over a short training on the errors, mean over the group's parameters, without unit.

    Where the model was trained by iKFAD and its friction is kept (``case.friction``; ``suture train`` leaves it beside
    the weights), it is that of the training, errors or not. Otherwise a copy is trained whole for 20 steps of 50 errors
    (lr 0.01, momentum 0.9, gradients clipped to norm 1, eval mode). ξ follows the square of the momentum, so this is
    ``rms`` of ∇_g seen over a way instead of at a point. NaN when the loss did not stay finite, or there are no errors.

    Cost: none where friction is kept, else 1000 examples forward and backward.

    Source: the paper's section 6.1 (Methods B to D); `suture.optimizers.IKFAD`.
    """
    kept = evidence.case.friction
    if kept and evidence.model is evidence.case.model:
        means = {group: _mean(kept, evidence.model, names) for group, names in evidence.groups.items()}
        return pd.Series(means, dtype=float)
    trained = short_training(evidence)
    return unknown(evidence) if trained is None else friction_from_state(*trained, evidence.groups)


def short_training(evidence: Evidence) -> tuple[IKFAD, nn.Module] | None:
    """An iKFAD optimizer after a short training on the errors, and the copy that it trained; None as above."""
    if not len(evidence.wrong_at):
        return None
    case, model = evidence.case, twin(evidence)
    optimizer = IKFAD(trainable(model), lr=LR, momentum=MOMENTUM)
    if depends(evidence, model, evidence.wrong_at):
        size = min(BATCH_SIZE, len(evidence.wrong_at))
        examples = evidence.examples.only(drawn(evidence.wrong_at, STEPS * size, case.seed).tolist())
        with plain_recurrence(model):
            run = train(
                model, examples, case.task, optimizer, [], epochs=1, batch_size=size, seed=case.seed,
                device=case.device, mode=nn.Module.eval, clip=CLIP, description="friction",
            )  # fmt: skip
        if run.stopped:
            return None
    return optimizer, model


def friction_from_state(
    state: IKFAD | Mapping[str, Any], model: nn.Module, groups: Mapping[str, Sequence[str]]
) -> pd.Series:
    """Σ hξ that an iKFAD optimizer has accumulated, mean over each group's parameters.

    Args:
        state: the optimizer, or what its ``state_dict()`` gave. Parameters go by the names that the state holds;
            without any, they are taken to be all of the model's floating-point parameters, in order.
        groups: group → parameter names.

    Raises:
        InvalidArgumentError: the state is of another optimizer, or of another model.
    """
    if isinstance(state, IKFAD):
        return pd.Series(state.group_friction(model, groups), dtype=float)
    values = dict(_frictions(state, {n: p for n, p in model.named_parameters() if p.is_floating_point()}))
    return pd.Series({group: _mean(values, model, names) for group, names in groups.items()}, dtype=float)


def _mean(values: Mapping[str, Tensor], model: nn.Module, names: Sequence[str]) -> float:
    """Mean over all numbers of some parameters; what has no friction counts as 0. NaN where there is no number."""
    total = sum(float(values[name].double().sum()) for name in names if name in values)
    count = sum(model.get_parameter(name).numel() for name in names)
    return total / count if count else float("nan")


def _frictions(state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    if not any("friction" in kept for kept in state["state"].values()):
        raise InvalidArgumentError(
            "the optimizer's state holds no friction; it must come from suture.optimizers.IKFAD after a step"
        )
    places = [place for group in state["param_groups"] for place in group["params"]]
    named = [name for group in state["param_groups"] for name in group.get("param_names", [])]
    names = named or list(parameters)
    if len(names) != len(places) or set(names) - set(parameters):
        raise InvalidArgumentError(
            f"the optimizer's state is of {len(places)} parameters and the model has {len(parameters)}, or other "
            "names; is it the state of this model's training?"
        )
    for name, place in zip(names, places, strict=True):
        kept = state["state"].get(place, {}).get("friction")
        if kept is not None and torch.is_tensor(kept):
            if kept.shape != parameters[name].shape:
                raise InvalidArgumentError(
                    f"the friction of '{name}' has shape {tuple(kept.shape)} and the parameter "
                    f"{tuple(parameters[name].shape)}; is it the state of this model's training?"
                )
            yield name, kept
