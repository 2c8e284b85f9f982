"""One forward and one backward pass, watched: a layer's input and the gradient of its output, by hooks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from suture.errors import InvalidArgumentError
from suture.gradients import attention, conv, embedding, linear, norm  # the rules register themselves
from suture.gradients.factors import Factor
from suture.gradients.fallback import apart, own_gradients
from suture.gradients.rules import Rule, find_rule

RULED = (attention, conv, embedding, linear, norm)


@dataclass(frozen=True)
class Layer:
    """A module that owns parameters, and how their gradients are found.

    Attributes:
        name: its path in the model.
        names: parameter name inside the module → name in the model.
        rule: from input and output gradient to factors; None: the module's own vector-Jacobian product.
        positions: whether the rule takes all axes but the first and last as positions.
        attends: whether it is an attention, whose projections are watched in a forward that stands in for its own.
    """

    name: str
    module: nn.Module
    names: dict[str, str]
    rule: Rule | None = None
    positions: bool = False
    attends: bool = False


@dataclass(eq=False)
class Call:
    """One call of a layer in a forward pass.

    Attributes:
        layer: what was called.
        args, kwargs: with what.
        outputs: how many tensors it gave; these themselves are not kept, as the model may let go of them.
        dy: gradients of these, by place, as far as they have arrived.
    """

    layer: Layer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: int = 0
    dy: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Apart:
    """Where the examples are in a call of a layer without a rule.

    Attributes:
        taken: for each leaf of its arguments, whether it is a tensor with the examples along its first axis.
        axes: by place among its outputs, the axis of the examples: the first, or the second as in recurrent states.
    """

    taken: tuple[bool, ...]
    axes: Mapping[int, int]


Layout = str | Apart
"""With a rule: examples along the "first" axis, the "second", or "folded" into the first one with others."""


def layers_of(model: nn.Module) -> list[Layer]:
    """Every module that owns floating-point parameters, with its rule.

    Raises:
        InvalidArgumentError: a BatchNorm without running statistics: its examples depend on each other.
    """
    first = {id(p): name for name, p in model.named_parameters() if p.is_floating_point()}
    layers = []
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise InvalidArgumentError(
                f"'{path}' is a BatchNorm without running statistics, which mixes the examples of a batch even in "
                "eval mode: no example has a gradient of its own; set track_running_stats=True"
            )
        is_attention = isinstance(module, nn.MultiheadAttention)
        attends = is_attention and attention.supported(module)
        # An attention that is not supported still takes its output projection's parameters without calling it.
        inside = module.named_parameters(recurse=is_attention and not attends)
        names = {name: first[id(p)] for name, p in inside if id(p) in first}
        if names:
            rule, positions = find_rule(module) or (None, attends)
            layers.append(Layer(path, module, names, rule, positions, attends))
    return layers


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Mode and ``requires_grad`` are put back afterwards, and no graph is left on the model.

    Old weight and spectral norms keep their last weight as a plain attribute, which could not be copied with its graph.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {p: p.requires_grad for p in model.parameters()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
            left = {n: v for n, v in vars(module).items() if isinstance(v, Tensor) and v.grad_fn is not None}
            vars(module).update({name: value.detach() for name, value in left.items()})
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@contextmanager
def watched(model: nn.Module, layers: list[Layer], differentiated: set[str]) -> Iterator["Watch"]:
    """Eval mode, hooks on the layers, and gradients for the named parameters alone; all is put back afterwards."""
    fast = torch.backends.mha.get_fastpath_enabled()
    watch = Watch(next(model.parameters()).device)
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.enter_context(restored(model))
        torch.backends.mha.set_fastpath_enabled(False)  # it would skip the layers it is made of
        model.eval()
        _refuse_training_norms(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in differentiated)
        by_module = {layer.module: layer for layer in layers}
        for layer in layers:
            if isinstance(layer.module, nn.MultiheadAttention) and layer.attends:
                see = partial(watch.see, by_module)
                layer.module.forward = partial(attention.forward, layer.module, see)  # type: ignore[method-assign]
                stack.callback(layer.module.__dict__.pop, "forward")
                continue
            handle = layer.module.register_forward_hook(partial(watch.forward, layer), with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(torch.enable_grad())
        stack.callback(watch.release)
        yield watch


def _refuse_training_norms(model: nn.Module) -> None:
    """Refuse a BatchNorm that ``eval()`` leaves on: some models keep theirs on in a ``train`` method of their own.

    Raises:
        InvalidArgumentError: there is one; it is named.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise InvalidArgumentError(
                f"'{path}' is a BatchNorm that stays in training mode after eval(), so the loss of an example depends "
                "on the others in its batch and no example has a gradient of its own; let the model's train() turn it "
                "off"
            )


