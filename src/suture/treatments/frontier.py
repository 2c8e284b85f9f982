"""Which calls of a network come before anything trained, and which of their outputs the rest needs."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from suture.errors import DataError
from suture.patch import same_bits
from suture.tasks import Batch, Examples, Task, fetch, forward, to_device
from suture.treatments.stubs import ABSENT, Answer, Call, Leaf, Stub, answered, by_example

Mode = Callable[[nn.Module], Any]
PROBES = 3
PLAIN = bool | int | float | str | None


class Unusable(DataError):
    """Why there can be no cache, in a sentence."""


class Enough(BaseException):
    """All that was wanted has been seen: the rest of the forward is skipped, past any ``except Exception``."""


@dataclass(frozen=True)
class Setting:
    """A training as far as the frozen prefix is concerned.

    Attributes:
        trainable: names of the trained parameters.
        mode: puts the modules in train or eval mode, as the training will.
    """

    model: nn.Module
    trainable: frozenset[str]
    examples: Examples
    task: Task
    device: torch.device
    batch_size: int
    mode: Mode

    @property
    def trained(self) -> list[nn.Parameter]:
        """The trained parameters, by any of their names."""
        return [p for name, p in self.model.named_parameters(remove_duplicate=False) if name in self.trainable]

    def batch(self, positions: Sequence[int]) -> Batch:
        """The batch of some examples, on the device."""
        batch: Batch = to_device(fetch(self.examples, positions, self.task), self.device)
        return batch

    @contextmanager
    def as_in_training(self) -> Iterator[None]:
        """Gradients and modes as the training will have them; these, buffers and random numbers are put back."""
        model, trained = self.model, {id(p) for p in self.trained}
        gradients = [(p, p.requires_grad) for p in model.parameters()]
        modes = [(module, module.training) for module in model.modules()]
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []), torch.enable_grad():
            try:
                for p, _ in gradients:
                    p.requires_grad_(id(p) in trained)
                self.mode(model)
                yield
            finally:
                for p, required in gradients:
                    p.requires_grad_(required)
                for module, training in modes:
                    module.training = training
                with torch.no_grad():
                    for buffer, before in buffers:
                        buffer.copy_(before)

    def run(self, batch: Batch, paths: Iterable[str], answer: Answer, seed: int = 0) -> list[Any]:
        """Leaves of outputs, losses and verdicts, with some calls answered; nothing after `Enough`."""
        with self.as_in_training(), answered(self.model, paths, answer) as arm:
            torch.manual_seed(seed)
            arm()
            try:
                outputs = forward(self.model, batch, self.task, "the training examples")
            except Enough:
                return []
            return tree_leaves([outputs, self.task.losses(outputs, batch), self.task.verdicts(outputs, batch)])


def first_calls(setting: Setting, batch: Batch) -> list[Call]:
    """Calls of the largest modules without trained parameters that end before anything trained acts, in order.

    A trained parameter acts from the first call of the innermost module around it that is called at all, and
    from the first call whose output has a gradient.

    Raises:
        Unusable: there are none.
    """
    modules = {path: m for path, m in setting.model.named_modules() if not isinstance(m, torch.jit.ScriptModule)}
    if "" not in modules:
        raise Unusable("TorchScript does not let its modules be replaced")
    clock, spans, touched = itertools.count(), dict[Call, tuple[int, int]](), list[tuple[int, str]]()

    def time(call: Call, run: Callable[[], Any]) -> Any:
        begun = next(clock)
        output = run()
        spans[call] = begun, next(clock)
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(output)):
            touched.append((begun, call[0]))
        return output

    setting.run(batch, modules, time)
    trained = {id(p) for p in setting.trained}
    first = {id(setting.model): -1} | {
        id(modules[path]): begun for (path, turn), (begun, _) in spans.items() if not turn
    }
    frozen = {path for path, module in modules.items() if not any(id(p) in trained for p in module.parameters())}
    owners = (
        _innermost(setting.model, path, first)
        for path, module in setting.model.named_modules(remove_duplicate=False)
        if any(id(p) in trained for p in module.parameters(recurse=False))
    )
    acting = [(first[id(setting.model.get_submodule(path))], path) for path in owners]
    acting += [(begun, path) for begun, path in touched if path in frozen]
    boundary, name = min(acting, default=(-1, ""))
    calls, reached = list[Call](), -1
    for call, (begun, ended) in sorted(spans.items(), key=lambda item: item[1]):
        if call[0] in frozen and begun > reached and ended < boundary:
            calls.append(call)
            reached = ended
    if not any(_has_parameters(modules[path]) for path, _ in calls):
        what = f"'{name}', the first that is trained" if name else "the model itself, which holds trained parameters"
        raise Unusable(f"no frozen module is called before {what}")
    return calls


def _innermost(model: nn.Module, path: str, called: dict[int, int]) -> str:
    while id(model.get_submodule(path)) not in called:
        path = path.rpartition(".")[0]
    return path


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def find_stubs(setting: Setting) -> dict[Call, Stub]:
    """Stubs of the frontier, arranged so that as little as possible is kept; live where a module must run.

    Raises:
        Unusable: none can be told from what really runs, or nothing would be saved.
    """
    last = len(setting.examples) - 1
    if last + 1 < PROBES:
        raise Unusable(f"there are fewer than {PROBES} examples")
    positions = [0, (last + 1) // 2, last]
    batch, again, fewer = setting.batch(positions), setting.batch(positions), setting.batch(positions[1:])
    if not same(tree_leaves(batch), tree_leaves(again)):
        raise Unusable("the examples are not the same when they are read again")
    calls = first_calls(setting, batch)
    with setting.as_in_training():
        training = {path for path, module in setting.model.named_modules() if any(m.training for m in module.modules())}
    calls = _until(calls, lambda path: path in training, "is in train mode, so what it returns depends on the batch")
    reference, seen = _recorded(setting, batch, calls)
    _, other = _recorded(setting, batch, calls, seed=1)
    random = {call[0] for call in calls if not same(tree_leaves(seen[call]), tree_leaves(other.get(call, ABSENT)))}
    calls = _until(calls, random.__contains__, "is random: it returns something else when it is called again")
    # Last, so that no output of the whole batch is left in an attribute of some module.
    _, part = _recorded(setting, fewer, calls)
    found = {call: Stub.seen(seen[call], PROBES, part.get(call, ABSENT), PROBES - 1) for call in calls}
    _arrange(setting, batch, found, reference)
    if not any(
        _has_parameters(setting.model.get_submodule(path)) for (path, _), stub in found.items() if not stub.live
    ):
        raise Unusable(f"what '{calls[0][0]}' returns is needed and cannot be told apart by example")
    for stub in found.values():
        stub.release()
    return found


def _until(calls: list[Call], doubtful: Callable[[str], bool], why: str) -> list[Call]:
    """The calls before the first doubtful one: behind it nothing is certain."""
    certain = list(itertools.takewhile(lambda call: not doubtful(call[0]), calls))
    if not certain:
        raise Unusable(f"'{calls[0][0]}' {why}")
    return certain


def _recorded(setting: Setting, batch: Batch, calls: list[Call], seed: int = 0) -> tuple[list[Any], dict[Call, Any]]:
    """What the network answers, and copies of what some calls return."""
    wanted, seen = set(calls), dict[Call, Any]()

    def record(call: Call, run: Callable[[], Any]) -> Any:
        output = run()
        if call in wanted:
            seen[call] = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, output)
        return output

    return setting.run(batch, {path for path, _ in calls}, record, seed), seen


def _arrange(setting: Setting, batch: Batch, found: dict[Call, Stub], reference: list[Any]) -> None:
    """Keep as little as the network can do with."""
    paths = {path for path, _ in found}

    def answer(call: Call, run: Callable[[], Any]) -> Any:
        stub = found.get(call)
        if stub is None or stub.live:
            return run()
        # A copy, as in training: the network may write into what it is given.
        return stub.answer(PROBES, lambda i: by_example(stub.leaves[i].value, PROBES).clone())

    def works() -> bool:
        try:
            return same(setting.run(batch, paths, answer), reference)
        except Exception:  # whatever a network does with tensors that have no values
            return False

    if not works():
        raise Unusable("the network answers something else when its frozen modules are looked up instead of run")
    for stub in found.values():
        if stub.live and stub.possible:
            stub.live = False
            stub.live = not works()
    tensors = [
        leaf for stub in found.values() if not stub.live for leaf in stub.leaves if isinstance(leaf.value, Tensor)
    ]
    _forget([leaf for leaf in tensors if leaf.fate != "unknown"], works)


def _forget(leaves: list[Leaf], works: Callable[[], bool]) -> None:
    """Take the values from those leaves that are not needed, by halves: few are."""
    fates = [leaf.fate for leaf in leaves]
    for leaf in leaves:
        leaf.fate = "unknown"
    if not leaves or works():
        return
    for leaf, fate in zip(leaves, fates, strict=True):
        leaf.fate = fate
    if len(leaves) > 1:
        _forget(leaves[: len(leaves) // 2], works)
        _forget(leaves[len(leaves) // 2 :], works)


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Equal tensors, bit by bit, and equal plain values; other things are not compared."""
    if len(a) != len(b):
        return False
    for one, two in zip(a, b, strict=True):
        if isinstance(one, Tensor) or isinstance(two, Tensor):
            if type(one) is not Tensor or type(two) is not Tensor or not same_bits(one, two):
                return False
        elif (isinstance(one, PLAIN) or isinstance(two, PLAIN)) and (type(one) is not type(two) or one != two):
            return False
    return True
