"""DampingMonitor: what it records, that it leaves no trace, and that it waits for nothing."""

import copy
import gc
import json
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

import suture
from suture.errors import DataError, InvalidArgumentError
from suture.integrations.monitor import DampingMonitor
from suture.schedules import CriticalMomentum
from suture.stages.rehearsal import rehearse

STEPS = 4


def optimizer(kind: Any = torch.optim.SGD, **settings: Any) -> Any:
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.ones(3)
    return kind([weight], **({"lr": 0.1} | settings))


def steps(opt: Any, n: int = STEPS) -> None:
    for _ in range(n):
        opt.step()


def hooks(opt: Any) -> int:
    return len(opt._optimizer_step_post_hooks) + len(opt._optimizer_step_pre_hooks)


def test_an_epoch_ends_where_something_is_logged() -> None:
    opt = optimizer(momentum=0.9)
    schedule = StepLR(opt, 1, gamma=0.5)
    with suture.DampingMonitor(opt) as monitor:
        for epoch in range(3):
            steps(opt)
            monitor.log(loss=3.0 - epoch, accuracy=torch.tensor(0.2 * epoch))
            schedule.step()
    history = monitor.history()
    assert history.table.to_dict("list") == {
        "epoch": [1, 2, 3], "lr": [0.1, 0.05, 0.025], "momentum": [0.9] * 3, "loss": [3, 2, 1],
        "accuracy": pytest.approx([0, 0.2, 0.4]),
    }  # fmt: skip
    assert (history.source, history.optimizer, history.assumed) == ("DampingMonitor", "SGD", None)
    assert monitor.steps == 3 * STEPS
    assert monitor.scan(tolerance=0.6).counts["critical"] == 3


def test_it_sees_the_momentum_that_a_schedule_sets_whichever_came_first() -> None:
    """The record of the paper's Physics run equals its rehearsal."""
    expected = rehearse("physics", epochs=30).table
    for early in (True, False):
        opt = optimizer(momentum=0.9)
        monitor = DampingMonitor(opt) if early else DampingMonitor()
        schedules = [CosineAnnealingLR(opt, 30, eta_min=1e-4), CriticalMomentum(opt)]
        if not early:
            monitor.attach(opt)
        for _ in range(30):
            steps(opt)
            monitor.log()
            for schedule in schedules:
                schedule.step()
        table = monitor.history().table
        assert table["lr"].tolist() == pytest.approx(expected["lr"].tolist())
        assert table["momentum"].tolist() == pytest.approx(expected["momentum"].tolist())
        assert suture.scan(monitor.history()).counts == suture.scan(rehearse("physics", epochs=30)).counts


def test_steps_per_epoch_lets_log_be_called_at_any_time() -> None:
    opt = optimizer()
    monitor = DampingMonitor(opt, steps_per_epoch=STEPS)
    for step in range(10):
        opt.param_groups[0]["lr"] = 1 / (step + 1)
        opt.step()
        monitor.log(loss=step)
        if step in (3, 5, 7):
            monitor.log(accuracy=step / 10)
    table = monitor.history().table
    assert table["epoch"].tolist() == [1, 2, 3]
    assert table["lr"].tolist() == pytest.approx([1, 1 / 5, 1 / 9])
    assert table["loss"].tolist() == [1.5, 5.5, 8.5]
    assert table["accuracy"].tolist()[:2] == [0.3, 0.7]


def test_epochs_without_a_change_and_an_unfinished_one_are_there() -> None:
    opt = optimizer()
    monitor = DampingMonitor(opt)
    monitor.log(accuracy=0.1)  # before the training
    for _ in range(3):
        steps(opt)
        monitor.log(loss=1.0)
        monitor.log(accuracy=0.5)  # the same epoch
    steps(opt, 1)
    table = monitor.history().table
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert table["loss"].fillna(0).tolist() == [1, 1, 1, 0]
    assert table["accuracy"].fillna(0).tolist() == [0.5, 0.5, 0.5, 0]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, suture.optimizers.CADAM, torch.optim.RMSprop])
def test_an_optimizer_that_rescales_the_gradient_gets_no_regimes(kind: Any) -> None:
    opt = optimizer(kind)
    with DampingMonitor(opt) as monitor:
        steps(opt)
    history = monitor.history()
    assert (history.optimizer, history.preconditioned) == (kind.__name__, True)
    assert monitor.scan().counts == {}
    expected = opt.param_groups[0]["betas"][0] if "betas" in opt.param_groups[0] else opt.param_groups[0]["momentum"]
    assert history.table["momentum"].tolist() == [expected]


