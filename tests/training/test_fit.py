"""Training into a directory: resumed bit for bit, done once, refused for another one."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from suture.errors import InvalidArgumentError, MissingFileError, RunError, UnknownNameError
from suture.optimizers import CADAM, IKFAD, CubicDamping
from suture.patch import base_sha256
from suture.physics import cosine_lr, critical_momentum, effective_lr
from suture.rundir import write_atomic
from suture.tasks import Classification
from suture.training import TRAININGS, Augment, Fit, Recipe, fit
from suture.training.presets import load_recipe
from tests import toys

SHORT = Recipe(epochs=3, batch_size=32, lr=0.05, augment=Augment(pad=0, flip=False))


def go(out: Path, recipe: Recipe = SHORT, build: Any = toys.untrained, **options: Any) -> Fit:
    test = toys.points(60, seed=9)
    return fit(build, toys.points(103, seed=1), Classification(), recipe, out, test=test, **options)


def sha(result: Fit) -> str:
    return base_sha256(load_file(result.weights))


def test_a_training_leaves_weights_and_a_log(tmp_path: Path) -> None:
    result = go(tmp_path)
    log = pd.read_csv(result.log)
    assert log["epoch"].tolist() == [1, 2, 3]
    assert {"lr", "momentum", "loss", "accuracy", "test_accuracy", "test_loss", "seconds"} <= set(log)
    model = toys.untrained()
    model.load_state_dict(load_file(result.weights))
    inputs = torch.stack([x for x, _ in toys.points(60, seed=9)])
    right = (model.eval()(inputs).argmax(1) == torch.arange(60) % 3).float().mean()
    assert float(right) == pytest.approx(log["test_accuracy"].iloc[-1])
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != "") == [
        "history.csv", "training.json", "weights.moments.safetensors", "weights.safetensors",
    ]  # fmt: skip


def test_a_finished_training_is_not_done_again_and_another_one_is_refused(tmp_path: Path) -> None:
    first = go(tmp_path)
    stamp = first.weights.stat().st_mtime_ns
    again = go(tmp_path)
    assert again.weights.stat().st_mtime_ns == stamp
    assert again.history["loss"].tolist() == pytest.approx(first.history["loss"].tolist())
    with pytest.raises(RunError, match="another training"):
        go(tmp_path, seed=1)


def test_what_a_recipe_came_to_is_written_down_and_other_options_are_refused(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=32, optimizer="rmsprop", options={"alpha": 0.9}, schedule="linear")
    go(tmp_path, recipe)
    written = json.loads((tmp_path / "training.json").read_text())["recipe"]
    assert (written["lr"], written["momentum"], written["options"], written["schedule"]) == (
        5e-4, 0.0, {"alpha": 0.9}, "linear",
    )  # fmt: skip
    with pytest.raises(RunError, match=r"options.alpha 0.9 there, 0.5 here"):
        go(tmp_path, recipe.model_copy(update={"options": {"alpha": 0.5}}))


class Stop(Exception):
    pass


class Quits:
    """A logger that ends the process, so to speak, after some epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def log(self, row: dict[str, float]) -> None:
        if row["epoch"] >= self.after:
            raise Stop


OWN = {
    "rmsprop, step": Recipe(optimizer="rmsprop", options={"centered": True}, schedule="step", momentum=0.5),
    "critical, milestones": Recipe(schedule="multisteplr", schedule_options={"milestones": [1, 2]}),
}


@pytest.mark.parametrize("name", [*TRAININGS, *OWN])
def test_every_recipe_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path, name: str) -> None:
    changes = {"epochs": 3, "batch_size": 32, "switch_epoch": 1 if name == "hybrid-ep52" else None}
    recipe = load_recipe(name, **changes) if name in TRAININGS else OWN[name].model_copy(update=changes)
    whole = go(tmp_path / "whole", recipe)
    with pytest.raises(Stop):
        go(tmp_path / "cut", recipe, loggers=lambda: [Quits(2)])
    assert len(list((tmp_path / "cut").glob("checkpoint*"))) == 1
    resumed = go(tmp_path / "cut", recipe)
    assert sha(resumed) == sha(whole)
    columns = ["epoch", "lr", "momentum", "loss", "test_accuracy"]
    assert resumed.history[columns].equals(whole.history[columns])


def test_another_seed_is_another_network(tmp_path: Path) -> None:
    assert sha(go(tmp_path / "a")) != sha(go(tmp_path / "b", seed=1))


def test_a_training_that_diverges_says_when_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    result = go(tmp_path, SHORT.model_copy(update={"lr": 1e30, "clip": None}))
    assert result.stopped is not None
    assert all(tensor.isfinite().all() for tensor in load_file(result.weights).values())
    again = go(tmp_path, SHORT.model_copy(update={"lr": 1e30, "clip": None}))
    assert again.stopped == result.stopped
    assert len(again.history) == len(result.history)


