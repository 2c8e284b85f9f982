"""Logs of training runs → one table: what Scan reads.

A reader turns one kind of log into rows; the rest (names of columns, epochs, restarts, gaps) is the same for all of
them. ``READERS`` holds the readers; a further one is a file like ``huggingface.py``.
"""

from suture.history.log import READERS, History, Log, Reader
from suture.history.reading import load_history, to_history

__all__ = ["READERS", "History", "Log", "Reader", "load_history", "to_history"]
