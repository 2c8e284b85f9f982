"""Options shared by several verbs."""

from pathlib import Path
from typing import Annotated

import typer

RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory made by suture run.", show_default=False)]
PatchArg = Annotated[
    Path, typer.Argument(metavar="PATCH", help="patch.safetensors of a treatment.", show_default=False)
]
ModelOpt = Annotated[
    str, typer.Option("--model", help="FILE.py:FUNC or package.module:func that returns an nn.Module.")
]
WeightsOpt = Annotated[
    str | None, typer.Option("--weights", help="Weights: safetensors, or a torch file without code in it.")
]
DataOpt = Annotated[
    str | None,
    typer.Option("--data", help="Folder of class folders, a zip of one, or FILE.py:FUNC; split 20/40/40 by class."),
]
ClassesOpt = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="Text file with the network's classes, one a line in the order of its outputs: numbers the class folders, "
        "of which some may be missing (default: sorted by name).",
    ),
]
LocalizersOpt = Annotated[
    str,
    typer.Option(
        "--localizers",
        help="Names separated by commas, or all (default: norm_statistics, grad_norm); the first says which group is "
        "sick.",
        show_default=False,
    ),
]
RuleOpt = Annotated[
    str,
    typer.Option(
        "--rule",
        help="How groups are flagged: pays (default); by the scores of the first localizer, then grad_norm by default: "
        "exceeds_null, top_k (3; also top_1, top_5, …), first, or above_median (the paper's).",
        show_default=False,
    ),
]
MemoryOpt = Annotated[
    str | None,
    typer.Option("--max-memory", help="What evidence may take at a time: 500MB, 2GiB, or a number of bytes."),
]
CausesOpt = Annotated[
    int | None,
    typer.Option(
        "--causes", min=0, help="For how many of the most frequent confusions Diagnose asks for causes (default 4)."
    ),
]
PlanOpt = Annotated[
    str,
    typer.Option(
        "--plan",
        help="auto (default: tries several, keeps what fixes most while at most 5 % of what is right may break), "
        "early, flagged, full, bn_affine, last_layer, bn_recalibrate, full_l2sp, ewc, distill, adam, lora, "
        "per_block, iterative, route, arachne, random_groups, none; A, B, C, D, E (the paper's); or a TOML file.",
        show_default=False,
    ),
]
BudgetOpt = Annotated[
    float | None,
    typer.Option("--budget", help="What auto may spend, in multiples of one full fine-tuning (default 3)."),
]
TwinOpt = Annotated[
    bool,
    typer.Option(
        "--twin", help="Treat once more with the examples in another order, to tell how much churn is chance."
    ),
]
BaselinesOpt = Annotated[
    bool,
    typer.Option(
        "--baselines",
        help="Carry out plain repairs too (full fine-tuning, last layer, BatchNorm, groups by lot), which Verify holds "
        "the repair against: more than one full fine-tuning on top, beside --budget.",
    ),
]
SuspectsOpt = Annotated[
    bool,
    typer.Option(
        "--exclude-suspects",
        help="Neither train nor choose on examples whose label is probably wrong, by confident learning (needs "
        "cleanlab); where the network fails for another reason, these are what a repair learns from.",
    ),
]
RequireOpt = Annotated[str | None, typer.Option("--require", help="Exit with 3 unless the verdict is: better.")]
MustKeepOpt = Annotated[
    Path | None,
    typer.Option(
        "--must-keep", help="Text file with an example a line; exit with 3 if one was right and is wrong now."
    ),
]
RegressionOpt = Annotated[
    float | None,
    typer.Option(
        "--max-regression",
        min=0,
        max=1,
        help="Exit with 3 unless the regression rate is at most this with 95 % confidence (exact one-sided bound).",
    ),
]
JUnitOpt = Annotated[
    Path | None,
    typer.Option("--junit", help="Also write the gates as JUnit XML, so that CI shows them as tests."),
]
DebugOpt = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]
NewFileOpt = Annotated[Path, typer.Option("--out", help="New weights file; existing files are never changed.")]
