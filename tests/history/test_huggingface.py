"""Hugging Face's trainer_state.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from suture.errors import DataError
from suture.history import History, load_history

RECORDS: list[dict[str, Any]] = [
    {"epoch": 0.5, "grad_norm": 12.39, "learning_rate": 4.002e-05, "loss": 0.45, "step": 50},
    {"epoch": 1.0, "grad_norm": 8.42, "learning_rate": 3.002e-05, "loss": 0.35, "step": 100},
    {"epoch": 1.0, "eval_accuracy": 0.81, "eval_loss": 0.4, "eval_runtime": 9.1, "step": 100},
    {"epoch": 1.5, "grad_norm": 5.64, "learning_rate": 2.002e-05, "loss": 0.3, "step": 150},
    {"epoch": 2.0, "grad_norm": 4.97, "learning_rate": 1.002e-05, "loss": 0.2, "step": 200},
    {"epoch": 2.0, "eval_accuracy": 0.86, "eval_loss": 0.3, "eval_runtime": 9.0, "step": 200},
    {"epoch": 2.0, "step": 200, "total_flos": 1.3e15, "train_loss": 0.325, "train_runtime": 812.4},
]
STATE = {"best_metric": None, "epoch": 2.0, "global_step": 200, "log_history": RECORDS, "max_steps": 200}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "trainer_state.json"
    path.parent.mkdir()
    path.write_text(json.dumps(STATE, indent=2))
    return path


def check(history: History) -> None:
    assert history.table.to_dict("list") == {
        "epoch": [1, 2], "lr": [4.002e-05, 2.002e-05], "momentum": [0.9, 0.9], "loss": pytest.approx([0.4, 0.25]),
        "accuracy": [0.81, 0.86],
    }  # fmt: skip
    assert history.columns["accuracy"] == "eval_accuracy"


def test_records_become_epochs_and_the_default_optimizer_is_said(state: Path) -> None:
    for source in (state, state.parent, str(state)):
        history = load_history(source)
        check(history)
        assert (history.optimizer, history.preconditioned) == ("AdamW", True)
        assert history.assumed == (
            "the log names no optimizer; AdamW, the usual one, is assumed; no beta1 was logged; 0.9 is assumed"
        )
    history = load_history(state, optimizer="sgd")
    assert not history.preconditioned
    assert history.assumed == "no momentum was logged; 0.9 is assumed"


def test_the_newest_checkpoint_is_read(state: Path) -> None:
    for step, records in ((100, RECORDS[:3]), (20, RECORDS[:1]), (200, RECORDS)):
        folder = state.parent / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps(STATE | {"log_history": records}))
    state.unlink()
    check(load_history(state.parent))
    assert len(load_history(state.parent / "checkpoint-100").table) == 1


def test_a_loss_that_is_nan_is_kept_as_missing_and_said(state: Path) -> None:
    text = state.read_text().replace('"loss": 0.3,', '"loss": NaN,')
    state.write_text(text)
    history = load_history(state)
    assert history.table["loss"].tolist() == pytest.approx([0.4, 0.2])
    assert "1 of 6 values of 'loss' cannot be used and counts as missing (row 4: 'nan')" in history.notes


def test_cut_off_anywhere_the_whole_records_are_read(state: Path) -> None:
    text = json.dumps({"log_history": RECORDS})
    ends = [text.index(json.dumps(record)) + len(json.dumps(record)) for record in RECORDS]
    for length in range(0, len(text), 3):
        state.write_text(text[:length])
        try:
            history = load_history(state)
        except DataError:
            assert length < ends[0]
            continue
        whole = sum(end <= length for end in ends)
        assert f"the file is cut off or damaged; its first {whole} records were read" in history.notes
    state.write_text(text)
    check(load_history(state))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b"[1, 2]", "has no 'log_history'"),
        (b'{"log_history": 3}', "has no 'log_history'"),
        (b'{"log_history": []}', "holds no record"),
        (b'{"log_history": [{"total_flos": 1}]}', "holds no record"),
        (b'{"log_history": [{"loss": 1, "epoch": 1}]}', "no column 'lr' but loss, epoch"),
        (b'{"log_history": [{"learning_rate": "x"}]}', "'learning_rate' of row 1 is 'x'"),
        (b'{"log_history": [{"learning_rate": -1}]}', "'learning_rate' of row 1 is '-1'"),
        (b'{"log_history": [{"learning_rate": 0.1, "epoch": 1' + b"0" * 400 + b"}]}", "'epoch' of row 1"),
        (b"[" * 100_000, "is no JSON"),
    ],
    ids=["empty", "binary", "list", "number", "no records", "summary", "no lr", "text", "negative", "huge", "deep"],
)
def test_what_is_no_trainer_state(state: Path, content: bytes, part: str) -> None:
    state.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_history(state)
    assert part in str(caught.value)
    assert str(state) in str(caught.value)


def test_a_mark_before_the_json_is_no_damage(state: Path) -> None:
    state.write_text(json.dumps(STATE), encoding="utf-8-sig")
    history = load_history(state)
    check(history)
    assert not any("damaged" in note for note in history.notes)
