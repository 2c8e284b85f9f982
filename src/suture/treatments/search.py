"""Several plans tried, few of them to their end: successive halving within a budget (Jamieson & Talwalkar 2016)."""

import math
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from suture.rundir import fingerprint
from suture.training import Checkpoints
from suture.treatments.choice import Judge, best_of, judge_all
from suture.treatments.cost import Cost, Estimate, step_flops
from suture.treatments.finetune import STANDARD, FineTune
from suture.treatments.interpolate import histories, mean
from suture.treatments.plan import METHODS, Candidate, Choice, Job, Method, Plan, Treated, carry_out

FIRST = 0.25  # of its epochs, which every plan gets
KEPT = 0.5  # of the plans go on


@METHODS.register("search")
class Search(Method):
    """Try some plans, go on with those that do best on `select`, and offer what they end with, and its mean.

    Every plan is trained for a quarter of its epochs. When all of them to the end would cost more than the budget,
    the better half goes on, as far as the budget reaches; what is given up stays what it was. The budget is in
    multiples of one full fine-tuning by the standard recipe (8 epochs), in measured floating-point operations.
    """

    kind: Literal["search"] = "search"
    reads_places: ClassVar[bool] = False
    plans: tuple[Plan, ...] = Field(min_length=1, description="what is tried, in order of preference")
    weights: tuple[float, ...] = Field((0.3, 0.5, 0.7, 0.8, 1.0), description="how far to go to each")
    choose: Choice = Field(
        Choice(max_regression=0.05, broken_costs=2.0), description="by which the better half is told"
    )
    budget: float = Field(3.0, gt=0, description="in multiples of one full fine-tuning")
    mean: bool = Field(True, description="whether the mean of those that were trained to the end is offered too")

    def treat(self, job: Job) -> Treated:
        with ExitStack() as stack:
            if job.checkpoints is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                job = replace(job, checkpoints=Checkpoints(folder, fingerprint("search", job.name)))
            return self._search(job)

    def estimate(self, job: Job) -> Estimate:
        whole = sum((plan.how.estimate(job.of(plan)) for plan in self.plans), Estimate())
        prices = sum(self._price(plan, job) for plan in self.plans)
        share = min(self.budget / prices, 1.0) if prices else 1.0
        return Estimate(whole.seconds * share, whole.flops * share, whole.full_flops * share)

    def _search(self, job: Job) -> Treated:
        prices = {plan.name: self._price(plan, job) for plan in self.plans}
        affordable, account = self._affordable(prices)
        done = {plan.name: carry_out(plan, replace(job, share=FIRST)) for plan in self.plans if plan.name in affordable}
        spent = sum(prices[name] * FIRST for name in done)
        usable = {name: each for name, each in done.items() if each.candidates}
        account += [f"{name}: {each.stopped}" for name, each in done.items() if not each.candidates and each.stopped]
        going_on, said = self._halved(job, usable, prices, spent)
        account += said
        finished = {plan.name: carry_out(plan, job) for plan in self.plans if plan.name in going_on}
        whole = {name: each for name, each in finished.items() if each.candidates}
        candidates = self._weighted({name: next(iter(each.candidates.values())) for name, each in whole.items()})
        if self.mean and len(whole) > 1:
            models = [next(iter(each.candidates.values())).model for each in whole.values()]
            candidates |= self._weighted({f"mean of {' and '.join(whole)}": Candidate(mean(models))})
        cost = sum((each.cost for each in {**done, **finished}.values()), Cost())
        stopped = next((each.stopped for each in whole.values() if each.stopped), None)
        return Treated(candidates, histories({**done, **finished}), cost, stopped, account)

    def _price(self, plan: Plan, job: Job) -> float:
        """Operations of a plan, in full fine-tunings by the standard recipe."""
        if not isinstance(plan.how, FineTune):
            return 0.0
        own, recipe, case = job.of(plan), plan.how.recipe, job.case
        everything = {name for name, _ in case.model.named_parameters()}
        n, usual = len(job.examples), FineTune()
        each = step_flops(case, own.places.parameters, recipe.batch_size) / recipe.batch_size
        full = step_flops(case, everything, STANDARD.batch_size) / STANDARD.batch_size
        seen = [how.recipe.epochs * how.per_epoch(n) for how in (plan.how, usual)]
        return each * seen[0] / (full * seen[1]) if full else 0.0

    def _affordable(self, prices: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """The plans that a quarter of the epochs can be paid for, with half of the budget."""
        chosen, spent = list[str](), 0.0
        for name, price in prices.items():
            if chosen and spent + FIRST * price > self.budget / 2:
                continue
            chosen.append(name)
            spent += FIRST * price
        left_out = [name for name in prices if name not in chosen]
        return chosen, [f"{', '.join(left_out)} did not fit into the budget of {self.budget:g}"] if left_out else []

    def _halved(
        self, job: Job, done: Mapping[str, Treated], prices: Mapping[str, float], spent: float
    ) -> tuple[list[str], list[str]]:
        """The plans that go on to their end, best first, and what was decided, in words."""
        left = {name: prices[name] * (1 - FIRST) for name in done}
        if spent + sum(left.values()) <= self.budget:
            return list(done), [f"all of {', '.join(done)} were trained to the end"] if done else []
        scores, judge = {}, Judge(job.case, job.case.splits["select"], job.case.model, job.model)
        for name, each in done.items():
            made = next(iter(each.candidates.values()))
            judged = judge_all(self._weighted({name: made}), self.choose, judge)
            scores[name] = float(judged.loc[judged["candidate"] == best_of(judged), "score"].iloc[0])
        order = sorted(scores, key=lambda name: -scores[name])
        kept = list[str]()
        for name in order[: max(math.ceil(KEPT * len(order)), 1)]:
            if not kept or spent + left[name] <= self.budget:
                kept.append(name)
                spent += left[name]
        told = ", ".join(f"{name} {scores[name]:+g}" for name in order)
        return kept, [f"after a quarter of the epochs the scores were {told}; {', '.join(kept)} went on"]

    def _weighted(self, made: Mapping[str, Candidate]) -> dict[str, Candidate]:
        return {
            name if weight == 1 else f"{name} x {weight:g}": replace(each, weight=weight)
            for name, each in made.items()
            for weight in sorted(self.weights, reverse=True)
        }
