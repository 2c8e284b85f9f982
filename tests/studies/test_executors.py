"""Executors do every task once, whatever the others do; workers have one thread and die alone."""

import multiprocessing
import os

import pytest

from suture.errors import InvalidArgumentError, UnknownNameError
from suture.studies.cells import attempt, tasks
from suture.studies.executors import EXECUTORS, executor
from suture.studies.grid import Cell

HERE = "tests.studies.functions:"


def todo(folder, function, *xs):
    return tasks(HERE + function, [Cell({"x": x}, {"x": x}) for x in xs], folder)


def test_one_after_another_a_failure_stops_no_other(tmp_path):
    waiting = todo(tmp_path, "some_fail", 1, 2, 3, 4)
    ended = [(task.cell.point["x"], reason) for task, reason in EXECUTORS["inline"](waiting, 1)]
    assert ended == [(1, None), (2, "ValueError: two is too much"), (3, "SystemExit: 7"), (4, None)]
    assert [task.rows() for task in waiting] == [[{"x": 1, "y": 1}], None, None, [{"x": 4, "y": 4}]]


def test_in_processes_a_task_that_takes_its_process_down_fails_alone(tmp_path):
    waiting = [*todo(tmp_path, "dies", 1, 2, 3, 4), *todo(tmp_path, "some_fail", 2)]
    ended = {task.directory.name: reason for task, reason in EXECUTORS["processes"](waiting, 2)}
    assert [ended[task.directory.name] for task in waiting] == [
        None,
        "the process exited with code 9",
        "the process was killed by signal 9; out of memory?",
        None,
        "ValueError: two is too much",
    ]
    assert [task.rows() is not None for task in waiting] == [True, False, False, True, False]
    assert (waiting[1].directory / "error.txt").read_text() == "the process that did this cell exited with code 9\n"


def test_workers_have_one_thread_do_several_tasks_and_stop_when_told(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    waiting = todo(tmp_path, "threads", 1, 2, 3)
    running = EXECUTORS["processes"](waiting, 1)
    assert [next(running)[1], next(running)[1]] == [None, None]
    running.close()
    assert multiprocessing.active_children() == []
    rows = [task.rows()[0] for task in waiting[:2]]
    assert {(row["torch"], row["omp"]) for row in rows} == {(1, "1")}
    assert len({row["pid"] for row in rows}) == 1
    assert rows[0]["pid"] != os.getpid()
    assert waiting[2].rows() is None


def test_nothing_to_do_starts_nothing():
    assert [list(EXECUTORS[name]([], 2)) for name in ("inline", "processes")] == [[], []]
    assert multiprocessing.active_children() == []


def test_executors_enter_by_the_registry(tmp_path):
    with pytest.raises(UnknownNameError, match=r"no executor is called 'procesess'; did you mean 'processes'\?"):
        EXECUTORS["procesess"]
    with pytest.raises(InvalidArgumentError, match="exists already"):
        executor("inline")(lambda tasks, jobs: iter(()))
    try:

        @executor("backwards")
        def backwards(tasks, jobs):
            for task in reversed(tasks):
                yield task, attempt(task)

        order = [task.cell.point["x"] for task, _ in EXECUTORS["backwards"](todo(tmp_path, "square", 1, 2), 1)]
        assert order == [2, 1]
    finally:
        EXECUTORS._things.pop("backwards")
