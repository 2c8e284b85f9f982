"""Route: the old and the treated network together, each answering where it should."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.tasks import batches, forward
from suture.treatments.cost import Estimate
from suture.treatments.plan import METHODS, Job, Method, Plan, Treated, carry_out, only_once


@METHODS.register("route")
class Route(Method):
    """Answer with the treated network only where it is surer than the old one by a margin; two forward passes.

    Sure is the largest probability. The margin is chosen on `select`, as weights are. What is kept is a patch with a
    margin, which `suture.patched` turns into a `suture.patch.routed.Routed`.
    """

    kind: Literal["route"] = "route"
    reads_places: ClassVar[bool] = False
    guarded: ClassVar[bool] = False
    plan: Plan = Field(description="how the treated network comes about")
    margins: tuple[Annotated[float, Field(ge=-1, le=1)], ...] = Field(
        (0.0, -0.1, 0.1, -0.2), min_length=1, description="in units of probability, preferred first"
    )

    @field_validator("plan")
    @classmethod
    def _once(cls, plan: Plan) -> Plan:
        only_once([plan])
        return plan

    def treat(self, job: Job) -> Treated:
        if not hasattr(job.case.task, "probabilities"):
            raise InvalidArgumentError(
                f"route needs probabilities, which {type(job.case.task).__name__} does not offer; choose another plan"
            )
        _refuse_other_probabilities(job.case)
        treated = carry_out(self.plan, job)
        candidates = {
            f"{name} by {margin:+g}": replace(made, margin=margin)
            for name, made in treated.candidates.items()
            for margin in self.margins
        }
        again = treated.again and self.model_copy(update={"plan": self.plan.model_copy(update={"how": treated.again})})
        return replace(treated, candidates=candidates, again=again)

    def estimate(self, job: Job) -> Estimate:
        return self.plan.how.estimate(job.of(self.plan))


def _refuse_other_probabilities(case: Case) -> None:
    """A saved route knows no task: it takes the softmax of logits (n, classes) for probabilities.

    Raises:
        InvalidArgumentError: the task's own are something else.
    """
    few = case.splits["repair"].only(list(range(min(2, len(case.splits["repair"])))))
    with torch.inference_mode():
        batch = next(batches(few, case.task, case.device, len(few)))
        outputs = forward(case.model.eval(), batch, case.task, "the examples of 'repair'")
        told = case.task.probabilities(outputs, batch)  # type: ignore[attr-defined]
        logits = getattr(outputs, "logits", outputs)
        if isinstance(logits, Tensor) and logits.dim() == 2 and told.shape == logits.shape:
            same = torch.allclose(told.double(), logits.double().softmax(-1), atol=1e-3)
            if same or not logits.isfinite().all():
                return
    raise InvalidArgumentError(
        "route compares the softmax of logits (n, classes), and the task's probabilities are something else; choose "
        "another plan"
    )
