"""Guards: what keeps a treatment from breaking what was right."""

import copy
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from suture.errors import InvalidArgumentError, NonFiniteError
from suture.localizers import gather
from suture.splits import Split
from suture.stats import flips
from suture.tasks import Batch, Examples
from suture.training import Stop
from suture.training.loop import Penalty
from suture.treatments.cost import forward_flops, step_flops
from suture.treatments.entries import EXAMPLES, mean_square
from suture.treatments.plan import GUARDS, Guard, Job, Watch
from suture.wording import percent

SMALL = 1e-30  # below it a probability has no logarithm in float32


@runtime_checkable
class Costly(Protocol):
    """A guard that runs the network beside the steps of a training."""

    def flops(self, job: Job, epochs: int) -> float:
        """Floating-point operations of that in a training of some epochs."""
        ...


@GUARDS.register("l2sp")
class L2SP(Guard):
    """Half the squared distance to the old weights (Li et al. 2018), summed over treated parameters."""

    kind: Literal["l2sp"] = "l2sp"
    strength: float = Field(5.0, gt=0, description="factor of the penalty")

    def penalty(self, job: Job) -> Penalty:
        old = _values(job)

        def distance(model: nn.Module, batch: Batch, outputs: object) -> Tensor:
            parameters = dict(model.named_parameters())
            return self.strength / 2 * torch.stack([_square(parameters[n] - v).sum() for n, v in old.items()]).sum()

        return distance


@GUARDS.register("ewc")
class EWC(Guard):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): the distance weighted by the diagonal Fisher matrix.

    The Fisher matrix is the mean square of the gradients on examples of `diagnose` that the model gets right, at most
    256, one by one.
    """

    kind: Literal["ewc"] = "ewc"
    strength: float = Field(1000.0, gt=0, description="factor of the penalty")

    def penalty(self, job: Job) -> Penalty:
        old, fisher = _values(job), self._fisher(job)

        def distance(model: nn.Module, batch: Batch, outputs: object) -> Tensor:
            parameters = dict(model.named_parameters())
            parts = [(fisher[n] * _square(parameters[n] - v)).sum() for n, v in old.items()]
            return self.strength / 2 * torch.stack(parts).sum()

        return distance

    def flops(self, job: Job, epochs: int) -> float:
        """A forward pass tells which examples are right; of those, forward and backward, as many as there can be."""
        split, everything = job.case.splits["diagnose"], {name for name, _ in job.model.named_parameters()}
        squared = min(EXAMPLES, len(split)) * step_flops(job.case, everything, 1)
        return forward_flops(job.case, split) + squared

    @staticmethod
    def _fisher(job: Job) -> dict[str, Tensor]:
        case = job.case
        found = case.outcomes("diagnose", job.model)
        evidence = gather(case, found.right)[0].of(job.model)
        drawn = np.random.default_rng(job.seed).permutation(found.correct)
        values = mean_square(evidence, drawn)
        return {n: values.get(n, torch.zeros(())).to(case.device) for n in job.places.parameters}


@GUARDS.register("distill")
class Distill(Guard):
    """Distillation from the old network: T² KL(old ‖ new) at temperature T, mean over examples.

    An example weighs `right` where the old network got it right and `wrong` elsewhere: focal distillation
    (Yan et al. 2021) with the defaults; ``wrong = 0`` holds on to what was right alone. Costs another forward pass a
    step.
    """

    kind: Literal["distill"] = "distill"
    strength: float = Field(1.0, gt=0, description="factor of the penalty")
    temperature: float = Field(2.0, gt=0, description="by which logits are divided")
    right: float = Field(1.2, ge=0, description="weight of examples that were right")
    wrong: float = Field(0.2, ge=0, description="weight of examples that were wrong")

    def penalty(self, job: Job) -> Penalty:
        task, teacher = job.case.task, copy.deepcopy(job.model).eval()
        if not hasattr(task, "probabilities"):
            raise InvalidArgumentError(
                f"distillation needs probabilities, which {type(task).__name__} does not offer; choose l2sp or ewc"
            )

        def divergence(model: nn.Module, batch: Batch, outputs: object) -> Tensor:
            with torch.no_grad():
                taught = task.outputs(teacher, batch)
                old = self._softened(task.probabilities(taught, batch))
                weight = torch.where(task.verdicts(taught, batch), self.right, self.wrong)
            new = self._softened(task.probabilities(outputs, batch))
            each = F.kl_div(new, old, reduction="none", log_target=True).flatten(1).sum(1)
            return self.strength * self.temperature**2 * (weight * each).mean()

        return divergence

    def _softened(self, probabilities: Tensor) -> Tensor:
        """Logarithms of the probabilities at the temperature."""
        whole = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
        return (whole.clamp_min(SMALL).log() / self.temperature).log_softmax(-1)


@GUARDS.register("replay")
class Replay(Guard):
    """Train on the errors of `repair` and some of what is right there, in place of everything."""

    kind: Literal["replay"] = "replay"
    share: float = Field(0.5, ge=0, lt=1, description="of right examples among those that are trained on")

    def examples(self, job: Job, examples: Examples) -> Examples:
        if not isinstance(examples, Split):
            raise InvalidArgumentError("replay goes with one guard that chooses examples, not with several")
        found = job.case.outcomes(examples, job.model)
        wanted = round(len(found.errors) * self.share / (1 - self.share))
        right = np.random.default_rng(job.seed).permutation(found.correct)[:wanted]
        chosen = np.sort(np.concatenate([found.errors, right]))
        return examples.only(chosen.tolist()) if len(chosen) else examples

    def flops(self, job: Job, epochs: int) -> float:
        """A forward pass tells which examples are wrong."""
        return forward_flops(job.case, job.case.splits["repair"])


@GUARDS.register("early_stop")
class EarlyStop(Guard):
    """Stop before the epoch after which more of `select` has broken than is allowed."""

    kind: Literal["early_stop"] = "early_stop"
    max_regression: float = Field(0.05, gt=0, lt=1, description="share of what was right in `select`")

    def watch(self, job: Job) -> Watch:
        before = _verdicts(job, job.case.model)  # the original, whatever cycle this is

        def look(epoch: int, model: nn.Module) -> None:
            try:
                moves = flips(before, _verdicts(job, model))
            except NonFiniteError as error:
                raise Stop(f"epoch {epoch} left a network without finite losses") from error
            if moves.regression_rate > self.max_regression:
                raise Stop(
                    f"epoch {epoch} broke {moves.broken} of {moves.right_before} in 'select', more than "
                    f"{percent(self.max_regression)}"
                )

        return look

    def flops(self, job: Job, epochs: int) -> float:
        """A forward pass over `select` before the training and after each epoch."""
        return (1 + epochs) * forward_flops(job.case, job.case.splits["select"])


def _square(change: Tensor) -> Tensor:
    return change.abs().square() if change.is_complex() else change.square()


def _verdicts(job: Job, model: nn.Module) -> NDArray[np.bool_]:
    case = job.case
    return case.outcomes("select", model).right


def _values(job: Job) -> dict[str, Tensor]:
    """Old values of the treated parameters."""
    return {n: p.detach().clone() for n, p in job.model.named_parameters() if n in job.places.parameters}
