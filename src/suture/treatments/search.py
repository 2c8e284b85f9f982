"""Several plans tried, few of them to their end: successive halving within a budget (Jamieson & Talwalkar 2016)."""

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from suture.rundir import fingerprint, read_json, write_json
from suture.training import Checkpoints
from suture.treatments.choice import NONE, Judge, judge_all
from suture.treatments.cost import Cost, Estimate
from suture.treatments.finetune import FineTune
from suture.treatments.interpolate import furthest, histories, mean
from suture.treatments.plan import (
    METHODS,
    Candidate,
    Choice,
    Job,
    Method,
    Plan,
    Treated,
    carry_out,
    checked_weights,
    only_once,
)
from suture.treatments.where import Everything

MEAN = "mean"  # of 2, of 3: the mean of the weights of so many plans
FIRST = 0.25  # of its epochs, which every plan gets
KEPT = 0.5  # of the plans go on

Decision = tuple[list[str], list[str], Cost]
"""Names of the plans that go on, sentences on it, and what judging took."""


@METHODS.register("search")
class Search(Method):
    """Try some plans, go on with those that do best on `select`, and offer means of what they end with, and each.

    Means come first, and weights in the order given: which of many candidates is best on few examples is mostly
    chance, so `Choice.switch_se` keeps to the first ones unless another is clearly ahead.

    Every plan is trained for a quarter of its epochs, in order of preference and as far as one of them, whichever it
    is, can still be trained to the end. When all of them to the end would cost more than the budget, the better half
    goes on, as far as the budget reaches; what is given up stays what it was. The budget is in multiples of one full
    fine-tuning by the standard recipe (8 epochs), in floating-point operations as they are counted beforehand.
    """

    kind: Literal["search"] = "search"
    reads_places: ClassVar[bool] = False
    guarded: ClassVar[bool] = False
    plans: tuple[Plan, ...] = Field(min_length=1, description="what is tried, in order of preference")
    most: int | None = Field(
        None, ge=1, description="plans that are tried at most; later ones stand in for those with nothing to treat"
    )
    weights: tuple[float, ...] = Field(
        (0.7, 0.5, 0.3, 1.0), min_length=1, description="how far to go to each, preferred first"
    )
    choose: Choice = Field(
        Choice(max_regression=0.05, broken_costs=2.0),
        description="by whose broken_costs the better half is told; its other fields say nothing here",
    )
    budget: float = Field(3.0, gt=0, description="in multiples of one full fine-tuning")
    mean: bool = Field(True, description="whether means of those that were trained to the end are offered too")

    @field_validator("plans")
    @classmethod
    def _distinct(cls, plans: tuple[Plan, ...]) -> tuple[Plan, ...]:
        names = [plan.name for plan in plans]
        if len(set(names)) < len(names) or any(name.startswith(f"{MEAN} of ") for name in names):
            raise ValueError(f"plans need different names, and none may be called '{MEAN} of …'")
        if any(isinstance(plan.how, Search) for plan in plans):
            raise ValueError("a search holds no other search")
        only_once(plans)
        return plans

    @field_validator("weights")
    @classmethod
    def _between(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        return checked_weights(weights)

    def treat(self, job: Job) -> Treated:
        with ExitStack() as stack:
            if job.checkpoints is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                job = replace(job, checkpoints=Checkpoints(folder, fingerprint("search", job.name)))
            return self._search(job)

    def estimate(self, job: Job) -> Estimate:
        whole, full = sum((_estimate(plan, job) for plan in self._tried(job)), Estimate()), _full(job).full_flops
        share = min(self.budget * full / whole.flops, 1.0) if whole.flops else 1.0
        return whole.times(share)

    def _search(self, job: Job) -> Treated:
        full, plans = _full(job).full_flops, self._tried(job)
        if not plans:
            return Treated({}, histories({}), Cost(), "no plan has anything to treat")
        prices = {plan.name: _estimate(plan, job).flops / full if full else 0.0 for plan in plans}
        begun = {plan.name: prices[plan.name] * _first(plan) for plan in plans}
        affordable, account = self._affordable(prices, begun)
        if not affordable:
            cheapest = min(prices, key=lambda name: prices[name])
            why = (
                f"no plan can be carried out within {self.budget:g} full fine-tunings; the cheapest, {cheapest}, takes "
                f"{prices[cheapest]:.2f}"
            )
            return Treated({}, histories({}), Cost(), why)
        done = {plan.name: carry_out(plan, replace(job, share=FIRST)) for plan in plans if plan.name in affordable}
        usable = {name: each for name, each in done.items() if each.candidates}
        account += [f"{name}: {each.stopped}" for name, each in done.items() if not each.candidates and each.stopped]
        spent = sum(begun[name] for name in done)
        left = {name: prices[name] - begun[name] for name in usable}
        going_on, said, judging = self._decided(job, partial(self._halved, job, usable, left, spent))
        account += said
        finished = {plan.name: carry_out(plan, job) for plan in plans if plan.name in going_on}
        whole = {name: each for name, each in finished.items() if each.candidates}
        made = [(plan, name, each) for plan, does in whole.items() for name, each in does.candidates.items()]
        names = Counter(name for _, name, _ in made)  # blocks are called the same in two plans
        single = {name if names[name] == 1 else f"{plan}: {name}": each for plan, name, each in made}
        together = self._means(job, self._in_order(whole, plans)) if self.mean else {}
        account += [
            f"{name} is that of the weights of {_listed(list(whole)[:k])}" for k, name in enumerate(together, 2)
        ]
        candidates = self._weighted(together | single)
        cost = sum((each.cost for each in {**done, **finished}.values()), judging)
        stopped = next((each.stopped for each in whole.values() if each.stopped), None)
        went_on = tuple(plan for plan in plans if plan.name in whole)
        again = self.model_copy(update={"plans": went_on, "budget": math.inf}) if went_on else None
        return Treated(candidates, histories({**done, **finished}), cost, stopped, account, again)

    def _in_order(self, whole: Mapping[str, Treated], plans: list[Plan]) -> Mapping[str, Treated]:
        """What means are made of: where plans were settled before, the first of them that all came to something.

        In cross-fitting 'mean of 2' has to be that of the same two plans as on all of the examples.
        """
        if not math.isinf(self.budget):
            return whole
        names = list(takewhile(lambda name: name in whole, (plan.name for plan in plans)))
        return {name: whole[name] for name in names}

    @staticmethod
    def _means(job: Job, whole: Mapping[str, Treated]) -> dict[str, Candidate]:
        """The means of the first two plans, of the first three, and so on: uniform soups in order of preference."""
        models = [model for each in whole.values() if (model := furthest(job.model, each)) is not None]
        if len(models) < len(whole):
            return {}
        return {f"{MEAN} of {k}": Candidate(mean(models[:k])) for k in range(2, len(models) + 1)}

    def _tried(self, job: Job) -> list[Plan]:
        """The first plans that have something to treat."""
        able = [plan for plan in self.plans if not plan.how.reads_places or job.of(plan).places.parameters]
        return able[: self.most]

    def _affordable(self, prices: Mapping[str, float], begun: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """The plans that get a quarter of their epochs, such that any one of them can be trained to the end."""
        chosen, spent, rest = list[str](), 0.0, 0.0  # rest: what the dearest of them still takes
        for name, price in prices.items():
            then = max(rest, price - begun[name])
            if spent + begun[name] + then <= self.budget:
                chosen.append(name)
                spent, rest = spent + begun[name], then
        left_out = [name for name in prices if name not in chosen]
        return chosen, [f"{', '.join(left_out)} did not fit into the budget of {self.budget:g}"] if left_out else []

    def _decided(self, job: Job, decide: Callable[[], Decision]) -> Decision:
        """What was decided, once: a search that goes on after an interruption finds plans trained further."""
        memory = job.checkpoints.below("halving") if job.checkpoints else None
        if memory is None:
            return decide()
        path = memory.directory / "decision.json"
        if path.exists() and (written := read_json(path))["key"] == memory.key:
            return written["kept"], written["said"], Cost(**written["cost"])
        kept, said, cost = decide()
        write_json(path, {"key": memory.key, "kept": kept, "said": said, "cost": asdict(cost)})
        return kept, said, cost

    def _halved(self, job: Job, done: Mapping[str, Treated], left: Mapping[str, float], spent: float) -> Decision:
        """The plans that go on to their end, best first, and what was decided, in words."""
        if spent + sum(left.values()) <= self.budget:
            return list(done), [f"all of {', '.join(done)} were trained to the end"] if done else [], Cost()
        # A quarter of a training is ranked by what it does, not by what may be promised of it.
        choice = self.choose.model_copy(update={"max_regression": None})
        scores, judge = {}, Judge(job.case, job.case.splits["select"], job.case.model, job.model)
        for name, each in done.items():
            judged = judge_all(self._weighted(each.candidates), choice, judge)
            scores[name] = float(judged.loc[judged["candidate"] != NONE, "score"].max())
        order = sorted(scores, key=lambda name: -scores[name])
        kept = list[str]()
        for name in order[: max(math.ceil(KEPT * len(order)), 1)]:
            if spent + left[name] <= self.budget:
                kept.append(name)
                spent += left[name]
        told = ", ".join(f"{name} {scores[name]:+g}" for name in order)
        return kept, [f"after a quarter of the epochs the scores were {told}; {', '.join(kept)} went on"], judge.cost

    def _weighted(self, made: Mapping[str, Candidate]) -> dict[str, Candidate]:
        return {
            name if weight == 1 else f"{name} x {weight:g}": replace(each, weight=each.weight * weight)
            for name, each in made.items()
            for weight in self.weights
        }


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _first(plan: Plan) -> float:
    """The share of a plan's epochs that every plan gets: whole ones."""
    epochs = plan.how.recipe.epochs if isinstance(plan.how, FineTune) else None
    return FIRST if epochs is None else math.ceil(FIRST * epochs) / epochs


def _estimate(plan: Plan, job: Job) -> Estimate:
    return plan.how.estimate(job.of(plan))


def _full(job: Job) -> Estimate:
    """What one full fine-tuning by the standard recipe would take."""
    return FineTune().estimate(replace(job, places=Everything().places(job.case, ())))
