"""The frozen prefix, looked up: the same answers and gradients as when it runs, or a reason why not."""

import copy
from collections.abc import Callable
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest
import torch
from torch import Tensor, nn

from suture.errors import DataError, InvalidArgumentError
from suture.groups import resolve
from suture.patch import same_bits
from suture.tasks import Classification, Task, fetch
from suture.training import train
from suture.treatments.cost import freeze_all_but
from suture.treatments.prefix import Prefix, find_prefix
from suture.treatments.stubs import Unknown
from tests import zoo
from tests.treatments.networks import (
    Borrowed,
    Folded,
    Noisy,
    Padded,
    Residual,
    Restless,
    Sideways,
    Sorting,
    Speaker,
    Talkative,
    UNet,
    Words,
    pictures,
    points,
    texts,
)

CPU = torch.device("cpu")
BATCHES = [[5, 2, 0], [6], [1, 3, 4, 2]]


def answers(
    model: nn.Module, trained: set[str], examples: list[Any], task: Task, tell: Callable[[list[int]], None] | None
) -> list[Tensor]:
    """Losses and gradients of the trained parameters, batch after batch."""
    freeze_all_but(model, trained)
    found: list[Tensor] = []
    for positions in BATCHES:
        batch = fetch(examples, positions, task)
        model.zero_grad()
        if tell is not None:
            tell(positions)
        losses = task.losses(task.outputs(model, batch), batch)
        losses.mean().backward()
        gradients = (p.grad for p in model.parameters() if p.requires_grad)
        found += [losses.detach(), *(g.clone() for g in gradients if g is not None)]
    return found


def same_with_and_without(
    model: nn.Module,
    trained: set[str],
    examples: list[Any],
    task: Task | None = None,
    mode: Callable[[nn.Module], Any] = nn.Module.eval,
    **limits: Any,
) -> Prefix:
    """Compare, where there can be a cache; the model must be as it was found in any case."""
    task = task or Classification()
    plain = copy.deepcopy(model)
    mode(plain)
    model.train()
    before = fingerprint(model)
    prefix = find_prefix(model, trained, examples, task, device=CPU, batch_size=3, mode=mode, **limits)
    usable = prefix.usable and prefix.fill()
    assert fingerprint(model) == before
    assert usable or prefix.why
    if usable:
        expected = answers(plain, trained, examples, task, None)
        mode(model)
        before = fingerprint(model)
        with prefix.stubbed(model) as tell:
            hooks = [watch(model, path) for path in prefix.modules]
            found = answers(model, trained, examples, task, tell)
            for hook in hooks:
                hook()
        freeze_all_but(model, {name for name, _ in plain.named_parameters()})
        assert [entry[0] for entry in fingerprint(model)] == [entry[0] for entry in before]
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert float((a - b).abs().max()) <= 1e-6 * max(float(b.abs().max()), 1.0)
    return prefix


def fingerprint(model: nn.Module) -> list[Any]:
    """Everything that may not change: bits, modes, gradients switched on, forwards and hooks."""
    tensors = [(name, t.detach().numpy().tobytes(), t.requires_grad) for name, t in model.named_parameters()]
    tensors += [(name, t.numpy().tobytes(), False) for name, t in model.named_buffers()]
    modules = [((name, "forward" in vars(m), len(m._forward_hooks)), m.training) for name, m in model.named_modules()]
    return [*modules, *tensors]


def watch(model: nn.Module, path: str) -> Callable[[], None]:
    """Fail when something inside a module runs."""
    inner = [m for m in model.get_submodule(path).modules() if m is not model.get_submodule(path)]

    def fail(module: nn.Module, *_: Any) -> None:
        raise AssertionError(f"{type(module).__name__} inside '{path}' was run")

    handles = [m.register_forward_pre_hook(fail) for m in inner]
    return lambda: [h.remove() for h in handles] and None


def last_groups() -> list[Any]:
    cases = []
    for name in zoo.ZOO:
        for level in ("top", "tensor"):
            groups = list(resolve(zoo.build(name), level).values())
            cases += [
                pytest.param(name, {p for group in groups[-k:] for p in group}, id=f"{name}-{level}-{k}")
                for k in range(1, len(groups) + 1)
            ]
    return cases


