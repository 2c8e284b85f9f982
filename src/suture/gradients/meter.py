"""The engine: squared gradient norms of every example and parameter, and sums of gradients, from one pass."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from suture.errors import InvalidArgumentError, NonFiniteError
from suture.gradients.capture import Call, Layout, fits, layers_of, layout_of, watched
from suture.gradients.tally import Tally
from suture.tasks import Batch, Task

MEMORY_CPU = 4 * 1024**2  # bytes of one layer's factors at a time on a CPU: what stays in its cache is quickest
MEMORY_ACCELERATOR = 256 * 1024**2  # the same on an accelerator, which wants large chunks
CHECKED = 3  # examples on which the hooks are compared with plain gradients before they are trusted
MIXED = (
    "the loss of an example depends on the others in its batch, even in eval mode, so it has no gradient of its own; "
    "does a BatchNorm stay in training mode, or are inputs scaled by the batch?"
)
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

    Batches are also differentiated in the plain way for a few of their examples, until every parameter was seen
    with a gradient: most are in the first. Parameters that come out differently (used outside their module, or by
    a module that does not have the examples apart) are from then on taken by one backward pass per example, and
    named in a warning.

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
        parameters = dict(model.named_parameters())
        self.names = [name for name, p in parameters.items() if p.is_floating_point() or p.is_complex()]
        self.layers = layers_of(model)
        self.looped = [name for name in self.names if parameters[name].is_complex()]
        self._known: set[str] = set()  # parameters whose norms were the plain ones where these were not zero
        self._warned: set[str] = set()
        self._independent = False  # whether examples were seen not to depend on each other
        self.place = {name: i for i, name in enumerate(self.names)}
        self._layouts: dict[tuple[str, int], Layout | None] | None = None
        self.chunks: dict[tuple[str, tuple[torch.Size, ...]], int] = {}

    def measure(self, batch: Batch, sets: Sets | None = None) -> Measurement:
        """One forward and one backward pass.

        Args:
            batch: on the model's device.
            sets: from verdicts (n,) to weights (sets, n) of the gradient sums that are wanted.
        """
        if torch.is_inference_mode_enabled():
            raise InvalidArgumentError("inside torch.inference_mode() there are no gradients; measure outside of it")
        if self._layouts is None:
            self._layouts = {}
            few = _chosen(batch, range(CHECKED))
            if few is not None:  # a size that is seldom that of another axis too
                self._loop_over(self._pass(few, None)[1])
        found, missed = self._pass(batch, sets)
        while wrong := missed or self._wrong(batch, found):
            self._loop_over(wrong)  # which changes the pass that the others are taken from
            found, missed = self._pass(batch, sets)
        self._warn()
        return found

    def _loop_over(self, names: set[str]) -> None:
        self.looped = [name for name in self.names if name in names or name in self.looped]

    def _pass(self, batch: Batch, sets: Sets | None) -> tuple[Measurement, set[str]]:
        """What hooks say of a batch, and the parameters of which they cannot say it."""
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
            tally = Tally(self, watch, losses, weights)
            tally.backward()
            tally.loop()
        self._refuse_non_finite(tally.squares, self.names)
        return Measurement(losses.detach(), verdicts, self.names, tally.squares, tally.sums), tally.missed

    def _wrong(self, batch: Batch, found: Measurement) -> set[str]:
        """Parameters whose norms are not the plain ones on a few examples of a batch.

        Raises:
            InvalidArgumentError: the model mixes the examples of a batch, or is not deterministic.
        """
        names = [name for name in self.names if name not in self._known]
        if self._independent and not names:
            return set()
        rows = _telling(found.losses)
        few = _chosen(batch, rows)
        if few is not None and len(rows) == 1 and not self._takes_one(few):
            return set()
        losses, expected = self._plain(batch if few is None else few, names, rows if few is None else range(len(rows)))
        if not torch.allclose(found.losses[rows].to(losses), losses, rtol=5e-2, atol=1e-3):
            raise InvalidArgumentError(MIXED)
        several = few is None or len(found.losses) > 1
        self._independent = self._independent or several
        if not names:
            return set()
        norms = found.squares[rows].sqrt()
        floor = 1e-5 * torch.cat([norms, expected], 1).amax(1, keepdim=True) + 1e-12
        norms = norms[:, [self.place[name] for name in names]]
        error, allowed = (norms - expected).abs(), TOLERANCE * expected
        wrong = {name for name, bad in zip(names, (error > allowed + floor).any(0).tolist(), strict=True) if bad}
        if wrong & set(self.looped):  # which are exact for this batch
            raise InvalidArgumentError(MIXED)
        told = ((expected > 0) & (error <= allowed)).any(0).tolist()  # zero both ways may be missing in one of them
        if several and not wrong:
            self._known |= {name for name, seen in zip(names, told, strict=True) if seen}
        return wrong

    def _takes_one(self, one: Batch) -> bool:
        """Whether the model gives a batch of one example its loss; it may squeeze it away, which mixes nothing."""
        with torch.no_grad(), watched(self.model, [], set()):
            try:
                return self.task.losses(self.task.outputs(self.model, one), one).shape == (1,)
            except Exception:  # whatever a model says that cannot take one
                return False

    def _refuse_non_finite(self, values: Tensor, names: list[str]) -> None:
        """(n, names) must be finite; the first parameter that is not is named."""
        if not values.isfinite().all():
            bad = names[int((~values.isfinite()).any(0).nonzero()[0])]
            raise NonFiniteError(f"the gradient of '{bad}' is not finite; check the weights and the inputs")

    def _plain(self, batch: Batch, names: list[str], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Losses, and norms of plain gradients, of some examples of a batch: (k,) and (k, names).

        Raises:
            InvalidArgumentError: the model is not deterministic.
            NonFiniteError: a gradient is not finite.
        """
        with watched(self.model, [], set(names)):
            parameters = dict(self.model.named_parameters())
            losses = self.task.losses(self.task.outputs(self.model, batch), batch)[list(rows)]
            with torch.no_grad():
                again = losses if self._independent else self.task.losses(self.task.outputs(self.model, batch), batch)
            grads = [
                torch.autograd.grad(loss, [parameters[n] for n in names], retain_graph=True, allow_unused=True)
                for loss in losses
                if names and loss.requires_grad
            ]
        if not self._independent and not torch.allclose(losses, again[list(rows)], rtol=1e-2, atol=1e-4):
            raise InvalidArgumentError(
                "the model gives different outputs for the same inputs, in eval mode; is dropout or another random "
                "layer still on?"
            )
        zero = losses.detach().new_zeros(())
        norms = [torch.stack([zero if g is None else g.abs().float().norm() for g in row]) for row in grads]
        expected = torch.stack(norms).float() if norms else torch.zeros(len(losses), len(names), device=losses.device)
        self._refuse_non_finite(expected, names)
        return losses.detach(), expected

    def _warn(self) -> None:
        """Say once what takes longer, and why."""
        unruled = {type(layer.module).__name__ for layer in self.layers if layer.rule is None and not layer.attends}
        if slow := sorted(unruled - self._warned):
            warnings.warn(
                f"no rule for {', '.join(slow)}: its per-example gradients are formed, which takes longer",
                stacklevel=3,
            )
        if looped := [name for name in self.looped if name not in self._warned]:
            warnings.warn(
                f"{', '.join(looped[:5])}{' …' if len(looped) > 5 else ''}: used outside of its module, or "
                "by one that does not have the examples apart, so its gradients take one backward pass per example",
                stacklevel=3,
            )
        self._warned |= {*slow, *looped}

    def layout(self, call: Call, n: int) -> Layout | None:
        """Where a call has its examples, as when the layer was first called; None where it has them nowhere."""
        assert self._layouts is not None
        key = (call.layer.name, call.dy[0].dim() if 0 in call.dy else 0)
        if key not in self._layouts:
            self._layouts[key] = layout_of(call, n)
        layout = self._layouts[key]
        return layout if layout is not None and fits(call, n, layout) else None


def _telling(losses: Tensor) -> list[int]:
    """A few examples that would show a mistake: with a large loss, and from all over the batch, but not all of it."""
    n = len(losses)
    order = dict.fromkeys([int(losses.argmax()), n - 1, 0, n // 2])
    return list(order)[: max(1, min(CHECKED, n - 1))]


def _chosen(batch: Batch, rows: Sequence[int]) -> Batch | None:
    """Some examples of a batch, where it consists of tensors with examples along their first axis; None elsewhere."""
    leaves, spec = tree_flatten(batch)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) < len(leaves) or not tensors or any(not t.dim() or len(t) != len(tensors[0]) for t in tensors):
        return None
    kept = [row for row in rows if row < len(tensors[0])]
    return tree_unflatten([leaf[kept] for leaf in leaves], spec)  # type: ignore[no-any-return]
