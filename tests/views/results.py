"""Results and run directories made by hand: an ordinary one, and each way in which one can be odd."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from suture.patch import Patch
from suture.rundir import write_json
from suture.stages.diagnose import Diagnosis
from suture.stages.drift import Drift
from suture.stages.localize import Localization
from suture.stages.result import Result
from suture.stages.scan import Scan, scan
from suture.stages.treat import Treatment
from suture.stages.verify import Verification
from suture.stats import Flips, Interval, Verdict, mcnemar, net_interval, ratio_interval, upper_bound, wilson
from suture.treatments import Choice, Cost, Plan
from suture.treatments.choice import COLUMNS
from suture.treatments.route import Route
from suture.treatments.search import Search

SCRIPT = "<script>document.title='ran'</script>"
HOSTILE = [
    SCRIPT,
    '"><img src=x onerror="document.title=\'ran\'">',
    "n" * 200,
    r"$x_$ \frac{1}{2}$ [bold]no[/] {{ 7 * 7 }} | `code`",
    "猫 🐈 Ω\u202eesrever\x1b[31m\x01\nnext line",
]
UNWRITABLE = "\udcff\x00"  # a file name that is no UTF-8 gives lone surrogates
NAN = float("nan")
CLASSES = ["cat", "dog", "ship"]


def scanned(length: int = 12, **changes: Any) -> Scan:
    """A scan of a cosine schedule."""
    lr = 0.1 * (1 + np.cos(np.pi * np.arange(length) / length)) / 2 + 1e-4
    found = scan(pd.DataFrame({"epoch": range(1, length + 1), "lr": lr, "momentum": 0.9}))
    return _with(found, changes)


def localized(groups: list[str] | None = None, **changes: Any) -> Localization:
    """Scores of three groups; the last is on top."""
    groups = groups or ["conv1", "layer1", "fc"]
    n = len(groups)
    size = np.arange(1.0, n + 1) * 100
    norm = np.arange(1.0, n + 1)
    scores = pd.DataFrame({"grad_norm": norm, "relative": norm / 10, "rms": norm / size**0.5}, index=groups)
    gain, first = np.linspace(0.1, 0.2, n), np.array([0.07 / n] * (n - 1) + [0.93])
    found = Localization(
        scores=scores, low=scores * 0.9, high=scores * 1.1, first_share=scores * 0 + first[:, None],
        pays=pd.DataFrame({"gain": gain, "low": gain / 2, "high": gain * 1.5}, index=groups), confidence=0.93,
        why="Because.", cost={"grad_norm": 0.5, "nulls": 1.0, "rms": 0.0},
        null_correct=scores / 20, null_random=scores.iloc[::-1].set_axis(groups) / 50,
        flagged=groups[n // 2 + n % 2 :], top=groups[-1], rule="above_median", n=100, n_errors=20, n_null=20,
        accuracy=0.8,
        groups={group: [f"{group}.weight"] for group in groups},
        examples=pd.DataFrame({"right": [True, False], "loss": [0.1, 2.0], "target": [0, 1], "predicted": [0, 0]}),
    )  # fmt: skip
    return _with(found, changes)


def localized_by_record(**changes: Any) -> Localization:
    """The default: the network's own record says which of three groups is sick, gradients stand beside it."""
    found = localized()
    scores = pd.DataFrame({"norm_statistics": [0.5, 4.0, float("nan")], "grad_norm": found.scores["grad_norm"]})
    nulls = {
        name: getattr(found, name).reindex(columns=scores.columns)
        for name in ("low", "high", "first_share", "null_correct", "null_random")
    }
    why = "What arrives at layer1.bn is not what it was."
    return _with(found, {"scores": scores, "top": "layer1", "confidence": 0.97, "why": why, **nulls} | changes)


def localized_without_errors() -> Localization:
    """What Localize says of a model that is always right."""
    nothing = localized().scores * float("nan")
    return localized(
        scores=nothing,
        null_correct=nothing,
        null_random=nothing,
        flagged=[],
        top=None,
        n_errors=0,
        n_null=0,
        accuracy=1.0,
    )