@pytest.mark.parametrize(("name", "trained"), last_groups())
def test_the_last_groups_of_every_network_of_the_zoo(name: str, trained: set[str]) -> None:
    prefix = same_with_and_without(zoo.build(name), trained, points())
    if not prefix.usable:
        behind = name == "timefirst" and not any("recur" in parameter for parameter in trained)
        assert prefix.why.startswith("what 'recur' returns" if behind else "no frozen module is called before")


def named(model: nn.Module, *starts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(starts)}


@pytest.mark.parametrize(
    ("start", "kept"),
    [
        ("layer2", 4 * 8 * 8),
        ("layer2.conv2", 4 * 8 * 8 + 4 * 4 * 4),  # the skip goes past what is trained
        ("layer2.shortcut", 4 * 8 * 8 + 4 * 4 * 4),
        ("head", 4 * 4 * 4),
    ],
)
def test_only_what_passes_the_boundary_of_a_resnet_is_kept(start: str, kept: int) -> None:
    model = Residual()
    prefix = same_with_and_without(model, named(model, start), pictures())
    assert prefix.usable, prefix.why
    assert prefix.bytes == 7 * kept * 4


@pytest.mark.parametrize(("start", "kept"), [("last", 8 * 64), ("up", 4 * 64 + 5 * 16), ("low", 4 * 64)])
def test_skips_of_a_unet(start: str, kept: int) -> None:
    model = UNet()
    prefix = same_with_and_without(model, named(model, start, "last"), pictures())
    assert prefix.usable, prefix.why
    assert prefix.bytes == 7 * kept * 4


@pytest.mark.parametrize("start", ["blocks.2", "blocks.1.mlp", "norm", "head"])
@pytest.mark.parametrize("rotary", [False, True], ids=["learnt", "rotary"])
def test_a_transformer_keeps_one_hidden_state(rotary: bool, start: str) -> None:
    model = Speaker(rotary)
    prefix = same_with_and_without(model, named(model, start), texts(), Words())
    assert prefix.usable, prefix.why
    assert prefix.bytes == 7 * 6 * 8 * 4 * (2 if start == "blocks.1.mlp" else 1)


def test_a_language_model_with_a_tied_head_has_no_frozen_prefix_when_that_is_trained() -> None:
    model = Speaker(False)
    model.head.weight = model.tokens.weight
    prefix = same_with_and_without(model, {"tokens.weight"}, texts(), Words())
    assert prefix.why == "no frozen module is called before 'tokens', the first that is trained"


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_language_models_of_transformers(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"GPT2": {"n_layer": 3, "n_embd": 8, "n_head": 2}, "Llama": {"num_hidden_layers": 3, "hidden_size": 8}}
    heads = {} if family == "GPT2" else {"num_attention_heads": 2, "intermediate_size": 16}
    config = getattr(transformers, f"{family}Config")(vocab_size=11, **sizes[family], **heads, use_cache=False)

    class HuggingFace(Words):
        def outputs(self, model: nn.Module, batch: Any) -> Tensor:
            ids = batch[0]["ids"]
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    model = getattr(transformers, f"{family}ForCausalLM" if family == "Llama" else "GPT2LMHeadModel")(config)
    blocks = "transformer.h.2" if family == "GPT2" else "model.layers.2"
    prefix = same_with_and_without(model, named(model, blocks), texts(), HuggingFace())
    assert prefix.usable, prefix.why
    assert prefix.bytes == 7 * 6 * 8 * 4


def test_several_rows_for_an_example_and_rows_that_are_not_examples() -> None:
    assert same_with_and_without(Folded(), {"head.weight"}, points()).bytes == 7 * 2 * 4 * 4
    prefix = same_with_and_without(Sideways(), {"head.weight"}, points())
    assert prefix.why == "what 'recur' returns is needed and cannot be told apart by example"


def test_a_weight_that_is_used_before_its_module_is_called() -> None:
    model = Borrowed()
    assert same_with_and_without(model, named(model, "head.weight"), points()).modules == ["first"]
    assert same_with_and_without(model, named(model, "head.bias"), points()).modules == ["first", "body"]