@pytest.mark.parametrize("kind", [suture.optimizers.CubicDamping, suture.optimizers.IKFAD])
def test_suture_s_own_momentum_methods_keep_theirs(kind: Any) -> None:
    opt = optimizer(kind, momentum=0.8)
    with DampingMonitor(opt) as monitor:
        steps(opt)
    assert monitor.scan().counts["underdamped"] == 1
    assert monitor.history().assumed is None


def test_betas_give_a_home_made_adam_away_and_nesterov_is_said() -> None:
    class Mine(torch.optim.AdamW):
        pass

    opt = optimizer(Mine)
    with DampingMonitor(opt) as monitor:
        steps(opt)
    assert monitor.history().preconditioned
    opt = optimizer(momentum=0.9, nesterov=True)
    with DampingMonitor(opt) as monitor:
        steps(opt)
    assert any("Nesterov" in note for note in monitor.history().notes)


def test_measured_curvature_gives_regimes() -> None:
    opt = optimizer(torch.optim.Adam)
    with DampingMonitor(opt) as monitor:
        for curvature in (0.5, None, 0.02):
            steps(opt)
            monitor.log(curvature=curvature)
    assert monitor.scan().epochs["curvature"].tolist() == [0.5, 0.5, 0.02]
    assert sum(monitor.scan().counts.values()) == 3


def test_param_groups() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.2)]
    opt = torch.optim.SGD(groups, momentum=0.5)
    with DampingMonitor(opt, group=1) as monitor:
        opt.step()
    assert monitor.history().table["lr"].tolist() == [0.2]
    said = "of 2 param groups, the lr and momentum of group 1 are scanned"
    assert said in monitor.history().notes
    assert said in copy.deepcopy(monitor).history().notes
    with pytest.raises(InvalidArgumentError, match="there is no param group 2; the optimizer has 2"):
        DampingMonitor(opt, group=2)


# Hooks


def test_it_detaches_cleanly() -> None:
    opt = optimizer()
    monitor = DampingMonitor(opt)
    assert hooks(opt) == 1
    steps(opt)
    monitor.detach()
    monitor.detach()
    steps(opt)
    assert (hooks(opt), monitor.steps) == (0, STEPS)
    with pytest.raises(RuntimeError, match="stop"), monitor.attach(opt):
        raise RuntimeError("stop")
    assert hooks(opt) == 0
    other = optimizer()
    monitor.attach(opt).attach(other)
    assert (hooks(opt), hooks(other)) == (0, 1)


def test_neither_keeps_the_other_alive() -> None:
    opt = optimizer()
    monitor = DampingMonitor(opt)
    gone = weakref.ref(monitor)
    del monitor
    gc.collect()
    assert gone() is None
    assert hooks(opt) == 0
    kept = DampingMonitor(opt)
    steps(opt)
    gone_optimizer = weakref.ref(opt)
    del opt
    gc.collect()
    assert gone_optimizer() is None
    assert kept.history().table["lr"].tolist() == [0.1]


def test_the_optimizer_can_still_be_copied_and_pickled() -> None:
    opt = optimizer(momentum=0.9)
    monitor = DampingMonitor(opt)
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        steps(twin)
    assert monitor.steps == 0


def test_wrapped_optimizers_are_found() -> None:
    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.optimizer = inner

        def step(self) -> None:
            self.optimizer.step()

    opt = optimizer()
    with DampingMonitor(Wrapper(Wrapper(opt))) as monitor:
        steps(opt)
    assert monitor.steps == STEPS


# Checkpoints


def trained(opt: Any, monitor: DampingMonitor, epochs: range) -> None:
    for epoch in epochs:
        opt.param_groups[0]["lr"] = 0.1 / (epoch + 1)
        steps(opt)
        monitor.log(loss=float(epoch))


@pytest.mark.parametrize("way", ["state_dict", "json", "pickle", "deepcopy", "torch"])
def test_a_record_goes_on_after_a_checkpoint(way: str, tmp_path: Any) -> None:
    opt = optimizer(momentum=0.9)
    whole = DampingMonitor(opt)
    trained(opt, whole, range(2))
    if way in ("pickle", "deepcopy"):
        resumed = pickle.loads(pickle.dumps(whole)) if way == "pickle" else copy.deepcopy(whole)
        assert resumed.history().table.equals(whole.history().table)
        assert hooks(opt) == 1
    else:
        state = whole.state_dict()
        if way == "json":
            state = json.loads(json.dumps(state))
        if way == "torch":
            torch.save(state, tmp_path / "c.pt")
            state = torch.load(tmp_path / "c.pt", weights_only=True)
        resumed = DampingMonitor()
        resumed.load_state_dict(state)
    trained(opt, whole, range(2, 4))
    other = optimizer(momentum=0.9)
    resumed.attach(other)
    trained(other, resumed, range(2, 4))
    assert resumed.history().table.equals(whole.history().table)
    assert resumed.history().fingerprint == whole.history().fingerprint


