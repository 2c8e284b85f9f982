"""Experiment trackers that a training's history can be logged to."""

from pathlib import Path

from suture.errors import InvalidArgumentError

# TensorBoard is an extra, and heavy: it is imported when a logger is made.
# ruff: noqa: PLC0415


class TensorBoard:
    """Writes every column of a history as a scalar, by epoch.

    Raises:
        InvalidArgumentError: TensorBoard is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InvalidArgumentError(
                "TensorBoard is not installed; pip install 'suture[trackers]', or leave out --tensorboard"
            ) from error
        self._writer = SummaryWriter(str(directory))

    def log(self, row: dict[str, float]) -> None:
        """Record one epoch; the file is flushed, so that nothing is lost when the process is killed."""
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()
