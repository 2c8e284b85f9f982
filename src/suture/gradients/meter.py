"""The engine: squared gradient norms of every example and parameter, and sums of gradients, from one pass."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from suture.errors import InvalidArgumentError, NonFiniteError
from suture.gradients.capture import Call, Watch, factors_of, layers_of, layout_of, watched
from suture.gradients.factors import Factor, Outer, inner
from suture.tasks import Batch, Task

MEMORY_CPU = 4 * 1024**2  # bytes of one layer's factors at a time on a CPU: what stays in its cache is quickest
MEMORY_ACCELERATOR = 256 * 1024**2  # the same on an accelerator, which wants large chunks
TRAFFIC = 24  # multiply-adds that writing and reading one number costs, roughly, where it does not stay in cache
CHECKED = 3  # examples on which the hooks are compared with plain gradients before they are trusted
TOLERANCE = 0.05  # relative: half precision differs by a few percent, a wrong rule by far more

Sets = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measurement:
    """What one pass over a batch of n examples gave.

    Attributes:
        losses: (n,).
        verdicts: (n,) bool.
        names: parameters, in model order.
        squares: (n, parameters), squared norm of each example's gradient.
        sums: for each set of examples, parameter → weighted sum of gradients, of the parameter's shape.
    """

    losses: Tensor
    verdicts: Tensor
    names: list[str]
    squares: Tensor
    sums: list[dict[str, Tensor]]

    def norms(self, groups: Mapping[str, Sequence[str]]) -> Tensor:
        """(n, groups): norm of each example's gradient by group, in the order of `groups`."""
        place = {name: i for i, name in enumerate(self.names)}
        columns = [self.squares[:, [place[n] for n in names if n in place]].sum(1) for names in groups.values()]
        return torch.stack(columns, 1).sqrt()


