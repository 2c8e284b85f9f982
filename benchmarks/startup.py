"""Seconds until `suture --help` has answered and `import suture` is done, against a bare Python.

    python benchmarks/startup.py [--rounds N] > startup.json

Every round starts each program once, in turn, so that a slow moment of the machine meets all of them.
Exits with 1 when a goal is missed.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOALS = {"suture --help": 0.5}  # seconds
PROGRAMS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import suture": [sys.executable, "-c", "import suture"],
    "suture --help": [str(Path(sys.executable).with_name("suture")), "--help"],
}


def seconds(rounds: int) -> dict[str, float]:
    """Median seconds of each program, from start to exit."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for round_ in range(rounds + 1):  # the first warms the caches of the file system
        for name, words in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True)
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    measured = seconds(arguments.rounds)
    bare = measured["python -c pass"]
    report = {
        "benchmark": "startup",
        "rounds": arguments.rounds,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "seconds": measured,
        "ratio": {name: value / bare for name, value in measured.items()},
        "goals": GOALS,
        "met": all(measured[name] <= goal for name, goal in GOALS.items()),
    }
    print(json.dumps(report, indent=2))
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
