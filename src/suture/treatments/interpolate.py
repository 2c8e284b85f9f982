"""Between networks that come from one: part of the way to a treated one, and the mean of several."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import pandas as pd
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from suture.treatments.cost import Cost, Estimate
from suture.treatments.plan import METHODS, Candidate, Job, Method, Plan, Treated, carry_out, only_once


def mixed(old: nn.Module, new: nn.Module, weight: float) -> nn.Module:
    """Part of the way from old weights and statistics to new ones (WiSE-FT; Wortsman et al. 2022); 1 is `new`."""
    if weight == 1:
        return new
    here, there, result = old.state_dict(), new.state_dict(), copy.deepcopy(old)
    with torch.no_grad():
        for name, tensor in result.state_dict().items():  # tied tensors come up twice, so nothing moves in place
            end = there[name].to(tensor)
            tensor.copy_(here[name].lerp(end, weight) if _is_mixable(tensor) else end)
    return result


def mean(models: Sequence[nn.Module]) -> nn.Module:
    """The mean of weights and statistics (Wortsman et al. 2022b, uniform soup); counters are the first one's."""
    states, result = [model.state_dict() for model in models], copy.deepcopy(models[0])
    with torch.no_grad():
        for name, tensor in result.state_dict().items():
            if _is_mixable(tensor):
                tensor.copy_(torch.stack([state[name].to(tensor) for state in states]).mean(0))
    return result


def _is_mixable(tensor: Tensor) -> bool:
    """Whether there is something between two values."""
    return tensor.is_floating_point() or tensor.is_complex()


def furthest(old: nn.Module, treated: Treated) -> nn.Module | None:
    """The network of a plan that went furthest from the old one; None where it made none, or a route."""
    made = max(treated.candidates.values(), key=lambda each: each.weight, default=None)
    return None if made is None or made.margin is not None else mixed(old, made.model, made.weight)


@METHODS.register("average")
class Average(Method):
    """The mean of the weights that several plans lead to, each at its highest weight and with an order of its own."""

    kind: Literal["average"] = "average"
    reads_places: ClassVar[bool] = False
    guarded: ClassVar[bool] = False
    plans: tuple[Plan, ...] = Field(min_length=2, description="plans, or one plan several times")

    @field_validator("plans")
    @classmethod
    def _of_weights(cls, plans: tuple[Plan, ...]) -> tuple[Plan, ...]:
        only_once(plans)
        if routes := [plan.name for plan in plans if plan.how.kind == "route"]:
            raise ValueError(f"'{routes[0]}' is a route of two networks, which have no mean")
        return plans

    def treat(self, job: Job) -> Treated:
        done = [carry_out(plan, self._turn(job, i)) for i, plan in enumerate(self.plans)]
        models = [model for each in done if (model := furthest(job.model, each)) is not None]
        stopped = next((each.stopped for each in done if each.stopped), None)
        cost = sum((each.cost for each in done), Cost())
        names = [plan.name for plan in self.plans]
        distinct = [n if names.count(n) == 1 else f"{n}, turn {i + 1}" for i, n in enumerate(names)]
        history = histories(dict(zip(distinct, done, strict=True)))
        candidates = {job.name: Candidate(mean(models))} if models else {}
        return Treated(candidates, history, cost, stopped)

    @staticmethod
    def _turn(job: Job, i: int) -> Job:
        below = job.checkpoints.below(f"turn {i + 1}") if job.checkpoints else None
        return replace(job, seed=job.seed + i, checkpoints=below)

    def estimate(self, job: Job) -> Estimate:
        return sum((plan.how.estimate(job.of(plan)) for plan in self.plans), Estimate())


def histories(done: dict[str, Treated]) -> pd.DataFrame:
    """The histories of several plans under each other, with the plan's name in front."""
    tables = [each.history.assign(plan=name) for name, each in done.items() if len(each.history)]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table[["plan", *(column for column in table if column != "plan")]]
