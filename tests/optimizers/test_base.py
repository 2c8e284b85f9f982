"""What the three splitting optimizers share: twins, oracles, torch's conventions, refusals."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from suture.errors import InvalidArgumentError
from suture.optimizers import CADAM, IKFAD, CubicDamping, base
from tests.oracles import splitting

ALL = [CubicDamping, IKFAD, CADAM]
SETTINGS = {
    CubicDamping: {"lr": 0.05, "momentum": 0.8, "c": 0.3},
    IKFAD: {"lr": 0.05, "momentum": 0.8, "friction_decay": 0.7, "mass": 0.2},
    CADAM: {"lr": 0.002, "momentum": 0.8, "c": 0.3, "friction_decay": 1.4, "eps": 1e-6},
}
ORACLES = {CubicDamping: splitting.cubic_damping, IKFAD: splitting.ikfad, CADAM: splitting.cadam}

each = pytest.mark.parametrize("kind", ALL)


def parameters(dtype=torch.float64, shapes=((3, 4), (5,), (), (2, 1, 3))):
    """Parameters with fixed random values."""
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def descend(optimizer, steps, seed=2):
    """Step on a noisy quartic bowl: the gradient depends on where the parameters are."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
                x = p.detach()
                p.grad = x + 0.1 * x**3 + 0.1 * noise
        optimizer.step()


