"""Logs as people write them become one table, or one sentence."""

from pathlib import Path

import pandas as pd
import pytest

from suture.errors import DataError, MissingFileError
from suture.history import ASSUMED_MOMENTUM, load_history


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a log goes."""
    return tmp_path / "history.csv"


def test_a_log_with_everything(log: Path) -> None:
    log.write_text("epoch,lr,momentum,loss,accuracy\n1,0.1,0.9,2.3,0.1\n2,0.05,0.8,1.1,0.6\n")
    history = load_history(log)
    assert history.table.to_dict("list") == {
        "epoch": [1, 2], "lr": [0.1, 0.05], "momentum": [0.9, 0.8], "loss": [2.3, 1.1], "accuracy": [0.1, 0.6],
    }  # fmt: skip
    assert history.source == str(log)
    assert history.assumed is None


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("Epoch,LR,Momentum", ["epoch", "lr", "momentum"]),
        (" epoch , learning_rate , beta1 ", ["epoch", "lr", "momentum"]),
        ("epoch,alpha,mu", ["epoch", "lr", "momentum"]),
        ("epoch,lr,momentum,gpu", ["epoch", "lr", "momentum"]),
        ("lr,momentum,val_acc", ["epoch", "lr", "momentum", "accuracy"]),
        ("\ufefflr,momentum,train_loss", ["epoch", "lr", "momentum", "loss"]),
    ],
    ids=["capitals", "spaces", "greek", "more", "no epoch", "from Excel"],
)
def test_columns_go_by_several_names(log: Path, header: str, columns: list[str]) -> None:
    row = ",".join(["0.5"] * (header.count(",") + 1))
    log.write_text(f"{header}\n{row}\n{row}\n", encoding="utf-8")
    assert sorted(load_history(log).table.columns) == sorted(columns)


def test_epochs_are_counted_from_one_where_the_log_does_not(log: Path) -> None:
    log.write_text("lr,momentum\n0.1,0.9\n0.1,0.9\n0.1,0.9\n")
    assert load_history(log).table["epoch"].tolist() == [1, 2, 3]


def test_an_assumed_momentum_is_said(log: Path) -> None:
    log.write_text("epoch,lr\n1,0.1\n")
    history = load_history(log)
    assert history.table["momentum"].tolist() == [ASSUMED_MOMENTUM]
    assert history.assumed is not None
    assert str(ASSUMED_MOMENTUM) in history.assumed


def test_gaps_in_what_is_only_shown_are_no_error(log: Path) -> None:
    log.write_text("epoch,lr,loss\n1,0.1,\n2,0.1,n/a\n3,0.1,0.5\n")
    assert load_history(log).table["loss"].isna().tolist() == [True, True, False]


def test_a_table_is_a_log_too() -> None:
    history = load_history(pd.DataFrame({"lr": [0.1, 0.2]}, index=[7, 8]))
    assert history.table["lr"].tolist() == [0.1, 0.2]
    assert history.table.index.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["has no rows", "'lr'"]),
        (b"epoch,lr\n", ["has no rows"]),
        (b"epoch,loss\n1,0.5\n", ["no column 'lr' but epoch, loss"]),
        (b"hello, this is text\nand more\n", ["no column 'lr' but hello"]),
        (b"epoch,lr\n1,0.1\n2,fast\n", ["'lr' of row 2 is 'fast'", "no learning rate"]),
        (b"epoch,LR\n1,\n", ["'LR' of row 1 is ''"]),
        (b"epoch,lr\n1,0.1\n2,-0.1\n", ["row 2 is '-0.1'"]),
        (b"epoch,lr\n1,inf\n", ["row 1 is 'inf'"]),
        (b"epoch,lr,momentum\n1,0.1,0.9\n2,0.1,9\n", ["'momentum' of row 2 is '9'", "between 0 and 1"]),
        (b"epoch,lr,momentum\n1,0.1,\n", ["'momentum' of row 1"]),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ["not readable as CSV"]),
    ],
    ids=[
        "empty", "header", "no lr", "prose", "text", "blank", "negative", "infinite", "momentum", "unlogged",
        "binary",
    ],
)  # fmt: skip
def test_what_is_no_log(log: Path, content: bytes, parts: list[str]) -> None:
    log.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_history(log)
    for part in (*parts, str(log)):
        assert part in str(caught.value)


def test_a_log_that_is_not_there(log: Path) -> None:
    with pytest.raises(MissingFileError, match="no training log"):
        load_history(log)
    with pytest.raises(MissingFileError, match="no training log"):
        load_history(log.parent)
