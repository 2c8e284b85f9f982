"""Whatever a log holds, it becomes a scan that can be shown and saved, or one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suture.errors import SutureError
from suture.history import load_history
from suture.stages.scan import Scan, scan
from suture.views.scan import table

ANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = ["epoch", "step", "batch", "lr", "momentum", "loss", "val_acc", "acc", "curvature", "optimizer", "x", "", "λ"]
CELLS = st.sampled_from(
    ["", "0", "1", "2", "3", "0.1", "0.9", "1e-320", "1e308", "-1", "nan", "inf", "-inf", "x", "95%", "1_0", "٣",
     "1e400", "0.5", "12.5", " 2 ", "None", "adam", "sgd", "4.5", "9007199254740993", "5", "\x85", "=1+1", "true"]
)  # fmt: skip


# Values that a log can have, or nearly every table would be refused for its first impossible one.
PLAUSIBLE = {
    "lr": st.sampled_from(["0.1", "0.05", "1e-3", "0", "", "1e-320"]),
    "momentum": st.sampled_from(["0.9", "0.5", "0", "", "0.999"]),
    "epoch": st.sampled_from(["1", "2", "2", "3", "4", "0", "", "1.5", "0.5", "9007199254740992"]),
}


def read_or_refuse(source: Path) -> Scan | None:
    try:
        return scan(source)
    except SutureError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return None


def check(found: Scan | None, folder: Path) -> None:
    if found is None:
        return
    epochs = found.epochs
    assert len(epochs) > 0
    assert (np.diff(epochs["epoch"]) > 0).all()
    assert epochs["momentum"].between(0, 1, inclusive="left").all()
    assert (epochs["lr"].dropna() >= 0).all()
    assert sum(found.counts.values()) <= len(epochs)
    assert "accuracy" not in epochs or epochs["accuracy"].dropna().between(0, 1 + 1e-6).all()
    json.dumps(found.to_dict(), allow_nan=False)
    assert table(found).row_count
    found.save(folder / "saved")
    assert Scan.load(folder / "saved").to_dict() == found.to_dict()


@ANY
@given(st.data(), st.lists(st.sampled_from(NAMES), max_size=5, unique=True), st.sampled_from([",", ";", "\t"]))
def test_tables(tmp_path: Path, data: st.DataObject, names: list[str], delimiter: str) -> None:
    path = tmp_path / "log.csv"
    names = ["lr", *(name for name in names if name != "lr")]
    row = st.tuples(*(PLAUSIBLE.get(name, CELLS) for name in names)).map(list)
    rows = data.draw(st.lists(row, max_size=14)) + data.draw(st.lists(st.lists(CELLS, max_size=6), max_size=1))
    path.write_text("\n".join(delimiter.join(row) for row in [names, *rows]), encoding="utf-8")
    check(read_or_refuse(path), tmp_path)


@ANY
@given(
    st.binary(max_size=300), st.sampled_from(["log.csv", "trainer_state.json", "x.tfevents.1.h", "metrics.csv", "log"])
)
def test_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    check(read_or_refuse(path), tmp_path)


@ANY
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["learning_rate", "epoch", "loss", "step", "eval_accuracy"]), inner, max_size=5
            )
        ),
        max_leaves=20,
    )
)
def test_states_of_a_trainer(tmp_path: Path, history: object) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history}))
    check(read_or_refuse(path), tmp_path)


@ANY
@given(st.data())
def test_tables_with_any_steps_per_epoch(tmp_path: Path, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(-5, 2**60), min_size=1, max_size=12))
    path = tmp_path / "log.csv"
    path.write_text("step,lr\n" + "".join(f"{step},0.1\n" for step in steps))
    try:
        history = load_history(path, steps_per_epoch=data.draw(st.integers(1, 10)))
    except SutureError:
        return
    assert (history.table["epoch"] >= 1).all()


def test_a_directory_of_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("lr\n0.1\n")
    (tmp_path / "metrics.csv").write_text("lr\n0.2\n")
    assert load_history(tmp_path).table["lr"].tolist() == [0.1]
    (tmp_path / "history.csv").unlink()
    assert load_history(tmp_path).table["lr"].tolist() == [0.2]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no such device here")
def test_what_is_no_file() -> None:
    with pytest.raises(SutureError, match="is neither a file nor a directory"):
        load_history("/dev/null")
