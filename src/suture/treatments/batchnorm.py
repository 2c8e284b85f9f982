"""BatchNorm statistics measured anew on the repair examples (Li et al. 2017, AdaBN), without a label."""

import copy
from time import perf_counter
from typing import ClassVar, Literal

import pandas as pd
import torch
from pydantic import Field
from torch.nn.modules.batchnorm import _BatchNorm

from suture.tasks import batches
from suture.treatments.cost import Cost
from suture.treatments.plan import METHODS, Candidate, Job, Method, Treated


@METHODS.register("recalibrate")
class Recalibrate(Method):
    """Replace running means and variances by those of the repair examples; no parameter changes.

    Layers are measured together in one pass, in the order in which a mean over all batches is a mean over all
    examples; what a layer sees then is what the layers before it give with batch statistics.
    """

    kind: Literal["recalibrate"] = "recalibrate"
    reads_places: ClassVar[bool] = False
    batch_size: int = Field(128, ge=2, description="examples whose statistics are taken at a time")

    def treat(self, job: Job) -> Treated:
        case, model = job.case, copy.deepcopy(job.model).eval()
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        if not norms:
            return Treated({}, pd.DataFrame(), Cost(), "the network has no BatchNorm with running statistics")
        begun = perf_counter()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # the plain mean over batches
        with torch.no_grad():
            for batch in batches(job.examples, case.task, case.device, self.batch_size, f"treating by {job.name}"):
                if len(batch[1]) > 1:
                    case.task.outputs(model, batch)
        old = dict(job.model.named_modules())
        for path, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                module.momentum, module.training = old[path].momentum, False
        return Treated({job.name: Candidate(model)}, pd.DataFrame(), Cost(seconds=perf_counter() - begun, epochs=1))
