"""BatchNorm statistics measured anew on the repair examples (Li et al. 2017, AdaBN), without a label."""

import copy
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import Any, ClassVar, Literal, cast

import pandas as pd
import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from suture.tasks import batches
from suture.treatments.cost import Cost
from suture.treatments.finetune import beside_full
from suture.treatments.plan import METHODS, Candidate, Job, Method, Treated


@METHODS.register("recalibrate")
class Recalibrate(Method):
    """Replace running means and variances by those of the repair examples; no parameter changes.

    Layers are measured together in one pass, and each batch counts by its size, so that a mean is that over all
    examples; what a layer sees is what the layers before it give with batch statistics. A last batch of one example
    is left out. A layer that is never called keeps its statistics, and every counter stays as it was.
    """

    kind: Literal["recalibrate"] = "recalibrate"
    reads_places: ClassVar[bool] = False
    guarded: ClassVar[bool] = False
    batch_size: int = Field(128, ge=2, description="examples whose statistics are taken at a time")

    def treat(self, job: Job) -> Treated:
        case, model = job.case, copy.deepcopy(job.model).eval()
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        if not norms:
            return Treated({}, pd.DataFrame(), Cost(), "the network has no BatchNorm with running statistics")
        begun = perf_counter()
        old = dict(job.model.named_modules())
        seen, n = dict.fromkeys(norms, 0), len(job.examples)

        def weigh(norm: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = args[0] if args else named["input"]
            size = given.numel() // given.shape[1]
            seen[norm] += size  # type: ignore[index]
            norm.momentum = size / seen[norm]  # type: ignore[index]  # 1 at first: nothing old is left

        with torch.no_grad(), FlopCounterMode(display=False) as counter, ExitStack() as stack:
            for norm in norms:
                norm.training = True
                stack.callback(norm.register_forward_pre_hook(weigh, with_kwargs=True).remove)
            batched = batches(job.examples, case.task, case.device, self.batch_size, f"treating by {job.name}")
            for start, batch in zip(range(0, n, self.batch_size), batched, strict=True):
                if n - start > 1:  # one example has no variance
                    case.task.outputs(model, batch)
        for path, module in model.named_modules():
            if module in norms:
                before = cast("_BatchNorm", old[path])
                module.momentum, module.training = before.momentum, False
                if before.num_batches_tracked is not None:
                    cast("_BatchNorm", module).num_batches_tracked = before.num_batches_tracked.clone()
        took, flops = perf_counter() - begun, float(counter.get_total_flops())
        cost = replace(beside_full(case, n), seconds=took, epochs=1, flops=flops)
        return Treated({job.name: Candidate(model)}, pd.DataFrame(), cost)
