"""Cells for the tests of the engine, reached as ``tests.studies.functions:name`` or as a file."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np


def square(x: int, shift: float = 0.0) -> dict[str, float]:
    """A cell that says what it does and leaves a mark that it was done, where the environment asks for it."""
    print(f"x is {x}")
    print("to the other stream", file=sys.stderr)
    if "SUTURE_TEST_CALLS" in os.environ:
        with open(os.environ["SUTURE_TEST_CALLS"], "a") as calls:
            calls.write(f"{x}\n")
    return {"y": x * x + shift}


def killer(x: int) -> dict[str, float]:
    """The same; at x = 3 it kills, if the environment names it, this process or the one above it."""
    row = square(x)
    if x == 3 and "SUTURE_TEST_KILL" in os.environ:
        victim = os.getpid() if os.environ["SUTURE_TEST_KILL"] == "self" else os.getppid()
        os.kill(victim, signal.SIGKILL)
        signal.pause()
    return row


def some_fail(x: int) -> dict[str, int]:
    if x == 2:
        raise ValueError("two\nis too much")
    if x == 3:
        sys.exit(7)
    return {"y": x}


def dies(x: int) -> dict[str, int]:
    if x == 2:
        os._exit(9)
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"y": x}


def interrupted(x: int) -> dict[str, int]:
    if x == 2:
        raise KeyboardInterrupt
    return {"y": x}


def threads(x: int) -> dict[str, Any]:
    import torch

    return {"pid": os.getpid(), "torch": torch.get_num_threads(), "omp": os.environ["OMP_NUM_THREADS"]}


def several(n: int) -> list[dict[str, Any]]:
    return [{"i": i, "even": i % 2 == 0} for i in range(n)]


def kinds(kind: str) -> Any:
    """One return value of every kind, good and bad."""
    return {
        "numpy": {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.array(2.0), "e": np.str_("s")},
        "missing": {"nan": float("nan"), "inf": np.float64("inf"), "none": None},
        "nothing": None,
        "number": 3,
        "mixed": [{"a": 1}, 2],
        "nested": {"a": [1, 2]},
        "numbered": {1: 2},
        "axis": {"kind": "again"},
        "empty": [],
    }[kind]


def keeps_files(directory: Path, x: int) -> dict[str, bool]:
    again = (directory / "half.txt").exists()
    (directory / "half.txt").write_text("here")
    return {"again": again}


def reads(path: str) -> dict[str, str]:
    return {"content": Path(path).read_text()}


def anything(**parameters: Any) -> dict[str, int]:
    return {"n": len(parameters)}


NOT_A_FUNCTION = 3
