"""What the splitting optimizers share: checks, state, gradients, and the choice of kernels.

A splitting method takes one step of a damped mechanical system by solving its parts one after the
other: kick p ← p − hg, drift x ← x + hp, damp p ← e^{−γh}p, with x the parameters, p the momentum,
g the gradient and h = √lr. With γ = −ln(μ)/h the damping factor e^{−γh} is μ itself, so lr and
momentum mean what they mean in SGD: at constant lr the three lines are exactly
``torch.optim.SGD(params, lr, momentum)``, whose buffer is −p/h before the damping. Under a changing lr
torch's SGD, the paper's v ← μv − αg and the splitting are three different methods. Damping before the
drift would be SGD with learning rate lr·μ.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from suture.errors import InvalidArgumentError

Tensors = list[Tensor]

# Elements per foreach call on a CPU. Every line of a step walks through all its tensors, so lists
# larger than the cache go to memory and back once per line; half a million floats stay inside.
_CPU_BLOCK = 2**19


class SplittingOptimizer(Optimizer):
    """Base of CubicDamping, IKFAD and CADAM.

    A subclass names its state tensors in ``buffers``, turns a param group into the numbers of its
    equations in ``_coefficients``, and gives the equations twice: ``_plain`` tensor by tensor and
    ``_foreach`` on lists, with the same lines in the same order. Both receive parameters, gradients
    and the buffers in the order of ``buffers``, and write parameters and buffers in place.

    State has the shape of its parameter and at least float32, so that parameters in bfloat16 or
    float16 keep an exact momentum; it starts at zero when a parameter first has a gradient.
    """

    buffers: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    _plain: ClassVar[Callable[..., None]]
    _foreach: ClassVar[Callable[..., None]]

    def __init__(
        self, params: Any, defaults: dict[str, Any], *, maximize: bool = False, foreach: bool | None = None
    ) -> None:
        super().__init__(params, {**defaults, "maximize": maximize, "foreach": foreach})

    def _coefficients(self, group: dict[str, Any]) -> dict[str, float]:
        """The numbers that the equations need besides tensors, from the settings of a param group."""
        raise NotImplementedError

    def _check(self, group: dict[str, Any]) -> None:
        """Refuse settings that make no sense; a subclass adds its own."""
        check_number("lr", group["lr"], above=0)
        check_number("momentum", group["momentum"], low=0, below=1)
        check_number("weight_decay", group["weight_decay"], low=0)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, whose settings default to those of the optimizer.

        Raises:
            InvalidArgumentError: a setting makes no sense, or a parameter is complex.
        """
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
            for p in self.param_groups[-1]["params"]:
                if p.is_complex():
                    raise InvalidArgumentError(
                        f"{type(self).__name__} takes real parameters only, got one of {p.dtype} and shape "
                        f"{tuple(p.shape)}; use torch.view_as_real"
                    )
        except InvalidArgumentError:
            del self.param_groups[-1]
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: re-evaluates the model and returns the loss, which is then returned.

        Raises:
            InvalidArgumentError: a gradient is sparse, or a scheduler set an lr below 0 or not finite (then no
                group is stepped).
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group, numbers in [(group, self._coefficients(group)) for group in self.param_groups]:
                self._step_group(group, numbers)
        return loss

    def _step_group(self, group: dict[str, Any], numbers: dict[str, float]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        foreach = group["foreach"]
        if foreach is None:  # as torch: not for subclasses, whose foreach support varies
            foreach = all(type(p) in (Tensor, nn.Parameter) for p in params)
        update = type(self)._foreach if foreach else type(self)._plain
        for block in _blocks([self._tensors(p) for p in params], foreach):
            params_, grads, *buffers = map(list, zip(*block, strict=True))
            grads = _descent(params_, grads, group["weight_decay"], group["maximize"])
            update(params_, grads, *buffers, **numbers)

    def _tensors(self, p: Tensor) -> tuple[Tensor, ...]:
        """The parameter, its gradient and its buffers, which are made where they are missing."""
        assert p.grad is not None
        if p.grad.is_sparse:
            raise InvalidArgumentError(
                f"{type(self).__name__} takes dense gradients only, got a sparse one for a parameter of "
                f"shape {tuple(p.shape)}; use sparse=False in its embedding, or torch.optim.SparseAdam"
            )
        state = self.state[p]
        for name in self.buffers:
            if name not in state:
                state[name] = torch.zeros_like(p, dtype=state_dtype(p), memory_format=torch.preserve_format)
        return (p, p.grad, *(state[name] for name in self.buffers))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` gave, with the buffers in their own precision.

        torch casts state to the dtype of its parameter, which would round the momentum of a bfloat16
        parameter; the buffers are copied again, which also leaves the caller's tensors alone.
        """
        seen: dict[str, Any] = {}
        # Registered last, so it sees what other hooks made of the state.
        hook = self.register_load_state_dict_pre_hook(lambda _, loaded: seen.update(loaded))
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        ids = chain.from_iterable(group["params"] for group in seen["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for saved, p in zip(ids, params, strict=True):
            for name in set(self.buffers) & set(seen["state"].get(saved, {})):
                buffer = seen["state"][saved][name]
                self.state[p][name] = buffer.to(device=p.device, dtype=state_dtype(p), copy=True)


def state_dtype(p: Tensor) -> torch.dtype:
    """The precision of a parameter's buffers: its own, but at least float32."""
    return torch.promote_types(p.dtype, torch.float32)


def root_lr(group: dict[str, Any]) -> float:
    """h = √lr of a param group, whose lr may be 0 (nothing moves) since a scheduler set it.

    Raises:
        InvalidArgumentError: lr is below 0, NaN or infinite.
    """
    check_number("lr (as it is at this step, set by a scheduler?)", group["lr"], low=0)
    return math.sqrt(group["lr"])


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    finite: bool = True,
) -> None:
    """Refuse a setting outside [low, …) ∩ (above, below); infinity too, unless ``finite`` is False.

    Raises:
        InvalidArgumentError: naming the setting, the value and the bounds; NaN is always refused.
    """
    number = float(value)
    inside = low <= number and above < number and (number < below or (not finite and number == below))
    if not inside:
        bounds = [f"at least {low}"] * (low > -math.inf) + [f"above {above}"] * (above > -math.inf)
        bounds += [f"below {below}"] * (below < math.inf) + ["finite"] * (finite and below == math.inf)
        raise InvalidArgumentError(f"{name} must be {' and '.join(bounds)}, got {number}")


def one_plus_squares(tensors: Tensors, factor: float) -> Tensors:
    """1 + factor · t² for each tensor, in as few passes as the device's kernels allow."""
    if tensors[0].device.type == "cpu":  # one pass: the 1 is broadcast
        return list(torch._foreach_addcmul([tensors[0].new_ones(())] * len(tensors), tensors, tensors, factor))
    squares = list(torch._foreach_mul(tensors, tensors))  # elsewhere that would be a launch per tensor
    torch._foreach_mul_(squares, factor)
    torch._foreach_add_(squares, 1)
    return squares


def _descent(params: Tensors, grads: Tensors, weight_decay: float, maximize: bool) -> Tensors:
    """The g of the equations, never written into ``p.grad``: sign, precision and coupled weight decay."""
    grads = [g.to(state_dtype(p)) for p, g in zip(params, grads, strict=True)]
    if maximize:
        grads = list(torch._foreach_neg(grads))
    if weight_decay:
        grads = list(torch._foreach_add(grads, params, alpha=float(weight_decay)))
    return grads


def _blocks(rows: list[tuple[Tensor, ...]], foreach: bool) -> Iterator[list[tuple[Tensor, ...]]]:
    """Rows (parameter, gradient, buffers) in the lists that one call of the kernels takes.

    Without foreach one list. With it a list per device and dtype, on a CPU further cut into blocks of
    at most ``_CPU_BLOCK`` elements, large contiguous tensors being cut into flat views.
    """
    if not foreach:
        if rows:
            yield rows
        return
    alike: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, ...]]] = {}
    for row in rows:
        alike.setdefault((row[0].device, row[0].dtype), []).append(row)
    for (device, _), members in alike.items():
        if device.type == "cpu":
            yield from _bounded(chain.from_iterable(map(_cut, members)))
        else:
            yield members


def _cut(row: tuple[Tensor, ...]) -> Iterable[tuple[Tensor, ...]]:
    if row[0].numel() <= _CPU_BLOCK or not all(t.is_contiguous() for t in row):
        return [row]
    return zip(*(torch.split(t.view(-1), _CPU_BLOCK) for t in row), strict=True)


def _bounded(rows: Iterable[tuple[Tensor, ...]]) -> Iterator[list[tuple[Tensor, ...]]]:
    block: list[tuple[Tensor, ...]] = []
    elements = 0
    for row in rows:
        if block and elements + row[0].numel() > _CPU_BLOCK:
            yield block
            block, elements = [], 0
        block.append(row)
        elements += row[0].numel()
    if block:
        yield block
