"""Groups: named sets of parameters that partition a model's ``named_parameters()``.

Names in, names out; parameters keep the model's order, the first name of a tied parameter wins, and
parameters that hang on the root are groups of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from suture.errors import GroupError
from suture.registry import suggest

if TYPE_CHECKING:
    from torch import nn

GroupSpec = str | Mapping[str, Sequence[str]]
"""``"top"``, ``"block"``, ``"tensor"``, or group name → globs over parameter names."""

LEVELS = ("top", "block", "tensor")
REST = "rest"


def resolve(model: nn.Module, spec: GroupSpec = "top") -> dict[str, list[str]]:
    """Group name → parameter names, in model order.

    Args:
        model: any module.
        spec: ``"top"`` (children of the root that own parameters, descending while one child owns
            everything: for ResNet-18 the paper's seven, Table 8), ``"block"`` (repeated children of one
            class, such as residual or transformer blocks, the rest as in top), ``"tensor"`` (one parameter
            each), or ``{name: [glob, …]}`` over parameter names, where a module's name stands for all its
            parameters and what no glob covers becomes the group ``rest``.

    Raises:
        GroupError: unknown level, a glob that matches nothing, two groups that claim one parameter, or a
            model without parameters.
    """
    names = [name for name, _ in model.named_parameters()]
    if not names:
        raise GroupError(f"{type(model).__name__} has no parameters, so there is nothing to group")
    if not isinstance(spec, str):
        return _by_globs(names, spec)
    if spec == "tensor":
        return {name: [name] for name in names}
    if spec == "top":
        return _gather(names, _top_prefixes(model, _ancestors(names)))
    if spec == "block":
        return _gather(names, _block_prefixes(model, "", _ancestors(names)))
    raise GroupError(f"no grouping is called '{spec}'; {suggest(spec, list(LEVELS))}")


def group_of(groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Parameter name → group name."""
    return {parameter: group for group, parameters in groups.items() for parameter in parameters}


def tensors_of(model: nn.Module, parameters: Iterable[str]) -> list[str]:
    """Names of the given parameters and of the buffers of the modules that own them, in state order.

    Buffers follow their module: the running statistics of a BatchNorm belong to the group of its weight.
    """
    owners = {name.rpartition(".")[0] for name in parameters}
    wanted = set(parameters)
    for name, _ in model.named_buffers():
        if name.rpartition(".")[0] in owners:
            wanted.add(name)
    return [name for name in model.state_dict() if name in wanted]


def _gather(names: list[str], prefixes: list[str]) -> dict[str, list[str]]:
    """Parameters under each prefix; a parameter under none is a group of its own."""
    known = set(prefixes)
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        heads = (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        groups.setdefault(next((head for head in heads if head in known), name), []).append(name)
    return groups


def _ancestors(names: Iterable[str]) -> set[str]:
    """Every module path under which a parameter has its first name: tied copies own nothing."""
    return {".".join(parts[:depth]) for parts in (name.split(".") for name in names) for depth in range(1, len(parts))}


def _owning(module: nn.Module, prefix: str, owned: set[str]) -> dict[str, nn.Module]:
    """Path → child, for the children that own parameters."""
    return {prefix + name: child for name, child in module.named_children() if prefix + name in owned}


def _top_prefixes(model: nn.Module, owned: set[str]) -> list[str]:
    prefix, module = "", model
    while True:
        children = _owning(module, prefix, owned)
        if len(children) != 1 or next(module.parameters(recurse=False), None) is not None:
            return list(children)
        path, child = next(iter(children.items()))
        if not _owning(child, path + ".", owned):
            return [path]
        prefix, module = path + ".", child


def _block_prefixes(module: nn.Module, prefix: str, owned: set[str]) -> list[str]:
    """Paths of the outermost repeated blocks under a module and of everything beside them."""
    children = _owning(module, prefix, owned)
    repeated = _repeated(module, children)
    prefixes: list[str] = []
    for path, child in children.items():
        # A stage that is one of several like stages is opened; a block that is one of several is not.
        if (not repeated or _is_container(child)) and _has_blocks(child, path + ".", owned, leaves=not repeated):
            prefixes += _block_prefixes(child, path + ".", owned)
        else:
            prefixes.append(path)
    return prefixes


def _has_blocks(module: nn.Module, prefix: str, owned: set[str], *, leaves: bool) -> bool:
    children = _owning(module, prefix, owned)
    deep = {path: child for path, child in children.items() if _owning(child, path + ".", owned)}
    if _repeated(module, children) and (leaves or deep):
        return True
    return any(_has_blocks(child, path + ".", owned, leaves=False) for path, child in deep.items())


def _repeated(module: nn.Module, children: Mapping[str, nn.Module]) -> bool:
    """True when a plain container holds several children of one class."""
    counts = Counter(type(child) for child in children.values())
    return _is_container(module) and any(count > 1 for count in counts.values())


def _is_container(module: nn.Module) -> bool:
    # By name, so that this module does not import torch.
    return any(cls.__name__ in {"Sequential", "ModuleList", "ModuleDict"} for cls in type(module).__mro__)


def _by_globs(names: list[str], spec: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    owner: dict[str, str] = {}
    for group, patterns in spec.items():
        if not patterns:
            raise GroupError(f"the group '{group}' has no globs, so no parameters; give it one or leave it out")
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            hits = [name for name in names if fnmatchcase(name, pattern) or name.startswith(pattern + ".")]
            if not hits:
                raise GroupError(
                    f"the glob '{pattern}' of group '{group}' matches no parameter; {suggest(pattern, names)}"
                )
            for name in hits:
                if owner.setdefault(name, group) != group:
                    raise GroupError(
                        f"'{name}' is claimed by the groups '{owner[name]}' and '{group}'; a parameter belongs to one"
                    )
    rest = [name for name in names if name not in owner]
    if rest and REST in spec:
        raise GroupError(f"'{rest[0]}' is in no group, and '{REST}' is the name for what is left; rename yours")
    groups = {group: [name for name in names if owner.get(name) == group] for group in spec}
    groups |= {REST: rest} if rest else {}
    order = {name: position for position, name in enumerate(names)}
    return dict(sorted(groups.items(), key=lambda item: order[item[1][0]]))
