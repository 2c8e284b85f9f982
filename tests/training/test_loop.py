"""The loop ends where an undisturbed one does, and stops before it does harm."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suture.patch import same_bits
from suture.tasks import Classification
from suture.training import Augment, Checkpoints, Recipe, Stop, train
from suture.training.loop import TrainingRun
from tests import toys

RECIPE = Recipe(epochs=4, batch_size=32, lr=0.05, augment=Augment(pad=0, flip=False))


class Dropping(toys.Net):
    """The toy network with dropout, so that random numbers matter."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.2, self.training))


def run(model: nn.Module, *, stop_after: int | None = None, recipe: Recipe = RECIPE, **options: Any) -> TrainingRun:
    class Killed(Exception):
        pass

    def after_epoch(epoch: int, _: nn.Module, row: object) -> dict[str, float]:
        if stop_after is not None and epoch > stop_after:
            raise Killed
        return {}

    optimizer, schedules = recipe.build(model.parameters())
    try:
        return train(
            model, toys.points(103, seed=1), Classification(), optimizer, schedules, epochs=recipe.epochs,
            batch_size=recipe.batch_size, seed=3, device=torch.device("cpu"), after_epoch=after_epoch, **options,
        )  # fmt: skip
    except Killed:
        return TrainingRun(torch.empty(0))  # type: ignore[arg-type]


