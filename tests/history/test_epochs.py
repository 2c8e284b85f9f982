"""Rows that are steps become epochs; logs that go back lose what was given up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suture.errors import DataError
from suture.history import History, load_history

STEPS = 10
LR = [0.1, 0.06, 0.02]


def log(**columns: Sequence[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def notes(history: History) -> str:
    return "; ".join(history.notes)


def by_step(**extra: Any) -> pd.DataFrame:
    """Three epochs of ten steps."""
    n = len(LR) * STEPS
    return pd.DataFrame({"lr": np.repeat(LR, STEPS), "loss": np.arange(n, 0.0, -1), **extra})


WHOLE = np.repeat([0, 1, 2], STEPS)
BOUNDARIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "epoch from 0": ({"epoch": WHOLE}, {}),
    "epoch from 1": ({"epoch": WHOLE + 1}, {}),
    "fraction done": ({"epoch": np.arange(1, 31) / STEPS}, {}),
    "fraction from 0": ({"epoch": np.arange(30) / STEPS}, {}),
    "epoch and steps per epoch": ({"epoch": WHOLE + 1}, {"steps_per_epoch": 7}),
    "epoch and step that starts again": ({"epoch": WHOLE + 1, "iter": np.tile(np.arange(STEPS), 3)},
                                         {"steps_per_epoch": STEPS}),
    "one epoch throughout": ({"epoch": 0, "step": np.arange(30)}, {"steps_per_epoch": STEPS}),
    "step that starts again, of so many": ({"step": np.tile(np.arange(STEPS), 3)}, {"steps_per_epoch": STEPS}),
    "step from 0": ({"step": np.arange(30)}, {"steps_per_epoch": STEPS}),
    "step from 1": ({"step": np.arange(1, 31)}, {"steps_per_epoch": STEPS}),
    "rows": ({}, {"steps_per_epoch": STEPS}),
    "batch": ({"batch": np.tile(np.arange(STEPS), 3)}, {}),
    "step that starts again": ({"step": np.tile(np.arange(STEPS), 3)}, {}),
    "epoch and batch": ({"epoch": WHOLE, "batch": np.tile(np.arange(STEPS), 3)}, {}),
    "blank epochs": ({"epoch": np.where(np.arange(30) % STEPS == STEPS - 1, WHOLE, np.nan)}, {}),
    "held-out accuracy": ({"step": np.arange(30), "val_acc": [a if s % 10 == 9 else None for s, a in
                                                               zip(range(30), range(30), strict=True)]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDARIES)
def test_boundaries_of_epochs_are_given_or_inferred(name: str) -> None:
    extra, arguments = BOUNDARIES[name]
    history = load_history(by_step(**extra), **arguments)
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert history.table["lr"].tolist() == LR
    assert history.table["loss"].tolist() == [25.5, 15.5, 5.5]
    assert "an epoch has several rows" in notes(history)
    if name == "held-out accuracy":
        assert "an epoch is taken to end where 'val_acc' was logged, every 10 steps" in notes(history)
        assert history.table["accuracy"].tolist() == pytest.approx([0.09, 0.19, 0.29])


def test_a_column_of_epochs_counts_more_than_the_steps_per_epoch() -> None:
    history = load_history(log(epoch=[1, 2, 3], lr=LR), steps_per_epoch=391)
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert notes(history) == "epochs are those of 'epoch', so the steps per epoch were not needed"


def test_the_end_of_the_last_epoch_begins_no_further_one() -> None:
    fraction = np.arange(31) / STEPS
    for end in (3.0, 3 + 1e-12, 3 - 1e-12):
        history = load_history(log(epoch=[*fraction[:-1], end], lr=0.1, loss=fraction))
        assert history.table["epoch"].tolist() == [1, 2, 3]
        assert history.table["loss"].tolist() == pytest.approx([0.45, 1.45, 2.5])
    assert load_history(log(epoch=[0, 0.5, 1, 1.5, 2.5], lr=0.1)).table["epoch"].tolist() == [1, 2, 3]


def test_a_test_after_the_training_is_no_epoch_of_it() -> None:
    blank = [None] * 3
    history = load_history(
        log(epoch=[0, 1, 2, 3, 3], lr=[*LR, None, None], val_acc=[0.4, 0.5, 0.6, None, None],
            test_acc=[*blank, 0.5, None], test_loss=[*blank, 1.0, None], train_loss=[3.0, 2.0, 1.0, None, None])
    )  # fmt: skip
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert "1 epoch at the end logged neither lr nor a curve and was left out" in notes(history)
    kept = load_history(log(epoch=[1, 2, 3], lr=[0.1, None, None], loss=[3.0, 2.0, 1.0]))
    assert kept.table["epoch"].tolist() == [1, 2, 3]
    alone = load_history(log(epoch=[1, 2, 3], lr=[0.1, None, None]))
    assert alone.table["epoch"].tolist() == [1, 2, 3]


def test_every_so_many_steps() -> None:
    for first in (0, 49, 50):
        step = np.arange(first, 1000 + (first > 0), 50)
        history = load_history(log(step=step, lr=0.1), steps_per_epoch=200)
        assert history.table["epoch"].tolist() == [1, 2, 3, 4, 5]


def test_without_a_hint_each_step_counts_and_that_is_said() -> None:
    history = load_history(log(step=[0, 1, 2], lr=LR))
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert "each logged step counts as an epoch" in notes(history)
    history = load_history(log(step=[100, 200, 300, 350], lr=[*LR, None], loss=[3, 2, 1, 0]))
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert "1 steps without a learning rate were left out" in notes(history)


def test_an_epoch_starts_with_its_first_positive_learning_rate() -> None:
    """A schedule set per step and the same one set per epoch agree; a warm-up from 0 does not count as one."""
    history = load_history(
        log(epoch=[1, 1, 1, 2, 2, 2], lr=[0, 0.01, 0.1, 0.09, 0.05, 0.02], momentum=[0.5, 0.6, 0.7, 0.8, 0.9, 0.95],
            accuracy=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], curvature=[None, 2.0, 9.0, 3.0, 4.0, 5.0])
    )  # fmt: skip
    assert history.table.to_dict("list") == {
        "epoch": [1, 2], "lr": [0.01, 0.09], "momentum": [0.5, 0.8], "accuracy": pytest.approx([0.2, 0.5]),
        "curvature": [2.0, 3.0],
    }  # fmt: skip


def test_of_held_out_accuracy_the_last_counts() -> None:
    history = load_history(log(epoch=[1, 1, 2, 2], lr=0.1, test_accuracy=[0.1, 0.3, None, 0.5]))
    assert history.table["accuracy"].tolist() == [0.3, 0.5]


def test_a_schedule_logged_by_step_and_by_epoch_is_the_same() -> None:
    t = np.arange(20 * STEPS)
    lr = 0.05 * (1 + np.cos(np.pi * t / len(t)))
    by_steps = load_history(log(epoch=t // STEPS, lr=lr))
    by_epochs = load_history(log(epoch=np.arange(20), lr=lr[::STEPS]))
    assert by_steps.table["lr"].tolist() == by_epochs.table["lr"].tolist()


# Logs that go back


def test_after_a_restart_the_later_rows_count() -> None:
    history = load_history(log(epoch=[1, 2, 3, 4, 3, 4, 5], lr=[9, 8, 7, 6, 3, 2, 1]))
    assert history.table["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert history.table["lr"].tolist() == [9, 8, 3, 2, 1]
    assert "the log goes back once (from epoch 4 to 3), as after a restart" in notes(history)
    assert "2 before them left out" in notes(history)


def test_what_a_run_had_beyond_its_restart_is_left_out() -> None:
    history = load_history(log(epoch=[1, 2, 3, 4, 5, 6, 3, 4], lr=[8, 7, 6, 5, 4, 3, 2, 1]))
    assert history.table["lr"].tolist() == [8, 7, 2, 1]


def test_several_restarts() -> None:
    history = load_history(log(epoch=[1, 2, 3, 2, 3, 4, 1, 2], lr=[8, 7, 6, 5, 4, 3, 2, 1]))
    assert history.table["lr"].tolist() == [2, 1]
    assert "goes back 2 times (first from epoch 3 to 2)" in notes(history)


def test_a_restart_within_an_epoch_shows_in_the_steps() -> None:
    history = load_history(log(epoch=[0, 0, 1, 1, 1, 1, 2], step=[0, 5, 10, 15, 10, 15, 20], lr=[1, 1, 1, 1, 2, 2, 2]))
    assert history.table["lr"].tolist() == [1, 2, 2]
    history = load_history(log(step=[1, 2, 3, 2, 3, 4], lr=[1, 1, 1, 2, 2, 2]))
    assert history.table["lr"].tolist() == [1, 2, 2, 2]


def test_an_epoch_logged_twice_counts_once() -> None:
    history = load_history(log(epoch=[1, 2, 3, 3, 4], lr=[5, 4, 3, None, 1], loss=[5, 4, 3, 2, 1]))
    assert history.table["lr"].tolist() == [5, 4, 3, 1]
    assert history.table["loss"].tolist() == [5, 4, 2, 1]
    assert "1 epoch logged more than once" in notes(history)


def test_rows_out_of_order_are_sorted() -> None:
    history = load_history(log(epoch=[3, 2, 1], lr=[3, 2, 1]))
    assert history.table["lr"].tolist() == [1, 2, 3]
    assert "the rows were not in order of 'epoch' and were sorted" in notes(history)


def test_what_is_no_log_of_one_run_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"'epoch' goes back 19 times in 40 rows \(first from 2 to 1\), so this is no log of one"
    ):
        load_history(log(epoch=[1, 2] * 20, lr=0.1))


@pytest.mark.parametrize(
    ("name", "words"), [("run", ["a", "b"]), ("phase", ["train", "val"]), ("split", ["train", "val", None])]
)
def test_runs_and_phases_side_by_side_are_refused(name: str, words: list[Any]) -> None:
    n = len(words)
    table = log(epoch=np.repeat([1, 2, 3], n), lr=0.1, loss=1.0, **{name: words * 3})
    first, second = words[:2]
    with pytest.raises(
        DataError, match=rf"'{name}' is '{first}' and '{second}' in the same epochs \(first 1\), so this .* by '{name}'"
    ):
        load_history(table)
    assert len(load_history(table[table[name] == first]).table) == 3
    with pytest.raises(DataError, match=f"split it by '{name}'"):
        load_history(table.drop(columns="loss"))


WORDS = {
    "times": [f"2024-01-01 10:{i:02}" for i in range(30)],
    "time left": [f"0:0{i % STEPS}" for i in range(30)],
    "progress": [f"{i % STEPS}/{STEPS}" for i in range(30)],
    "answers": [str(i % 2 == 0) for i in range(30)],
    "truth": [i % 2 == 0 for i in range(30)],
    "numbers": [i % 3 for i in range(30)],
    "one word": ["cuda"] * 30,
    "now and then": ["saved" if i == 17 else "on" for i in range(30)],
    "by epoch": np.repeat(["warm-up", "high", "low"], STEPS),
    "remarks": [f"remark {i}" for i in range(30)],
    "blank": [None] * 30,
}


@pytest.mark.parametrize("name", WORDS)
def test_other_words_tell_no_runs_apart(name: str) -> None:
    assert len(load_history(by_step(epoch=WHOLE, said=WORDS[name])).table) == 3


def test_events_that_log_different_things_are_one_run() -> None:
    table = log(
        event=["train", "train", "val"] * 3, epoch=np.repeat([1, 2, 3], 3), lr=[0.1, 0.09, None] * 3,
        train_loss=[1.0, 2.0, None] * 3, val_acc=[None, None, 0.5] * 3,
    )  # fmt: skip
    history = load_history(table)
    assert history.table["loss"].tolist() == [1.5] * 3
    assert history.table["accuracy"].tolist() == [0.5] * 3


def test_gaps_are_said() -> None:
    assert "3 of the epochs 1 to 21 were logged" in notes(load_history(log(epoch=[1, 11, 21], lr=0.1)))


@settings(max_examples=60, deadline=None)
@given(
    begun=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    lengths=st.lists(st.integers(3, 9), min_size=5, max_size=5),
)
def test_after_any_restarts_epochs_increase_and_the_last_run_is_whole(begun: list[int], lengths: list[int]) -> None:
    begun[0] = 1
    runs = [range(start, start + n) for start, n in zip(begun, lengths, strict=False)]
    epoch = [e for run in runs for e in run]
    tag = [float(i + 1) for i, run in enumerate(runs) for _ in run]
    table = load_history(log(epoch=epoch, lr=tag)).table
    assert (np.diff(table["epoch"]) > 0).all()
    last = runs[-1]
    if len(set(epoch)) < len(epoch):
        assert table["epoch"].iloc[-1] == last[-1]
        assert (table["lr"][table["epoch"] >= last[0]] == tag[-1]).all()
    assert set(table["epoch"]) <= set(epoch)