def diagnosed(classes: list[str] | None = None, groups: list[str] | None = None, *, pictures: bool = True) -> Diagnosis:
    """Each class taken for the next one; the first confusion has a group and a cause; a slice and suspects by class."""
    classes, groups = classes or CLASSES, groups or ["fc"]
    n = len(classes)
    true, predicted = classes, classes[1:] + classes[:1]
    confusion = pd.DataFrame({
        "true": true, "predicted": predicted, "count": range(n + 2, 2, -1), "share": 0.5 / n, "expected": 2.5,
    })  # fmt: skip
    pairs = confusion.assign(
        group=[groups[i % len(groups)] for i in range(n)], score=0.5, null=0.4, ratio=[1.25] + [float("nan")] * (n - 1),
        low=1.1, high=1.5, p=[0.01] + [1.0] * (n - 1), stands_out=[True] + [False] * (n - 1),
    )  # fmt: skip
    names = [f"{t} → {p}" for t, p in zip(true, predicted, strict=True)]
    two = [{"true": t, "predicted": p} for t, p in zip(true[:2], predicted[:2], strict=True)]
    found = [{"n": 9, "probe": "blur", "excess": 2.5, "low": 1.0, "high": 4.0, "share": 0.7}]
    causes = [
        two[0] | found[0] | {"family": "texture", "by": "swap", "p": 0.002, "group": groups[0], "carried": 0.9,
                             "beyond": 2.3},
        two[1] | found[0] | {"family": None, "by": None, "p": 0.4, "group": None, "carried": None, "beyond": None},
    ]  # fmt: skip
    probes = [
        pair | {"probe": probe, "family": family, "share": share, "stands_out": pair is two[0] and probe == "blur"}
        for pair in two
        for probe, family, share in (("gray", "colour", -0.4), ("blur", "texture", 0.7), ("tiles_2", "shape", NAN))
    ]
    swaps = [
        two[0] | {"family": family, "n_true": 9, "n_errors": 8, "change": 3.0, "chance": 0.5, "excess": 2.5, "low": 1.0,
                  "high": 4.0, "p": 0.002, "share": 0.7, "stands_out": family == "texture"}
        for family in ("texture", "colour")
    ]  # fmt: skip
    through = [
        two[0] | {"group": group, "effect": 2.4, "share": 0.9, "random": 0.1, "excess": 2.3, "excess_low": 1.0,
                  "excess_high": 3.0}
        for group in groups
    ]  # fmt: skip
    return Diagnosis(
        pairs=pairs, confusion=confusion, exemplars=pd.DataFrame([two[0] | {"kind": "typical", "position": 0}]),
        n_errors=int(confusion["count"].sum()), causes=pd.DataFrame(causes), swaps=pd.DataFrame(swaps),
        probes=pd.DataFrame(probes), through=pd.DataFrame(through), **_sliced(classes, names), **_suspected(classes),
        pictures={name: noise(2, 8, 8, 1) for name in [*names, *_slices(classes), "suspects"]} if pictures else {},
        changed={names[0]: noise(2, 8, 8, 1)} if pictures else {},
    )  # fmt: skip


def _slices(classes: list[str]) -> list[str]:
    return [f"slice {i} {name if name in HOSTILE else ''}".strip() for i, name in enumerate(classes, start=1)]


def _sliced(classes: list[str], confusions: list[str]) -> dict[str, Any]:
    """A slice per class; the first has a trait and a change that helps, and of the last nothing more is known."""
    names = _slices(classes)
    slices = pd.DataFrame({
        "slice": names, "n": 89, "errors": 41, "rate": 41 / 89, "low": 0.36, "high": 0.56, "rate_outside": 0.18,
        "p": 0.0004, "classes": [f"{confusion} (12)" for confusion in confusions[:-1]] + [""],
    })  # fmt: skip
    traits = {"slice": names[:1], "column": classes[0], "value": classes[-1], "count": 38, "n": 89,
              "share_outside": 0.09, "p": 0.001, "text": SCRIPT}  # fmt: skip
    probes = {"slice": names[:2], "probe": ["brightness", "blur"], "family": ["other", "texture"], "n": 41,
              "change": [-0.9, -0.1], "low": [-1.2, -0.3], "high": [-0.6, 0.1], "elsewhere": [-0.2, NAN]}  # fmt: skip
    values = pd.DataFrame({
        "column": classes, "value": classes[::-1], "n": 46, "errors": 39, "rate": 39 / 46, "low": 0.72, "high": 0.92,
        "rate_outside": 0.06, "p": 0.0001,
    })  # fmt: skip
    by_metadata = {"subgroups": values, "values_tested": 12}
    return by_metadata | {"slices": slices, "slice_traits": pd.DataFrame(traits), "slice_probes": pd.DataFrame(probes)}


