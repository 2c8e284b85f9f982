"""Route: the old and the treated network together, each answering where it should."""

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from suture.errors import InvalidArgumentError
from suture.treatments.cost import Estimate
from suture.treatments.plan import METHODS, Job, Method, Plan, Treated, carry_out


@METHODS.register("route")
class Route(Method):
    """Answer with the treated network only where it is surer than the old one by a margin; two forward passes.

    Sure is the largest probability. The margin is chosen on `select`, as weights are. What is kept is a patch with a
    margin, which `suture.patched` turns into a `suture.patch.routed.Routed`.
    """

    kind: Literal["route"] = "route"
    reads_places: ClassVar[bool] = False
    plan: Plan = Field(description="how the treated network comes about")
    margins: tuple[float, ...] = Field(
        (0.0, -0.1, 0.1, -0.2), min_length=1, description="in units of probability, preferred first"
    )

    def treat(self, job: Job) -> Treated:
        if not hasattr(job.case.task, "probabilities"):
            raise InvalidArgumentError(
                f"route needs probabilities, which {type(job.case.task).__name__} does not offer; choose another plan"
            )
        treated = carry_out(self.plan, job)
        candidates = {
            f"{name} by {margin:+g}": replace(made, margin=margin)
            for name, made in treated.candidates.items()
            for margin in self.margins
        }
        return replace(treated, candidates=candidates)

    def estimate(self, job: Job) -> Estimate:
        return self.plan.how.estimate(job.of(self.plan))
