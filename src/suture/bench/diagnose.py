"""Is the cause that Diagnose names the true one? Networks that learnt a planted shortcut, and some that learnt none."""

import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from suture.bench.examples import Pairs
from suture.bench.markdown import pipes
from suture.bench.networks import taught
from suture.bench.scenes import FAMILIES, FORMAT, World, draw_kinds, draw_world, render
from suture.case import Case
from suture.causes import Causes, confusion_pairs, find_causes, ranking
from suture.causes.intervention import UNDETERMINED
from suture.causes.margins import Pair
from suture.errors import InvalidArgumentError
from suture.registry import suggest
from suture.rundir import fingerprint
from suture.stats import wilson
from suture.tasks import Outcomes

Row = dict[str, Any]

CONTROLS = ("nothing",)
CHANCE = 1 / len(FAMILIES)  # of a family drawn blindly


@dataclass(frozen=True)
class Setting:
    """One cell's world, network and pair, drawn by seed.

    Attributes:
        planted, seed: of the cell; see `cell`.
        true, predicted: the pair of classes that is meant to be confused.
        reliability: family → the chance that a picture shows its class's own kind, in training and without conflict.
        build: () → the network at random weights.
        network: the same in words.
    """

    planted: str
    seed: int
    world: World
    true: int
    predicted: int
    reliability: Mapping[str, float]
    build: Callable[[], nn.Module]
    network: str

    def number(self, what: str) -> int:
        """A seed for one purpose."""
        return int(fingerprint(what, self.planted, self.seed)[:8], 16)


@dataclass(frozen=True)
class Shown:
    """Pictures and what they show.

    Attributes:
        kinds: (n, 4), in the order of `FAMILIES`.
        labels: (n,).
        seed: draws the rest.
    """

    kinds: Tensor
    labels: Tensor
    seed: int

    def pairs(self, world: World) -> Pairs:
        """As inputs of a network."""
        return Pairs(_inputs(render(world, self.kinds, self.seed)), self.labels)


def cell(
    planted: str,
    seed: int,
    lessons: int = 2000,
    epochs: int = 12,
    per_class: int = 60,
    directory: Path | None = None,
) -> list[Row]:
    """Teach one network, ask for the cause of its most frequent confusion, and hold it against the truth.

    Args:
        planted: the family of the shortcut: in training it tells the class without fail, and the three others do so
            in some pictures only. On the diagnosed pictures half of one class shows another's kind of it, and of
            the rest what its class usually shows. Or the control ``"nothing"``: a network with a shortcut, asked
            about a random part of one class's *right* pictures as if they were errors, of which nothing sets
            them apart.
        seed: draws classes, kinds, network, training and pictures.
        lessons: pictures to learn from.
        epochs: of the training.
        per_class: pictures of each class that are diagnosed.
        directory: where the tables of all probes are kept, ``probes.csv`` and ``examples.csv``.

    Returns:
        One row; docs/studies.md lists the columns.

    Raises:
        InvalidArgumentError: no such family or control.
    """
    setting = draw_setting(planted, seed)
    shown = _examples(setting, per_class, conflict=planted in FAMILIES)
    inputs = shown.pairs(setting.world).inputs
    examples = list(zip(inputs, shown.labels.tolist(), strict=True))
    case = Case(_taught(setting, lessons, epochs), diagnose=examples, image=FORMAT, seed=seed, device="cpu")
    found = case.outcomes("diagnose")
    row: Row = {
        "classes": setting.world.classes,
        "network": setting.network,
        "accuracy": _accuracy(case.model, _examples(setting, per_class, conflict=False).pairs(setting.world)),
        "accuracy_conflict": found.accuracy,
    }
    if planted in FAMILIES:
        pair, positions = _most_frequent(found)
    else:
        pair, positions = Pair(setting.true, setting.predicted), _any_right(found, setting)
    if pair is None or not positions:
        return [row | {"errors": 0, "mended_by": None} | _judged(planted, None, None)]
    right = found.right.copy()
    right[positions] = False  # they are no part of what they are compared with
    causes = find_causes(case, positions, pair.true, pair.predicted, right=right)
    if directory is not None:
        causes.swaps.to_csv(directory / "swaps.csv")
        causes.probes.to_csv(directory / "probes.csv")
        causes.examples.to_csv(directory / "examples.csv")
    row |= {
        "pair": f"{pair.true} > {pair.predicted}",
        "expected_pair": pair == Pair(setting.true, setting.predicted),
        "errors": len(positions),
        "cause": causes.cause,
    }
    if causes.family is not None and causes.family in causes.swaps.index:
        row |= {name: causes.swaps[name][causes.family] for name in ("excess", "low", "high", "p", "share")}
    return [row | _judged(planted, causes.family, _by_probes(causes)) | _mended(case, setting, shown, positions, pair)]


