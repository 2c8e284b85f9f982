"""Scan against the paper's tables, against the physics it applies, and on what it cannot know."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import suture
from suture.curves import Motion
from suture.errors import DataError, InvalidArgumentError, UnknownNameError
from suture.history import load_history
from suture.physics import Regime, clamp, cosine_lr, critical_momentum, effective_lr, regime
from suture.stages.rehearsal import rehearse
from suture.stages.scan import Agreement, Milestone, Scan, scan
from suture.training import TRAININGS, Recipe

EPOCHS = np.arange(1, 201)
COSINE = np.array([cosine_lr(float(e), 200, 0.1, 1e-4) for e in EPOCHS])


def log(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


# The paper's tables


def test_table_6_and_15_of_the_baseline() -> None:
    found = scan(log(epoch=EPOCHS, lr=COSINE, momentum=0.9))
    assert found.counts == {"underdamped": 170, "critical": 21, "overdamped": 9}
    rows = found.epochs.set_index("epoch")
    for epoch, lr, critical, delta, name in (
        (1, 0.1, 0.368, 0.532, "underdamped"), (20, 0.09779, 0.375, 0.525, "underdamped"),
        (100, 0.05083, 0.549, 0.351, "underdamped"), (180, 0.00279, 0.894, 0.006, "critical"),
        (200, 0.00011, 0.979, -0.079, "overdamped"),
    ):  # fmt: skip
        row = rows.loc[epoch]
        assert round(float(row["lr"]), 5) == lr
        assert round(float(row["critical"]), 3) == critical
        assert round(float(row["delta"]), 3) == delta
        assert row["regime"] == name
    # Rows 50, 150 and 170 of the paper's Table 15 follow neither from t = epoch - 1 nor from t = epoch.
    assert rows.loc[[50, 150, 170], "lr"].round(5).tolist() == [0.08592, 0.01529, 0.00591]
    assert rows.loc[170, "regime"] == "underdamped"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("baseline", (170, 21, 9)), ("constant", (170, 21, 9)), ("physics", (66, 134, 0)), ("critical", (66, 134, 0)),
        ("1cycle", (180, 20, 0)), ("inverse", (180, 20, 0)), ("0.9", (170, 21, 9)), ("ikfad", (170, 21, 9)),
    ],
)  # fmt: skip
def test_table_6_from_schedules_alone(name: str, counts: tuple[int, int, int]) -> None:
    found = scan(rehearse(name, epochs=200))
    assert tuple(found.counts.values()) == counts
    assert found.source == f"schedule {name}"
    assert found.assumed is None
    assert found.notes == ()


def test_a_rehearsed_schedule_has_the_values_of_its_formula() -> None:
    table = rehearse("physics").table
    np.testing.assert_allclose(table["lr"], COSINE, rtol=1e-9)
    np.testing.assert_allclose(table["momentum"], clamp(critical_momentum(COSINE), 0.5, 0.99), rtol=1e-9)
    hybrid = rehearse("hybrid-ep52").table["momentum"]
    assert (hybrid[52:] == 0.9).all()
    np.testing.assert_allclose(hybrid[:52], table["momentum"][:52])
    matched = rehearse("matched").table
    np.testing.assert_allclose(effective_lr(matched["lr"], 0.9), effective_lr(COSINE, table["momentum"]), rtol=1e-6)


def test_fields_of_a_schedule_can_be_changed(tmp_path: Path) -> None:
    found = suture.scan(rehearse("physics", epochs=7, lr=0.5, lr_min=0.1))
    assert len(found.epochs) == 7
    assert found.epochs["lr"].iloc[0] == 0.5
    assert len(suture.scan(TRAININGS["physics"]).epochs) == 200
    assert suture.scan(Recipe(epochs=3, lr=1e-4)).counts["critical"] == 3
    (tmp_path / "own.toml").write_text("epochs = 4\nmomentum = 0.5\n")
    assert rehearse(str(tmp_path / "own.toml")).table["momentum"].tolist() == [0.5] * 4


def test_a_schedule_that_cannot_be_rehearsed() -> None:
    with pytest.raises(InvalidArgumentError, match=r"switches when accuracy reaches 0\.9, which a schedule alone"):
        rehearse("hybrid-90")
    with pytest.raises(UnknownNameError, match="did you mean 'physics'"):
        rehearse("phsyics")
    with pytest.raises(InvalidArgumentError, match="'epochs'"):
        rehearse(TRAININGS["physics"], epochs=0)
    with pytest.raises(InvalidArgumentError, match="at least 0 and less than 1"):
        scan(rehearse("1.5"))
    with pytest.raises(InvalidArgumentError, match="optimizer goes with a log that is read"):
        scan(TRAININGS["physics"], optimizer="sgd")


def test_tables_4_5_and_14_from_a_curve() -> None:
    """A curve through the points that the paper gives for Physics (Table 14) and Baseline (Table 5)."""
    accuracy = np.interp(EPOCHS, [1, 7, 8, 12, 13, 44, 45, 87, 88, 182, 183, 200],
                         [0.4788, 0.79, 0.80, 0.84, 0.85, 0.899, 0.90, 0.919, 0.92, 0.949, 0.95, 0.9511])  # fmt: skip
    found = scan(log(epoch=EPOCHS, lr=COSINE, momentum=0.9, test_accuracy=accuracy))
    assert [(m.threshold, m.epoch, m.held) for m in found.milestones] == [
        (0.80, 8, 8), (0.85, 13, 13), (0.90, 45, 45), (0.92, 88, 88), (0.95, 183, 183)
    ]  # fmt: skip
    assert found.best == (200, pytest.approx(0.9511))
    assert found.early[1] == pytest.approx(0.4788)
    assert list(found.early) == [1, 10, 50]


def test_a_dip_below_a_threshold_shows_in_when_it_is_held() -> None:
    found = scan(log(lr=0.1, acc=[0.5, 0.91, 0.89, 0.92, 0.94]), thresholds=(0.9, 0.99), early=(2, 77))
    assert found.milestones == (
        Milestone(threshold=0.9, epoch=2, held=4), Milestone(threshold=0.99, epoch=None, held=None),
    )  # fmt: skip
    assert found.early == {2: 0.91, 77: None}


def test_without_accuracy_there_are_no_milestones() -> None:
    found = scan(log(lr=[0.1, 0.1]))
    assert found.milestones == ()
    assert found.early == {}
    assert found.best is None
    assert found.stretches == ()


# Regimes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-6, 4), st.floats(0, 0.999), st.floats(1e-3, 50)), min_size=1, max_size=20),
    st.sampled_from(["paper", "exact", "nesterov"]),
    st.floats(0, 0.5),
    st.booleans(),
)
def test_regimes_are_those_of_the_physics_and_counts_add_up(
    rows: list[tuple[float, float, float]], form: Any, tolerance: float, own: bool
) -> None:
    lr, momentum, curvature = (np.array(column) for column in zip(*rows, strict=True))
    table = log(lr=lr, momentum=momentum, **({"curvature": curvature} if own else {}))
    found = scan(table, form=form, tolerance=tolerance)
    expected = regime(momentum, lr, tolerance, curvature if own else 1.0, form)
    assert found.epochs["regime"].tolist() == [str(each) for each in expected]
    assert sum(found.counts.values()) == len(rows)
    assert found.counts == {str(r): expected.count(r) for r in Regime}
    assert found.curvature == (None if own else 1.0)
    np.testing.assert_allclose(found.epochs["delta"], momentum - found.epochs["critical"])


def test_form_curvature_and_tolerance_are_arguments() -> None:
    table = log(lr=[0.1], momentum=[0.4675])
    assert scan(table).epochs["critical"].tolist() == pytest.approx([0.3675], abs=1e-4)
    assert scan(table, form="exact").epochs["critical"].tolist() == pytest.approx([0.4675], abs=1e-4)
    assert scan(table).counts["underdamped"] == 1
    assert scan(table, form="exact").counts["critical"] == 1
    assert scan(table, tolerance=0.2).counts["critical"] == 1
    assert scan(table, curvature=0.5).epochs["critical"].tolist() == pytest.approx([1 - 2 * 0.05**0.5])
    measured = log(lr=[0.1, 0.1], curvature=[1.0, 0.5])
    assert scan(measured).epochs["critical"].tolist() == pytest.approx([1 - 2 * 0.1**0.5, 1 - 2 * 0.05**0.5])
    assert scan(measured, curvature=2.0).epochs["critical"].nunique() == 1


def test_curvature_is_carried_on_and_epochs_before_the_first_have_no_regime() -> None:
    found = scan(log(lr=0.1, momentum=0.9, curvature=[None, 4.0, None, -1.0]))
    assert found.epochs["regime"].fillna("none").tolist() == ["none", "underdamped", "underdamped", "overdamped"]
    assert sum(found.counts.values()) == 3
    assert "curvature was logged in 2 of 4 epochs and is taken to have stayed between" in found.notes


def test_a_learning_rate_of_zero_is_overdamped_at_every_momentum_below_one() -> None:
    found = scan(log(lr=[0.1, 0.0], momentum=0.9))
    assert found.epochs["critical"].iloc[1] == pytest.approx(1, abs=1e-5)
    assert found.counts["overdamped"] == 1


@pytest.mark.parametrize(
    ("settings_", "error", "part"),
    [
        ({"form": "exakt"}, UnknownNameError, "did you mean 'exact'"),
        ({"curvature": 0.0}, InvalidArgumentError, "curvature must be positive"),
        ({"curvature": float("nan")}, InvalidArgumentError, "curvature must be positive"),
        ({"tolerance": -0.1}, InvalidArgumentError, "tolerance must be a number from 0 up, got -"),
        ({"thresholds": (90,)}, InvalidArgumentError, "thresholds are shares between 0 and 1, got 90"),
        ({"steps_per_epoch": 0}, InvalidArgumentError, "steps_per_epoch must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings_: dict[str, Any], error: type[Exception], part: str) -> None:
    with pytest.raises(error, match=part):
        scan(log(lr=[0.1]), **settings_)


# The Adam family


def test_an_adam_run_has_no_regimes_unless_its_curvature_is_known() -> None:
    table = log(epoch=range(1, 13), lr=1e-3, beta1=0.9, loss=np.linspace(2, 1, 12))
    found = scan(table)
    assert found.counts == {}
    assert not {"critical", "delta", "regime"} & set(found.epochs)
    assert "Adam rescales the gradient" in str(found.unclassified)
    assert found.curvature is None
    assert [(s.regime, s.moved.motion, s.agreement) for s in found.stretches] == [
        (None, Motion.steady, Agreement.unknown)
    ]
    assert scan(log(lr=[1e-3]), optimizer="adamw").counts == {}
    assert scan(rehearse("adam")).counts == {}
    for known in (scan(table, curvature=100.0), scan(table.assign(sharpness=100.0))):
        assert known.unclassified is None
        assert sum(known.counts.values()) == 12


def test_sgd_by_name_keeps_its_regimes() -> None:
    assert scan(log(lr=[0.1], optimizer=["SGD"])).unclassified is None
    assert scan(log(lr=[0.1], optimizer=["mine"])).assumed == (
        "'mine' is not known here; it is taken for SGD with momentum; no momentum was logged; 0.9 is assumed"
    )


# Predicted against observed


def test_curves_are_measured_by_regime_and_over_the_whole_run() -> None:
    swinging = 0.5 + 0.1 * np.sin(EPOCHS[:170])
    rising = np.linspace(0.6, 0.95, 30)
    accuracy = np.concatenate([swinging, rising])
    found = scan(log(epoch=EPOCHS, lr=COSINE, momentum=0.9, loss=1 - accuracy, accuracy=accuracy))
    assert [(s.curve, s.first, s.last, s.regime) for s in found.stretches] == [
        (curve, *span)
        for curve in ("loss", "accuracy")
        for span in ((1, 170, "underdamped"), (171, 191, "critical"), (192, 200, "overdamped"), (1, 200, None))
    ]
    motions = [(s.moved.motion, s.agreement) for s in found.stretches]
    assert motions[:4] == motions[4:]
    assert motions[:3] == [
        (Motion.fluctuates, Agreement.agrees), (Motion.steady, Agreement.agrees), (Motion.steady, Agreement.agrees)
    ]  # fmt: skip
    assert found.stretches[4].moved.fall == pytest.approx(0.2, abs=0.01)


def test_curves_against_the_prediction_and_those_that_do_not_tell() -> None:
    steady = np.linspace(0.1, 0.9, 20)
    noise = np.random.default_rng(0).normal(size=20)
    for momentum, loss, agreement in (
        (0.9, -steady, Agreement.disagrees), (0.37, -steady, Agreement.agrees), (0.9, noise, Agreement.unknown),
        (0.37, np.sin(EPOCHS[:20]), Agreement.disagrees), (0.0, np.sin(EPOCHS[:20]), Agreement.disagrees),
        (0.9, np.sin(EPOCHS[:20]), Agreement.agrees), (0.9, [1.0, 2.0] + [None] * 18, Agreement.unknown),
    ):  # fmt: skip
        found = scan(log(lr=0.1, momentum=momentum, loss=loss))
        assert [s.agreement for s in found.stretches] == [agreement]


# Saved


def test_every_kind_of_scan_survives_the_disk(tmp_path: Path) -> None:
    whole = scan(log(epoch=EPOCHS, lr=COSINE, momentum=0.9, loss=1 / EPOCHS, accuracy=1 - 1 / EPOCHS))
    bare = scan(log(lr=[0.1, 0.2]))
    adam = scan(log(lr=[0.1, 0.2], acc=[0.1, 0.2]), optimizer="adam")
    holed = scan(log(lr=0.1, curvature=[None, 2.0], loss=[None, 1.0]))
    for i, found in enumerate((whole, bare, adam, holed)):
        found.save(tmp_path / str(i))
        read = Scan.load(tmp_path / str(i))
        pd.testing.assert_frame_equal(found.epochs, read.epochs, check_dtype=False)
        for name in set(Scan.__dataclass_fields__) - {"epochs"}:
            assert getattr(read, name) == getattr(found, name), name
        assert (tmp_path / str(i) / "epochs.csv").exists()
        assert read.to_dict() == found.to_dict()


def test_a_scan_saved_with_its_first_fields_alone_loads(tmp_path: Path) -> None:
    scan(log(lr=[0.1])).save(tmp_path)
    path = tmp_path / "result.json"
    data = json.loads(path.read_text())
    path.write_text(
        json.dumps({k: data[k] for k in ("stage", "schema", "key", "epochs", "counts", "source", "assumed")})
    )
    read = Scan.load(tmp_path)
    assert read.counts == {"underdamped": 1, "critical": 0, "overdamped": 0}
    assert read.table().row_count


def test_a_saved_table_is_a_log_again(tmp_path: Path) -> None:
    found = scan(log(epoch=EPOCHS, lr=COSINE, momentum=0.9))
    found.save(tmp_path)
    assert scan(tmp_path / "epochs.csv").counts == found.counts


def test_what_a_result_depends_on_is_in_the_fingerprint_of_a_history() -> None:
    table = log(lr=[0.1], beta1=[0.9])
    histories = [
        load_history(table),
        load_history(table, optimizer="sgd"),
        load_history(table.assign(loss=1.0)),
        load_history(table.assign(lr=0.2)),
    ]
    prints = {history.fingerprint for history in histories}
    assert len(prints) == 4
    assert load_history(table).fingerprint == load_history(table.copy()).fingerprint


def test_a_log_without_rows_or_learning_rates_is_refused() -> None:
    with pytest.raises(DataError, match="has no rows"):
        suture.scan(log(lr=[]))
    with pytest.raises(DataError, match="no column 'lr'"):
        suture.scan(log(loss=[1.0]))


def test_columns_and_rows_are_tables_too() -> None:
    columns = {"lr": [0.1, 0.01], "momentum": [0.9, 0.9]}
    rows = [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.01, "momentum": 0.9}]
    expected = suture.scan(pd.DataFrame(columns)).counts
    assert suture.scan(columns).counts == suture.scan(rows).counts == expected


@pytest.mark.parametrize(
    ("what", "part"),
    [
        (None, "got NoneType"),
        (3, "got int"),
        (pd.Series([0.1, 0.2]), "got Series"),
        (np.ones(3), "got ndarray"),
        ([], "got an empty list"),
        ({}, "got an empty dict"),
        ({"lr": [0.1, 0.2], "loss": [1.0]}, r"makes no table \(All arrays must be of the same length\)"),
        ({"lr": 0.1}, "makes no table"),
    ],
)
def test_what_is_no_history_is_refused_in_a_sentence(what: Any, part: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^scan takes a log \(its path\), a table .*{part}"):
        scan(what)
