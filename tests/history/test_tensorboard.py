"""TensorBoard event files, as PyTorch writes them, whole and cut off anywhere."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suture.errors import DataError, InvalidArgumentError
from suture.history import History, load_history

pytest.importorskip("tensorboard")

Scalars = Mapping[str, Sequence[tuple[int, float]]]
LR = [0.1, 0.05, 0.01]
RUN: Scalars = {
    "lr": list(enumerate(LR, start=1)),
    "momentum": [(1, 0.9), (2, 0.85), (3, 0.8)],
    "loss/train": [(1, 2.0), (2, 1.0), (3, 0.5)],
    "accuracy/test": [(1, 0.3), (2, 0.5), (3, 0.6)],
}


def write(folder: Path, scalars: Scalars = RUN, *, new_style: bool = False, more: Any = None, begun: int = 0) -> Path:
    """An event file, by step as a training writes it; its start is set so that files have an order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder), filename_suffix=f".{begun}")
        for step in sorted({s for points in scalars.values() for s, _ in points}):
            for tag, points in scalars.items():
                for value in (v for s, v in points if s == step):
                    writer.add_scalar(tag, value, step, new_style=new_style)
        if more:
            more(writer)
        writer.close()
    found = max(folder.glob("*tfevents*"), key=lambda p: p.stat().st_mtime_ns)
    named = folder / f"events.out.tfevents.{1_700_000_000 + begun}.host.1.{begun}"
    return found.rename(named)


def check(history: History) -> None:
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert history.table["lr"].tolist() == pytest.approx(LR)
    assert history.table["momentum"].tolist() == pytest.approx([0.9, 0.85, 0.8])
    assert history.table["loss"].tolist() == pytest.approx([2.0, 1.0, 0.5])
    assert history.table["accuracy"].tolist() == pytest.approx([0.3, 0.5, 0.6])
    assert history.columns["accuracy"] == "accuracy/test"


@pytest.mark.parametrize("new_style", [False, True])
def test_a_run_is_read_from_its_file_or_directory(tmp_path: Path, new_style: bool) -> None:
    file = write(tmp_path / "run", new_style=new_style)
    check(load_history(file))
    check(load_history(file.parent))
    check(load_history(tmp_path))
    check(load_history(file.rename(tmp_path / "renamed.bin")))


def test_other_things_in_an_event_file_are_passed_over(tmp_path: Path) -> None:
    def more(writer: Any) -> None:
        writer.add_text("config", "lr: 0.1", 1)
        writer.add_histogram("weights", np.arange(9.0), 1)
        writer.add_image("picture", np.zeros((3, 4, 4), np.uint8), 1)

    check(load_history(write(tmp_path, more=more)))


