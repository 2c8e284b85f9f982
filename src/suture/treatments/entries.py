"""Scores of single entries of parameters, for treatments that are finer than a tensor (paper, section 6.1)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from suture.case import Case
from suture.localizers import Evidence, gather
from suture.localizers.friction import short_training
from suture.localizers.network import Positions, batches_at, trainable, twin
from suture.registry import Registry
from suture.tasks import plain_recurrence

Scores = dict[str, Tensor]
"""Parameter → score of its entries, in its shape, on the CPU; empty where nothing can be scored."""

SCORES: Registry[Callable[[Evidence], Scores]] = Registry("score of entries")
EXAMPLES = 256  # whose gradients are squared one by one


def evidence_of(case: Case) -> Evidence:
    """Evidence on the errors of `diagnose`."""
    return gather(case, case.outcomes("diagnose").right)[0]


@SCORES.register("friction")
def friction(evidence: Evidence) -> Scores:
    """Σ hξ of iKFAD over a short training on the errors."""
    trained = short_training(evidence)
    if trained is None:
        return {}
    optimizer, model = trained
    return {
        name: optimizer.state[p]["friction"].detach().cpu().float()
        for name, p in model.named_parameters()
        if "friction" in optimizer.state.get(p, {})
    }


@SCORES.register("gradient")
def gradient(evidence: Evidence) -> Scores:
    """|g|, of the mean gradient over the errors."""
    return {name: g.abs() for name, g in mean_gradient(evidence).items()}


@SCORES.register("gradient_weight")
def gradient_weight(evidence: Evidence) -> Scores:
    """|g θ|: to first order, what the loss would change by if the entry were zero (Molchanov et al. 2019)."""
    values = dict(evidence.model.named_parameters())
    return {name: (g * values[name].detach().cpu().float()).abs() for name, g in mean_gradient(evidence).items()}


@SCORES.register("fisher")
def fisher(evidence: Evidence) -> Scores:
    """Mean of g² over the errors, at most 256 of them."""
    return mean_square(evidence, evidence.wrong_at)


def mean_gradient(evidence: Evidence) -> Scores:
    """Mean gradient over the errors, float32."""
    model, n = twin(evidence), len(evidence.wrong_at)
    total: Scores = {}
    for names, gradients in _gradients(evidence, model, evidence.wrong_at, evidence.case.batch_size):
        for name, g in zip(names, gradients, strict=True):
            total[name] = total.get(name, torch.zeros_like(g)) + g
    return {name: g / n for name, g in total.items()}


def mean_square(evidence: Evidence, positions: Positions, most: int = EXAMPLES) -> Scores:
    """Mean of the squared gradient over some examples, one by one: the diagonal of the empirical Fisher matrix."""
    model, chosen = twin(evidence), positions[:most]
    total: Scores = {}
    for names, gradients in _gradients(evidence, model, chosen, 1):
        for name, g in zip(names, gradients, strict=True):
            total[name] = total.get(name, torch.zeros_like(g)) + g.square()
    return {name: g / len(chosen) for name, g in total.items()}


def _gradients(
    evidence: Evidence, model: nn.Module, positions: Positions, batch_size: int
) -> Iterator[tuple[list[str], list[Tensor]]]:
    """Gradients of the summed loss, batch by batch, on the CPU."""
    parameters, task = trainable(model), evidence.case.task
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    with torch.enable_grad(), plain_recurrence(model):
        for batch in batches_at(evidence, positions, batch_size):
            loss = task.losses(task.outputs(model, batch), batch).sum()
            found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            yield names, [g.detach().cpu().float() for g in found]
