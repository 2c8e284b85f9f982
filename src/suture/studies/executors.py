"""Executors: where cells are done. One of your own, such as a cluster's, is a function and a line::

    @executor("mine")
    def mine(tasks, jobs):
        for task in tasks:
            yield task, attempt(task)     # attempt(task) may run wherever task.directory can be written

It is a generator: it takes the tasks that are not finished and how many may run at a time, and yields each with
the sentence of why it failed, or None, in whatever order they end. A task that fails never keeps it from the others.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from suture.registry import Registry
from suture.studies.cells import Task, attempt, record_failure

Ended = tuple[Task, str | None]
Executor = Callable[[Sequence[Task], int], Generator[Ended]]

EXECUTORS: Registry[Executor] = Registry("executor")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def executor(name: str) -> Callable[[Executor], Executor]:
    """Decorator that registers an executor."""
    return EXECUTORS.register(name)


@executor("inline")
def inline(tasks: Sequence[Task], jobs: int) -> Generator[Ended]:
    """One after another in this process; `jobs` is not used."""
    for task in tasks:
        yield task, attempt(task)


@executor("processes")
def processes(tasks: Sequence[Task], jobs: int) -> Generator[Ended]:
    """In `jobs` fresh processes of this machine with one thread each.

    A cell that kills its process (out of memory, a crash in native code) fails alone: another process takes
    its place. Workers end with this process, however it ends.
    """
    waiting, idle, busy = deque(tasks), list[_Worker](), dict[Any, tuple[_Worker, Task]]()
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                task = waiting.popleft()
                worker = _handed_to(idle, task)
                busy[worker.pipe] = worker, task
            for pipe in connection.wait(list(busy)):
                worker, task = busy.pop(pipe)
                try:
                    reason = worker.pipe.recv()
                except (EOFError, OSError):
                    yield task, _died(worker, task)
                else:
                    idle.append(worker)
                    yield task, reason
    finally:
        for worker in (*idle, *(worker for worker, _ in busy.values())):
            worker.stop()


@dataclass(frozen=True)
class _Worker:
    process: Any
    pipe: Any

    @classmethod
    def start(cls) -> "_Worker":
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks and the GPU's state
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,))
        process.start()
        theirs.close()  # the end of the file is seen only when nobody holds this end any more
        return cls(process, ours)

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _handed_to(idle: list[_Worker], task: Task) -> _Worker:
    """A worker that has been given the task: one that waits, unless it died while it waited, or a new one."""
    while True:
        fresh = not idle
        worker = _Worker.start() if fresh else idle.pop()
        try:
            worker.pipe.send(task)
        except OSError:
            worker.stop()
            if fresh:
                raise
        else:
            return worker


def _serve(pipe: Any) -> None:
    """The life of a worker."""
    os.environ.update(dict.fromkeys(THREADS, "1"))  # libraries that are loaded from here on read it
    if "torch" in sys.modules:  # the user's main module may have brought it
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it too, and stops its workers
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(task))


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody is there to be told of the result


def _died(worker: _Worker, task: Task) -> str:
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode
    how = f"was killed by signal {-code}; out of memory?" if code < 0 else f"exited with code {code}"
    return record_failure(task, f"the process {how}", f"the process that did this cell {how}\n")
