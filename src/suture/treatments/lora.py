"""LoRA: low-rank adapters beside frozen weights, by PEFT, merged into them when they are trained (Hu et al. 2022)."""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import ModuleType
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from suture.errors import InvalidArgumentError
from suture.localizers.network import hooked
from suture.tasks import batches
from suture.training import Recipe
from suture.treatments.cost import Cost, Estimate, estimate
from suture.treatments.finetune import STANDARD, FineTune, Stand, fit_places, on
from suture.treatments.plan import METHODS, Candidate, Job, Method, Treated, refuse_partial

# PEFT is an extra, and heavy: it is imported when there is something to adapt.
# ruff: noqa: PLC0415

FAST = STANDARD.model_copy(update={"lr": 0.01, "lr_min": 1e-4})
PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # and no subclass: their forward may be another
KNOWN = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)  # that somebody may expect an adapter on
CLOSE = 1e-3  # of the largest output: as far as merged weights may answer otherwise, by rounding in single precision
UNITS = 16  # the same in units of the weights' last place, for lower precision
CHECKED = 8  # examples that both are asked
NAMED = 3  # layers that are named in a sentence


@METHODS.register("lora")
class LoRA(Method):
    """Train W + (alpha / rank) B A in place of W, with A and B of low rank and W frozen, and merge it in the end.

    Of the places, the weights of Linear and convolution layers are treated; biases, normalisation and everything
    outside stay bit by bit as they were. The result is an ordinary network. Its patch has low rank and can be kept
    apart as an adapter: `suture.patch.adapter_of`.
    """

    kind: Literal["lora"] = "lora"
    rank: int = Field(4, ge=1, description="of each layer's change")
    alpha: float = Field(8.0, gt=0, description="times 1 / rank, the factor of each change")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of an adapter's inputs that is left out in a step")
    recipe: Annotated[Recipe, BeforeValidator(on(FAST))] = Field(FAST, description="optimizer, schedules and budget")
    seen: int | None = Field(20_000, ge=1, description="examples seen in all epochs at most")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass")
    cache: int = Field(2**30, ge=0, description="bytes of memory in which what frozen layers give is kept")

    def treat(self, job: Job) -> Treated:
        refuse_partial(job, "LoRA")
        fit, left_out = layers_of(job)
        account = _account(self.rank, fit, left_out)
        if not fit:
            return Treated({}, pd.DataFrame(), Cost(), account[0], account)
        adapted = self.adapted(job, fit)
        with adapted.alone():
            run, cost = fit_places(job, self._training, adapted.model, adapted.stand)
        weights = {f"{path}.weight" for path in fit}
        cost = replace(
            cost, parameters=sum(adapted.model.get_parameter(name).numel() for name in adapted.names),
            groups=sum(not weights.isdisjoint(names) for names in job.case.groups.values()),
        )  # fmt: skip
        if not len(run.history):
            return Treated({}, run.history, cost, run.stopped, account)
        merged = adapted.merged(job.model)
        if not _same_answers(job, adapted, merged):
            why = "the merged weights do not answer as the adapters do: the network reads weights of layers by itself"
            return Treated({}, run.history, cost, why, account)
        return Treated({job.name: Candidate(merged)}, run.history, cost, run.stopped, account)

    def estimate(self, job: Job) -> Estimate:
        fit, _ = layers_of(job)
        if not fit or job.places.masks:
            return Estimate()
        adapted, size = self.adapted(job, fit), min(self.recipe.batch_size, len(job.examples))
        steps = self.recipe.epochs * self._training.per_epoch(len(job.examples)) / size
        return estimate(job.case, adapted.names, steps, size, (adapted.model, None))

    @property
    def _training(self) -> FineTune:
        return FineTune(recipe=self.recipe, seen=self.seen, precision=self.precision, cache=self.cache)

    def adapted(self, job: Job, layers: Mapping[str, nn.Module]) -> "Adapted":
        """A copy of the job's network with an adapter on some layers that changes nothing yet.

        Raises:
            InvalidArgumentError: PEFT is not installed, or the network has adapters already.
        """
        peft, model = _peft(), copy.deepcopy(job.model)
        if any(isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer) for module in model.modules()):
            raise InvalidArgumentError("the network has adapters of PEFT already; give it after merge_and_unload()")
        known = dict(model.named_parameters())
        config = peft.LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout,
            target_modules="|".join(map(re.escape, layers)),  # in a list, 'fc' would stand for 'head.fc' too
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(job.seed)
            peft.inject_adapter_in_model(config, model)
        return Adapted(model, known, {path: model.get_submodule(path) for path in layers})