def _suspected(classes: list[str]) -> dict[str, Any]:
    """Some labels of `diagnose` and `repair` that are probably wrong."""
    suspects = pd.DataFrame({
        "split": ["diagnose", "repair"] * len(classes), "position": range(2 * len(classes)),
        "name": [f"{name}.png" for name in classes * 2], "label": classes * 2,
        "suggested": classes[1:] * 2 + classes[:1] * 2, "confidence": 0.02,
        "suggested_confidence": 0.9,
    })  # fmt: skip
    return {"suspects": suspects, "n_suspects": {"diagnose": len(classes), "repair": 1200, "select": 0},
            "n_judged": {"diagnose": 220, "repair": 3000, "select": 90}}  # fmt: skip


def diagnosed_without_classes(n_errors: int = 5) -> Diagnosis:
    """What Diagnose says where a task has no predictions, or a model no errors."""
    empty = pd.DataFrame({"true": [], "predicted": [], "count": [], "share": []})
    return Diagnosis(pairs=empty, confusion=empty, n_errors=n_errors)


def treated(groups: list[str] | None = None, **changes: Any) -> Treatment:
    """Three epochs that were kept."""
    base, result = "a" * 64, "b" * 64
    found = Treatment(
        plan=Plan(name="A"), kept="A", groups=groups or ["fc"],
        history=pd.DataFrame({
            "epoch": [1, 2, 3], "lr": [0.01, 0.005, 0.0001], "momentum": [0.8, 0.86, 0.98], "loss": [0.5, 0.4, 0.35],
            "accuracy": [0.8, 0.85, 0.9], "seconds": [1.0, 1.0, 1.0],
        }),
        cost=Cost(3.0, 3, 300, 600, 1, 3, 4e9, 1e10),
        tried=pd.DataFrame({"candidate": ["none", "A"], "fixed": [0, 9], "broken": [0, 2], "net": [0, 7]}),
        note="A fixed 9 and broke 2 of 'select' and was kept",
        patch=Patch({"fc.weight": torch.ones(3)}, base, result, "A"),
        undo=Patch({"fc.weight": torch.zeros(3)}, result, base, "undo of A"),
    )  # fmt: skip
    return _with(found, changes)


def searched(plans: list[str] | None = None, **changes: Any) -> Treatment:
    """Some plans, each at several weights; of the first the second weight was kept, and the last was given up."""
    plans = plans or ["early", "full", "bn_affine"]
    weights, right = (1.0, 0.5), 80
    rows: list[list[Any]] = [["none", 0.0, 0, 0, 0, upper_bound(0, right), True, 0.0]]
    for i, plan in enumerate(plans[:-1]):
        for weight in weights:
            fixed, broken = round((30 - i % 20) * weight), 3 if weight == 1 else 0
            bound = upper_bound(broken, right)
            name = plan if weight == 1 else f"{plan} x {weight:g}"
            rows.append([name, weight, fixed, broken, fixed - broken, bound, bound <= 0.05, fixed - 2.0 * broken])
    history = pd.concat([
        pd.DataFrame({"plan": plan, "epoch": range(1, n + 1), "lr": 0.01, "momentum": 0.9,
                      "loss": np.linspace(1.2, 0.2 + 0.1 * i, n), "accuracy": 0.9, "seconds": 0.1})
        for i, plan in enumerate(plans) for n in [2 if plan == plans[-1] else 8]
    ], ignore_index=True)  # fmt: skip
    tried = pd.DataFrame(rows, columns=COLUMNS[: len(rows[0])])
    kept = f"{plans[0]} x 0.5"
    found = treated(
        plan=Plan(
            name="auto", how=Search(plans=tuple(Plan(name=plan) for plan in plans)),
            choose=Choice(max_regression=0.05, broken_costs=2.0),
        ),
        kept=kept, tried=tried, history=history, cost=Cost(4.0, 18, 600, 600, 3, 3, 1.6e10, 1.8e10, 1.5, 2e9),
        note=f"{kept} fixed 15 and broke 0 of the 100 examples of 'select' and was kept",
        account=[f"after a quarter of the epochs {plans[-1]} was given up", f"{plans[-1]}: no epoch was completed"],
        warnings=["3 examples of 'repair' have a twin with another label; check those labels"],
    )  # fmt: skip
    return _with(found, changes)


def routed() -> Treatment:
    """The original and the treated network together, with a twin."""
    rows: list[list[Any]] = [["none", 0.0, 0, 0, 0, 0.03, True, 0.0]]
    for margin, fixed, broken in ((-0.2, 12, 2), (0.0, 9, 0), (0.1, 6, 0)):
        rows.append([f"full by {margin:+g}", 1.0, fixed, broken, fixed - broken, 0.03, True, float(fixed - broken)])
    found = treated()
    return replace(
        found, plan=Plan(name="route", how=Route(plan=Plan(name="full"))), kept="full by -0.2", twin=found.patch,
        tried=pd.DataFrame(rows, columns=COLUMNS[: len(rows[0])]), patch=replace(found.patch, margin=-0.2),
        undo=replace(found.undo, margin=-0.2),
    )  # fmt: skip


