"""Logs of Lightning's CSVLogger: sparse rows, of which those with a learning rate have no epoch.

``LearningRateMonitor`` writes a row of its own (``lr-SGD``, ``lr-SGD-momentum``) whose epoch is blank; it belongs to
the epoch of the next row that has one. That is how blank epochs are filled in every log, so the rest is CSV.
"""

from collections.abc import Mapping
from pathlib import Path

from suture.errors import DataError
from suture.history.log import READERS, Log, Reader
from suture.history.tables import read_csv

METRICS = "metrics.csv"


def find_metrics(path: Path) -> Path | None:
    """``metrics.csv`` of a version, or of the only version in ``lightning_logs``.

    Raises:
        DataError: there are several versions.
    """
    if path.is_file():
        return path if path.name == METRICS else None
    if (path / METRICS).is_file():
        return path / METRICS
    versions = sorted(path.glob(f"version_*/{METRICS}")) or sorted(path.glob(f"*/version_*/{METRICS}"))
    if len(versions) > 1:
        names = ", ".join(str(version.parent.relative_to(path)) for version in versions[:5])
        raise DataError(f"{path} holds {len(versions)} training logs ({names}{', …' * (len(versions) > 5)}); name one")
    return versions[0] if versions else None


def read_metrics(path: Path, chosen: Mapping[str, str]) -> Log:
    """Read ``metrics.csv``; see `suture.history.tables.read_csv`."""
    return read_csv(path, chosen)


READERS.register("lightning")(Reader(find_metrics, read_metrics, METRICS))