def layers_of(job: Job) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers of the places that can be adapted, by path; and why others cannot."""
    names = {id(p): name for name, p in job.model.named_parameters()}
    every = list(job.model.named_modules(remove_duplicate=False))
    owners = [id(p) for _, module in every for p in module.parameters(recurse=False)]
    fit: dict[str, nn.Module] = {}
    left_out: dict[str, str] = {}
    for path, module in job.model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(module, KNOWN) or names.get(id(weight)) not in job.places.parameters:
            continue
        why = "its weight is used twice" if owners.count(id(weight)) > 1 else _obstacle(module)
        if why:
            left_out[path] = why
        else:
            fit[path] = module
    return fit, left_out


def _obstacle(module: nn.Module) -> str:
    """Why PEFT has no adapter for a layer that its merged weights would equal; empty when it has."""
    if type(module) not in PLAIN:
        return f"it is a {type(module).__name__}"
    if isinstance(module, nn.modules.conv._ConvNd):
        if module.groups > 1:
            return "it is a grouped convolution"
        if any(d != 1 for d in module.dilation):
            return "it is a dilated convolution"
        if module.padding_mode != "zeros":
            return f"its padding is {module.padding_mode}"
    return ""


def _account(rank: int, fit: Mapping[str, nn.Module], left_out: Mapping[str, str]) -> list[str]:
    said = f"LoRA of rank {rank} on {len(fit)} layer{'' if len(fit) == 1 else 's'}: {_some(list(fit))}"
    told = [said if fit else "there is no Linear or convolution layer to adapt"]
    for why in dict.fromkeys(left_out.values()):
        paths = [path for path, reason in left_out.items() if reason == why]
        told.append(f"left out by LoRA: {_some(paths)}, since {why}")
    return told


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:NAMED]) + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")


class Adapted:
    """A network with adapters.

    Attributes:
        model: the network; a copy of the job's.
        names: of the adapters' parameters.
        stand: what is trained, for `fit_places`.
    """

    def __init__(self, model: nn.Module, known: Mapping[str, nn.Parameter], layers: Mapping[str, nn.Module]) -> None:
        old = {id(p) for p in known.values()}
        self.model, self._known, self._layers = model, known, layers
        self.names = frozenset(name for name, p in model.named_parameters() if id(p) not in old)
        self.stand = Stand(self.names, self._mode, _Whole(self))

    def alone(self) -> AbstractContextManager[None]:
        """No short cuts around the layers: attention's would read their weights and leave the adapters out."""
        return hooked(self.model, {})

    def _mode(self, model: nn.Module) -> None:
        """Eval mode, BatchNorm's too, except for the adapters' dropout."""
        model.eval()
        for layer in self._layers.values():
            layer.get_submodule("lora_dropout").train()

    def change(self, path: str) -> Tensor:
        """B A · alpha / rank of a layer, in the weight's shape; differentiable."""
        layer: Any = self._layers[path]
        change: Tensor = layer.get_delta_weight(layer.active_adapters[0])
        return change

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The old network's parameters by name, merged where there is an adapter; differentiable."""
        for name, p in self._known.items():
            path, _, last = name.rpartition(".")
            yield name, p + self.change(path) if last == "weight" and path in self._layers else p

    def merged(self, old: nn.Module) -> nn.Module:
        """A copy of the old network with the changes added; what no adapter changed keeps its bits."""
        result = copy.deepcopy(old)
        with torch.no_grad():
            for path in self._layers:
                change = self.change(path)
                if change.any():  # −0 + 0 is 0
                    result.get_submodule(path).get_parameter("weight").add_(change)
        return result.eval()


class _Whole(nn.Module):
    """A network with adapters as guards know it: its parameters are merged, and have their old names."""

    def __init__(self, adapted: Adapted) -> None:
        super().__init__()
        self._adapted = adapted

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._adapted.model(*args, **kwargs)

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
        return self._adapted.parameters()


def _same_answers(job: Job, adapted: Adapted, merged: nn.Module) -> bool:
    """Whether a few examples get the same outputs from merged weights, but for rounding."""
    case = job.case
    few = [job.examples[i] for i in range(min(CHECKED, len(job.examples)))]
    batch = next(batches(few, case.task, case.device, len(few)))
    adapted.model.eval()
    with torch.no_grad(), adapted.alone():
        both = [tree_leaves(case.task.outputs(model, batch)) for model in (adapted.model, merged)]
    tensors = [(a, b) for a, b in zip(*both, strict=True) if isinstance(a, Tensor) and a.is_floating_point()]
    precisions = {p.dtype for p in merged.parameters() if p.is_floating_point()}
    close = max(CLOSE, *(UNITS * torch.finfo(dtype).eps for dtype in precisions))
    return all(torch.allclose(a, b, rtol=close, atol=close * float(a.abs().max())) for a, b in tensors if a.numel())


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise InvalidArgumentError("LoRA needs PEFT, which is not installed; pip install 'suture[lora]'") from error
    return peft
