"""Lightning's metrics.csv, as CSVLogger and LearningRateMonitor write it."""

from pathlib import Path

import pytest

from suture.errors import DataError
from suture.history import load_history

# LearningRateMonitor(logging_interval="epoch", log_momentum=True), log_every_n_steps=4, 10 steps per epoch.
BY_EPOCH = """\
epoch,lr-SGD,lr-SGD-momentum,step,train_loss_epoch,train_loss_step,val_acc,val_loss
,0.1,0.9,0,,,,
0,,,3,,2.3,,
0,,,7,,2.1,,
0,,,9,,,0.31,2.0
0,,,9,2.2,,,
,0.05,0.85,10,,,,
1,,,11,,1.9,,
1,,,15,,1.7,,
1,,,19,,1.5,,
1,,,19,,,0.52,1.4
1,,,19,1.7,,,
,0.01,0.8,20,,,,
2,,,23,,1.2,,
"""
# logging_interval="step": an lr row before each train row.
BY_STEP = """\
epoch,lr-AdamW,lr-AdamW-momentum,step,train_loss,val_acc
,0.001,0.95,3,,
0,,,3,2.3,
,0.0008,0.94,7,,
0,,,7,2.1,
0,,,9,,0.31
,0.0006,0.93,11,,
1,,,11,1.9,
1,,,19,,0.52
"""


def version(root: Path, number: int, content: str) -> Path:
    folder = root / "lightning_logs" / f"version_{number}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(content)
    return folder


def test_sparse_rows_by_epoch(tmp_path: Path) -> None:
    folder = version(tmp_path, 0, BY_EPOCH)
    for source in (folder / "metrics.csv", folder, folder.parent, tmp_path):
        history = load_history(source)
        assert history.table.drop(columns="loss").fillna(-1).to_dict("list") == {
            "epoch": [1, 2, 3], "lr": [0.1, 0.05, 0.01], "momentum": [0.9, 0.85, 0.8], "accuracy": [0.31, 0.52, -1],
        }  # fmt: skip
        assert history.table["loss"].tolist()[:2] == [2.2, 1.7]
        assert (history.optimizer, history.preconditioned) == ("SGD", False)
        assert "epochs are counted from 1, which the log counts from 0" in history.notes


def test_sparse_rows_by_step(tmp_path: Path) -> None:
    history = load_history(version(tmp_path, 0, BY_STEP))
    assert history.table.to_dict("list") == {
        "epoch": [1, 2], "lr": [0.001, 0.0006], "momentum": [0.95, 0.93], "loss": pytest.approx([2.2, 1.9]),
        "accuracy": [0.31, 0.52],
    }  # fmt: skip
    assert (history.optimizer, history.preconditioned) == ("AdamW", True)
    assert history.assumed is None


def test_without_a_momentum_monitor_it_is_assumed(tmp_path: Path) -> None:
    history = load_history(
        version(tmp_path, 0, "epoch,lr-Adam,step,train_loss_step\n,0.03,0,\n0,,49,0.169\n0,,99,0.165\n")
    )
    assert history.table["lr"].tolist() == [0.03]
    assert history.assumed == "no beta1 was logged; 0.9 is assumed"


def test_of_several_versions_one_must_be_named(tmp_path: Path) -> None:
    for i in range(7):
        version(tmp_path, i, BY_EPOCH)
    with pytest.raises(DataError, match=r"holds 7 training logs \(version_0, .*, …\); name one"):
        load_history(tmp_path / "lightning_logs")


def test_cut_off_anywhere_it_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    path = version(tmp_path, 0, BY_EPOCH) / "metrics.csv"
    whole = load_history(path).table
    for length in range(len(BY_EPOCH) + 1):
        path.write_text(BY_EPOCH[:length])
        try:
            table = load_history(path).table
        except DataError:
            assert length < BY_EPOCH.index("0,,,3")
            continue
        assert table["lr"].tolist() == whole["lr"].tolist()[: len(table)]