def test_what_suture_train_writes(tmp_path: Path) -> None:
    from suture.integrations.trackers import TensorBoard

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = TensorBoard(tmp_path)
        for i, lr in enumerate(LR, start=1):
            logger.log(
                {"epoch": i, "lr": lr, "momentum": 0.9, "loss": 1 / i, "accuracy": 0.2, "test_accuracy": 0.1 * i}
            )
        logger._writer.close()
    (tmp_path / "training.json").write_text('{"recipe": {"optimizer": "sgd"}}')
    history = load_history(tmp_path)
    assert history.table["lr"].tolist() == pytest.approx(LR)
    assert history.table["accuracy"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert history.optimizer == "sgd"


def test_steps_become_epochs_by_a_tag_or_by_their_number(tmp_path: Path) -> None:
    steps = range(0, 60, 5)
    scalars = {"lr-SGD": [(s, LR[s // 20]) for s in steps], "train_loss_step": [(s, 60.0 - s) for s in steps]}
    tagged = load_history(write(tmp_path / "a", scalars | {"epoch": [(s, s // 20) for s in steps]}))
    counted = load_history(write(tmp_path / "b", scalars), steps_per_epoch=20)
    ended = load_history(write(tmp_path / "c", scalars | {"val_acc": [(19, 0.1), (39, 0.2), (59, 0.3)]}))
    for history in (tagged, counted, ended):
        assert history.table["epoch"].tolist() == [1, 2, 3]
        assert history.table["lr"].tolist() == pytest.approx(LR)
        assert history.table["loss"].tolist() == pytest.approx([52.5, 32.5, 12.5])
        assert history.optimizer == "SGD"
    assert ended.table["accuracy"].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_keras_writes_two_directories(tmp_path: Path) -> None:
    write(tmp_path / "train", {"epoch_learning_rate": list(enumerate(LR)), "epoch_loss": [(0, 3), (1, 2), (2, 1)]})
    write(tmp_path / "validation", {"epoch_accuracy": [(0, 0.1), (1, 0.2), (2, 0.3)], "epoch_loss": [(0, 9)]})
    history = load_history(tmp_path)
    assert history.table["loss"].tolist() == [3, 2, 1]
    assert history.table["accuracy"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert history.columns["accuracy"] == "validation/epoch_accuracy"


def test_of_several_runs_one_must_be_named(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"holds 2 training logs \(first, second\); name one"):
        load_history(tmp_path)
    check(load_history(tmp_path / "second"))


def test_a_resumed_run_replaces_what_was_logged_before(tmp_path: Path) -> None:
    write(tmp_path, {"lr": [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]}, begun=9)  # 9 comes before 10
    write(tmp_path, {"lr": [(3, 0.5), (4, 0.6)]}, begun=10)
    history = load_history(tmp_path)
    assert history.table["lr"].tolist() == pytest.approx([0.1, 0.2, 0.5, 0.6])
    assert "'lr' goes back to earlier steps, as after a restart" in "; ".join(history.notes)
    assert "2 before them left out" in "; ".join(history.notes)


def test_files_that_share_steps_but_not_tags_are_one_run(tmp_path: Path) -> None:
    write(tmp_path, {"lr": RUN["lr"], "momentum": RUN["momentum"]}, begun=1)
    write(tmp_path, {"loss/train": RUN["loss/train"], "accuracy/test": RUN["accuracy/test"]}, begun=2)
    check(load_history(tmp_path))


def test_nan_is_missing_and_said(tmp_path: Path) -> None:
    history = load_history(write(tmp_path, {**RUN, "loss/train": [(1, 2.0), (2, float("nan")), (3, 0.5)]}))
    assert history.table["loss"].isna().tolist() == [False, True, False]
    assert "1 of 3 values of 'loss/train' cannot be used and counts as missing (step 2: 'nan')" in history.notes


def test_cut_off_at_any_byte_what_stands_before_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, {"lr": RUN["lr"], "loss/train": RUN["loss/train"]})
    whole = file.read_bytes()
    path = tmp_path / "cut.tfevents"
    file.unlink()
    seen: dict[int, int] = {}
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            history = load_history(path)
        except DataError as error:
            said, rows = str(error), 0
        else:
            said, rows = "; ".join(history.notes), len(history.table)
            assert history.table["lr"].tolist() == pytest.approx(LR[:rows])
        if rows:
            seen.setdefault(rows, length)
            assert ("is cut off after" in said) == (length not in ends(whole))
    assert list(seen) == [1, 2, 3]
    path.write_bytes(whole)
    assert len(load_history(path).table) == 3


def ends(data: bytes) -> set[int]:
    """Where records end."""
    found, place = set(), 0
    while place < len(data):
        place += 16 + int.from_bytes(data[place : place + 8], "little")
        found.add(place)
    return found


def test_damage_is_said_and_costs_no_more_than_the_damaged(tmp_path: Path) -> None:
    file = write(tmp_path)
    whole = bytearray(file.read_bytes())
    last = sorted(ends(bytes(whole)))[-2]
    for place, part, rows in (
        (last + 20, "a record of events.out.tfevents.1700000000.host.1.0 is damaged and was left out", 3),
        (last + 2, "is damaged after 12 records; what stands before was read", 3),
        (last + 9, "is damaged after 12 records", 3),
    ):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        history = load_history(file)
        assert len(history.table) == rows
        assert part in "; ".join(history.notes)


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "holds no scalars"), (b"\x00" * 100, "holds no scalars; log.tfevents is damaged after 0 records"),
     (bytes(range(200)), "damaged after 0 records"), (b"text\n", "cut off after 0 records")],
    ids=["empty", "zeros", "binary", "text"],
)  # fmt: skip
def test_what_is_no_event_file(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "log.tfevents").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_history(tmp_path / "log.tfevents")
    assert part in str(caught.value)


def test_without_a_learning_rate_the_nearest_tag_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'lr' but train/lrate; if 'train/lrate' is it"):
        load_history(write(tmp_path, {"train/lrate": RUN["lr"]}))


def test_impossible_values_name_their_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'lr' of step 2 is '-1\.0', no learning rate"):
        load_history(write(tmp_path, {"lr": [(1, 0.1), (2, -1.0)]}))


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InvalidArgumentError, match=r"pip install 'suture\[trackers\]'"):
        load_history(file)