class Meter:
    """Measures gradients of a model, one pass per batch, in eval mode.

    The first batch is also differentiated in the plain way for a few of its examples; parameters that come
    out differently (used outside their module, or by a module that mixes examples) are from then on taken by
    one backward pass per example, and named in a warning.

    Args:
        model: left as found after each pass, also when it fails: mode, ``requires_grad``, ``.grad``, hooks.
        task: of the batches.
        max_memory: bytes that the factors of one layer may take at a time; results do not depend on it. None
            takes what is quickest: 4 MiB on a CPU, 256 MiB on an accelerator.

    Raises:
        InvalidArgumentError: the model mixes the examples of a batch, or is not deterministic.
        NonFiniteError: a gradient is NaN or infinite; the parameter is named.
    """

    def __init__(self, model: nn.Module, task: Task, *, max_memory: int | None = None) -> None:
        self.model, self.task = model, task
        on_cpu = next(model.parameters()).device.type == "cpu"
        self.max_memory = max_memory or (MEMORY_CPU if on_cpu else MEMORY_ACCELERATOR)
        self.names = [name for name, p in model.named_parameters() if p.is_floating_point()]
        self.layers = layers_of(model)
        self.looped: list[str] = []
        self._place = {name: i for i, name in enumerate(self.names)}
        self._layouts: dict[tuple[str, int], str | None] | None = None
        self._chunks: dict[tuple[str, torch.Size], int] = {}

    def measure(self, batch: Batch, sets: Sets | None = None) -> Measurement:
        """One forward and one backward pass.

        Args:
            batch: on the model's device.
            sets: from verdicts (n,) to weights (sets, n) of the gradient sums that are wanted.
        """
        if torch.is_inference_mode_enabled():
            raise InvalidArgumentError("inside torch.inference_mode() there are no gradients; measure outside of it")
        if self._layouts is not None:
            return self._pass(batch, sets)
        alone = self._check(batch)
        found = self._pass(batch, sets)
        if len(alone) == len(found.losses):
            alone = self._first(batch).to(found.losses)
        among = found.losses[: len(alone)]
        if not torch.allclose(among, alone, rtol=5e-2, atol=1e-3):
            self._layouts = None
            raise InvalidArgumentError(
                "the loss of an example depends on the others in its batch, even in eval mode, so it has no gradient "
                "of its own; does a BatchNorm stay in training mode, or are inputs scaled by the batch?"
            )
        return found

    def _pass(self, batch: Batch, sets: Sets | None) -> Measurement:
        with watched(self.model, self.layers, set(self.looped)) as watch:
            outputs = self.task.outputs(self.model, batch)
            losses = self.task.losses(outputs, batch)
            if losses.shape == (0,):
                raise InvalidArgumentError("the batch has no examples")
            if losses.dim() != 1:
                shape = tuple(losses.shape)
                raise InvalidArgumentError(f"the task's losses have shape {shape}; they must be (examples,)")
            verdicts = self.task.verdicts(outputs, batch)
            weights = sets(verdicts).to(losses.device) if sets else torch.zeros(0, len(losses), device=losses.device)
            tally = _Tally(self, watch, losses, weights)
            tally.backward()
            tally.loop()
        self._refuse_non_finite(tally.squares)
        return Measurement(losses.detach(), verdicts, self.names, tally.squares, tally.sums)

    def _check(self, batch: Batch) -> Tensor:
        """Compare with plain gradients on a few examples, and learn where each layer has its examples.

        Returns:
            The losses of these few.
        """
        few = _head(batch, CHECKED)
        self._layouts = {}
        found = self._pass(few, None)
        if not self.names:
            return found.losses
        losses, expected = self._plain(few)
        if not torch.allclose(losses, found.losses[: len(losses)], rtol=1e-2, atol=1e-4):
            raise InvalidArgumentError(
                "the model gives different outputs for the same inputs, in eval mode; is dropout or another random "
                "layer still on?"
            )
        self._refuse_non_finite(expected)
        # What is looped over changes the pass that the others are taken from, so they are compared again.
        while wrong := self._differing(found, expected):
            self.looped = [name for name in self.names if name in wrong or name in self.looped]
            found = self._pass(few, None)
        self._warn()
        return losses

    def _first(self, batch: Batch) -> Tensor:
        """(1,) loss of the first example of a batch on its own; (0,) where the model cannot take one alone."""
        one = _head(batch, 1)
        with torch.no_grad(), watched(self.model, [], set()):
            try:
                losses = self.task.losses(self.task.outputs(self.model, one), one)
            except Exception:  # a model may squeeze its one example away, which mixes nothing
                losses = torch.zeros(0)
        return losses if losses.shape == (1,) else torch.zeros(0)

    def _differing(self, found: Measurement, expected: Tensor) -> set[str]:
        """Parameters, of those not looped over, whose norms (k, parameters) are not the plain ones."""
        norms = found.squares[: len(expected)].sqrt()
        allowed = TOLERANCE * expected + 1e-5 * expected.amax(dim=1, keepdim=True) + 1e-12
        wrong = ((norms - expected).abs() > allowed).any(0)
        return {name for name, bad in zip(self.names, wrong.tolist(), strict=True) if bad} - set(self.looped)

    def _refuse_non_finite(self, values: Tensor) -> None:
        """(n, parameters) must be finite; the first parameter that is not is named."""
        if not values.isfinite().all():
            bad = self.names[int((~values.isfinite()).any(0).nonzero()[0])]
            raise NonFiniteError(f"the gradient of '{bad}' is not finite; check the weights and the inputs")

    def _plain(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses, and norms of plain gradients, of the first examples: (k,) and (k, parameters)."""
        with watched(self.model, [], set(self.names)):
            parameters = dict(self.model.named_parameters())
            losses = self.task.losses(self.task.outputs(self.model, batch), batch)[:CHECKED]
            rows = [
                torch.autograd.grad(loss, [parameters[n] for n in self.names], retain_graph=True, allow_unused=True)
                for loss in losses
            ]
        zero = losses.new_zeros(())
        norms = [torch.stack([zero if g is None else g.float().norm() for g in row]) for row in rows]
        return losses.detach(), torch.stack(norms)

    def _warn(self) -> None:
        unruled = [layer for layer in self.layers if layer.rule is None and not layer.attends]
        slow = sorted({type(layer.module).__name__ for layer in unruled})
        if slow:
            warnings.warn(
                f"no rule for {', '.join(slow)}: its per-example gradients are formed, which takes longer",
                stacklevel=4,
            )
        if self.looped:
            warnings.warn(
                f"{', '.join(self.looped[:5])}{' …' if len(self.looped) > 5 else ''}: used outside of its module, or "
                "by one with the examples behind another axis, so its gradients take one backward pass per example",
                stacklevel=4,
            )

    def layout(self, call: Call, n: int) -> str | None:
        """Where a call has its examples: as on the first batch, when sizes could be told apart."""
        assert self._layouts is not None
        key = (call.layer.name, call.dy[0].dim() if 0 in call.dy else 0)
        if key not in self._layouts:
            self._layouts[key] = layout_of(call, n)
        return self._layouts[key]


class _Tally:
    """Sums of one pass, filled as gradients arrive."""

    def __init__(self, meter: Meter, watch: Watch, losses: Tensor, weights: Tensor) -> None:
        self.meter, self.watch, self.losses, self.weights = meter, watch, losses, weights
        self.n = len(losses)
        self.squares = torch.zeros(self.n, len(meter.names), device=losses.device)
        parameters = dict(meter.model.named_parameters())
        self.sums = [{name: torch.zeros_like(parameters[name]) for name in meter.names} for _ in weights]
        uses = Counter(name for call in watch.calls for name in call.layer.names.values())
        self._shared = {name for name, count in uses.items() if count > 1}
        self._waiting: list[Call] = []

    def backward(self) -> None:
        """The backward pass; each layer is done when its gradients are there, and forgotten."""
        self.watch.on_complete, self.watch.backward = self._complete, True
        if self.watch.calls and self.losses.requires_grad:
            parameters = dict(self.meter.model.named_parameters())
            # Behind a parameter that is differentiated itself, outputs lead to it, and need not lead to `zero`.
            ends = [self.watch.zero, *(parameters[name] for name in self.meter.looped)]
            keep = bool(self.meter.looped)
            try:
                torch.autograd.grad(self.losses.sum(), ends, retain_graph=keep, allow_unused=True)
            except RuntimeError as error:
                if "use_reentrant" in str(error):
                    raise InvalidArgumentError(
                        "the model checkpoints with use_reentrant=True, which hides its layers; set use_reentrant=False"
                    ) from error
                raise
        done = set(map(id, self._waiting))
        partial = [c for c in self.watch.calls if c.dy and id(c) not in done and len(c.dy) < c.outputs]
        for call in partial:
            self._complete(call)
        for name in sorted(self._shared):
            self._take([call for call in self._waiting if name in call.layer.names.values()], {name})
        self.watch.on_complete = None  # the passes of `loop` are of one example each

    def loop(self) -> None:
        """One backward pass per example for the parameters that need it."""
        names = self.meter.looped
        if not names:
            return
        parameters = dict(self.meter.model.named_parameters())
        for i, loss in enumerate(self.losses):
            grads = torch.autograd.grad(loss, [parameters[n] for n in names], retain_graph=True, allow_unused=True)
            for name, grad in zip(names, grads, strict=True):
                place = self.meter._place[name]
                self.squares[i, place] = 0.0 if grad is None else grad.float().square().sum()
                for total, weight in zip(self.sums, self.weights[:, i], strict=True):
                    if grad is not None and weight:
                        total[name] += weight * grad

    def _complete(self, call: Call) -> None:
        mine = set(call.layer.names.values())
        if mine & self._shared:
            self._waiting.append(call)
        self._take([call], mine - self._shared)
        if not mine & self._shared:
            call.args, call.kwargs, call.outputs, call.dy = (), {}, 0, {}

    def _take(self, calls: list[Call], names: set[str]) -> None:
        """Add what some calls say about some parameters, a chunk of examples at a time."""
        names = names - set(self.meter.looped)
        layouts = [self.meter.layout(call, self.n) for call in calls]
        if not names or not calls or None in layouts:
            return  # what is missing here differs from plain gradients, and is looped over from then on
        step = self._step(calls, layouts)
        for start in range(0, self.n, step):
            chunk = slice(start, min(start + step, self.n))
            found: dict[str, list[Factor]] = {}
            for call, layout in zip(calls, layouts, strict=True):
                for name, factor in factors_of(call, self.n, chunk, str(layout)).items():
                    if name in names:
                        found.setdefault(name, []).append(factor)
            for name, factors in found.items():
                self._add(name, factors, chunk)

    def _add(self, name: str, factors: list[Factor], chunk: slice) -> None:
        weights = self.weights[:, chunk]
        only = factors[0]
        if len(factors) == 1 and isinstance(only, Outer) and _form(only, summed=len(weights) > 0):
            dense = only.dense().flatten(1)
            squares = torch.linalg.vector_norm(dense, dim=1).square()  # one pass, which einsum would not do
            sums = list((weights.to(dense) @ dense).reshape(len(weights), *only.shape))
        else:
            squares = torch.stack([inner(a, b) for a in factors for b in factors]).sum(0)
            sums = [torch.stack([f.total(w.to(squares)) for f in factors]).sum(0) for w in weights]
        self._record(name, chunk, squares, sums)

    def _record(self, name: str, chunk: slice, squares: Tensor, sums: list[Tensor]) -> None:
        self.squares[chunk, self.meter._place[name]] = squares.detach().float()
        for total, value in zip(self.sums, sums, strict=True):
            total[name] += value.detach().view_as(total[name])

    def _step(self, calls: list[Call], layouts: list[str | None]) -> int:
        """Examples per chunk, so that factors stay within the bound; measured on one example, once per shape."""
        key = (calls[0].layer.name, calls[0].dy[0].shape)
        if key not in self.meter._chunks:
            factors: list[Factor] = []
            for call, layout in zip(calls, layouts, strict=True):
                factors += factors_of(call, self.n, slice(0, 1), str(layout)).values()
            size = sum(_numbers(factor, summed=len(self.weights) > 0) for factor in factors)
            self.meter._chunks[key] = max(1, self.meter.max_memory // (4 * max(size, 1)))
        return self.meter._chunks[key]


def _form(factor: Outer, *, summed: bool) -> bool:
    """Whether to form gradients: the sums need as many multiplications, and the Gram form comes on top."""
    if summed:
        return TRAFFIC * factor.size < 2 * factor.gram_cost
    return factor.dense_cost + TRAFFIC * factor.size < 2 * factor.gram_cost


def _numbers(factor: Factor, *, summed: bool) -> int:
    if isinstance(factor, Outer):
        if _form(factor, summed=summed):
            return factor.delta.numel() + factor.size
        _, groups, _, positions = factor.delta.shape
        return factor.delta.numel() + groups * positions * (factor.inputs + 2 * positions)
    return factor.dense().numel() if not hasattr(factor, "index") else factor.values.numel()


def _head(batch: Batch, k: int) -> Batch:
    """The first examples of a batch, where it consists of tensors with examples along their first axis."""
    from torch.utils._pytree import tree_flatten, tree_unflatten  # noqa: PLC0415

    leaves, spec = tree_flatten(batch)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) < len(leaves) or not tensors or any(not t.dim() or len(t) != len(tensors[0]) for t in tensors):
        return batch
    return tree_unflatten([leaf[:k] for leaf in leaves], spec)  # type: ignore[no-any-return]
