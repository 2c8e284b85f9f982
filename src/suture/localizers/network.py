"""What localizers share that run the network in ways of their own: a copy, its losses, and its layers' outputs."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from suture.localizers.evidence import Evidence
from suture.moments import channel_axis
from suture.tasks import Batch, batches

Positions = NDArray[np.int64]
Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""Module, arguments and output of a call → another output, or None to leave it."""


def twin(evidence: Evidence) -> nn.Module:
    """A copy of the evidence's model in eval mode, to be changed; the model itself stays as it was found."""
    return copy.deepcopy(evidence.model).eval()


def trainable(model: nn.Module, names: Iterable[str] | None = None) -> list[nn.Parameter]:
    """Let gradients reach the named floating-point parameters of a copy, or all of them, and no others."""
    wanted = None if names is None else set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and (wanted is None or name in wanted))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def unknown(evidence: Evidence) -> pd.Series:
    """NaN for every group: the question cannot be asked."""
    return pd.Series(float("nan"), index=list(evidence.groups))


def batches_at(evidence: Evidence, positions: Positions, batch_size: int | None = None) -> Iterator[Batch]:
    """Batches of the examples at some positions of `diagnose`, on the case's device."""
    case = evidence.case
    return batches(evidence.examples.only(positions.tolist()), case.task, case.device, batch_size or case.batch_size)


@dataclass(frozen=True, eq=False)
class Judged:
    """Losses and verdicts of k examples, both (k,)."""

    losses: NDArray[np.float64]
    right: NDArray[np.bool_]


def judged_at(evidence: Evidence, positions: Positions, model: nn.Module) -> Judged:
    """A model at some positions, without gradients; losses are NaN or infinite where it broke."""
    task = evidence.case.task
    losses, right = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.bool)]
    with torch.no_grad():
        for batch in batches_at(evidence, positions):
            outputs = task.outputs(model, batch)
            losses.append(task.losses(outputs, batch).cpu().double())
            right.append(task.verdicts(outputs, batch).cpu().bool())
    return Judged(torch.cat(losses).numpy(), torch.cat(right).numpy())


def losses_at(evidence: Evidence, positions: Positions, model: nn.Module) -> NDArray[np.float64]:
    """(k,) losses of a model at some positions, as in `judged_at`."""
    return judged_at(evidence, positions, model).losses


def carriers(model: nn.Module, names: Iterable[str], *, layers: bool = False) -> list[str]:
    """Paths of the modules that some parameters act through, in model order.

    These are the outermost modules that own nothing but these parameters, and beside them single layers that
    own some of them. Projections inside `torch.nn.MultiheadAttention` act through the attention, which never
    calls them. A parameter that hangs on a module with further layers has no carrier: that module's output is
    others' work too.

    Args:
        layers: only single layers, never a module made of several.
    """
    wanted = set(names)
    first = {id(p): name for name, p in model.named_parameters()}

    seen: set[nn.Module] = set()  # a module may stand in several places

    def walk(path: str, module: nn.Module) -> Iterator[str]:
        held = {first[id(p)] for p in module.parameters()}
        if not held & wanted or module in seen:
            return
        seen.add(module)
        # What a weight is made of is called, but gives no activations: the layer whose weight it is does.
        inside = [child for name, child in module.named_children() if name != "parametrizations"]
        children = [child for child in inside if next(child.parameters(), None) is not None]
        single = isinstance(module, nn.MultiheadAttention) or not children
        whole = held <= wanted and not isinstance(module, nn.ModuleList | nn.ModuleDict)
        if single or (whole and not layers):
            yield path
            return
        for name, child in module.named_children():
            yield from walk(f"{path}.{name}".lstrip("."), child)

    return list(walk("", model))


@contextmanager
def hooked(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Forward hooks on modules by path, and no short cuts around the layers they are on."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        for path, hook in hooks.items():
            stack.callback(model.get_submodule(path).register_forward_hook(with_all(hook), with_kwargs=True).remove)
        yield


def with_all(hook: Hook) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]:
    """A hook that finds arguments by keyword behind the others."""
    return lambda module, args, named, output: hook(module, (*args, *named.values()), output)


def unit_means(
    evidence: Evidence, positions: Positions, model: nn.Module, paths: Iterable[str]
) -> dict[str, NDArray[np.float64]]:
    """What the units (channels, neurons) of layers give at k examples, averaged over positions: path → (k, units).

    A layer that is never called, or whose output does not keep the examples apart, is missing. Of a layer that is
    called several times the mean over its calls is taken. One forward pass.
    """
    calls: dict[str, list[Tensor]] = {}
    found: dict[str, list[Tensor]] = {path: [] for path in paths}
    n = 0

    def note(path: str) -> Hook:
        def hook(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
            units = _by_unit(module, output, n)
            if units is not None:
                calls.setdefault(path, []).append(units)

        return hook

    with torch.no_grad(), hooked(model, {path: note(path) for path in found}):
        for start in range(0, len(positions), evidence.case.batch_size):
            chosen = positions[start : start + evidence.case.batch_size]
            n = len(chosen)
            for batch in batches_at(evidence, chosen):
                evidence.case.task.outputs(model, batch)
            for path, several in calls.items():
                found[path].append(torch.stack(several).mean(0))
            calls.clear()
    rows = {path: torch.cat(parts).cpu().double().numpy() for path, parts in found.items() if parts}
    return {path: values for path, values in rows.items() if len(values) == len(positions)}


def _by_unit(module: nn.Module, output: Any, n: int) -> Tensor | None:
    """(n, units), float32, of a layer's first output; None when the n examples cannot be told apart."""
    tensors = (leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    given = next((leaf for leaf in tensors if leaf.dim() > 1), None)
    if given is None:
        return None
    values = given.detach().float()
    if channel_axis(module, values) == 1:
        values = values.movedim(1, -1)
    second = values.dim() > 2 and values.shape[1] == n
    if second and (values.shape[0] != n or getattr(module, "batch_first", True) is False):
        values = values.transpose(0, 1)
    if values.shape[0] % n:
        return None
    return values.reshape(n, -1, values.shape[-1]).mean(1)
