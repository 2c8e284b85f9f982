"""Logs as people write them become one table, or one sentence."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from suture.errors import DataError, InvalidArgumentError, MissingFileError, UnknownNameError
from suture.history import READERS, History, load_history
from suture.history.family import ASSUMED_MOMENTUM


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a log goes."""
    return tmp_path / "history.csv"


def notes(history: History) -> str:
    return "; ".join(history.notes)


def test_a_log_with_everything(log: Path) -> None:
    log.write_text("epoch,lr,momentum,loss,accuracy\n1,0.1,0.9,2.3,0.1\n2,0.05,0.8,1.1,0.6\n")
    history = load_history(log)
    assert history.table.to_dict("list") == {
        "epoch": [1, 2], "lr": [0.1, 0.05], "momentum": [0.9, 0.8], "loss": [2.3, 1.1], "accuracy": [0.1, 0.6],
    }  # fmt: skip
    assert history.source == str(log)
    assert history.assumed is None
    assert history.notes == ()
    assert not history.preconditioned


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("Epoch,LR,Momentum", ["epoch", "lr", "momentum"]),
        (" epoch , learning_rate , beta1 ", ["epoch", "lr", "momentum"]),
        ("epoch,alpha,mu", ["epoch", "lr", "momentum"]),
        ("epoch,lr,momentum,gpu", ["epoch", "lr", "momentum"]),
        ("lr,momentum,val_acc", ["epoch", "lr", "momentum", "accuracy"]),
        ("\ufefflr,momentum,train_loss", ["epoch", "lr", "momentum", "loss"]),
        ("epoch;lr;momentum", ["epoch", "lr", "momentum"]),
        ("epoch\tlr\tmomentum", ["epoch", "lr", "momentum"]),
        ("epoch lr momentum", ["epoch", "lr", "momentum"]),
    ],
    ids=["capitals", "spaces", "greek", "more", "no epoch", "from Excel", "semicolons", "tabs", "blanks"],
)
def test_columns_go_by_several_names(log: Path, header: str, columns: list[str]) -> None:
    delimiter = next(d for d in ";\t, " if d in header)
    row = delimiter.join(["0.5"] * (header.count(delimiter) + 1)) if delimiter != " " else "0.5 0.5 0.5"
    log.write_text(f"{header}\n{row}\n{row}\n", encoding="utf-8")
    assert sorted(load_history(log).table.columns) == sorted(columns)


@pytest.mark.parametrize(
    "content",
    [
        b"epoch;lr;momentum\n1;0,1;0,9\n",
        "epoch,lr,momentum\r\n1,0.1,0.9\r\n".encode("utf-16"),
        b"# run 7\n\nepoch,lr,momentum\n\n1,0.1,0.9\n\n",
        b"# epoch lr momentum\n1.0e+00 1.0e-01 9.0e-01\n",
        "epoch,lr,momentum,détails\n1,0.1,0.9,é\n".encode("latin-1"),
        b'"epoch","lr","momentum"\n"1","0.1","0.9"',
        b"epoch,lr,momentum\n1,0.1,0.9,surplus\n",
        b"epoch,lr,momentum\n1,0.1,0.9\nepoch,lr,momentum\n",
        b"epoch,lr,momentum\n1,0.1,0.9\n2,0.0",
    ],
    ids=["decimal comma", "utf-16", "comment", "savetxt", "latin-1", "quoted", "surplus", "header again", "cut off"],
)
def test_dialects(log: Path, content: bytes) -> None:
    log.write_bytes(content)
    history = load_history(log)
    assert history.table.to_dict("list") == {"epoch": [1], "lr": [0.1], "momentum": [0.9]}
    assert ("cut off" in notes(history)) == (content.endswith(b"0.0"))


def test_epochs_are_counted_from_one_where_the_log_does_not(log: Path) -> None:
    log.write_text("lr,momentum\n0.1,0.9\n0.1,0.9\n0.1,0.9\n")
    assert load_history(log).table["epoch"].tolist() == [1, 2, 3]


def test_an_assumed_momentum_is_said(log: Path) -> None:
    log.write_text("epoch,lr\n1,0.1\n")
    history = load_history(log)
    assert history.table["momentum"].tolist() == [ASSUMED_MOMENTUM]
    assert history.assumed == "no momentum was logged; 0.9 is assumed"
    log.write_text("epoch,lr,momentum\n1,0.1,\n2,0.1,\n")
    assert load_history(log).assumed == history.assumed


