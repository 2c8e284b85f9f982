"""The fault that comes from training: a group that was taught wrong labels, or only two of the classes."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from suture.bench.examples import Pairs
from suture.bench.kinds import Site, fault
from suture.errors import DataError, NonFiniteError
from suture.tasks import Batch, fetch, forward, to_device

LR, MOMENTUM, CLIP, BATCH = 0.05, 0.9, 1.0, 50
LONGEST = 80.0  # steps a search takes


@fault("finetune", most=LONGEST)
def finetune(site: Site, steps: float) -> Iterator[None]:
    """SGD on the group alone, on lessons that do harm; strength is the number of steps.

    By two coins of the seed: half of the labels are shifted to another class, or only two classes are seen; the
    group's own BatchNorms are in train or in eval mode. Everything else is in eval mode. Steps are of 50
    examples, learning rate 0.05, momentum 0.9, gradient clipped to norm 1. The group is always trained as a whole.
    """
    lessons = _lessons(site)
    train_norms = bool(site.integer(2))
    norms = [layer.module for layer in site.layers if train_norms and isinstance(layer.module, _BatchNorm)]
    parameters = [parameter for layer in site.layers for parameter in layer.parameters]
    flags = {parameter: parameter.requires_grad for parameter in site.model.parameters()}
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM)
    try:
        for parameter in flags:
            parameter.requires_grad_(False)
        for trained in parameters:
            trained.requires_grad_(True)
        for _ in range(int(steps)):
            chosen = torch.randperm(len(lessons), generator=site.generator)[:BATCH]
            batch = fetch(lessons, chosen.tolist(), site.task)
            _step(site, optimizer, norms, to_device(batch, parameters[0].device))
            yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
            parameter.grad = None


def _step(site: Site, optimizer: torch.optim.Optimizer, norms: Sequence[nn.Module], batch: Batch) -> None:
    for norm in norms:
        norm.train()
    recurrent = any(isinstance(module, nn.RNNBase) for module in site.model.modules())
    without_cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with torch.enable_grad(), without_cudnn:  # cuDNN gives an RNN in eval mode no gradients
        outputs = forward(site.model, batch, site.task, "the examples of the fault")
        loss = site.task.losses(outputs, batch).mean()
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # a group that the loss does not depend on learns nothing, which plant then says
            loss.backward()  # type: ignore[no-untyped-call]
    for norm in norms:
        norm.eval()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    size = nn.utils.clip_grad_norm_(trained, CLIP)
    if not (loss.isfinite() and size.isfinite()):
        raise NonFiniteError("the loss of a 'finetune' fault is not finite; check the examples and the model's weights")
    optimizer.step()


def _lessons(site: Site) -> Pairs:
    """The examples with half of the labels shifted, or those of two classes."""
    examples = site.examples
    targets = examples.targets if examples else None
    if examples is None or not isinstance(targets, Tensor) or targets.dim() != 1 or targets.is_floating_point():
        raise DataError("a 'finetune' fault trains on inputs and targets, and targets must be one label per example")
    classes = torch.unique(targets).cpu()
    if len(classes) < 2:
        raise DataError(f"a 'finetune' fault needs examples of two classes or more, not of {len(classes)}")
    if site.integer(2) and len(classes) > 2:
        pair = classes[torch.randperm(len(classes), generator=site.generator)[:2]]
        return Pairs(*examples.read_batch(torch.isin(targets.cpu(), pair).nonzero().flatten().tolist()))
    return Pairs(examples.inputs, _shifted(targets, classes, site.generator))


def _shifted(targets: Tensor, classes: Tensor, generator: Generator) -> Tensor:
    """A copy of the labels, (n,), with a random half of them moved on by the same number of classes."""
    by = 1 + int(torch.randint(len(classes) - 1, (), generator=generator))
    half = torch.randperm(len(targets), generator=generator)[: max(1, len(targets) // 2)]
    wrong = targets.clone().cpu()
    wrong[half] = classes[(torch.searchsorted(classes, wrong[half]) + by) % len(classes)]
    return wrong.to(targets.device)
