"""Tasks: how a batch becomes outputs, per-example losses and per-example verdicts."""

from suture.tasks.base import TASKS, Batch, Examples, Task
from suture.tasks.classification import Classification
from suture.tasks.outcomes import Outcomes, batches, collate, evaluate, fetch, forward, plain_recurrence, to_device

__all__ = [
    "TASKS",
    "Batch",
    "Classification",
    "Examples",
    "Outcomes",
    "Task",
    "batches",
    "collate",
    "evaluate",
    "fetch",
    "forward",
    "plain_recurrence",
    "to_device",
]