def test_what_is_missing_stays_missing_and_what_is_no_number_is_said(log: Path) -> None:
    log.write_text("epoch,lr,loss,val_acc\n1,0.1,,0.1\n2,0.1,n/a,0.2\n3,0.1,0.5,?\n4,0.1,nan,0.4\n5,0.1,inf,0.5\n")
    history = load_history(log)
    assert history.table["loss"].isna().tolist() == [True, True, False, True, True]
    assert history.table["accuracy"].isna().tolist() == [False, False, True, False, False]
    assert "2 of 5 values of 'loss' cannot be used and count as missing (row 4: 'nan')" in notes(history)
    assert "1 of 5 values of 'val_acc' cannot be used and counts as missing (row 3: '?')" in notes(history)
    assert "loss is missing in 4 of 5 epochs" in notes(history)


def test_lr_and_momentum_stay_until_they_are_logged_again(log: Path) -> None:
    log.write_text("epoch,lr,momentum,loss\n1,,,3\n2,0.1,,2\n3,,0.8,1\n4,0.05,,1\n")
    history = load_history(log)
    assert history.table["lr"].fillna(-1).tolist() == [-1, 0.1, 0.1, 0.05]
    assert history.table["momentum"].tolist() == [0.8] * 4
    assert "lr was logged in 2 of 4 epochs" in notes(history)


def test_a_learning_rate_of_zero_at_the_end_is_legal(log: Path) -> None:
    log.write_text("epoch,lr\n1,0.1\n2,0\n")
    history = load_history(log)
    assert history.table["lr"].tolist() == [0.1, 0.0]
    assert "the learning rate is 0 in 1 of 2 epochs" in notes(history)


def test_percentages_become_shares(log: Path) -> None:
    log.write_text("epoch,lr,test_acc\n1,0.1,41.5\n2,0.1,80\n")
    history = load_history(log)
    assert history.table["accuracy"].tolist() == pytest.approx([0.415, 0.8])
    assert "'test_acc' was taken to be in per cent" in notes(history)
    log.write_text("epoch,lr,test_acc\n1,0.1,0.5%\n2,0.1,80 %\n")
    assert load_history(log).table["accuracy"].tolist() == pytest.approx([0.005, 0.8])
    log.write_text("epoch,lr,acc\n1,0.1,4150\n2,0.1,80\n")
    history = load_history(log)
    assert "accuracy" not in history.table
    assert "'acc' holds 4150, which is neither a share nor a percentage" in notes(history)


def test_the_optimizer_is_found_out(log: Path) -> None:
    for header, value, name, preconditioned in (
        ("optimizer", "AdamW", "AdamW", True),
        ("optimizer", "SGD", "SGD", False),
        ("optimizer", "mine", "mine", False),
        ("adam_beta1", "0.9", "Adam", True),
        ("lr-SGD", "0.1", "SGD", False),
        ("lr-RMSprop", "0.1", "RMSprop", True),
    ):
        log.write_text(f"lr,{header}\n0.1,{value}\n" if not header.startswith("lr") else f"{header}\n{value}\n")
        history = load_history(log)
        assert (history.optimizer, history.preconditioned) == (name, preconditioned)
        assert ("'mine' is not known here; it is taken for SGD" in str(history.assumed)) == (name == "mine")
        assert load_history(log, optimizer="lion").preconditioned
        assert load_history(log, optimizer="lion").optimizer == "lion"


def test_the_description_of_suture_train_names_the_optimizer(log: Path) -> None:
    log.write_text("epoch,lr,momentum\n1,0.1,0.9\n")
    (log.parent / "training.json").write_text('{"recipe": {"optimizer": "adam"}}')
    assert load_history(log).preconditioned
    assert load_history(log.parent).preconditioned
    (log.parent / "training.json").write_text("[1")
    assert load_history(log).optimizer is None


def test_a_table_is_a_log_too() -> None:
    history = load_history(pd.DataFrame({"lr": [0.1, 0.2], "loss": [np.nan, 1.0]}, index=[7, 8]))
    assert history.table["lr"].tolist() == [0.1, 0.2]
    assert history.table.index.tolist() == [0, 1]
    assert history.source == "a table"
    named = load_history(pd.DataFrame({"lr": [0.1, 0.2]}, index=pd.Index([3, 4], name="epoch")))
    assert named.table["epoch"].tolist() == [3, 4]
    with pytest.raises(DataError, match="a table has no rows"):
        load_history(pd.DataFrame({"lr": []}))