def cycled() -> Treatment:
    """Three cycles, of which the second was kept."""
    once = treated().history
    return treated(
        plan=Plan(name="iterative", cycles=3), kept="iterative, cycle 2",
        history=pd.concat([once, once.assign(loss=once["loss"] / 2)], ignore_index=True),
        tried=pd.DataFrame([
            ["none", 0.0, 0, 0, 0, 0.03, True, 0.0], ["iterative", 1.0, 9, 2, 7, 0.1, True, 7.0],
            ["iterative, cycle 2", 1.0, 12, 2, 10, 0.1, True, 10.0],
        ], columns=COLUMNS[:8]),
        account=["cycle 3: no group was flagged any more"],
    )  # fmt: skip


def untreated() -> Treatment:
    """Nothing was flagged, so nothing was tried."""
    base = "a" * 64
    return treated(
        kept="none", groups=[], history=pd.DataFrame(), cost=Cost(),
        note="no group was flagged, so there is nothing to treat",
        tried=pd.DataFrame({"candidate": ["none"], "fixed": [0], "broken": [0], "net": [0]}),
        patch=Patch({}, base, base, "none"), undo=Patch({}, base, base, "undo of none"),
    )  # fmt: skip


def verified(
    classes: list[str] | None = None, moves: Flips | None = None, verdict: Verdict = Verdict.BETTER, **changes: Any
) -> Verification:
    """Before against after; by default 30 fixed and 6 broken of 200."""
    classes = classes or CLASSES
    m = moves or Flips(fixed=30, broken=6, both_right=144, both_wrong=20)
    successor = classes[1:] + classes[:1]
    gallery = [["fixed", f"{t}/1.png", t, p, t] for t, p in zip(classes, successor, strict=True)]
    gallery += [["broken", f"{t}/2.png", t, t, p] for t, p in zip(classes, successor, strict=True)]
    found = Verification(
        n=m.n, accuracy_before=m.right_before / m.n, accuracy_after=m.right_after / m.n,
        interval_before=wilson(m.right_before, m.n), interval_after=wilson(m.right_after, m.n),
        fixed=m.fixed, broken=m.broken, net=m.net, net_interval=net_interval(m), p_value=mcnemar(m.fixed, m.broken),
        verdict=verdict, sentence=f"{str(verdict).capitalize()}: on {m.n} unseen examples this was seen.",
        negative_flip_rate=m.negative_flip_rate, regression_rate=m.regression_rate,
        regression_bound=upper_bound(m.broken, m.right_before), churn=0.2, optimistic=False,
        per_class=pd.DataFrame({
            "class": classes, "n": 66, "before": 0.75, "after": [0.9, *[0.7] * (len(classes) - 1)],
            "fixed": 5, "broken": 3, "p": 0.73, "adjusted": 1.0, "word": "",
        }),
        pairs=pd.DataFrame({
            "true": classes, "predicted": successor, "before": 9, "after": 4, "change": -5, "left": 8, "joined": 3,
            "p": 0.23, "adjusted": 0.69, "word": "",
        }),
        ratio_interval=ratio_interval(m.fixed, m.broken),
        gallery=pd.DataFrame(gallery, columns=["kind", "example", "true", "before", "after"]),
        pictures={"fixed": noise(len(classes), 8, 8, 1), "broken": noise(len(classes), 32, 32, 3)},
    )  # fmt: skip
    return _with(found, changes)


