"""The frozen prefix of a network: run once, and its outputs looked up in every later epoch.

Modules without trained parameters that are called before the first trained one give the same outputs for an
example in every epoch, as long as nothing in or before them is random. Of these outputs only those are kept
that the rest of the network needs; the others are replaced by tensors without values. What the network answers
on a few examples must then equal, bit by bit, what it answers undisturbed.

What is looked up was computed in batches of other examples. Where a kernel depends on the size of the batch,
the last bits of an output or a gradient may differ from those without the cache (1e-6 relative in float32).
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from suture.errors import InvalidArgumentError
from suture.progress import track
from suture.tasks import Examples, Task
from suture.treatments.frontier import Enough, Mode, Setting, Unusable, find_stubs, same
from suture.treatments.stubs import Call, Leaf, Stub, answered, by_example

Tell = Callable[[list[int]], None]
UNWRITTEN = "the outputs of the frozen modules cannot be written"


@dataclass(frozen=True)
class Limits:
    """Where activations may be kept, and how many bytes of them."""

    memory: int
    directory: Path | None
    disk: int

    def place(self, size: int) -> Literal["memory", "disk"]:
        """Where `size` bytes go.

        Raises:
            Unusable: nowhere.
        """
        if size <= self.memory:
            return "memory"
        why = f"the outputs to keep take {_readable(size)}; in memory {_readable(self.memory)} are allowed"
        if self.directory is None:
            raise Unusable(why)
        if size > self.disk:
            raise Unusable(f"{why} and on disk {_readable(self.disk)}")
        self.directory.mkdir(parents=True, exist_ok=True)
        if size > (free := shutil.disk_usage(self.directory).free):
            raise Unusable(f"{why} and on the disk {_readable(free)} are free")
        return "disk"


def find_prefix(
    model: nn.Module,
    trainable: set[str],
    examples: Examples,
    task: Task,
    *,
    device: torch.device,
    batch_size: int,
    mode: Mode = nn.Module.eval,
    max_bytes: int = 2**30,
    directory: Path | None = None,
    max_disk_bytes: int = 8 * 2**30,
) -> "Prefix":
    """Find what of a network need not run again while some of its parameters are trained.

    Runs a few forwards on three examples. The model is left as it was found.

    Args:
        model: on `device`.
        trainable: names of the trained parameters; all others are frozen.
        examples: n pairs (input, target), the same at every reading.
        batch_size: of the pass that fills the cache.
        mode: puts the modules in train or eval mode, as the training will.
        max_bytes: the outputs are kept in memory when they take no more.
        directory: otherwise in unnamed temporary files here, up to `max_disk_bytes`; None for memory only.

    Raises:
        DataError: the model cannot take the examples.
    """
    setting = Setting(model, frozenset(trainable), examples, task, device, batch_size, mode)
    prefix = Prefix(setting, directory)
    try:
        prefix.plan(find_stubs(setting), Limits(max_bytes, directory, max_disk_bytes))
    except Unusable as error:
        prefix.why = str(error)
    return prefix


def _readable(size: int) -> str:
    value, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


class Prefix:
    """The part of a network that need not run again, and what it returned for each example.

    The examples must be the same at every reading, so no augmentation may come between them and the network.

    Attributes:
        why: why there can be no cache, in a sentence; empty when it is usable.
        bytes: size of the activations of all examples.
        place: where they are kept.
    """

    def __init__(self, setting: Setting, directory: Path | None) -> None:
        self.why = ""
        self.bytes = 0
        self.place: Literal["memory", "disk"] = "memory"
        self._setting, self._directory = setting, directory
        self._stubs: dict[Call, Stub] = {}
        self._rows: dict[tuple[Call, int], _Rows] | None = None

    def plan(self, found: dict[Call, Stub], limits: Limits) -> None:
        """Take over what was found.

        Raises:
            Unusable: it takes too much room, or the task pads examples to the longest of a batch.
        """
        self._stubs = {call: stub for call, stub in found.items() if not stub.live}
        kept = (leaf for leaf in self._leaves().values() if leaf.fate == "kept")
        self.bytes = len(self._setting.examples) * sum(_bytes(leaf) for leaf in kept)
        self.place = limits.place(self.bytes)
        if hasattr(self._setting.task, "collate"):
            alone = (self._setting.batch([i])[0] for i in range(len(self._setting.examples)))
            sizes = {tuple(x.shape for x in tree_leaves(inputs) if isinstance(x, Tensor)) for inputs in alone}
            if len(sizes) > 1:
                raise Unusable("the examples differ in size, so what a module returns depends on the batch they are in")

    @property
    def usable(self) -> bool:
        """Whether there can be a cache."""
        return not self.why

    @property
    def modules(self) -> list[str]:
        """Paths of the modules that are not run, in the order of their calls."""
        return list(dict.fromkeys(path for path, _ in self._stubs))

    def _leaves(self) -> dict[tuple[Call, int], Leaf]:
        return {(call, i): leaf for call, stub in self._stubs.items() for i, leaf in enumerate(stub.leaves)}

    def fill(self) -> bool:
        """Run the prefix on all examples and keep what it returns; False, with `why`, when that does not work.

        Raises:
            InvalidArgumentError: it is not usable.
        """
        if not self.usable:
            raise InvalidArgumentError(f"there is no frozen prefix to run: {self.why}")
        self.clear()
        kept = {key: leaf for key, leaf in self._leaves().items() if leaf.fate == "kept"}
        try:
            with ExitStack() as stack:
                rows = {key: _Rows(len(self._setting.examples), leaf, self._file(stack)) for key, leaf in kept.items()}
                self._run(rows)
                for column in rows.values():
                    column.finish()
            self._rows = rows
        except Unusable as error:
            self.why = str(error)
        except OSError as error:
            self.why = f"{UNWRITTEN}: {error}"
        return self.usable

    def _file(self, stack: ExitStack) -> IO[bytes] | None:
        """A file without a name: gone when it is closed, even by a crash, and nobody reads it half written."""
        if self.place == "memory":
            return None
        return stack.enter_context(tempfile.TemporaryFile(dir=self._directory))

    def _run(self, rows: dict[tuple[Call, int], "_Rows"]) -> None:
        wanted = [call for (call, _), leaf in self._leaves().items() if leaf.fate in ("kept", "constant")]
        seen, n = set[Call](), 0

        def note(call: Call, run: Callable[[], Any]) -> Any:
            output = run()
            if call in wanted:
                self._note(call, tree_leaves(output), n, rows)
            seen.add(call)
            if call == wanted[-1]:
                raise Enough
            return output

        setting, size = self._setting, self._setting.batch_size
        starts = range(0, len(setting.examples), size) if wanted else range(0)
        for start in track(starts, "running the frozen modules once"):
            positions = range(start, min(start + size, len(setting.examples)))
            n = len(positions)
            seen.clear()
            setting.run(setting.batch(list(positions)), {path for path, _ in wanted}, note)
            if not seen.issuperset(wanted):
                raise Unusable("which frozen modules are called differs between batches")

    def _note(self, call: Call, found: list[Any], n: int, rows: dict[tuple[Call, int], "_Rows"]) -> None:
        leaves = self._stubs[call].leaves
        if len(found) != len(leaves):
            raise Unusable(f"what '{call[0]}' returns differs in kind between batches")
        for i, (leaf, value) in enumerate(zip(leaves, found, strict=True)):
            if leaf.fate == "constant" and not same([leaf.value], [value]):
                raise Unusable(f"what '{call[0]}' returns depends on the batch")
            if leaf.fate == "kept":
                c, *rest = leaf.shape or (0,)
                if not isinstance(value, Tensor) or (value.shape, value.dtype) != ((n * c, *rest), leaf.value.dtype):
                    raise Unusable(f"what '{call[0]}' returns differs in size between batches")
                rows[call, i].append(by_example(value.detach(), n))

    @contextmanager
    def stubbed(self, model: nn.Module) -> Iterator[Tell]:
        """Look the frozen prefix up instead of running it, in those forwards that were announced.

        Args:
            model: the one the prefix was found in, or a copy. It is left as it was found, and the activations
                are thrown away, also after an exception.

        Yields:
            Tells which examples, by position, the next forward is given. Forwards that were not announced
            run in full.

        Raises:
            InvalidArgumentError: it is not usable.
        """
        if self._rows is None and not self.fill():
            raise InvalidArgumentError(f"there is no frozen prefix to look up: {self.why}")
        rows, positions = self._rows or {}, torch.zeros(0, dtype=torch.long)

        def answer(call: Call, run: Callable[[], Any]) -> Any:
            stub = self._stubs.get(call)
            if stub is None:
                return run()
            return stub.answer(len(positions), lambda i: rows[call, i].take(positions))

        def tell(chosen: list[int]) -> None:
            nonlocal positions
            positions = torch.as_tensor(chosen, dtype=torch.long)
            arm()

        try:
            with answered(model, self.modules, answer) as arm:
                yield tell
        finally:
            rows.clear()
            self.clear()

    def clear(self) -> None:
        """Throw the activations away."""
        self._rows = None


def _bytes(leaf: Leaf) -> int:
    size: int = torch.Size(leaf.shape or ()).numel() * leaf.value.element_size()
    return size


class _Rows:
    """One output for all n examples, (n, c, …), in memory or in a file.

    The file is written before it is mapped: a full disk is an error then, and not the end of the process.
    """

    def __init__(self, n: int, leaf: Leaf, file: IO[bytes] | None) -> None:
        self.shape, self.dtype, self.done, self.file = (n, *(leaf.shape or ())), leaf.value.dtype, 0, file
        self.rows = torch.empty(0 if file else self.shape, dtype=self.dtype)

    def append(self, rows: Tensor) -> None:
        """The next examples, in their order."""
        rows = rows.cpu().contiguous()
        if self.file is None:
            self.rows[self.done : self.done + len(rows)] = rows
        else:
            try:
                self.file.write(rows.reshape(-1).view(torch.uint8).numpy().data)
            except OSError as error:  # here, lest it be taken for an error of the network
                raise Unusable(f"{UNWRITTEN}: {error}") from error
        self.done += len(rows)

    def finish(self) -> None:
        """Everything is there and may be looked up."""
        if self.file is not None and self.file.tell():
            self.file.flush()
            mapped = np.memmap(self.file, np.uint8, mode="c")  # outlives the file object
            self.rows = torch.from_numpy(mapped).view(self.dtype)
        self.rows = self.rows.view(self.shape)

    def take(self, positions: Tensor) -> Tensor:
        """Copies of the rows of some examples."""
        return self.rows.index_select(0, positions)