def tensors(optimizer):
    """Parameters and buffers, in order."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    buffers = [optimizer.state[p][name] for p in params for name in type(optimizer).buffers]
    return [p.detach() for p in params] + buffers


def assert_same(first, second):
    for a, b in zip(tensors(first), tensors(second), strict=True):
        assert torch.equal(a, b)


@each
@pytest.mark.parametrize("foreach", [True, False], ids=["foreach", "plain"])
@pytest.mark.parametrize("extra", [{}, {"weight_decay": 0.05}, {"maximize": True, "weight_decay": 0.05}], ids=str)
def test_equations_entry_by_entry(kind, foreach, extra):
    settings = SETTINGS[kind]
    params = parameters()
    optimizer = kind(params, foreach=foreach, **settings, **extra)
    entries = [[splitting.Entry(x) for x in p.detach().flatten().tolist()] for p in params]
    generator = torch.Generator().manual_seed(3)
    for step in range(40):
        now = {**settings, "lr": settings["lr"] * (0.3 if step >= 20 else 1), "momentum": 0.5 + 0.01 * step}
        optimizer.param_groups[0].update(lr=now["lr"], momentum=now["momentum"])
        for p, row in zip(params, entries, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for entry, g in zip(row, p.grad.flatten().tolist(), strict=True):
                g = splitting.gradient(entry, g, extra.get("weight_decay", 0), extra.get("maximize", False))
                ORACLES[kind](entry, g, **now)
        optimizer.step()
    fields = {"momentum_buffer": "p", "xi": "xi", "friction": "friction", "zeta": "zeta"}
    for p, row in zip(params, entries, strict=True):
        expected = torch.tensor([e.x for e in row], dtype=p.dtype).view_as(p)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-11, atol=1e-12)
        for name in kind.buffers:
            expected = torch.tensor([getattr(e, fields[name]) for e in row], dtype=p.dtype).view_as(p)
            torch.testing.assert_close(optimizer.state[p][name], expected, rtol=1e-11, atol=1e-12)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("block", [base._CPU_BLOCK, 7], ids=["one block", "cut into blocks"])
def test_foreach_equals_plain_over_200_steps(kind, dtype, block, monkeypatch):
    monkeypatch.setattr(base, "_CPU_BLOCK", block)
    twins = [kind(parameters(dtype), foreach=foreach, **SETTINGS[kind]) for foreach in (True, False)]
    for twin in twins:
        descend(twin, 200)
    for fast, slow in zip(*map(tensors, twins), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-6)
        assert fast.isfinite().all()


@each
def test_foreach_calls_on_a_cpu_take_blocks_that_fit_the_cache(kind, monkeypatch):
    monkeypatch.setattr(base, "_CPU_BLOCK", 7)
    calls = []
    kernel = kind._foreach

    def spy(params, *lists, **numbers):
        calls.append([p.numel() for p in params])
        kernel(params, *lists, **numbers)

    monkeypatch.setattr(kind, "_foreach", staticmethod(spy))
    descend(kind(parameters(), **SETTINGS[kind]), 1)
    # Shapes (3, 4), (5,), () and (2, 1, 3): the first is cut, small ones travel together.
    assert calls == [[7], [5], [5, 1], [6]]


@each
def test_low_precision_parameters_keep_float32_state(kind):
    params = parameters(torch.bfloat16) + parameters(torch.float16) + parameters(torch.float64)
    optimizer = kind(params, **SETTINGS[kind])
    descend(optimizer, 3)
    for p in params:
        wanted = torch.float64 if p.dtype == torch.float64 else torch.float32
        assert {optimizer.state[p][name].dtype for name in kind.buffers} == {wanted}


@each
def test_bfloat16_follows_float32_to_its_own_precision(kind):
    start = parameters(torch.bfloat16)
    low, high = kind(start, **SETTINGS[kind]), kind([nn.Parameter(p.detach().float()) for p in start], **SETTINGS[kind])
    gradients = [torch.ones_like(p) for p in start]
    for _ in range(5):
        for optimizer in (low, high):
            for p, g in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
                p.grad = g.to(p.dtype)
            optimizer.step()
    for a, b in zip(low.param_groups[0]["params"], high.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0.02, atol=0.02)
        torch.testing.assert_close(low.state[a]["momentum_buffer"], high.state[b]["momentum_buffer"], rtol=0, atol=0)


@each
@pytest.mark.parametrize("foreach", [True, False])
def test_memory_layout_does_not_matter(kind, foreach, monkeypatch):
    monkeypatch.setattr(base, "_CPU_BLOCK", 8)
    plain = kind(parameters(shapes=[(2, 3, 4, 5), (6, 7)]), foreach=foreach, **SETTINGS[kind])
    laid_out = parameters(shapes=[(2, 3, 4, 5), (6, 7)])
    laid_out[0].data = laid_out[0].data.contiguous(memory_format=torch.channels_last)
    laid_out[1].data = laid_out[1].data.t().contiguous().t()
    other = kind(laid_out, foreach=foreach, **SETTINGS[kind])
    assert not any(p.is_contiguous() for p in laid_out)
    descend(plain, 5)
    descend(other, 5)
    assert_same(plain, other)


@each
def test_gradients_are_left_alone_and_none_is_skipped(kind):
    params = parameters()
    optimizer = kind(params, weight_decay=0.1, maximize=True, **SETTINGS[kind])
    params[0].grad = torch.ones_like(params[0])
    kept = params[1].detach().clone()
    optimizer.step()
    assert torch.equal(params[0].grad, torch.ones_like(params[0]))
    assert torch.equal(params[1].detach(), kept)
    assert params[1] not in optimizer.state
    for p in params:
        p.grad = None
    before = params[0].detach().clone()
    optimizer.step()
    assert torch.equal(params[0].detach(), before)


@each
def test_maximize_climbs(kind):
    down, up = (kind(parameters(), maximize=m, **SETTINGS[kind]) for m in (False, True))
    for optimizer, sign in ((down, 1.0), (up, -1.0)):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.full_like(p, sign)
        optimizer.step()
    assert_same(down, up)


@each
def test_param_groups_have_settings_of_their_own(kind):
    a, b = parameters(shapes=[(3,), (4,)])
    together = kind([{"params": [a]}, {"params": [b], "lr": 0.01, "momentum": 0.3}], **SETTINGS[kind])
    c, d = parameters(shapes=[(3,), (4,)])
    apart = [kind([c], **SETTINGS[kind]), kind([d], **{**SETTINGS[kind], "lr": 0.01, "momentum": 0.3})]
    for optimizer in (together, *apart):
        for p in optimizer.param_groups[0]["params"] + optimizer.param_groups[-1]["params"]:
            p.grad = torch.ones_like(p)
    for _ in range(3):
        for optimizer in (together, *apart):
            optimizer.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)


@each
def test_momentum_changed_between_steps_counts(kind):
    changed, constant = (kind(parameters(), **SETTINGS[kind]) for _ in range(2))
    descend(changed, 1)
    descend(constant, 1)
    changed.param_groups[0]["momentum"] = 0.1
    descend(changed, 2)
    descend(constant, 2)
    assert not torch.equal(tensors(changed)[0], tensors(constant)[0])


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_resumed_from_a_state_dict_it_goes_on_as_undisturbed(kind, dtype, tmp_path):
    first = kind(parameters(dtype, [(3, 4)]), **SETTINGS[kind])
    first.add_param_group({"params": parameters(dtype, [(5,), ()]), "lr": 0.01})
    descend(first, 5)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = kind([nn.Parameter(p.detach().clone()) for p in first.param_groups[0]["params"]])
    resumed.add_param_group({"params": [nn.Parameter(p.detach().clone()) for p in first.param_groups[1]["params"]]})
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_same(first, resumed)
    descend(first, 5, seed=4)
    descend(resumed, 5, seed=4)
    assert_same(first, resumed)


@each
def test_a_loaded_state_is_a_copy(kind):
    first = kind(parameters(), **SETTINGS[kind])
    descend(first, 2)
    second = kind(parameters(), **SETTINGS[kind])
    second.load_state_dict(first.state_dict())
    kept = [t.clone() for t in tensors(first)]
    descend(second, 1)
    for now, before in zip(tensors(first), kept, strict=True):
        assert torch.equal(now, before)


@each
def test_a_loaded_state_is_what_hooks_made_of_it(kind):
    first = kind(parameters(), **SETTINGS[kind])
    descend(first, 2)
    second = kind(parameters(), **SETTINGS[kind])

    def doubled(optimizer, state_dict):
        state = copy.deepcopy(state_dict["state"])
        state[0]["momentum_buffer"] *= 2
        return {**state_dict, "state": state}

    second.register_load_state_dict_pre_hook(doubled)
    second.load_state_dict(first.state_dict())
    a, b = (o.state[o.param_groups[0]["params"][0]]["momentum_buffer"] for o in (first, second))
    assert torch.equal(b, 2 * a)
    assert len(second._optimizer_load_state_dict_pre_hooks) == 1


@each
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_go_on_alike(kind, clone):
    first = kind(parameters(), **SETTINGS[kind])
    descend(first, 3)
    second = clone(first)
    descend(first, 3)
    descend(second, 3)
    assert_same(first, second)


@each
def test_states_from_before_an_option_existed_load(kind):
    first = kind(parameters(), **SETTINGS[kind])
    state = first.state_dict()
    for option in ("maximize", "foreach"):
        del state["param_groups"][0][option]
    first.load_state_dict(state)
    descend(first, 1)
    assert first.param_groups[0]["maximize"] is False


@each
def test_closure_is_evaluated_with_gradients_and_its_loss_returned(kind):
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer = kind([p], **SETTINGS[kind])

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert p.item() < 2
    assert optimizer.step() is None


@each
def test_lr_may_be_a_tensor(kind):
    number, tensor = (
        kind(parameters(), **SETTINGS[kind]),
        kind(parameters(), **{**SETTINGS[kind], "lr": torch.tensor(SETTINGS[kind]["lr"], dtype=torch.float64)}),
    )
    descend(number, 3)
    descend(tensor, 3)
    assert_same(number, tensor)


@each
def test_an_lr_of_zero_from_a_scheduler_stands_still(kind):
    optimizer = kind(parameters(), **SETTINGS[kind])
    descend(optimizer, 2)
    optimizer.param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    descend(optimizer, 1)
    for p, kept in zip(optimizer.param_groups[0]["params"], before, strict=True):
        assert torch.equal(p.detach(), kept)


@each
def test_a_subclass_of_tensor_takes_the_plain_twin(kind, monkeypatch):
    class Tagged(nn.Parameter):
        pass

    def never(*lists, **numbers):
        raise AssertionError("foreach was chosen")

    monkeypatch.setattr(kind, "_foreach", staticmethod(never))
    p = Tagged(torch.ones(2))
    optimizer = kind([p], **SETTINGS[kind])
    p.grad = torch.ones(2)
    optimizer.step()
    assert not torch.equal(p.detach(), torch.ones(2))


@each
def test_sparse_gradients_are_refused(kind):
    embedding = nn.Embedding(5, 2, sparse=True)
    optimizer = kind(embedding.parameters(), **SETTINGS[kind])
    embedding(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(InvalidArgumentError, match=rf"{kind.__name__} takes dense gradients only.*shape \(5, 2\)"):
        optimizer.step()


@each
def test_complex_parameters_are_refused_and_leave_no_group_behind(kind):
    optimizer = kind(parameters(), **SETTINGS[kind])
    p = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(InvalidArgumentError, match=r"real parameters only, got one of torch\.complex64"):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(InvalidArgumentError, match="view_as_real"):
        kind([p])


REFUSED = [
    *itertools.product(ALL, ["lr"], [0, -1, float("nan"), float("inf")]),
    *itertools.product(ALL, ["momentum"], [-0.1, 1, 1.5, float("nan")]),
    *itertools.product(ALL, ["weight_decay"], [-1e-4, float("nan"), float("inf")]),
    *itertools.product([CubicDamping, CADAM], ["c"], [-0.1, float("inf")]),
    *itertools.product([IKFAD, CADAM], ["friction_decay"], [0, -1, float("inf")]),
    *itertools.product([IKFAD], ["mass"], [0, -1, float("nan")]),
    *itertools.product([CADAM], ["eps"], [0, -1e-8]),
]


@pytest.mark.parametrize(("kind", "name", "value"), REFUSED, ids=str)
def test_settings_that_make_no_sense(kind, name, value):
    with pytest.raises(InvalidArgumentError, match=rf"^{name} must be .*, got {float(value)}$"):
        kind(parameters(), **{name: value})
    optimizer = kind(parameters())
    with pytest.raises(ValueError, match=f"^{name} must be"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], name: value})
    assert len(optimizer.param_groups) == 1


@each
def test_momentum_zero_forgets_at_every_step(kind):
    optimizer = kind(parameters(), **{**SETTINGS[kind], "momentum": 0})
    descend(optimizer, 2)
    for p in optimizer.param_groups[0]["params"]:
        assert torch.count_nonzero(optimizer.state[p]["momentum_buffer"]) == 0


@each
def test_it_descends(kind):
    optimizer = kind(parameters(), **SETTINGS[kind])
    start = [p.detach().abs().mean().item() for p in optimizer.param_groups[0]["params"]]
    for _ in range(300):
        optimizer.zero_grad()
        sum((p**2).sum() / 2 for p in optimizer.param_groups[0]["params"]).backward()
        optimizer.step()
    end = [p.detach().abs().mean().item() for p in optimizer.param_groups[0]["params"]]
    # CADAM's steps, like Adam's, do not shrink with the gradient: it ends by hovering.
    assert all(after < 0.1 * before for before, after in zip(start, end, strict=True))


@each
@pytest.mark.parametrize("lr", [-1e-3, float("nan"), float("inf")])
def test_an_lr_that_a_scheduler_made_senseless_moves_no_group(kind, lr):
    optimizer = kind([{"params": [p]} for p in parameters()], **SETTINGS[kind])
    descend(optimizer, 2)
    before = [t.clone() for t in tensors(optimizer)]
    optimizer.param_groups[-1]["lr"] = lr
    with pytest.raises(InvalidArgumentError, match="set by a scheduler"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(optimizer), strict=True))


@each
def test_an_lr_of_zero_stands_still_and_goes_on(kind):
    optimizer = kind(parameters(), **SETTINGS[kind])
    descend(optimizer, 2)
    params = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    lr, optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"], 0.0
    descend(optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(params, optimizer.param_groups[0]["params"], strict=True))
    optimizer.param_groups[0]["lr"] = lr
    descend(optimizer, 1)
    assert all(t.isfinite().all() for t in tensors(optimizer))