def _most_frequent(found: Outcomes) -> tuple[Pair | None, list[int]]:
    """The pair that is confused most often, and its errors."""
    assert found.targets is not None  # classification
    assert found.predictions is not None
    pairs = confusion_pairs(found.targets, found.predictions, found.right)
    if pairs.empty:
        return None, []
    pair = Pair(*(int(label) for label in pairs[["target", "predicted"]].to_numpy()[0]))
    hit = (found.targets == pair.true) & (found.predictions == pair.predicted)
    return pair, [int(i) for i in np.flatnonzero(hit)]


def _any_right(found: Outcomes, setting: Setting) -> list[int]:
    """A third of one class's right pictures, by lot."""
    members = np.flatnonzero(found.right & (found.targets == setting.true))
    drawn = np.random.default_rng(setting.number("nothing")).permutation(members)
    return sorted(int(i) for i in drawn[: len(members) // 3])


def _by_probes(causes: Causes) -> str | None:
    """The family that probes alone would name: what swaps have to beat."""
    named = ranking.cause(causes.probes)
    return None if named is None else str(causes.probes.loc[named, "family"])


def _judged(planted: str, family: str | None, by_probes: str | None) -> Row:
    truth = planted if planted in FAMILIES else None
    return {
        "named": family,
        "undetermined": family is None,
        "right": family == truth,
        "by_probes": by_probes,
        "right_by_probes": by_probes == truth,
    }


def draw_setting(planted: str, seed: int) -> Setting:
    """Everything of a cell that comes before its pictures.

    Raises:
        InvalidArgumentError: no such family or control.
    """
    known = [*FAMILIES, *CONTROLS]
    if planted not in known:
        raise InvalidArgumentError(f"nothing to plant is called '{planted}'; {suggest(planted, known)}")
    rng = np.random.default_rng(int(fingerprint("setting", planted, seed)[:8], 16))
    classes = int(rng.integers(3, 6))
    world = draw_world(classes, int(rng.integers(2**31)))
    true, predicted = (int(label) for label in rng.permutation(classes)[:2])
    shortcut = planted if planted in FAMILIES else str(rng.choice(FAMILIES))
    usual = float(rng.uniform(0.1, 0.4))
    reliability = {family: 1.0 if family == shortcut else usual for family in FAMILIES}
    name, build = _network(classes, rng)
    return Setting(planted, seed, world, true, predicted, reliability, build, name)


def _network(classes: int, rng: np.random.Generator) -> tuple[str, Callable[[], nn.Module]]:
    """A small network of a width, depth and normalisation drawn at random: what it is called, and what builds it.

    Without normalisation half of such networks do not learn a shape in a few epochs.
    """
    width, depth, norm = int(rng.choice([12, 16, 24])), int(rng.integers(2, 4)), str(rng.choice(["batch", "group"]))
    return f"{depth + 1} layers of {width}, {norm} norm", lambda: _built(width, depth, norm, classes)


def _built(width: int, depth: int, norm: str, classes: int) -> nn.Sequential:
    """Convolutions, the first with stride 2 and each later one followed by a max-pool, then means over places."""
    planes = [3, width, *(min(2 * width * i, 64) for i in range(1, depth + 1))]
    layers: dict[str, nn.Module] = {}
    for i, (before, after) in enumerate(itertools.pairwise(planes)):
        convolution = nn.Conv2d(before, after, 3 if i else 5, 1 if i else 2, padding=1 if i else 2)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        normal = nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(4, after)
        pool = [nn.MaxPool2d(2)] if i else []
        layers[f"layer{i + 1}"] = nn.Sequential(convolution, normal, nn.ReLU(), *pool)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(planes[-1], classes))
    return nn.Sequential(OrderedDict(layers, head=head))


def _taught(setting: Setting, lessons: int, epochs: int) -> nn.Module:
    labels = torch.arange(lessons) % setting.world.classes
    number = setting.number("lessons")
    kinds = draw_kinds(labels, setting.world.classes, setting.reliability, number)
    taken = Shown(kinds, labels, number).pairs(setting.world)
    return taught(setting.build, taken, epochs=epochs, seed=number % 2**31, max_lr=0.1)


def _examples(setting: Setting, per_class: int, *, conflict: bool) -> Shown:
    """Pictures nobody learnt from, half of the confused class in conflict, or none."""
    labels = torch.arange(setting.world.classes).repeat_interleave(per_class)
    number = setting.number("conflict" if conflict else "plain")
    odd = torch.zeros(len(labels), dtype=torch.bool)
    if conflict:
        odd[torch.nonzero(labels == setting.true)[: max(1, per_class // 2), 0]] = True
    kinds = draw_kinds(labels, setting.world.classes, setting.reliability, number)
    if setting.planted in FAMILIES:
        kinds[odd, FAMILIES.index(setting.planted)] = setting.predicted
    return Shown(kinds, labels, number)


def _mended(case: Case, setting: Setting, shown: Shown, positions: list[int], pair: Pair) -> Row:
    """What the network itself says, asked with pictures drawn again: each family alone as the true class has it.

    `mended`: the share of the errors that are then right, for the family of which that is most; `mended_by`: that
    family, None when none is right; `moved_by`: the family that moves the margin most; `mended_planted`: the share
    for the planted one.
    """
    shares, margins = {}, {}
    for i, family in enumerate(FAMILIES):
        kinds = shown.kinds.clone()
        kinds[:, i] = shown.labels
        with torch.no_grad():
            scores = case.model(_inputs(render(setting.world, kinds, shown.seed)[positions]))
        shares[family] = float((scores.argmax(1) == pair.true).float().mean())
        margins[family] = float((scores[:, pair.true] - scores[:, pair.predicted]).mean())
    best = max(shares, key=lambda family: shares[family])
    return {
        "mended": shares[best],
        "mended_by": best if shares[best] else None,
        "moved_by": max(margins, key=lambda family: margins[family]),
        "mended_planted": shares.get(setting.planted),
    }


def _inputs(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (FORMAT.mean, FORMAT.std))
    return (pictures - mean) / std


def _accuracy(model: nn.Module, examples: Pairs) -> float:
    with torch.no_grad():
        return float((model(examples.inputs).argmax(1) == examples.targets).float().mean())


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, str | bytes]:
    """Files of a finished study: a line per family, one for all families, a line per control, one for all controls.

    `n`: cells; `right`: how many got the right answer, with its share and its 95 % interval (Wilson); `probes`: how
    many probes alone get right; `named`: how many got one of the four families; `chance`: the share that would be
    right were these given one blindly, missing for controls; `answers`: what was said, with how often; `learnt`:
    cells in which the network itself says that the planted family mends most errors; `accuracy`,
    `accuracy_conflict`, `errors`: means.
    """
    table = pd.DataFrame(rows)
    if not len(table) or "planted" not in table:
        return {}
    lines = []
    for planted in (FAMILIES, CONTROLS):
        present = [name for name in planted if (table["planted"] == name).any()]
        lines += [_line(name, table[table["planted"] == name]) for name in present]
        if len(present) > 1:
            what = "all families" if planted == FAMILIES else "all controls"
            lines.append(_line(what, table[table["planted"].isin(planted)]))
    found = pd.DataFrame(lines)
    body = [[str(_told(name, value)) for name, value in line.items()] for line in found.to_dict("records")]
    text = pipes(list(found.columns), body)
    return {"summary.csv": found.to_csv(index=False), "summary.md": text}


def _line(what: str, members: pd.DataFrame) -> Row:
    right, n = int(members["right"].sum()), len(members)
    named = int(members["named"].isin(FAMILIES).sum())
    interval = wilson(right, n)
    answers = Counter(members["named"].fillna(UNDETERMINED))
    control = bool(members["planted"].isin(CONTROLS).all())
    learnt = None if control else int((members["mended_by"] == members["planted"]).sum())
    return {
        "planted": what, "n": n, "right": right, "share": right / n, "low": interval.low, "high": interval.high,
        "probes": int(members["right_by_probes"].sum()), "named": named,
        "chance": None if control else CHANCE * named / n,
        "answers": ", ".join(f"{name} x{times}" for name, times in answers.most_common()),
        "learnt": learnt, "accuracy": members["accuracy"].mean(),
        "accuracy_conflict": members["accuracy_conflict"].mean(), "errors": members["errors"].mean(),
    }  # fmt: skip


def _told(name: object, value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if name == "learnt":  # a missing value makes the column one of fractions
        return f"{value:.0f}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
