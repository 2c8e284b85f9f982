"""Find which part of a trained network causes its mistakes, repair only that part, and prove the repair.

Names are imported when they are first used, so ``import suture`` is quick and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suture import bench, curvature, gradients, groups, optimizers, physics, schedules
    from suture.case import Case
    from suture.errors import SutureError
    from suture.images import ImageFormat
    from suture.integrations.monitor import DampingMonitor
    from suture.loading import load_data, load_model
    from suture.localizers import localizer
    from suture.patch import Patch, load_patch, patched
    from suture.pipeline import open_run, run
    from suture.stages.compare import Comparison, compare
    from suture.stages.diagnose import Diagnosis, diagnose
    from suture.stages.localize import Localization, localize
    from suture.stages.scan import Scan, scan
    from suture.stages.treat import Treatment, treat
    from suture.stages.verify import Verification, verify
    from suture.treatments import Plan
    from suture.views.page import report

MODULES = ("bench", "curvature", "gradients", "groups", "optimizers", "physics", "schedules")
HOMES = {
    "suture.case": ("Case",),
    "suture.errors": ("SutureError",),
    "suture.images": ("ImageFormat",),
    "suture.integrations.monitor": ("DampingMonitor",),
    "suture.loading": ("load_data", "load_model"),
    "suture.localizers": ("localizer",),
    "suture.patch": ("Patch", "load_patch", "patched"),
    "suture.pipeline": ("open_run", "run"),
    "suture.stages.compare": ("Comparison", "compare"),
    "suture.stages.diagnose": ("Diagnosis", "diagnose"),
    "suture.stages.localize": ("Localization", "localize"),
    "suture.stages.scan": ("Scan", "scan"),
    "suture.stages.treat": ("Treatment", "treat"),
    "suture.stages.verify": ("Verification", "verify"),
    "suture.treatments": ("Plan",),
    "suture.views.page": ("report",),
}
_HOME_OF = {name: home for home, names in HOMES.items() for name in names}

__all__ = [
    "Case",
    "Comparison",
    "DampingMonitor",
    "Diagnosis",
    "ImageFormat",
    "Localization",
    "Patch",
    "Plan",
    "Scan",
    "SutureError",
    "Treatment",
    "Verification",
    "bench",
    "compare",
    "curvature",
    "diagnose",
    "gradients",
    "groups",
    "load_data",
    "load_model",
    "load_patch",
    "localize",
    "localizer",
    "open_run",
    "optimizers",
    "patched",
    "physics",
    "report",
    "run",
    "scan",
    "schedules",
    "treat",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("suture")
    if name in MODULES:
        return importlib.import_module(f"suture.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'suture' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
