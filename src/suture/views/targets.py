"""The flagged groups as other trainers take them: a PEFT config, axolotl's `unfrozen_parameters`, or plain names.

What is written is matched against the model first, by the rules of the tool that will read it, and has to match what
was flagged and nothing else. What the tool cannot train of it is left out, and said.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from suture.errors import InvalidArgumentError
from suture.registry import suggest
from suture.stages.localize import Localization
from suture.views.text import listed
from suture.wording import plain, several

# What LoRA can be put on: by name, since Hugging Face's Conv1D comes from a package that need not be here.
ADAPTABLE = ("Linear", "Conv1d", "Conv2d", "Conv3d", "Embedding", "Conv1D")
MOST_SUFFIXES = 12  # in a list; beyond it one regular expression says the same


@dataclass(frozen=True)
class Export:
    """A config, and what it matches in the model.

    Attributes:
        form: peft, axolotl or json.
        config: as it is written.
        matches: pattern → names of the modules (peft) or parameters that it matches.
        groups: flagged group → those of them that are its own.
        left_out: flagged group → kinds of its modules that the tool cannot train, one of each module.
    """

    form: str
    config: dict[str, Any]
    matches: dict[str, list[str]]
    groups: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The content of the file: JSON, which is YAML too."""
        if self.form != "axolotl":
            return json.dumps(self.config, indent=2, ensure_ascii=False) + "\n"
        entries = (f"  - {json.dumps(pattern, ensure_ascii=False)}\n" for pattern in self.config["unfrozen_parameters"])
        return "unfrozen_parameters:\n" + "".join(entries)

    @property
    def lines(self) -> list[str]:
        """``pattern -> n modules``, a line each; then a line for each group that none of these covers alone."""
        thing = "module" if self.form == "peft" else "parameter"
        said = [f"{pattern} -> {several(len(names), thing)}" for pattern, names in self.matches.items()]
        alone = [set(names) for names in self.matches.values()]
        for group, names in self.groups.items():
            kinds = [several(n, kind, kind) for kind, n in Counter(self.left_out.get(group, [])).items()]
            rest = f"; {listed(kinds)} left out, which LoRA does not adapt" if kinds else ""
            if rest or set(names) not in alone:
                said.append(f"{plain(group)} -> {several(len(names), thing)}{rest}")
        return said


def export(result: Localization, form: str, model: nn.Module) -> Export:
    """The flagged groups of a localization in the form of another tool.

    Args:
        form: ``"peft"`` (`target_modules`, with `layers_to_transform` and `layers_pattern` where the flagged groups
            are blocks of one list), ``"axolotl"`` (`unfrozen_parameters`), or ``"json"`` ({group: [parameters]}).
        model: whose names are matched.

    Raises:
        InvalidArgumentError: no such form, no group is flagged, or nothing in the model matches.
    """
    if form not in FORMS:
        raise InvalidArgumentError(f"no export is called '{form}'; {suggest(form, list(FORMS))}")
    if not result.flagged:
        raise InvalidArgumentError("no group is flagged, so there is nothing to export; another --rule may flag one")
    known = dict(model.named_parameters())
    groups = {group: [name for name in result.groups[group] if name in known] for group in result.flagged}
    for group, names in groups.items():
        if not names:
            raise InvalidArgumentError(
                f"'{group}' -> 0 parameters: the model has none of them; is it the one of the run?"
            )
    made = FORMS[form](groups, model)
    for pattern, names in made.matches.items():
        if not names:
            raise InvalidArgumentError(f"'{pattern}' -> 0 modules: it matches nothing in the model")
    return made


def _json(groups: Mapping[str, list[str]], model: nn.Module) -> Export:
    return Export("json", dict(groups), dict(groups), dict(groups))


def _axolotl(groups: Mapping[str, list[str]], model: nn.Module) -> Export:
    """One pattern per group where it is all that lies below a module, else one per parameter.

    axolotl takes a bare dot for a literal one, any other regular expression for a wildcard, and neither ``\\.`` as we
    would write it; ``[.]`` means the same to both. A pattern has to be anchored: it is matched from the start.
    """
    every = [name for name, _ in model.named_parameters()]
    patterns: list[str] = []
    for group, names in groups.items():
        below = f"^{_literal(group)}[.].+$"
        found = [below] if _axolotl_matches(below, every) == names else [f"^{_literal(name)}$" for name in names]
        patterns += found
    matches = {p: _axolotl_matches(p, every) for p in patterns}
    return Export("axolotl", {"unfrozen_parameters": patterns}, matches, dict(groups))


def _axolotl_matches(pattern: str, names: Iterable[str]) -> list[str]:
    """As axolotl does it: dots made literal unless a plus follows, then matched from the start."""
    compiled = re.compile(re.sub(r"\.(?!\+)", r"\\.", pattern))
    return [name for name in names if compiled.match(name)]


def _literal(name: str) -> str:
    return "[.]".join(re.escape(part) for part in name.split("."))


