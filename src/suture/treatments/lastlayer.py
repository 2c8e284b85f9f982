"""The last layer in closed form: a few exact steps of logistic regression on features that are computed once."""

import copy
from dataclasses import replace
from time import perf_counter
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from suture.localizers.network import hooked
from suture.tasks import batches
from suture.treatments.cost import Cost
from suture.treatments.finetune import beside_full
from suture.treatments.plan import METHODS, Candidate, Job, Method, Treated, refuse_partial
from suture.treatments.where import last_linear


@METHODS.register("last_layer")
class LastLayer(Method):
    """Steps W ← W − G (XᵀX / 2n + ridge·I)⁻¹ that never raise the loss (Böhning 1992).

    The loss is the mean cross-entropy plus ridge / 2 ‖W − W_old‖², and G its gradient. The Hessian of multinomial
    logistic regression is bounded by XᵀX / 2n for every class, whatever the weights, so that one inverse serves all
    steps. Only for a network whose output is that of its last linear layer, which shares no weights, and integer
    labels.
    """

    kind: Literal["last_layer"] = "last_layer"
    guarded: ClassVar[bool] = False
    ridge: float = Field(0.01, ge=0, description="pull towards the old weights, per example")
    steps: int = Field(30, ge=1, description="closed-form steps")

    def treat(self, job: Job) -> Treated:
        refuse_partial(job, "the last layer in closed form")
        begun, model = perf_counter(), copy.deepcopy(job.model).eval()
        path = last_linear(model)
        with FlopCounterMode(display=False) as counter:
            features = None if path is None or shared(model, path) else features_of(job, model, path)
        if path is None or features is None:
            return Treated(
                {}, pd.DataFrame(), Cost(), "the network does not end in a linear layer of its own with labels"
            )
        if not any(name.rpartition(".")[0] == path for name in job.places.parameters):
            why = f"it treats the last layer, '{path}', which is not among the places of '{job.name}'"
            return Treated({}, pd.DataFrame(), Cost(), why)
        inputs, targets = features
        layer, flops = model.get_submodule(path), counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            losses = fit(layer, inputs, targets, self.ridge, self.steps)  # type: ignore[arg-type]
        flops, took = float(flops + counter.get_total_flops()), perf_counter() - begun
        history = pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})
        cost = replace(
            beside_full(job.case, len(targets)), seconds=took, epochs=1, flops=flops, groups=1,
            parameters=sum(p.numel() for p in layer.parameters()), all_groups=len(job.case.groups),
        )  # fmt: skip
        return Treated({job.name: Candidate(model)}, history, cost)


def fit(layer: nn.Linear, inputs: Tensor, targets: Tensor, ridge: float, steps: int) -> list[float]:
    """Change a linear layer in place; the mean cross-entropy plus the pull of the ridge before each step.

    Args:
        inputs: (n, d).
        targets: (n,) labels.
    """
    n = len(inputs)
    ones = [torch.ones(n, 1, dtype=torch.float64)] if layer.bias is not None else []
    x = torch.cat([inputs.double().cpu(), *ones], 1)
    parts = [layer.weight, *([layer.bias[:, None]] if layer.bias is not None else [])]
    old = torch.cat([p.detach().double().cpu() for p in parts], 1)
    truth = nn.functional.one_hot(targets.cpu(), len(old)).double()
    bound = x.T @ x / (2 * n) + ridge * torch.eye(x.shape[1], dtype=torch.float64)
    # Fewer examples than features leave it singular; what is added is small beside it, whatever the features' scale.
    little = 1e-9 * max(float(bound.diagonal().mean()), 1e-9)
    inverse = torch.linalg.inv(bound + little * torch.eye(len(bound), dtype=torch.float64))
    weights, losses = old.clone(), list[float]()
    for _ in range(steps):
        logits = x @ weights.T
        losses.append(
            float(nn.functional.cross_entropy(logits, targets.cpu()) + ridge / 2 * (weights - old).square().sum())
        )
        gradient = (logits.softmax(1) - truth).T @ x / n + ridge * (weights - old)
        weights = weights - gradient @ inverse
    with torch.no_grad():
        layer.weight.copy_(weights[:, : layer.in_features])
        if layer.bias is not None:
            layer.bias.copy_(weights[:, -1])
    return losses


def shared(model: nn.Module, path: str) -> bool:
    """Whether the layer's weights serve elsewhere too, so that its inputs change with them."""
    own = {id(p) for p in model.get_submodule(path).parameters()}
    return sum(id(p) in own for _, p in model.named_parameters(remove_duplicate=False)) > len(own)


def _is_plain(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> bool:
    """Whether a layer gives x Wᵀ + b and holds W itself: none that normalises, is parametrized or has a hook does."""
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    if weight is None:
        return False
    few, given = inputs[:2, None], outputs[:2]
    expected = (few * weight).sum(-1) + (0 if bias is None else bias)  # no matrix product, which would be counted
    return torch.allclose(expected, given, rtol=1e-3, atol=1e-3 * float(given.abs().max()))


def features_of(job: Job, model: nn.Module, path: str) -> tuple[Tensor, Tensor] | None:
    """(n, d) inputs of the layer and (n,) labels of the repair examples; None where they are something else."""
    case, calls = job.case, list[tuple[Tensor, Any]]()
    found, labels = list[Tensor](), list[Tensor]()

    def note(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append((args[0], output))

    with torch.no_grad(), hooked(model, {path: note}):
        for batch in batches(job.examples, case.task, case.device, case.batch_size, f"treating by {job.name}"):
            calls.clear()
            outputs = case.task.outputs(model, batch)
            labelled = isinstance(batch[1], Tensor) and batch[1].dim() == 1 and not batch[1].is_floating_point()
            if not labelled or len(calls) != 1 or calls[0][1] is not outputs or calls[0][0].dim() != 2:
                return None
            if not found and not _is_plain(model.get_submodule(path), *calls[0]):
                return None
            found.append(calls[0][0])
            labels.append(batch[1])
    return torch.cat(found), torch.cat(labels)
