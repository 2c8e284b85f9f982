"""Errors that nobody planted: a healthy network on shifted pictures. What is named, how stably, and does it pay?"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from suture.bench.answers import ask, asked_for
from suture.bench.examples import Pairs
from suture.bench.localize import Row, cache_of, case_of, flagged_row
from suture.bench.markdown import pipes
from suture.bench.networks import Subject, load_subject
from suture.bench.oracle import consult, gains, judged
from suture.registry import Registry
from suture.rundir import fingerprint
from suture.tasks import evaluate
from suture.views.text import points

Shift = Callable[[Tensor, Generator], Tensor]
SHIFTS: Registry[Shift] = Registry("shift")
"""Name → pictures (n, c, h, w) in [0, 1] → the same pictures, shifted."""

# Treating in full takes more to learn from, and what it gains is small, so more to score on.
IN_FULL = {"diagnose": 1000, "oracle_train": 1500, "oracle_score": 2400}
IN_FULL_FEW = {"diagnose": 500, "oracle_train": 350, "oracle_score": 450}
ENOUGH = sum(IN_FULL.values())

BLUR, NOISE = 1.1, 0.16  # standard deviations: of the blur in pixels, of the noise in units of [0, 1]


@SHIFTS.register("none")
def none(pictures: Tensor, generator: Generator) -> Tensor:
    """As they are: for CIFAR networks, JPEG pictures after training on clean ones."""
    return pictures


@SHIFTS.register("camera")
def camera(pictures: Tensor, generator: Generator) -> Tensor:
    """Blurred and noisy, as from a cheap camera: the shift of ``suture demo``."""
    return noise(blur(pictures, generator), generator)


@SHIFTS.register("blur")
def blur(pictures: Tensor, generator: Generator) -> Tensor:
    """A Gaussian blur with a standard deviation of 1.1 pixels."""
    reach = torch.arange(-3.0, 4.0)
    weights = torch.exp(-(reach**2) / (2 * BLUR**2))
    channels = pictures.shape[1]
    kernel = (weights / weights.sum()).expand(channels, 1, 1, -1)
    padded = F.pad(pictures, (3, 3, 3, 3))
    return F.conv2d(F.conv2d(padded, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


@SHIFTS.register("noise")
def noise(pictures: Tensor, generator: Generator) -> Tensor:
    """Gaussian noise of 0.16."""
    return pictures + NOISE * torch.randn(pictures.shape, generator=generator)


@SHIFTS.register("contrast")
def contrast(pictures: Tensor, generator: Generator) -> Tensor:
    """Two fifths of the contrast."""
    mean = pictures.mean((1, 2, 3), keepdim=True)
    return mean + 0.4 * (pictures - mean)


def shifted(subject: Subject, examples: Pairs, shift: str, seed: int, part: str = "") -> Pairs:
    """Examples of a network as they look under a shift.

    Raises:
        UnknownNameError: no such shift.
    """
    how = SHIFTS[shift]
    mean, std = (torch.tensor(values)[:, None, None] for values in (subject.image.mean, subject.image.std))
    generator = Generator().manual_seed(int(fingerprint(shift, part, seed)[:15], 16))
    seen = how(examples.inputs * std + mean, generator).clamp(0, 1)
    return Pairs((seen - mean) / std, examples.targets)


def cell(
    network: str,
    shift: str,
    seed: int,
    record: str = "none",
    data: str = "",
    weights: str = "",
    localizers: Sequence[str] = (),
    directory: Path | None = None,
) -> list[Row]:
    """Ask every localizer about a network's errors under a shift, and the oracle about its answers.

    Args:
        network, seed, record, data, weights, localizers, directory: as for `suture.bench.localize.cell`; the seed
            draws the examples, so agreement between seeds tells how stable an answer is.
        shift: a name in `SHIFTS`; every pool is shifted alike.

    Returns:
        A row per localizer with what it named, whether it raised an alarm, the share of resamples that name the
        same, and the oracle's columns; a row ``flagged`` for the groups that Localize would treat, and a row ``all``
        for treating every group.
    """
    subject = load_subject(network, data, weights, cache_of(directory))
    names = asked_for(localizers, reference=record == "reference")
    pools = {
        name: shifted(subject, pool, shift, seed, name)
        for name, pool in subject.pools(seed, IN_FULL if len(subject.held_out) > ENOUGH else IN_FULL_FEW).items()
    }
    case = case_of(subject.model, subject, pools["diagnose"], record, seed)
    learn, score = pools["oracle_train"], pools["oracle_score"]
    alone = consult(subject.model, learn, score, case.task, seed, in_full=True)
    flagged = flagged_row(case, "")
    sets = [flagged.pop("chosen"), list(case.groups)]
    together = gains(subject.model, sets, learn, score, case.task, seed, in_full=True)
    rows = list[Row]()
    for answer in ask(case, names):
        chosen = [answer.named] if answer.named is not None else []
        gained = float(alone[answer.named]) if answer.named is not None else None
        said = {"named": answer.named, "alarm": answer.alarm, "confidence": answer.confidence, "passes": answer.passes}
        row: Row = {"localizer": answer.localizer, **said, "error": answer.error or None}
        rows.append(row | judged(chosen, gained, alone))
    rows.append(flagged | judged(sets[0], together[0], alone))
    everything: Row = {"localizer": "all", "named": None, "error": None}
    rows.append(everything | judged(sets[1], together[1], alone))
    found = evaluate(subject.model, pools["diagnose"], case.task, device=case.device, name="the shifted examples")
    known = {
        "groups": len(case.groups),
        "accuracy": found.accuracy,
        "gains": ", ".join(f"{group} {gain:+.4f}" for group, gain in alone.items()),
    }
    return [{k: v for k, v in row.items() if k != "planted"} | known for row in rows]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, str | bytes]:
    """Files of a finished study: per network, shift and localizer, over seeds.

    `n`: seeds with an answer, errors aside; `names`: what it names, with how often, most frequent first (for
    ``flagged`` the sets); `agreement`: share of seeds that name the first of these; `alarm`, `confidence`,
    `gain_share`, `enough`: means over seeds.
    """
    if not rows:
        return {}
    chapters = ("Does treating what is flagged pay?", by_case(rows)), ("What is named", by_localizer(rows))
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in chapters if body)
    return {"summary.csv": _over_seeds(rows).to_csv(index=False), "summary.md": text}


def by_case(rows: Sequence[Mapping[str, Any]]) -> str:
    """The best group, what Localize flags, and what treating this and everything gains over that of the best."""
    told = {(row["network"], row["shift"], row["seed"], row["localizer"]): row for row in rows}
    body = []
    for (network, shift, seed, localizer), row in told.items():
        if localizer == "flagged":
            everything = told.get((network, shift, seed, "all"), {})
            body.append([
                network, shift, str(seed), f"{row['best']} ({points(row['best_gain'])})", str(row["flagged"] or "none"),
                _shown(row["gain_share"]), _shown(everything.get("gain_share")),
            ])  # fmt: skip
    head = ["network", "shift", "seed", "best group (gain)", "flagged", "its gain over that of the best", "all groups"]
    return pipes(head, body) if body else ""


def by_localizer(rows: Sequence[Mapping[str, Any]]) -> str:
    """What every localizer names over seeds, how stably, and what treating that gains over the best group's gain."""
    table = _over_seeds(rows)
    keys = [key for key in ("network", "shift") if table[key].nunique() > 1]
    told = {
        "localizer": "localizer", "n": "seeds", "names": "names", "agreement": "same in seeds",
        "confidence": "in resamples", "gain_share": "gain over that of the best", "enough": "every one at least 90 %",
    }  # fmt: skip
    columns = dict.fromkeys(keys) | told
    table["localizer"] = "`" + table["localizer"] + "`"
    body = [[_shown(value) for value in line] for line in table[list(columns)].to_numpy(object)]
    return pipes([told.get(name, name) for name in columns], body)


TABLES = {"by_case": by_case, "by_localizer": by_localizer}
"""Name → table in Markdown, from rows of ``bench/natural``."""


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    lines = []
    keys = ["network", "shift", "localizer"]
    for key, members in pd.DataFrame(rows).groupby(keys, sort=False):
        answered = members[members["error"].isna()]
        column = "flagged" if key[2] == "flagged" and "flagged" in members else "named"
        named = Counter("none" if pd.isna(name) or not name else str(name) for name in answered[column])
        common = named.most_common()
        means = {
            name: float(pd.to_numeric(answered[name]).mean()) if answered[name].notna().any() else None
            for name in ("alarm", "confidence", "gain_share", "enough")
        }
        known = key[2] != "all" and bool(common)
        line = {"n": len(answered), "names": ", ".join(f"{name} x{times}" for name, times in common) if known else ""}
        agreement = common[0][1] / len(answered) if known else None
        lines.append(dict(zip(keys, key, strict=True)) | line | {"agreement": agreement} | means)
    return pd.DataFrame(lines)


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
