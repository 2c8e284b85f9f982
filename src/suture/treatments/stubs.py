"""What stands in for frozen modules: calls answered by somebody else, and tensors whose values were not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from suture.errors import DataError
from suture.patch import same_bits

Call = tuple[str, int]
"""Path of a module, and how often it had been called before in the same forward."""
Answer = Callable[[Call, Callable[[], Any]], Any]
"""A call and what would run it → what it returns."""
Fate = Literal["kept", "constant", "unknown", "opaque"]
ABSENT = object()


class Unknown(Tensor):
    """A tensor that has everything but values; what is computed from it is unknown too.

    Unlike a tensor on the meta device it never mixes: ``torch.mm``, indexing and in-place addition take meta
    tensors beside real ones, and answer with whatever lies in memory.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, like: Tensor, device: torch.device) -> Unknown:
        made: Unknown = Tensor._make_wrapper_subclass(
            cls,
            like.shape,
            strides=like.stride(),
            storage_offset=like.storage_offset(),
            dtype=like.dtype,
            device=device,
        )
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Unknown({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """The operation on tensors without values.

        Raises:
            DataError: the values are asked for, or would be written into a tensor that has some.
        """
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = kwargs.get("device") or next(t.device for t in tensors if isinstance(t, cls))
        if "device" in kwargs:
            kwargs["device"] = torch.device("meta")
        in_place = func._schema.is_mutable
        if in_place and (torch.Tag.inplace_view in func.tags or not all(isinstance(t, cls) for t in tensors)):
            raise DataError("a value of the frozen prefix that was not kept is written to")
        try:
            found = func(*tree_map(_without_values, args), **tree_map(_without_values, kwargs))
        except (RuntimeError, NotImplementedError) as error:
            raise DataError(f"a value of the frozen prefix that was not kept is needed by {func}") from error
        if in_place:
            return args[0]
        return tree_map(lambda leaf: cls(leaf, device) if isinstance(leaf, Tensor) else leaf, found)


def _without_values(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")


@dataclass
class Leaf:
    """A tensor, or another thing, that a call returned.

    Attributes:
        value: what it was for the probe.
        shape: of one example, (c, …), where the first axis of the tensor holds c rows for each; else None.
        order: axes by falling stride, so that channels_last stays that.
        fate: kept (looked up by example), constant (the same for every batch), unknown (without values), or
            opaque: nothing can stand for it.
    """

    value: Any
    shape: tuple[int, ...] | None = None
    order: tuple[int, ...] = ()
    fate: Fate = "opaque"
    device: torch.device | None = field(init=False)

    def __post_init__(self) -> None:
        self.device = self.value.device if isinstance(self.value, Tensor) else None

    @classmethod
    def seen(cls, first: Any, n: int, second: Any, m: int) -> Leaf:
        """What a call returned for n examples, and for the last m < n of them alone."""
        if not isinstance(first, Tensor):
            plain = isinstance(first, bool | int | float | str | None) and type(first) is type(second)
            return cls(first, fate="constant" if plain and first == second else "opaque")
        if type(first) is not Tensor or type(second) is not Tensor or first.layout != torch.strided:
            return cls(first)
        strides: tuple[int, ...] = first.stride()
        order = tuple(sorted(range(first.dim()), key=lambda axis: -strides[axis]))
        if same_bits(first, second):
            return cls(first, order=order, fate="constant")
        split = first.dim() and second.dim() and len(first) % n == 0 and len(second) * n == len(first) * m
        if not split or first.shape[1:] != second.shape[1:]:
            return cls(first, order=order, fate="unknown")
        rows = by_example(first, n)
        if not _close(rows[n - m :], by_example(second, m)):
            return cls(first, order=order, fate="unknown")
        return cls(first, tuple(rows.shape[1:]), order, "kept")

    def answer(self, n: int, look_up: Callable[[], Tensor]) -> Any:
        """What to return for n examples."""
        if not isinstance(self.value, Tensor):
            return self.value
        if self.fate == "constant":
            return self.value.clone()
        if self.fate == "kept":
            rows = look_up().flatten(0, 1).to(self.device)
            inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
            return rows.permute(self.order).contiguous().permute(inverse)
        shape = self.value.shape if self.shape is None else (n * self.shape[0], *self.shape[1:])
        return Unknown(torch.empty(shape, dtype=self.value.dtype, device="meta"), self.device or torch.device("cpu"))


def by_example(tensor: Tensor, n: int) -> Tensor:
    """(n·c, …) → (n, c, …)."""
    return tensor.reshape(n, len(tensor) // n, *tensor.shape[1:])


def _close(a: Tensor, b: Tensor) -> bool:
    """Equality but for rounding: kernels may depend on the size of the batch."""
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    size = b.abs().nan_to_num().max() if b.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=float(size) * torch.finfo(a.dtype).eps ** 0.5, equal_nan=True)


@dataclass
class Stub:
    """What stands for one call: its leaves, and how they were arranged. A live stub lets the module run."""

    spec: TreeSpec
    leaves: list[Leaf]
    live: bool = field(init=False)

    def __post_init__(self) -> None:
        self.live = any(leaf.fate in ("opaque", "unknown") for leaf in self.leaves)

    @classmethod
    def seen(cls, first: Any, n: int, second: Any, m: int) -> Stub:
        """A stub for a call that returned these for n examples and for the last m of them."""
        ours, spec = tree_flatten(first)
        theirs, other = tree_flatten(second)
        if spec != other:
            return cls(spec, [Leaf(first)])
        return cls(spec, [Leaf.seen(a, n, b, m) for a, b in zip(ours, theirs, strict=True)])

    @property
    def possible(self) -> bool:
        """Whether something can stand for each leaf, be it a tensor without values."""
        return all(leaf.fate != "opaque" for leaf in self.leaves)

    def release(self) -> None:
        """Let go of what the probe returned, but for what is the same in every batch."""
        for leaf in self.leaves:
            if isinstance(leaf.value, Tensor) and leaf.fate != "constant":
                leaf.value = leaf.value.to("meta")

    def answer(self, n: int, look_up: Callable[[int], Tensor]) -> Any:
        """What to return for n examples, with the kept leaves looked up by their number."""
        return tree_unflatten([leaf.answer(n, partial(look_up, i)) for i, leaf in enumerate(self.leaves)], self.spec)


@contextmanager
def answered(model: nn.Module, paths: Iterable[str], answer: Answer) -> Iterator[Callable[[], None]]:
    """Have the calls of some modules answered during single forwards of the model.

    Yields:
        Announces that the next forward is to be answered; any other runs as it always did.
    """
    turns: Counter[str] = Counter()
    armed = active = False

    def arm() -> None:
        nonlocal armed
        armed = True

    def replaced(path: str, run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not active:
                return run(*args, **kwargs)
            turns[path] += 1
            return answer((path, turns[path] - 1), partial(run, *args, **kwargs))

        return call

    def watched(run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal armed, active
            if not armed:
                return run(*args, **kwargs)
            armed, active = False, True
            turns.clear()
            try:
                return run(*args, **kwargs)
            finally:
                active = False

        return call

    with ExitStack() as stack:
        for path in {"", *paths}:
            module = model.get_submodule(path)
            stack.callback(_put_back, module, vars(module).get("forward", ABSENT))
            run = module.forward
            module.forward = replaced(path, run) if path else watched(run)
        yield arm


def _put_back(module: nn.Module, forward: Any) -> None:
    if forward is ABSENT:
        del module.forward
    else:
        module.forward = forward