def test_a_training_killed_after_its_last_epoch_has_its_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(tmp_path / "whole")
    written: list[Path] = []

    def dies(path: Path, content: str) -> None:
        written.append(path)
        if len(written) == SHORT.epochs:
            raise KeyboardInterrupt
        write_atomic(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[Fit.__module__], "write_atomic", dies)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "killed")
    assert len(pd.read_csv(tmp_path / "killed" / "history.csv")) == SHORT.epochs - 1
    killed = go(tmp_path / "killed")
    assert pd.read_csv(killed.log)["loss"].tolist() == pytest.approx(whole.history["loss"].tolist())
    assert sha(killed) == sha(whole)


def test_the_paper_s_recipes() -> None:
    for name, recipe in TRAININGS.items():
        assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (200, 128, 5e-4)
        assert (recipe.lr, recipe.lr_min) == ((1e-3, 1e-5) if name == "adam" else (0.1, 1e-4))
    kinds = {"ikfad": IKFAD, "cubic-damping": CubicDamping, "adam": torch.optim.Adam, "baseline": torch.optim.SGD}
    for name, kind in kinds.items():
        optimizer, _ = TRAININGS[name].build(nn.Linear(2, 2).parameters())
        assert type(optimizer) is kind
    assert TRAININGS["cubic-damping"].build(nn.Linear(2, 2).parameters())[0].param_groups[0]["c"] == 0.1
    assert type(Recipe(optimizer="cadam").build(nn.Linear(2, 2).parameters())[0]) is CADAM


def momenta(name: str, **changes: object) -> tuple[list[float], list[float]]:
    """lr and momentum in force in each epoch of a recipe."""
    recipe = load_recipe(name, **changes)
    optimizer, schedules = recipe.build(nn.Linear(2, 2).parameters())
    lrs, found = [], []
    for _ in range(recipe.epochs):
        lrs.append(optimizer.param_groups[0]["lr"])
        found.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    return lrs, found


def test_schedules_of_the_five_conditions() -> None:
    cosine = [cosine_lr(e, 200, 0.1, 1e-4) for e in range(1, 201)]
    physics = [min(max(critical_momentum(lr), 0.5), 0.99) for lr in cosine]
    assert momenta("baseline") == (pytest.approx(cosine), [0.9] * 200)
    assert momenta("physics") == (pytest.approx(cosine), pytest.approx(physics))
    _, inverse = momenta("1cycle")
    assert (inverse[0], min(inverse), max(inverse)) == pytest.approx((0.85, 0.85, 0.95), abs=1e-3)
    _, hybrid = momenta("hybrid-ep52")
    assert hybrid[:52] == pytest.approx(physics[:52])
    assert hybrid[52:] == [0.9] * 148


def test_the_matched_control_has_the_effective_learning_rate_of_critical_momentum() -> None:
    lrs, mus = momenta("matched")
    physics_lr, physics_mu = momenta("physics")
    assert mus == [0.9] * 200
    matched = [effective_lr(a, m) for a, m in zip(lrs, mus, strict=True)]
    assert matched == pytest.approx([effective_lr(a, m) for a, m in zip(physics_lr, physics_mu, strict=True)])
    with pytest.raises(InvalidArgumentError, match="constant momentum"):
        Recipe(match_effective_lr=True).build(nn.Linear(2, 2).parameters())


def test_hybrid_watches_the_held_out_accuracy(tmp_path: Path) -> None:
    recipe = Recipe(epochs=6, batch_size=32, lr=0.05, momentum="hybrid", threshold=0.8)
    history = go(tmp_path, recipe).history
    reached = int((history["test_accuracy"] >= 0.8).to_numpy().argmax())
    assert history["test_accuracy"].iloc[reached] >= 0.8
    assert (history["momentum"].iloc[reached + 1 :] == 0.9).all()
    assert (history["momentum"].iloc[: reached + 1] != 0.9).all()


@pytest.mark.parametrize(
    ("name", "changes", "error", "words"),
    [
        ("physic", {}, UnknownNameError, "did you mean 'physics'"),
        ("absent.toml", {}, MissingFileError, r"no file absent\.toml"),
        ("physics", {"lr": -1}, InvalidArgumentError, "'lr'.*greater than 0"),
        ("physics", {"epoch": 3}, InvalidArgumentError, "'epoch'"),
    ],
    ids=["name", "file", "range", "field"],
)
def test_recipes_that_are_none(name: str, changes: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_recipe(name, **changes)


def test_event_files_hold_what_the_log_holds(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from suture.integrations.trackers import TensorBoard

    result = go(tmp_path / "run", loggers=lambda: [TensorBoard(tmp_path / "events")])
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    for name in ("loss", "lr", "momentum", "test_accuracy"):
        assert [e.step for e in events.Scalars(name)] == [1, 2, 3]
        assert [e.value for e in events.Scalars(name)] == pytest.approx(result.history[name].tolist(), rel=1e-6)