def test_loading_forgets_what_came_after_and_keeps_the_hook() -> None:
    opt = optimizer()
    monitor = DampingMonitor(opt)
    trained(opt, monitor, range(1))
    state = monitor.state_dict()
    trained(opt, monitor, range(1, 3))
    monitor.load_state_dict(state)
    trained(opt, monitor, range(1, 2))
    assert monitor.history().table["epoch"].tolist() == [1, 2]
    assert monitor.steps == 2 * STEPS


# Waiting for nothing


def test_nothing_is_copied_from_the_device_while_it_records() -> None:
    """Tensors on the meta device have no value: reading one would fail."""
    monitor = DampingMonitor(optimizer(torch.optim.Adam, capturable=False))
    beta = torch.tensor(0.9, device="meta")
    for _ in range(3000):
        monitor._record({"lr": torch.tensor(0.1, device="meta"), "betas": (beta, 0.999)})
    monitor.log(loss=torch.zeros((), device="meta", requires_grad=True))
    assert monitor.steps == 3000
    assert len(monitor._lr._done) + len(monitor._lr._waiting) < 1100  # joined, not one tensor per step


def test_learning_rates_that_are_tensors_are_values_of_their_step() -> None:
    lr = torch.tensor(0.1)
    opt = optimizer(lr=lr, foreach=False)
    with DampingMonitor(opt) as monitor:
        for factor in (1.0, 0.5):
            lr.mul_(factor)
            steps(opt)
            monitor.log()
    assert monitor.history().table["lr"].tolist() == pytest.approx([0.1, 0.05])


def test_an_unchanged_hyperparameter_takes_no_memory() -> None:
    opt = optimizer()
    with DampingMonitor(opt, steps_per_epoch=100) as monitor:
        steps(opt, 1000)
    assert len(monitor.state_dict()["lr"]) == 1
    assert monitor.history().table["lr"].tolist() == [0.1] * 10


# Bad input


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="attaches to a torch optimizer, got a Linear"):
        DampingMonitor(nn.Linear(1, 1))
    with pytest.raises(InvalidArgumentError, match="steps_per_epoch must be at least 1"):
        DampingMonitor(steps_per_epoch=0)
    monitor = DampingMonitor(optimizer())
    with pytest.raises(DataError, match="has seen no optimizer step"):
        monitor.history()
    for value in ("0.3", [1.0], torch.zeros(2), np.ones(3)):
        with pytest.raises(InvalidArgumentError, match="loss must be one number"):
            monitor.log(loss=value)
    with pytest.raises(InvalidArgumentError, match=r"a state of DampingMonitor has the fields begins, .* got none"):
        monitor.load_state_dict({})
    assert monitor.state_dict()["logged_at"] == []


def test_a_loss_that_is_nan_is_missing() -> None:
    opt = optimizer()
    with DampingMonitor(opt) as monitor:
        for loss in (1.0, float("nan"), torch.tensor(float("inf"))):
            steps(opt)
            monitor.log(loss=loss)
    history = monitor.history()
    assert history.table["loss"].isna().tolist() == [False, True, True]
    assert "loss is missing in 2 of 3 epochs" in history.notes


@pytest.mark.parametrize("every", [None, STEPS])
def test_what_is_logged_before_the_first_step_is_left_out(every: int | None) -> None:
    opt = optimizer()
    with DampingMonitor(opt, steps_per_epoch=every) as monitor:
        monitor.log(loss=100.0, accuracy=0.1, curvature=3.0)
        for _ in range(2):
            steps(opt)
            monitor.log(loss=1.0)
    history = monitor.history()
    assert history.table["loss"].tolist() == [1.0, 1.0]
    assert "accuracy" not in history.table
    assert history.table["curvature"].tolist() == [3.0, 3.0]
    assert "a loss or accuracy from before the first step belongs to no epoch and was left out" in history.notes


@pytest.mark.filterwarnings("error")
def test_losses_with_gradients_and_arrays_of_one_are_numbers() -> None:
    opt = optimizer()
    with DampingMonitor(opt) as monitor:
        for loss in (torch.tensor(0.5, requires_grad=True), torch.ones(1).requires_grad_(), np.ones(1), np.float32(2)):
            steps(opt)
            monitor.log(loss=loss)
    assert monitor.history().table["loss"].tolist() == [0.5, 1.0, 1.0, 2.0]


def test_a_record_from_before_groups_were_counted_still_loads() -> None:
    opt = optimizer()
    with DampingMonitor(opt) as monitor:
        steps(opt)
    state = monitor.state_dict()
    del state["groups"]
    other = DampingMonitor()
    other.load_state_dict(state)
    assert other.history().fingerprint == monitor.history().fingerprint
