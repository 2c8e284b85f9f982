"""Each block on its own: of several small treatments the best is kept (paper, section 8, per-block correction)."""

from typing import ClassVar, Literal

from pydantic import Field

from suture.treatments.cost import Cost, Estimate
from suture.treatments.interpolate import histories
from suture.treatments.plan import METHODS, AnyMethod, Job, Method, Plan, Treated, carry_out
from suture.treatments.where import Blocks


@METHODS.register("each_block")
class EachBlock(Method):
    """Treat every residual or transformer block of the flagged groups alone."""

    kind: Literal["each_block"] = "each_block"
    reads_places: ClassVar[bool] = False
    how: AnyMethod = Field(description="what is done to each")

    def treat(self, job: Job) -> Treated:
        done = {plan.name: carry_out(plan, job) for plan in self._plans(job)}
        stopped = next((each.stopped for each in done.values() if each.stopped), None)
        return Treated(
            {name: made for each in done.values() for name, made in each.candidates.items()},
            histories(done),
            sum((each.cost for each in done.values()), Cost()),
            stopped if done else "there is no block in the flagged groups",
        )

    def estimate(self, job: Job) -> Estimate:
        return sum((plan.how.estimate(job.of(plan)) for plan in self._plans(job)), Estimate())

    def _plans(self, job: Job) -> list[Plan]:
        blocks = Blocks().chosen(job.case, job.flagged)
        return [Plan(name=block, where=Blocks(names=(block,)), how=self.how, guards=job.guards) for block in blocks]