def verified_in_full(classes: list[str] | None = None, **changes: Any) -> Verification:
    """With everything that may be asked for: a slice and a class beyond chance, drift, a twin, examples to keep."""
    found = verified(classes)
    names = list(found.per_class["class"])
    slices = pd.DataFrame({
        "slice": [f"night = {name}" for name in names], "n": 60, "before": 0.8, "after": 0.6, "fixed": 1, "broken": 13,
        "p": 0.0018, "adjusted": 0.0036, "word": "worse",
    })  # fmt: skip
    word = ["better"] + [""] * (len(names) - 1)
    best = found.per_class.assign(adjusted=[0.0001] + [1.0] * (len(names) - 1), word=word)
    drift = Drift(
        n=500, kl=0.0123, kl_interval=Interval(0.01, 0.015), changed=0.02, changed_interval=wilson(10, 500),
        accuracy_before=0.9, accuracy_after=0.892, interval_before=wilson(450, 500), interval_after=wilson(446, 500),
        fixed=2, broken=6, p_value=mcnemar(2, 6),
    )  # fmt: skip
    plans = ["auto", "full", *names]
    beside = pd.DataFrame({
        "plan": plans, "kept": ["auto x 0.5", "full", *["none"] * len(names)], "accuracy": 0.87, "fixed": 30,
        "broken": 6, "net": [24, 40, *[13] * len(names)], "regression_rate": 0.04,
        "times_full": [2.9, 1.0, *[np.nan] * len(names)],
        "won": [np.nan, 4, *[12] * len(names)], "lost": [np.nan, 20, *[1] * len(names)],
        "p": [np.nan, 0.0015, *[0.0034] * len(names)], "adjusted": [np.nan, 0.006, *[0.0102] * len(names)],
        "word": [None, "worse", *["better"] * len(names)],
    })  # fmt: skip
    return _with(found, {
        "baselines": beside,
        "per_slice": slices, "per_class": best, "drift": drift, "churn_floor": 0.15, "looks": 2, "must_keep": 12,
        "broken_must_keep": names[:2], "wrong_must_keep": names[2:3], "slices_left_out": ["file"],
    } | changes)  # fmt: skip


def verified_long_ago() -> Verification:
    """What a suture gave that knew nothing of corrected p, ratios and drift."""
    found = verified()
    plain = ["class", "n", "before", "after", "fixed", "broken"]
    return _with(found, {
        "per_class": found.per_class[plain], "pairs": found.pairs[["true", "predicted", "before", "after", "change"]],
        "ratio_interval": None,
    })  # fmt: skip


def verified_without_classes() -> Verification:
    """A task of the user's own: verdicts and nothing else."""
    gallery = pd.DataFrame(
        [["fixed", "example 3", None, None, None], ["broken", "example 9", None, None, None]],
        columns=["kind", "example", "true", "before", "after"],
    )
    return verified(
        per_class=pd.DataFrame(columns=["class", "n", "before", "after", "fixed", "broken"]),
        pairs=pd.DataFrame(columns=["true", "predicted", "before", "after", "change"]),
        gallery=gallery, pictures={}, churn=None,
    )  # fmt: skip


def verified_unchanged() -> Verification:
    """After an empty patch."""
    return verified(
        moves=Flips(fixed=0, broken=0, both_right=180, both_wrong=20), verdict=Verdict.NO_CHANGE,
        sentence="No measurable change: the patch is empty.", churn=0.0, net_interval=Interval(0.0, 0.0),
        gallery=pd.DataFrame(columns=["kind", "example", "true", "before", "after"]), pictures={},
        pairs=pd.DataFrame({"true": ["cat"], "predicted": ["dog"], "before": [9], "after": [9], "change": [0]}),
    )  # fmt: skip


def write_run(path: Path, *results: Result, **case: Any) -> Path:
    """A run directory that holds the given results."""
    write_json(path / "case.json", CASE | case)
    for result in results:
        result.save(path / result.stage, key="k")
    return path


CASE: dict[str, Any] = {
    "schema": 1,
    "asked": {
        "model": "/home/somebody/net.py:build", "weights": "/home/somebody/net.safetensors",
        "data": "/home/somebody/photos.zip", "groups": "top", "task": "classification", "seed": 42,
    },
    "identity": {
        "weights": "c" * 64, "task": "classification", "groups": {"fc": ["fc.weight"]}, "protocol": "split", "seed": 42,
    },
    "splits": {"diagnose": 100, "repair": 150, "select": 50, "verify": 200},
    "device": "cpu",
    "created": "2026-01-02T03:04:05+00:00",
    "versions": {"suture": "0.1.0", "torch": "2.9.0"},
}  # fmt: skip


def hostile_run(path: Path) -> Path:
    """A run in which every name is hostile."""
    results = (
        scanned(source=f"/logs/{HOSTILE[0]}"),
        localized(HOSTILE),
        diagnosed(HOSTILE, HOSTILE),
        searched(HOSTILE, groups=HOSTILE, note=SCRIPT, account=HOSTILE, warnings=HOSTILE),
        verified_in_full(HOSTILE, optimistic=True, looks=3, slices_left_out=HOSTILE),
    )
    asked = CASE["asked"] | {"model": f"/x/{SCRIPT}", "data": HOSTILE[4] + UNWRITABLE}
    identity = CASE["identity"] | {"task": SCRIPT, "protocol": "paper"}
    return write_run(path, *results, asked=asked, identity=identity, device=SCRIPT)


def noise(*shape: int) -> Any:
    """Pictures (k, h, w, c)."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _with(result: Any, changes: dict[str, Any]) -> Any:
    return replace(result, **changes)