def test_columns_can_be_chosen(log: Path) -> None:
    log.write_text("lr,rate,top1 (val)\n1,0.1,0.5\n1,0.2,0.6\n")
    history = load_history(log, columns={"lr": "rate", "accuracy": "Top1 (val)"})
    assert history.table["lr"].tolist() == [0.1, 0.2]
    assert history.columns == {"lr": "rate", "accuracy": "top1 (val)"}
    with pytest.raises(UnknownNameError, match="has no column 'rat'; did you mean 'rate'"):
        load_history(log, columns={"lr": "rat"})
    with pytest.raises(UnknownNameError, match="called for as 'accurcy'; did you mean 'accuracy'"):
        load_history(log, columns={"accurcy": "rate"})
    with pytest.raises(InvalidArgumentError, match="steps_per_epoch must be at least 1"):
        load_history(log, steps_per_epoch=0)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["has no rows", "'lr'"]),
        (b"epoch,lr\n", ["has no rows"]),
        (b"epoch,loss\n1,0.5\n", ["no column 'lr' but epoch, loss"]),
        (b"epoch,lrate\n1,0.5\n", ["if 'lrate' is it, say --column lr=lrate"]),
        (b"epoch,laerning_rate\n1,0.5\n", ["if 'laerning_rate' is it"]),
        (b"hello, this is text\nand more\n", ["no column 'lr' but hello"]),
        (b"epoch,lr\n1,0.1\n2,fast\n", ["'lr' of row 2 is 'fast'", "no learning rate"]),
        (b"epoch,LR\n1,\n", ["no row has a learning rate in its column 'LR'"]),
        (b"epoch,lr\n1,0.1\n2,-0.1\n", ["row 2 is '-0.1'"]),
        (b"epoch,lr\n1,inf\n", ["row 1 is 'inf'"]),
        (b"epoch,lr\n1,0\n2,0\n", ["'lr' is 0 throughout"]),
        (b"epoch,lr,momentum\n1,0.1,0.9\n2,0.1,9\n", ["'momentum' of row 2 is '9'", "from 0 up to, but not, 1"]),
        (b"epoch,lr,momentum\n1,0.1,1\n", ["'momentum' of row 1 is '1'"]),
        (b"epoch,lr,momentum\n1,0.1,-0.1\n", ["'momentum' of row 1 is '-0.1'"]),
        (b"epoch,lr\n-1,0.1\n", ["'epoch' of row 1 is '-1', no number of an epoch"]),
        (b"epoch,lr\nfirst,0.1\n", ["'epoch' of row 1 is 'first'"]),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ["not readable as CSV"]),
        (bytes(range(256)), ["not readable as CSV"]),
    ],
    ids=[
        "empty", "header", "no lr", "near", "misspelt", "prose", "text", "blank", "negative", "infinite", "zero",
        "momentum", "momentum 1", "momentum negative", "epoch", "epoch text", "picture", "binary",
    ],
)  # fmt: skip
def test_what_is_no_log(log: Path, content: bytes, parts: list[str]) -> None:
    log.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_history(log)
    for part in (*parts, str(log)):
        assert part in str(caught.value)
    assert len(str(caught.value).removeprefix(str(log))) < 300


def test_a_log_that_is_not_there(log: Path) -> None:
    with pytest.raises(MissingFileError, match="no training log"):
        load_history(log)
    with pytest.raises(MissingFileError, match=r"no training log in .*trainer_state\.json.*event files"):
        load_history(log.parent)


