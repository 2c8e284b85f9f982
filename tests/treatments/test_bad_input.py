"""What goes wrong in a treatment: said in a sentence, nothing lost, nothing broken kept."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import suture
from suture.errors import InvalidArgumentError, NonFiniteError, RunError
from suture.training import Checkpoints, Recipe
from suture.treatments import Everything, FineTune, Plan
from suture.treatments.entries import evidence_of
from suture.treatments.lastlayer import LastLayer
from suture.treatments.where import Entries
from tests import toys
from tests.treatments import jobs


def plan(**changes: Any) -> Plan:
    return Plan(name="x", where=Everything(), how=jobs.short(**({"epochs": 6} | changes)))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "ikfad", "cadam"])
def test_a_diverging_treatment_is_stopped_said_and_not_kept(optimizer: str) -> None:
    case = toys.case()
    found = suture.treat(case, [], plan(optimizer=optimizer, lr=1e3, lr_min=1e3, clip=None))
    assert found.kept == "none"
    assert "the loss rose from" in found.note or "was not finite" in found.note
    assert "the state after epoch" in found.note or "the state it began with" in found.note
    assert len(found.history) < 6
    assert suture.verify(case, found).broken == 0


def test_a_diverging_training_ends_at_its_last_good_epoch() -> None:
    case = toys.case()
    how = FineTune(recipe=Recipe(epochs=40, batch_size=16, lr=3.0, lr_min=3.0, momentum=0.9, clip=None, weight_decay=0))
    treated = how.treat(jobs.job(case))
    assert treated.stopped is not None
    epochs = len(treated.history)
    kept = f"the state after epoch {epochs}" if epochs else "the state it began with"
    assert treated.stopped.endswith(f"{kept} was kept")
    if epochs:
        same = FineTune(recipe=how.recipe).treat(jobs.job(case, share=epochs / 40))
        assert jobs.identical(jobs.only(treated), jobs.only(same))


def test_a_resumed_training_is_stopped_where_an_undisturbed_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, how = toys.case(), jobs.short(epochs=6)
    # Losses as they might be: the third epoch is more than twice the first, and not twice the second.
    from suture.training import loop

    epoch, losses = loop._epoch, {1: 1.0, 2: 1.9, 3: 2.1}

    def scripted(*args: Any, **options: Any) -> tuple[float | None, float]:
        _, accuracy = epoch(*args, **options)
        return losses[options["epoch"]], accuracy

    monkeypatch.setattr(loop, "_epoch", scripted)
    whole = how.treat(jobs.job(case))
    checkpoints = Checkpoints(tmp_path, "key")
    how.treat(jobs.job(case, share=2 / 6, checkpoints=checkpoints))
    resumed = how.treat(jobs.job(case, checkpoints=checkpoints))
    assert whole.stopped == resumed.stopped
    assert whole.stopped is not None
    assert whole.stopped.startswith("the loss rose from 1.00 to 2.10 by epoch 3")
    assert jobs.identical(jobs.only(whole), jobs.only(resumed))


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = jobs.small_case()
    undisturbed = suture.treat(case, [], plan())
    from suture.training import checkpoints as module

    replacing, writes = module.replacing, [0]

    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            yield temporary
            writes[0] += 1
            if writes[0] == 4:
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "replacing", full)
        with pytest.raises(
            RunError, match=r"checkpoint-0004.*cannot be written .*No space left.*run again and go on after epoch 3"
        ) as e:
            suture.treat(case, [], plan(), checkpoints=Checkpoints(tmp_path, "key"))
    assert "\n" not in str(e.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-0003.safetensors"]  # and nothing half written
    found = suture.treat(case, [], plan(), checkpoints=Checkpoints(tmp_path, "key"))
    assert found.patch.result == undisturbed.patch.result
    assert found.history["loss"].tolist() == undisturbed.history["loss"].tolist()


@pytest.mark.parametrize("at", [1, 7, 15])
def test_an_interruption_in_the_middle_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    case = jobs.small_case()
    undisturbed = suture.treat(case, [], plan(batch_size=20))  # three steps an epoch
    before = jobs.state(case.model)
    step, steps = case.task.losses, [0]

    def interrupted(outputs: Any, batch: Any) -> Any:
        if outputs.requires_grad:
            steps[0] += 1
            if steps[0] == at + 5:  # the first steps are those of the estimate
                raise KeyboardInterrupt
        return step(outputs, batch)

    with monkeypatch.context() as patch:
        patch.setattr(case.task, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            suture.treat(case, [], plan(batch_size=20), checkpoints=Checkpoints(tmp_path, "key"))
    assert not jobs.differing(jobs.state(case.model), before)
    assert not list(tmp_path.rglob("*.tmp"))
    found = suture.treat(case, [], plan(batch_size=20), checkpoints=Checkpoints(tmp_path, "key"))
    assert found.patch.result == undisturbed.patch.result
    assert len(found.history) == 6


def test_masks_are_put_away_when_a_training_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    case = toys.case()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("suture.treatments.finetune.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jobs.short().treat(jobs.job(case, Entries(score="gradient")))
    assert all(not p._backward_hooks for p in case.model.parameters())


def test_methods_that_treat_parameters_whole_refuse_entries() -> None:
    with pytest.raises(InvalidArgumentError, match="choose groups, blocks or tensors, not entries"):
        suture.treat(toys.case(), ["last"], Plan(where=Entries(score="gradient"), how=LastLayer()))


def test_a_model_that_is_broken_already_is_said_to_be() -> None:
    model = toys.network()
    model.last.bias.data.fill_(float("nan"))
    case = suture.Case(model, toys.data())
    with pytest.raises(NonFiniteError, match="loss is not finite on 120 of 120 of the examples of 'diagnose'"):
        suture.treat(case, ["last"], plan())
    with pytest.raises(NonFiniteError):
        evidence_of(case)