@pytest.mark.parametrize(
    ("make", "mode", "why"),
    [
        (zoo.Norms, nn.Module.train, "'first' is in train mode, so what it returns depends on the batch"),
        (Noisy, nn.Module.eval, "'body' is random: it returns something else when it is called again"),
        (Talkative, nn.Module.eval, "the network answers something else when its frozen modules are looked up"),
    ],
    ids=["dropout", "noise", "memory"],
)
def test_refusals(make: Callable[[], nn.Module], mode: Callable[[nn.Module], Any], why: str) -> None:
    model = make()
    prefix = find_prefix(model, named(model, "head"), points(), Classification(), device=CPU, batch_size=4, mode=mode)
    assert not prefix.usable
    assert prefix.why.startswith(why)
    with pytest.raises(InvalidArgumentError, match="there is no frozen prefix"), prefix.stubbed(model):
        pass


def test_what_comes_before_randomness_is_still_looked_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Linear(4, 3))

    def mode(model: nn.Module) -> None:
        model.eval()
        model[1].train()

    prefix = find_prefix(model, named(model, "3"), points(), Classification(), device=CPU, batch_size=4, mode=mode)
    assert prefix.modules == ["0"]


def test_examples_that_do_not_hold_still() -> None:
    model, task = zoo.build("norms"), Classification()
    prefix = find_prefix(model, named(model, "head"), Restless(points()), task, device=CPU, batch_size=4)
    assert prefix.why == "the examples are not the same when they are read again"
    prefix = find_prefix(model, named(model, "head"), points(2), task, device=CPU, batch_size=4)
    assert prefix.why == "there are fewer than 3 examples"
    uneven = [*texts(), ({"ids": torch.arange(4)}, 1)]
    model = Speaker(False)
    prefix = find_prefix(model, named(model, "head"), uneven, Padded(), device=CPU, batch_size=4)
    assert prefix.why.startswith("the examples differ in size")
    assert same_with_and_without(model, named(model, "head"), texts(), Padded()).usable


def test_what_the_probe_did_not_see_is_seen_while_filling() -> None:
    examples = points()
    examples[1] = (torch.full((4,), 1000.0), 1)
    model = Sorting()
    prefix = find_prefix(model, named(model, "head"), examples, Classification(), device=CPU, batch_size=4)
    assert prefix.usable
    assert not prefix.fill()
    assert prefix.why == "what 'body' returns depends on the batch"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_memory_and_disk_give_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    model = Residual().to(dtype).eval()
    examples = [(x.to(dtype), y) for x, y in pictures()]
    found = []
    for limits in ({}, {"max_bytes": 100, "directory": tmp_path / "cache"}):
        prefix = find_prefix(
            model, named(model, "layer2"), examples, Classification(), device=CPU, batch_size=3, **limits
        )
        assert prefix.usable, prefix.why
        assert prefix.place == ("disk" if limits else "memory")
        assert prefix.fill()
        with prefix.stubbed(model) as tell:
            found.append(answers(model, named(model, "layer2"), examples, Classification(), tell))
        assert not limits or not list((tmp_path / "cache").iterdir())
    assert all(same_bits(a, b) for a, b in zip(*found, strict=True))


def test_bounds(tmp_path: Path) -> None:
    model, needed = Residual(), 7 * 4 * 8 * 8 * 4

    def find(**limits: Any) -> Prefix:
        return find_prefix(
            model, named(model, "layer2"), pictures(), Classification(), device=CPU, batch_size=3, **limits
        )

    assert find(max_bytes=needed).place == "memory"
    assert find(max_bytes=needed - 1).why == "the outputs to keep take 7.17 kB; in memory 7.17 kB are allowed"
    prefix = find(max_bytes=1000, directory=tmp_path, max_disk_bytes=2000)
    assert prefix.why == "the outputs to keep take 7.17 kB; in memory 1 kB are allowed and on disk 2 kB"
    assert prefix.bytes == needed