class Watch:
    """What the hooks have seen.

    Attributes:
        calls: of layers, in order.
        zero: what every layer's output depends on, so that gradients come back to all of them.
        on_complete: called when all gradients of a call have arrived; None when nobody asks for them.
        backward: whether the forward pass is over, so that whatever runs again is no new call.
    """

    def __init__(self, device: torch.device) -> None:
        self.calls: list[Call] = []
        self.zero = torch.zeros((), requires_grad=True, device=device)
        self.on_complete: Callable[[Call], None] | None = None
        self.backward = False

    def release(self) -> None:
        """Forget everything: hooks on tensors hold this, and this holds tensors, in a cycle that no collector sees."""
        self.calls.clear()
        self.on_complete = None

    def forward(self, layer: Layer, _: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Forward hook: note the call, and wait for the gradients of what it gave."""
        if not torch.is_grad_enabled():
            return None
        leaves, spec = tree_flatten(output)
        if self.backward:  # a checkpointed stretch that runs again is the same call, with the same graph
            return tree_unflatten([self._joined(leaf) for leaf in leaves], spec)
        call = Call(layer, args, kwargs)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                out = leaf if leaf.requires_grad else _Entry.apply(leaf, self.zero)
                out.register_hook(partial(self._arrived, call, call.outputs))
                leaves[place] = out
                call.outputs += 1
        if call.outputs:
            self.calls.append(call)
        return tree_unflatten(leaves, spec)

    def _joined(self, leaf: Any) -> Any:
        """A tensor of the second run, made to lead to `zero` as it did in the first."""
        floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf + self.zero.to(leaf.dtype) if floating and not leaf.requires_grad else leaf

    def see(self, layers: dict[nn.Module, Layer], module: nn.Module, rule: Rule | None, x: Tensor, y: Tensor) -> Tensor:
        """Note a linear map inside a module as if it were a call of a layer; gives y, for what comes after."""
        layer = layers[module]
        seen = self.forward(layer if rule is None else replace(layer, rule=rule), module, (x,), {}, y)
        return y if seen is None else seen

    def _arrived(self, call: Call, place: int, grad: Tensor) -> None:
        if self.on_complete is None:
            return
        call.dy[place] = grad.detach()
        if len(call.dy) == call.outputs:
            self.on_complete(call)


class _Entry(torch.autograd.Function):
    """The identity, from which gradients go on to a second argument: an addition of zero without the copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, zero: Tensor) -> Tensor:
        # No view of x for autograd, which would forbid to overwrite it.
        return x.new_empty(0).set_(x)  # type: ignore[call-overload, no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        return None, None


def factors_of(call: Call, n: int, chunk: slice, layout: Layout) -> dict[str, Factor]:
    """Factors of a call for some of its n examples: parameter name in the model → factor."""
    layer = call.layer
    if isinstance(layout, str):
        assert layer.rule is not None
        x, dy = (_wide(arranged(t, n, layout)[chunk]) for t in (_input(call), call.dy[0]))
        found = layer.rule(layer.module, x.detach(), dy)
    else:
        flat, spec = tree_flatten((call.args, call.kwargs))
        cut = [leaf.detach()[chunk] if own else leaf for leaf, own in zip(flat, layout.taken, strict=True)]
        args, kwargs = tree_unflatten(cut, spec)
        grads = {p: (g.movedim(layout.axes[p], 0)[chunk], layout.axes[p]) for p, g in sorted(call.dy.items())}
        found = own_gradients(layer.module, list(layer.names), args, kwargs, layout.taken, grads, len(range(n)[chunk]))
    return {layer.names[name]: factor for name, factor in found.items() if name in layer.names}


def layout_of(call: Call, n: int) -> Layout | None:
    """Where the n examples of a call are; None when the call does not have them apart."""
    if call.layer.rule is None:
        if any(n not in grad.shape[:2] for grad in call.dy.values()):
            return None
        axes = {place: 0 if grad.shape[0] == n else 1 for place, grad in call.dy.items()}
        shapes = {place: tuple(grad.narrow(axes[place], 0, 1).shape) for place, grad in call.dy.items()}
        taken = tuple(_has(leaf, n) for leaf in tree_flatten((call.args, call.kwargs))[0])
        return Apart(taken, axes) if apart(call.layer.module, call.args, call.kwargs, taken, shapes) else None
    shape = call.dy[0].shape
    if shape[0] == n:
        return "first"
    if not call.layer.positions:
        return None
    if len(shape) > 2 and shape[1] == n:
        return "second"
    return "folded" if shape[0] and shape[0] % n == 0 else None


def fits(call: Call, n: int, layout: Layout) -> bool:
    """Whether a call may have its n examples where another call of the layer had them."""
    if isinstance(layout, str):
        shape = call.dy[0].shape
        if layout == "folded":
            return shape[0] > 0 and shape[0] % n == 0
        return len(shape) > (layout == "second") and shape[layout == "second"] == n
    flat = tree_flatten((call.args, call.kwargs))[0]
    if len(flat) != len(layout.taken) or not call.dy.keys() <= layout.axes.keys():
        return False
    inside = all(_has(leaf, n) for leaf, own in zip(flat, layout.taken, strict=True) if own)
    return inside and all(grad.shape[layout.axes[place]] == n for place, grad in call.dy.items())


def _input(call: Call) -> Tensor:
    """What a layer with a rule was given."""
    return next(iter((*call.args, *call.kwargs.values())))  # type: ignore[no-any-return]


def _has(leaf: Any, n: int) -> bool:
    """Whether it is a tensor whose first axis has n entries."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == n


def arranged(tensor: Tensor, n: int, layout: str) -> Tensor:
    """A tensor with its n examples along the first axis."""
    if layout == "second":
        return tensor.transpose(0, 1)
    return tensor.reshape(n, -1, *tensor.shape[1:]) if layout == "folded" else tensor


def _wide(tensor: Tensor) -> Tensor:
    """Half precision is widened: squares of it overflow."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