def fresh() -> nn.Module:
    torch.manual_seed(5)
    return Dropping()


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_training_that_was_killed_ends_like_an_undisturbed_one(tmp_path: Path, stop_after: int) -> None:
    undisturbed = fresh()
    history = run(undisturbed).history
    checkpoints = Checkpoints(tmp_path, "key")
    run(fresh(), stop_after=stop_after, checkpoints=checkpoints)
    resumed = fresh()
    torch.manual_seed(99)  # what other code drew does not matter
    again = run(resumed, checkpoints=checkpoints).history
    assert all(
        same_bits(a, b) for a, b in zip(undisturbed.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    columns = ["epoch", "lr", "momentum", "loss", "accuracy"]
    assert again[columns].equals(history[columns])
    assert len(list(tmp_path.iterdir())) == 1
    checkpoints.clear()
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_another_key_and_broken_ones_are_not_resumed_from(tmp_path: Path) -> None:
    run(fresh(), stop_after=2, checkpoints=Checkpoints(tmp_path, "one"))
    (tmp_path / "checkpoint-0009.safetensors").write_bytes(b"half a file")
    expected, found = fresh(), fresh()
    run(expected)
    history = run(found, checkpoints=Checkpoints(tmp_path, "other")).history
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert all(
        same_bits(a, b) for a, b in zip(expected.state_dict().values(), found.state_dict().values(), strict=True)
    )


def test_the_history_follows_table_16() -> None:
    # Surgical correction: cosine from 0.01 to 1e-4 over 30 epochs, critical momentum.
    history = run(fresh(), recipe=Recipe(batch_size=128)).history.set_index("epoch")
    for epoch, lr, momentum in [(1, 0.01, 0.8), (10, 0.00796, 0.8216), (20, 0.00304, 0.8898), (30, 0.00013, 0.9775)]:
        assert history.loc[epoch, "lr"] == pytest.approx(lr, abs=6e-6)
        assert history.loc[epoch, "momentum"] == pytest.approx(momentum, abs=6e-4)


def test_a_loss_that_is_not_finite_stops_at_the_last_good_epoch() -> None:
    model = fresh()
    good: dict[str, Tensor] = {}

    class Explodes(Classification):
        calls = 0

        def losses(self, outputs: Tensor, batch: Any) -> Tensor:
            Explodes.calls += 1
            if Explodes.calls == 7:  # in the second epoch of four batches
                return super().losses(outputs, batch) * float("nan")
            if Explodes.calls == 5:
                good.update({n: t.clone() for n, t in model.state_dict().items() if "norm" not in n})
            return super().losses(outputs, batch)

    optimizer, schedules = RECIPE.build(model.parameters())
    found = train(
        model, toys.points(103, seed=1), Explodes(), optimizer, schedules, epochs=4, batch_size=32, seed=3,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert found.stopped is not None
    assert "epoch 2" in found.stopped
    assert found.history["epoch"].tolist() == [1]
    assert all(torch.equal(t, good[n]) for n, t in model.state_dict().items() if n in good)
    assert not model.training


def test_frozen_parameters_and_modules_in_eval_mode_stay_bit_by_bit() -> None:
    model = fresh()
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("last"))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    optimizer, schedules = RECIPE.build(p for p in model.parameters() if p.requires_grad)
    train(
        model, toys.points(103, seed=1), Classification(), optimizer, schedules, epochs=2, batch_size=32, seed=3,
        device=torch.device("cpu"), mode=nn.Module.eval,
    )  # fmt: skip
    changed = {n for n, t in model.state_dict().items() if not same_bits(t, before[n])}
    assert changed == {"last.weight", "last.bias"}


def test_gradients_are_clipped() -> None:
    model = nn.Linear(2, 3)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrong = int(model(torch.tensor([[1e4, 1e4]])).argmin())
    examples = [(torch.tensor([1e4, 1e4]), wrong)]
    train(
        model, examples, Classification(), optimizer, [], epochs=1, batch_size=1, seed=0,
        device=torch.device("cpu"), clip=0.5,
    )  # fmt: skip
    # A wrong answer on so large an input asks for a step of ten thousand.
    assert float((model.weight.detach() - before).norm()) == pytest.approx(0.5, abs=1e-3)


def test_a_last_batch_of_one_does_not_break_batchnorm() -> None:
    history = run(fresh(), recipe=RECIPE.model_copy(update={"batch_size": 51})).history  # 103 = 2 * 51 + 1
    assert len(history) == 4


POINTS = toys.points(103, seed=1)


def losses_of(history: Any) -> list[float]:
    return list(history["loss"])


@pytest.mark.parametrize("parts", [[1, 4], [2, 3, 4], [4]])
@pytest.mark.parametrize("per_epoch", [None, 40])
def test_a_training_in_parts_ends_like_one_at_once(tmp_path: Path, parts: list[int], per_epoch: int | None) -> None:
    whole = fresh()
    history = run(whole, per_epoch=per_epoch).history
    for until in parts:
        model = fresh()
        found = run(model, until=until, checkpoints=Checkpoints(tmp_path, "key"), per_epoch=per_epoch).history
        assert found["epoch"].tolist() == list(range(1, until + 1))
    assert all(same_bits(a, b) for a, b in zip(whole.state_dict().values(), model.state_dict().values(), strict=True))
    assert losses_of(found) == losses_of(history)
    # One that has gone further than is asked for now stays where it is.
    again = fresh()
    assert len(run(again, until=1, checkpoints=Checkpoints(tmp_path, "key")).history) == 4
    assert same_bits(again.get_parameter("last.weight"), model.get_parameter("last.weight"))


def seen_in(per_epoch: int | None, epochs: int, batch_size: int = 16) -> list[list[int]]:
    """Positions seen in each epoch."""
    seen: list[list[int]] = [[] for _ in range(epochs)]
    done = [0]

    def after_epoch(epoch: int, _: nn.Module, row: object) -> dict[str, float]:
        done[0] = epoch
        return {}

    optimizer, schedules = RECIPE.build((model := fresh()).parameters())
    train(
        model, POINTS, Classification(), optimizer, schedules, epochs=epochs, batch_size=batch_size, seed=3,
        device=torch.device("cpu"), per_epoch=per_epoch, after_epoch=after_epoch,
        on_batch=lambda positions: seen[done[0]].extend(positions),
    )  # fmt: skip
    return seen


@pytest.mark.parametrize("per_epoch", [20, 40, 51, 102])
def test_every_example_is_seen_once_before_any_is_seen_again(per_epoch: int) -> None:
    epochs = 12
    seen = seen_in(per_epoch, epochs, batch_size=per_epoch)
    assert all(len(part) == per_epoch for part in seen)
    order = [i for part in seen for i in part]
    rounds = [order[start : start + 103] for start in range(0, len(order) - 102, 103)]
    assert rounds
    assert all(sorted(one) == list(range(103)) for one in rounds)
    assert len({tuple(one) for one in rounds}) == len(rounds)  # each in an order of its own
    rest = order[len(rounds) * 103 :]
    assert len(set(rest)) == len(rest)


def test_an_epoch_of_all_examples_or_more_is_an_ordinary_one() -> None:
    whole = seen_in(None, 2, batch_size=103)
    assert all(sorted(part) == list(range(103)) for part in whole)
    assert seen_in(103, 2, batch_size=103) == seen_in(1000, 2, batch_size=103) == whole


def test_on_batch_is_told_the_positions_before_the_model_sees_them() -> None:
    told: list[list[int]] = []

    class Checking(Classification):
        def outputs(self, model: nn.Module, batch: Any) -> Tensor:
            assert torch.equal(batch[0], torch.stack([POINTS[i][0] for i in told[-1]]))
            return super().outputs(model, batch)

    optimizer, schedules = RECIPE.build((model := fresh()).parameters())
    train(
        model, POINTS, Checking(), optimizer, schedules, epochs=2, batch_size=32, seed=3, device=torch.device("cpu"),
        on_batch=told.append,
    )  # fmt: skip
    assert [len(positions) for positions in told] == [32, 32, 32, 7] * 2


def test_a_penalty_is_added_to_the_loss_and_not_to_the_history() -> None:
    """Half the squared length of all weights, against the same written as weight decay."""
    models, histories = [fresh(), fresh()], []
    for model, decay, strength in zip(models, (0.3, 0.0), (0.0, 0.3), strict=True):

        def penalty(m: nn.Module, batch: Any, outputs: Tensor, factor: float = strength) -> Tensor:
            assert len(outputs) == len(batch[1])
            return factor / 2 * torch.stack([p.square().sum() for p in m.parameters()]).sum()

        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=decay)
        found = train(
            model, POINTS, Classification(), optimizer, [], epochs=2, batch_size=32, seed=3,
            device=torch.device("cpu"), clip=None, penalty=penalty if strength else None,
        )  # fmt: skip
        histories.append(losses_of(found.history))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


def test_a_penalty_that_is_not_finite_ends_the_training() -> None:
    def penalty(model: nn.Module, batch: Any, outputs: Tensor) -> Tensor:
        return outputs.sum() * float("inf")

    found = run(fresh(), penalty=penalty)
    assert found.stopped == "the loss was not finite in epoch 1; the state it began with was kept"
    assert found.history.empty


def test_stop_ends_a_training_at_the_state_before_the_epoch(tmp_path: Path) -> None:
    def stopping(epoch: int, _: nn.Module, row: dict[str, float]) -> dict[str, float]:
        if epoch == 3:
            raise Stop("enough of it")
        return {"double": 2 * row["loss"]}

    optimizer, schedules = RECIPE.build((model := fresh()).parameters())
    checkpoints = Checkpoints(tmp_path, "key")
    found = train(
        model, POINTS, Classification(), optimizer, schedules, epochs=4, batch_size=32, seed=3,
        device=torch.device("cpu"), after_epoch=stopping, checkpoints=checkpoints,
    )  # fmt: skip
    assert found.stopped == "enough of it; the state after epoch 2 was kept"
    assert found.history["epoch"].tolist() == [1, 2]
    assert found.history["double"].tolist() == [2 * loss for loss in losses_of(found.history)]
    expected = fresh()
    run(expected, until=2)
    assert all(
        same_bits(a, b) for a, b in zip(expected.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert not model.training
    assert [row["epoch"] for row in checkpoints.rows()] == [1, 2]
    assert Checkpoints(tmp_path, "other").rows() == []
