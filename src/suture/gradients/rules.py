"""Rules: from a layer's input and the gradient of its output to the factors of its parameters' gradients.

A rule is a pure function registered where it stands::

    @rule(nn.Linear)
    def linear(module, x, dy): ...

It is found through the classes of the module, and used only where the module's ``forward`` is the one the
rule was written for; a subclass with a forward of its own falls back. Layers that everybody writes anew are known by
what they do: ``rule_where``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from suture.gradients.factors import Factor

Factors = Mapping[str, Factor]
"""Parameter name inside the module → factor; names the module lacks, or that are frozen, are dropped later."""
Rule = Callable[[Any, Tensor, Tensor], Factors]

Condition = Callable[[Any], bool]

_RULES: dict[str, tuple[Any, Rule, Condition, bool]] = {}
_RULES_WHERE: list[tuple[Condition, Rule, bool]] = []


def rule(
    kind: type[nn.Module] | str, *, when: Condition = lambda module: True, positions: bool = False
) -> Callable[[Rule], Rule]:
    """Decorator: the rule of a layer type, given as a class or, for types not imported here, by full name.

    Args:
        when: whether the rule holds for a module of that type, with its settings.
        positions: whether all axes but the first and the last are positions, whatever their number.
    """

    def add(function: Rule) -> Rule:
        name = kind if isinstance(kind, str) else _name(kind)
        _RULES[name] = (None if isinstance(kind, str) else kind.forward, function, when, positions)
        return function

    return add


def rule_where(holds: Condition, *, positions: bool = False) -> Callable[[Rule], Rule]:
    """Decorator: the rule of modules of which a condition holds, where no rule of their type does."""

    def add(function: Rule) -> Rule:
        _RULES_WHERE.append((holds, function, positions))
        return function

    return add


def find_rule(module: nn.Module) -> tuple[Rule, bool] | None:
    """The rule for a module and whether it is about positions, or None."""
    for cls in type(module).__mro__:
        found = _RULES.get(_name(cls))
        if found is not None:
            forward, function, when, positions = found
            ours = type(module).forward is (forward or cls.forward)  # type: ignore[attr-defined]
            if ours and when(module):
                return function, positions
            break
    return next(((function, positions) for holds, function, positions in _RULES_WHERE if holds(module)), None)


def ruled_types() -> list[str]:
    """Full names of the layer types that have a rule."""
    return sorted(_RULES)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