def test_what_can_be_read_of_a_damaged_log_is(log: Path) -> None:
    rows = b"".join(b"%d,0.1,0.9\n" % i for i in range(1, 6))
    log.write_bytes(b"epoch,lr,momentum\n" + rows + b'6,"' + b"x" * 200_000)
    history = load_history(log)
    assert history.table["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert "a part at the end is not readable" in notes(history)


@pytest.mark.parametrize("length", range(60))
def test_a_log_cut_off_anywhere_is_read_or_refused_in_a_sentence(log: Path, length: int) -> None:
    whole = b"epoch,lr,momentum\n1,0.12,0.91\n2,0.12,0.92\n3,0.12,0.93\n"
    log.write_bytes(whole[:length])
    try:
        history = load_history(log)
    except DataError:
        assert length <= whole.index(b"0.91")
        return
    assert set(history.table["lr"]) == {0.12}
    if not history.table["momentum"].between(0.9, 0.94).all():
        assert "may be cut off" in notes(history) or len(history.table) == 1


def test_huge_logs_are_read_row_by_row(log: Path) -> None:
    with open(log, "w") as file:
        file.write("epoch,batch,lr,momentum,loss,note\n")
        for epoch in range(1, 6):
            file.writelines(f"{epoch},{b},{0.1 / epoch},0.9,{b % 7},{'x' * 50}\n" for b in range(4000))
    history = load_history(log)
    assert len(history.table) == 5
    assert history.table["loss"].iloc[0] == pytest.approx(np.mean(np.arange(4000) % 7))


def test_the_readers_are_a_registry_that_users_extend(tmp_path: Path) -> None:
    assert set(READERS) == {"csv", "lightning", "huggingface", "tensorboard"}
    assert all(reader.looks_for for reader in READERS.values())


def test_a_list_of_one_is_a_number(log: Path) -> None:
    log.write_text("epoch,lr,loss\n1,[0.1],[2]\n2,[0.05],[[1]]\n")
    history = load_history(log)
    assert history.table["lr"].tolist() == [0.1, 0.05]
    assert "1 of 2 values of 'loss' cannot be used and counts as missing (row 2: '[[1]]')" in notes(history)
    log.write_text('epoch,lr\n1,"[0.1, 0.01]"\n')
    with pytest.raises(DataError, match="no learning rate"):
        load_history(log)


def test_runs_side_by_side_in_a_file_are_refused(log: Path) -> None:
    log.write_text("run,epoch,lr,val_acc\n" + "".join(f"a,{e},0.1,0.5\nb,{e},1e-4,0.5\n" for e in (1, 2, 3)))
    with pytest.raises(DataError, match="'run' is 'a' and 'b' in the same epochs"):
        load_history(log)


# JSON lines

LINES = """{"epoch": 1, "lr": 0.1, "loss": 2.3, "tags": ["a"]}
{"epoch": 2, "lr": [0.05], "loss": NaN}

{"epoch": 3, "lr": 0.02, "val_acc": "60 %"}
"""


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "log.ndjson", "log"])
@pytest.mark.parametrize("begin", ["", "\ufeff", "\n"], ids=["plain", "mark", "blank line"])
def test_json_lines_are_a_table(tmp_path: Path, name: str, begin: str) -> None:
    path = tmp_path / name
    path.write_text(begin + LINES, encoding="utf-8")
    history = load_history(path)
    assert history.table["lr"].tolist() == [0.1, 0.05, 0.02]
    assert history.table["accuracy"].tolist()[2] == pytest.approx(0.6)
    assert history.columns == {"epoch": "epoch", "lr": "lr", "loss": "loss", "accuracy": "val_acc"}
    assert not history.preconditioned
    assert "left out" not in notes(history)


ROWS = [{"lr": 0.1, "val_accuracy": 0.5}, {"lr": 0.05, "val_accuracy": 0.7}, {"lr": 0.02, "val_accuracy": 0.6}]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["history.json", "history"])
@pytest.mark.parametrize(
    "value", [ROWS, COLUMNS, {"history": COLUMNS, "params": {"epochs": 3}}, COLUMNS | {"epochs": 3}],
    ids=["array", "columns", "history", "beside"],
)  # fmt: skip
def test_one_json_value_is_a_table(tmp_path: Path, value: object, name: str, indent: int | None) -> None:
    path = tmp_path / name
    path.write_text("\ufeff\n" + json.dumps(value, indent=indent), encoding="utf-8")
    history = load_history(path)
    assert history.table["lr"].tolist() == [0.1, 0.05, 0.02]
    assert history.table["accuracy"].tolist() == [0.5, 0.7, 0.6]
    assert history.table["epoch"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([{"lr": 0.1}, {"lr": "fast"}], "'lr' of row 2 is 'fast', no learning rate"),
        ({"rate": [0.1, 0.2]}, "if 'rate' is it, say --column lr=rate"),
        ({"lr": [0.1, 0.2], "loss": [1.0]}, None),
        ([1, 2], None),
        ({"lr": [[0.1]]}, None),
    ],
)
def test_a_json_value_that_is_no_log_is_one_sentence(tmp_path: Path, value: object, said: str | None) -> None:
    for name in ("history.json", "history"):
        path = tmp_path / name
        path.write_text(json.dumps(value))
        with pytest.raises(DataError, match=said):
            load_history(path)


def test_damaged_json_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(LINES + '{"epoch": 4, "lr": 0.0')
    history = load_history(path)
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert "1 line without a whole JSON object left out (first line 5)" in notes(history)
    path.write_text('{"epoch": 1, "rate": 0.1}\n')
    with pytest.raises(DataError, match="if 'rate' is it, say --column lr=rate"):
        load_history(path)
    path.write_text('{"lr": 0.1}\n{"lr": "fast"}\n')
    with pytest.raises(DataError, match="'lr' of line 2 is 'fast', no learning rate"):
        load_history(path)


def test_runs_side_by_side_in_json_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f'{{"run": "{run}", "epoch": {e}, "lr": 0.1}}\n' for e in (1, 2, 3) for run in "ab"))
    with pytest.raises(DataError, match="'run' is 'a' and 'b' in the same epochs"):
        load_history(path)
