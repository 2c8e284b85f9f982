"""Guards: penalties against plain formulas, the Fisher matrix against one backward per example."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.case import Case
from suture.errors import InvalidArgumentError
from suture.stats import flips
from suture.tasks import Batch, evaluate
from suture.training import Stop
from suture.treatments import Flagged, Guard, Job
from suture.treatments.finetune import penalty_of, watch_of
from suture.treatments.guards import EWC, L2SP, Distill, EarlyStop, Replay
from tests import toys
from tests.treatments import jobs


def moved(model: nn.Module, by: float = 0.1) -> nn.Module:
    """A copy with every parameter somewhere else."""
    generator, twin = torch.Generator().manual_seed(1), copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return twin


def batch_of(case: Case, split: str = "repair", n: int = 20) -> Batch:
    examples = [case.splits[split][i] for i in range(n)]
    return torch.stack([x for x, _ in examples]), torch.tensor([y for _, y in examples])


def penalty(guard: Guard, job: Job, model: nn.Module) -> Tensor:
    found, batch = guard.penalty(job), batch_of(job.case)
    assert found is not None
    return found(model, batch, model(batch[0]))


def test_l2sp_is_half_the_squared_distance_of_what_is_treated() -> None:
    case = toys.case()
    job, model = jobs.job(case, Flagged(), ("second", "last")), moved(case.model)
    old = dict(case.model.named_parameters())
    expected = sum(
        float((p - old[n]).detach().square().sum())
        for n, p in model.named_parameters()
        if n.startswith(("second", "last"))
    )
    assert penalty(L2SP(strength=0.3), job, model).item() == pytest.approx(0.15 * expected, rel=1e-5)
    assert penalty(L2SP(), job, case.model).item() == 0.0


def test_ewc_weighs_the_distance_by_the_fisher_matrix_of_what_was_right() -> None:
    case = toys.case()
    job, model, split = jobs.job(case), moved(case.model), case.splits["diagnose"]
    right = [split[i] for i in range(len(split)) if int(case.model(split[i][0][None]).argmax()) == split[i][1]]
    assert 50 < len(right) < 256  # so that all of them are taken
    fisher = {n: torch.zeros_like(p) for n, p in case.model.named_parameters()}
    for x, y in right:
        twin = copy.deepcopy(case.model).requires_grad_(True)
        F.cross_entropy(twin(x[None]), torch.tensor([y])).backward()
        for n, p in twin.named_parameters():
            fisher[n] += p.grad.square() / len(right)  # type: ignore[union-attr]
    found = EWC._fisher(job)
    for n, values in fisher.items():
        torch.testing.assert_close(found[n], values, rtol=1e-4, atol=1e-9)
    old = dict(case.model.named_parameters())
    expected = sum(float((fisher[n] * (p - old[n]).square()).detach().sum()) for n, p in model.named_parameters())
    assert penalty(EWC(strength=7.0), job, model).item() == pytest.approx(3.5 * expected, rel=1e-4)


def test_ewc_without_a_right_example_weighs_nothing() -> None:
    wrong = [(x, (int(toys.network()(x[None]).argmax()) + 1) % 3) for x, _ in toys.data()]
    job = jobs.job(Case(toys.network(), wrong))
    assert penalty(EWC(), job, moved(job.model)).item() == 0.0


def test_distillation_is_nothing_at_the_start_and_has_the_gradient_of_its_formula() -> None:
    case = toys.case()
    job, guard = jobs.job(case), Distill(strength=0.7, temperature=3.0, right=1.5, wrong=0.25)
    assert penalty(guard, job, case.model).item() == pytest.approx(0.0, abs=1e-7)
    model = moved(case.model).requires_grad_(True)
    inputs, labels = batch_of(case)
    found = penalty(guard, job, model)
    gradients = torch.autograd.grad(found, list(model.parameters()))
    with torch.no_grad():
        taught = case.model(inputs)
        p = (taught / 3).softmax(1)
    q = (model(inputs) / 3).softmax(1)
    weight = torch.tensor([1.5 if int(a) == int(b) else 0.25 for a, b in zip(taught.argmax(1), labels, strict=True)])
    assert len(set(weight.tolist())) == 2
    formula = 0.7 * 9 * (weight * (p * (p / q).log()).sum(1)).mean()
    torch.testing.assert_close(found, formula, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(gradients, torch.autograd.grad(formula, list(model.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_distillation_stays_finite_where_probabilities_vanish() -> None:
    case = toys.case()
    model = copy.deepcopy(case.model)
    with torch.no_grad():
        model.last.weight.mul_(1e4)  # type: ignore[operator]
    found = penalty(Distill(), jobs.job(case), model.requires_grad_(True))
    assert found.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(found, list(model.parameters())))


def test_distillation_needs_probabilities() -> None:
    with pytest.raises(InvalidArgumentError, match="CopyTask does not offer; choose l2sp or ewc"):
        Distill().penalty(jobs.job(toys.sequence_case()))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_replay_takes_the_errors_and_its_share_of_what_was_right(share: float) -> None:
    case = toys.case()
    job, repair = jobs.job(case), case.splits["repair"]
    found = Replay(share=share).examples(job, repair)
    outcomes = evaluate(case.model, repair, case.task, device=case.device)
    wrong = {repair.indices[i] for i in outcomes.errors}
    chosen = set(found.indices)  # type: ignore[attr-defined]
    assert wrong <= chosen
    assert len(found) - len(wrong) == round(len(wrong) * share / (1 - share))
    assert chosen <= set(repair.indices)
    assert len(chosen) == len(found)


def test_replay_without_errors_takes_everything() -> None:
    easy = [(x, int(toys.network()(x[None]).argmax())) for x, _ in toys.points(100, seed=2)]
    case = Case(toys.network(), easy)
    assert len(Replay().examples(jobs.job(case), case.splits["repair"])) == len(case.splits["repair"])


def test_a_training_with_replay_sees_what_replay_chose() -> None:
    job = jobs.job(toys.case(), guards=(Replay(share=0.0),))
    wrong = len(Replay(share=0.0).examples(job, job.examples))
    treated = jobs.short(epochs=1, batch_size=1000).treat(job)
    assert treated.history["accuracy"].tolist() == [0.0]  # one step, on errors alone
    assert 0 < wrong < len(job.examples)


def test_guards_add_up() -> None:
    case = toys.case()
    guards = (L2SP(strength=2.0), Distill(strength=0.5), Replay(), EarlyStop())
    model, batch = moved(case.model), batch_of(case)
    total = penalty_of(jobs.job(case, guards=guards))
    assert total is not None
    parts = [penalty(guard, jobs.job(case), model) for guard in guards[:2]]
    assert total(model, batch, model(batch[0])).item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
    assert penalty_of(jobs.job(case, guards=guards[2:])) is None


def test_a_strong_guard_holds_the_weights_near_the_old_ones() -> None:
    case = toys.case()

    def distance(*guards: Guard) -> float:
        model = jobs.only(jobs.short(epochs=3, clip=None, lr=0.01).treat(jobs.job(case, guards=guards)))
        old = dict(case.model.named_parameters())
        return sum(float((p - old[n]).detach().square().sum()) for n, p in model.named_parameters()) ** 0.5

    free = distance()
    assert distance(L2SP(strength=10.0)) < 0.7 * free
    assert distance(L2SP(strength=10.0), EWC(strength=1000.0)) < distance(L2SP(strength=10.0))


def test_early_stop_keeps_the_state_before_the_epoch_that_broke_too_much(tmp_path: Any) -> None:
    case, how = toys.case(), jobs.short(epochs=12, lr=0.5, clip=None)
    split = case.splits["select"]
    before = evaluate(case.model, split, case.task, device=case.device).right

    def broken(model: nn.Module) -> float:
        return flips(before, evaluate(model, split, case.task, device=case.device).right).regression_rate

    rates, models = [], []
    for epochs in range(1, 13):
        models.append(jobs.only(how.treat(jobs.job(case, share=epochs / 12))))
        rates.append(broken(models[-1]))
    bound = sorted(rates)[-2] - 1e-9  # at least two epochs break more
    first = next(i for i, rate in enumerate(rates) if rate > bound)
    assert first > 0
    treated = how.treat(jobs.job(case, guards=(EarlyStop(max_regression=bound),)))
    assert treated.stopped is not None
    assert f"epoch {first + 1} broke" in treated.stopped
    assert treated.stopped.endswith(f"the state after epoch {first} was kept")
    assert len(treated.history) == first
    assert jobs.identical(jobs.only(treated), models[first - 1])


def test_early_stop_ends_at_a_network_without_finite_losses() -> None:
    case = toys.case()
    model = copy.deepcopy(case.model)
    with torch.no_grad():
        model.last.bias.fill_(float("nan"))  # type: ignore[operator, union-attr]
    watch = EarlyStop().watch(jobs.job(case))
    assert watch is not None
    watch(1, case.model)
    with pytest.raises(Stop, match="epoch 2 left a network without finite losses"):
        watch(2, model)


def test_a_loss_that_runs_away_ends_a_training() -> None:
    case = toys.case()
    look = watch_of(jobs.job(case))
    look(1, case.model, {"loss": 0.8})
    look(2, case.model, {"loss": 2.0})  # not more than twice a nat
    with pytest.raises(Stop, match=r"the loss rose from 0\.80 to 2\.01 by epoch 3"):
        look(3, case.model, {"loss": 2.01})
    with pytest.raises(Stop, match=r"to 99\.00 in epoch 1"):
        watch_of(jobs.job(case))(1, case.model, {"loss": 99.0})


def test_every_guard_trains_and_leaves_the_case_alone() -> None:
    case = jobs.small_case()
    before = jobs.state(case.model)
    for guard in (L2SP(), EWC(), Distill(), Replay(), EarlyStop(max_regression=0.9)):
        treated = jobs.short().treat(jobs.job(case, guards=(guard,)))
        assert isinstance(treated.history, pd.DataFrame)
        assert len(treated.history) == 2
        assert np.isfinite(treated.history["loss"]).all()
        assert jobs.differing(jobs.state(jobs.only(treated)), before)
    assert not jobs.differing(jobs.state(case.model), before)