def test_a_full_disk_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Residual()
    prefix = find_prefix(
        model, named(model, "layer2"), pictures(), Classification(), device=CPU, batch_size=3,
        max_bytes=0, directory=tmp_path,
    )  # fmt: skip

    class Full(BytesIO):
        def write(self, *_: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("suture.treatments.prefix.tempfile.TemporaryFile", lambda **_: Full())
    assert not prefix.fill()
    assert prefix.why.endswith("No space left on device")
    assert not list(tmp_path.iterdir())


def test_channels_last_stays_that() -> None:
    model = Residual().to(memory_format=torch.channels_last).eval()
    examples, strides = pictures(), []
    batch = fetch(examples, [0, 1, 2], Classification())
    inputs = batch[0].contiguous(memory_format=torch.channels_last)

    class ChannelsLast(Classification):
        def outputs(self, model: nn.Module, batch: Any) -> Any:
            return super().outputs(model, (batch[0].contiguous(memory_format=torch.channels_last), batch[1]))

    model.layer2.conv1.register_forward_pre_hook(lambda _, x: strides.append(x[0].stride()))
    prefix = find_prefix(model, named(model, "layer2"), examples, ChannelsLast(), device=CPU, batch_size=3)
    with prefix.stubbed(model) as tell:
        tell([0, 1, 2])
        model(inputs)
        model(inputs)
    assert strides[-1] == strides[-2] == (256, 1, 32, 4)


def test_forwards_that_were_not_announced_run_in_full() -> None:
    model = zoo.build("norms").eval()
    inputs, others = zoo.batch(7)[0], torch.randn(5, 4)
    expected = model(others)
    prefix = find_prefix(model, named(model, "head"), points(), Classification(), device=CPU, batch_size=4)
    with prefix.stubbed(model) as tell:
        tell([0, 1])
        torch.testing.assert_close(model(torch.zeros(2, 4)), model(inputs[:2]))
        assert torch.equal(model(others), expected)


@pytest.mark.parametrize("start", ["layer2", "head"])
def test_training_ends_where_it_does_without(start: str) -> None:
    ends = []
    for cached in (False, True):
        torch.manual_seed(0)
        model = Residual().eval()
        prefix = find_prefix(model, named(model, start), pictures(20), Classification(), device=CPU, batch_size=8)
        freeze_all_but(model, named(model, start))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
        with prefix.stubbed(model) if cached else nullcontext() as tell:
            train(
                model, pictures(20), Classification(), optimizer, [], epochs=3, batch_size=6, seed=0, device=CPU,
                mode=nn.Module.eval, on_batch=tell,
            )  # fmt: skip
        ends.append(model.state_dict())
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-5, atol=1e-6)


def test_torchscript_runs_as_it_always_did() -> None:
    model = zoo.build("norms").eval()
    with catch_warnings():
        simplefilter("ignore")
        whole, part = torch.jit.script(model), copy.deepcopy(model)
        part.second = torch.jit.script(model.second)
    prefix = find_prefix(whole, named(model, "head"), points(), Classification(), device=CPU, batch_size=4)
    assert prefix.why == "TorchScript does not let its modules be replaced"
    prefix = find_prefix(part, named(model, "head"), points(), Classification(), device=CPU, batch_size=4)
    assert prefix.modules == ["first"]
    with prefix.stubbed(part) as tell:
        tell([1, 2])
        torch.testing.assert_close(part(torch.zeros(2, 4)), model(zoo.batch()[0][1:3]))


def test_an_exception_leaves_the_model_as_it_was_found(tmp_path: Path) -> None:
    model = Residual().eval()
    own = model.layer1.forward
    model.layer1.forward = own  # somebody else's patch
    before = fingerprint(model)
    prefix = find_prefix(
        model, named(model, "layer2"), pictures(), Classification(), device=CPU, batch_size=3,
        max_bytes=0, directory=tmp_path,
    )  # fmt: skip
    with suppress(ZeroDivisionError), prefix.stubbed(model) as tell:
        tell([0, 1])
        assert fingerprint(model) != before or model.layer1.forward is not own
        raise ZeroDivisionError
    assert fingerprint(model) == before
    assert model.layer1.forward is own
    assert not list(tmp_path.iterdir())


def test_unknown_values_do_not_mix_with_real_ones() -> None:
    unknown, real = Unknown(torch.empty(3, 3, device="meta"), CPU), torch.ones(3, 3)
    assert unknown.device == CPU
    assert isinstance(real @ unknown + 1, Unknown)
    assert torch.arange(unknown.shape[1], device=unknown.device).tolist() == [0, 1, 2]
    for wrong in (lambda: real.add_(unknown), lambda: bool(unknown.sum() > 0), lambda: unknown.mean().item()):
        with pytest.raises(DataError, match="not kept"):
            wrong()
    assert torch.equal(real, torch.ones(3, 3))
    assert torch.relu_(unknown) is unknown