def _peft(groups: Mapping[str, list[str]], model: nn.Module) -> Export:
    modules = dict(model.named_modules())
    holding = {group: {name.rpartition(".")[0] for name in names} for group, names in groups.items()}
    owners = {group: [name for name in modules if name in holders] for group, holders in holding.items()}
    flagged = {name for names in owners.values() for name in names}
    wanted = [name for name in modules if name in flagged and _adaptable(modules[name])]
    if not wanted:
        kinds = sorted({type(modules[name]).__name__ for name in flagged})
        raise InvalidArgumentError(
            f"{', '.join(groups)} -> 0 modules: LoRA goes on linear, convolution and embedding layers, and flagged are "
            f"{', '.join(kinds)}; export axolotl or json"
        )
    names = [name for name in modules if name]
    for config in (_by_layers(wanted, modules), _by_suffixes(wanted, names)):
        if config and all(_peft_matches(config, names, first=first) == wanted for first in (True, False)):
            break
    else:
        config = {"target_modules": _alternatives(wanted)}
    targets = config["target_modules"]
    patterns = [targets] if isinstance(targets, str) else targets
    matches = {p: _peft_matches(config | {"target_modules": targets if p == targets else [p]}, names) for p in patterns}
    adapted = {group: [name for name in names if name in wanted] for group, names in owners.items()}
    left_out = {
        group: [type(modules[name]).__name__ for name in names if name not in wanted] for group, names in owners.items()
    }
    return Export("peft", {"peft_type": "LORA", **config}, matches, adapted, left_out)


def _adaptable(module: nn.Module) -> bool:
    return any(cls.__name__ in ADAPTABLE for cls in type(module).__mro__)


def _by_layers(wanted: Sequence[str], modules: Mapping[str, nn.Module]) -> dict[str, Any] | None:
    """Layers of one list by their indices, and what is wanted in each; None where they are no such thing."""
    found = [_layer(name, modules) for name in wanted]
    lists = {place[0] for place in found if place}
    if None in found or len(lists) != 1:
        return None
    (path,) = lists
    chosen = {place[1] for place in found if place}
    others = [
        place[2] for name in modules if name not in wanted and (place := _layer(name, modules)) and place[1] in chosen
    ]
    suffixes = _suffixes([place[2] for place in found if place], others)
    # Releases of PEFT that look for a dot before the list find one at the root only by its modules' full names.
    return {
        "target_modules": suffixes if "." in path else list(wanted),
        "layers_to_transform": sorted(map(int, chosen)),
        "layers_pattern": path.rpartition(".")[2],
    }


def _layer(name: str, modules: Mapping[str, nn.Module]) -> tuple[str, str, str] | None:
    """The outermost ModuleList a module is in, its index there and its name below: experts lie deeper."""
    parts = name.split(".")
    for depth in range(1, len(parts) - 1):
        path = ".".join(parts[:depth])
        if isinstance(modules[path], nn.ModuleList) and parts[depth].isdecimal():
            return path, parts[depth], ".".join(parts[depth + 1 :])
    return None


def _by_suffixes(wanted: Sequence[str], names: Sequence[str]) -> dict[str, Any] | None:
    found = _suffixes(wanted, [name for name in names if name not in wanted])
    return {"target_modules": found} if len(found) <= MOST_SUFFIXES else None


def _suffixes(wanted: Sequence[str], others: Sequence[str]) -> list[str]:
    """Few endings that together cover what is wanted and, where it can be avoided, nothing else.

    None begins with a number: ``0`` says nothing, ``experts.0`` does.
    """
    found: list[str] = []
    for name in wanted:
        if any(_ends(name, suffix) for suffix in found):
            continue
        parts = name.split(".")
        endings = [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1) if not parts[i].isdecimal()]
        found.append(next((e for e in endings if not any(_ends(other, e) for other in others)), name))
    return found


def _ends(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith("." + suffix)


def _alternatives(wanted: Sequence[str]) -> str:
    r"""One regular expression for exactly these names: ``layer1\.(conv1|conv2)|fc``."""
    parents: dict[str, list[str]] = {}
    for name in wanted:
        parent, _, last = name.rpartition(".")
        parents.setdefault(parent, []).append(re.escape(last))
    parts = []
    for parent, children in parents.items():
        ending = children[0] if len(children) == 1 else f"({'|'.join(children)})"
        parts.append(rf"{re.escape(parent)}\.{ending}" if parent else ending)
    return "|".join(parts)


def _peft_matches(config: Mapping[str, Any], names: Iterable[str], *, first: bool = True) -> list[str]:
    """As PEFT does it; `first`: as releases that take the first numbered part for the layer, else the last."""
    return [name for name in names if _peft_match(config, name, first=first)]


def _peft_match(config: Mapping[str, Any], name: str, *, first: bool) -> bool:
    targets = config["target_modules"]
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    if name in targets:
        return True
    if not any(name.endswith("." + target) for target in targets):
        return False
    if "layers_to_transform" not in config:
        return True
    before = r"(?:^|.*?\.)" if first else r".*\."
    layer = re.match(rf"{before}{config['layers_pattern']}\.(\d+)\.", name)
    return layer is not None and int(layer[1]) in config["layers_to_transform"]


FORMS: dict[str, Callable[[Mapping[str, list[str]], nn.Module], Export]] = {
    "peft": _peft, "axolotl": _axolotl, "json": _json,
}  # fmt: skip
FILES = {"peft": "adapter_targets.json", "axolotl": "axolotl.yaml", "json": "flagged.json"}
