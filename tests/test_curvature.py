"""Top eigenvalues of Hessian and GGN against known spectra and dense matrices, and what measuring leaves behind."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from suture import curvature
from suture.errors import (
    ConvergenceError,
    DataError,
    InvalidArgumentError,
    NonFiniteError,
    UnknownNameError,
)
from suture.groups import resolve
from suture.tasks import Classification
from tests import toys, zoo
from tests.oracles import curvature as oracle

KINDS = ["hessian", "ggn"]
fixed = settings(deadline=None, derandomize=True, max_examples=60)
EXACT = {"tol": 1e-10}


class Bowl(nn.Module):
    """½θᵀAθ with eigenvalues of one's choice; θ in pieces, so that blocks are known too."""

    def __init__(self, spectrum, pieces=None, rotate=True):
        super().__init__()
        n = len(spectrum)
        generator = torch.Generator().manual_seed(n)
        q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0] if rotate else torch.eye(n)
        q = q.double()
        matrix = q @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ q.T
        self.register_buffer("matrix", (matrix + matrix.T) / 2)
        start = torch.randn(n, generator=generator, dtype=torch.float64)
        self.pieces = nn.ParameterList(nn.Parameter(piece) for piece in start.split(pieces or [n]))

    def forward(self, x):
        theta = torch.cat(list(self.pieces))
        return x * (theta @ self.matrix @ theta) / 2


class Given:
    """A task whose losses are the model's outputs."""

    def outputs(self, model, batch):
        return model(batch[0])

    def losses(self, outputs, batch):
        return outputs

    def verdicts(self, outputs, batch):
        return outputs > 0


class Squares(Classification):
    """Half the squared distance to the one-hot label."""

    def losses(self, outputs, batch):
        return (outputs - F.one_hot(batch[1], outputs.shape[1])).square().sum(1) / 2


ONE = [(torch.tensor([0.5, 1.5], dtype=torch.float64), torch.zeros(2))]  # two examples, mean weight 1


def bowl_eigenvalues(spectrum, **options):
    return curvature.top_eigenvalues(Bowl(spectrum), ONE, Given(), **{**EXACT, **options})


SPECTRA = {
    "outliers": [*np.linspace(0, 1, 57), 8.0, 10.0, 50.0],
    "negative dominates": [-40.0, -3.0, *np.linspace(-1, 1, 50), 2.0],
    "all negative": list(-np.linspace(1, 9, 40)),
    "symmetric": [s * k for k in (5.0, 3.0, 1.0) for s in (1, -1)] * 5,
    "low rank": [7.0, 2.0, -1.0] + [0.0] * 60,
    "multiple": [4.0] * 10 + [1.0] * 30,
    "identity": [3.0] * 40,
    "minus identity": [-3.0] * 40,
    "zero": [0.0] * 40,
    "tiny": list(1e-9 * np.linspace(1, 3, 40)),
    "two": [2.0, -5.0],
    "one": [-1.5],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_a_quadratic_with_a_known_spectrum(name):
    spectrum = np.sort(SPECTRA[name])
    scale = abs(spectrum).max()
    model = Bowl(list(spectrum))
    found = curvature.curvature_range(model, ONE, Given(), **EXACT)
    assert [found.smallest, found.largest] == pytest.approx(spectrum[[0, -1]], abs=1e-9 * scale)
    assert max(found.residuals) <= 1e-9 * scale
    assert curvature.top_eigenvalue(model, ONE, Given(), **EXACT) == pytest.approx(spectrum[-1], abs=1e-9 * scale)


@pytest.mark.parametrize("count", [1, 3, 12, 57])
@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_several_eigenvalues_from_either_end(count, end):
    spectrum = np.sort([*np.linspace(-2, 2, 56), 5.0, 6.0, -7.0])
    with curvature.operator(Bowl(list(spectrum)), ONE, Given()) as matrix:
        found = curvature.eigenvalues(matrix, count, end, **EXACT)
    expected = spectrum[::-1][:count] if end == "largest" else spectrum[:count]
    np.testing.assert_allclose(found.values, expected, atol=1e-8)
    assert found.values.shape == found.residuals.shape == (count,)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=45), st.integers(0, 3))
@fixed
def test_random_quadratics(spectrum, seed):
    scale = max(abs(x) for x in spectrum)
    model = Bowl(spectrum)
    found = curvature.curvature_range(model, ONE, Given(), seed=seed)
    # Each is within the residual of some eigenvalue, and within tol of the edge.
    assert found.largest == pytest.approx(max(spectrum), abs=1e-3 * scale + 1e-12)
    assert found.smallest == pytest.approx(min(spectrum), abs=1e-3 * scale + 1e-12)
    for value, residual in zip((found.smallest, found.largest), found.residuals, strict=True):
        assert min(abs(value - x) for x in spectrum) <= residual + 1e-11 * scale + 1e-300
        assert residual <= 1.01e-3 * scale + 1e-300


def test_a_real_operator_that_scipy_can_use():
    spectrum = list(range(1, 31))
    with curvature.operator(Bowl(spectrum), ONE, Given()) as matrix:
        assert isinstance(matrix, LinearOperator)
        assert (matrix.shape, matrix.dtype) == ((30, 30), np.float64)
        dense = matrix @ np.eye(30)
        np.testing.assert_allclose(dense, dense.T, atol=1e-12)
        np.testing.assert_allclose(matrix.T @ np.arange(30), dense @ np.arange(30))
        np.testing.assert_allclose(np.linalg.eigvalsh(dense), spectrum)


def names_of(model):
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", zoo.ZOO)
def test_networks_against_the_dense_matrix_whole_and_by_group(name, kind):
    model, (x, y) = zoo.build(name).double().eval(), zoo.batch()
    x, names = x.double(), names_of(model)
    dense = getattr(oracle, kind)(model, x, y, names).numpy()
    scale = abs(np.linalg.eigvalsh(dense)).max()
    with curvature.operator(model, [(x, y)], kind=kind) as matrix:
        vectors = np.random.default_rng(0).standard_normal((len(dense), 3))
        np.testing.assert_allclose(matrix @ vectors, dense @ vectors, atol=1e-10 * scale)
    found = curvature.curvature_range(model, [(x, y)], kind=kind, tol=1e-8)
    assert [found.smallest, found.largest] == pytest.approx(np.linalg.eigvalsh(dense)[[0, -1]], abs=1e-7 * scale)
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    starts = dict(zip(names, np.cumsum([0, *sizes.values()]), strict=False))
    by_group = curvature.by_group(model, [(x, y)], groups="tensor", kind=kind, tol=1e-8)
    assert list(by_group.index) == names
    for group, value in by_group.items():
        block = slice(starts[group], starts[group] + sizes[group])
        assert value == pytest.approx(np.linalg.eigvalsh(dense[block, block])[-1], abs=1e-7 * scale)
    assert by_group.max() <= found.largest + 1e-7 * scale


@pytest.mark.parametrize("name", ["rootparameters", "norms"])
def test_the_hessian_is_the_slope_of_the_gradient(name):
    model, (x, y) = zoo.build(name).double().eval(), zoo.batch()
    x, step = x.double(), 1e-6
    with curvature.operator(model, [(x, y)]) as matrix:
        v = np.random.default_rng(0).standard_normal(matrix.shape[0])
        found = matrix @ v
    at = nn.utils.parameters_to_vector(model.parameters()).detach()
    slopes = []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(at + sign * step * torch.tensor(v), model.parameters())
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        slopes.append(torch.cat([g.reshape(-1) for g in gradients]))
    np.testing.assert_allclose(found, ((slopes[0] - slopes[1]) / (2 * step)).numpy(), atol=1e-7)


@pytest.mark.parametrize("task", [Classification(), Squares()], ids=["cross-entropy", "squares"])
def test_the_ggn_of_a_linear_model_is_its_hessian(task):
    model, (x, y) = nn.Linear(4, 3).double(), zoo.batch()
    products = []
    for kind in KINDS:
        with curvature.operator(model, [(x.double(), y)], task, kind=kind) as matrix:
            products.append(matrix @ np.eye(15))
    np.testing.assert_allclose(*products, atol=1e-12)
    assert abs(products[0]).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_batching_does_not_matter(kind):
    model = zoo.build("norms").double()
    x, y = zoo.batch(10)
    x = x.double()
    pairs = [(x[i : i + 4], y[i : i + 4]) for i in range(0, 10, 4)]
    shuffled = DataLoader(TensorDataset(x, y), batch_size=3, shuffle=True)
    ways = [[(x, y)], pairs, ((x[i : i + 1], y[i : i + 1]) for i in range(10)), shuffled]
    groups = {"ends": ["first", "head"], "middle": ["second"]}
    expected = curvature.by_group(model, ways[0], groups=groups, kind=kind)
    for way in ways[1:]:
        np.testing.assert_allclose(curvature.by_group(model, way, groups=groups, kind=kind), expected, rtol=1e-9)


def test_groups_may_be_chosen_by_name():
    model, batches = zoo.build("norms").double(), [(zoo.batch()[0].double(), zoo.batch()[1])]
    groups = resolve(model, {"ends": ["first", "head"], "middle": ["second"]})
    found = curvature.by_group(model, batches, groups={"ends": ["first", "head"], "middle": ["second"]}, kind="ggn")
    assert list(found.index) == ["ends", "middle"]
    assert found.name == "ggn"
    assert found["ends"] == curvature.top_eigenvalue(model, batches, parameters=groups["ends"], kind="ggn")


def test_the_same_seed_gives_the_same_bits():
    model, batches = zoo.build("convolutions"), [zoo.batch()]
    first, again, other = (curvature.top_eigenvalues(model, batches, seed=seed) for seed in (3, 3, 4))
    assert first.values.tobytes() == again.values.tobytes()
    assert first.values.tobytes() != other.values.tobytes()
    np.testing.assert_allclose(first.values, other.values, rtol=2e-3)


def test_low_rank_too_gives_the_same_bits():
    # Lanczos ends after a few steps and goes on from a random vector.
    first, again = (bowl_eigenvalues([7.0, 2.0, -1.0] + [0.0] * 60, count=3) for _ in range(2))
    assert first.values.tobytes() == again.values.tobytes()


def test_single_precision_is_enough():
    model, (x, y) = zoo.build("attention"), zoo.batch()
    single = curvature.by_group(model, [(x, y)])
    double = curvature.by_group(model.double(), [(x.double(), y)])
    np.testing.assert_allclose(single, double, rtol=1e-3)


def test_the_model_is_left_as_it_was_found():
    model, (x, y) = zoo.build("norms").train(), zoo.batch()
    model.second.eval()
    model.head.weight.requires_grad_(False)
    model.head.bias.grad = torch.ones(3)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    curvature.by_group(model, [(x, y)], kind="ggn")
    curvature.curvature_range(model, [(x, y), (x, y)])
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert (model.training, model.first.training, model.second.training) == (True, True, False)
    assert not model.head.weight.requires_grad
    assert model.first[0].weight.grad is None
    assert torch.equal(model.head.bias.grad, torch.ones(3))
    assert torch.equal(random, torch.get_rng_state())


def test_the_graph_of_a_single_batch_is_kept_and_no_other():
    model, (x, y) = zoo.build("nested"), zoo.batch()
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    found = curvature.top_eigenvalues(model, [(x, y)], count=1)
    assert len(forwards) == 1
    curvature.top_eigenvalue(model, [(x[:3], y[:3]), (x[3:], y[3:])])
    assert len(forwards) == 1 + 2 * found.products


def test_a_group_that_the_loss_does_not_depend_on_has_no_curvature():
    found = curvature.by_group(zoo.build("unused"), [zoo.batch()])
    assert found["idle"] == 0
    assert found["used"] > 0.1


def test_frozen_parameters_are_measured_too():
    found = curvature.by_group(zoo.build("frozen"), [zoo.batch()])
    assert found["body"] > 0.1


def test_a_task_that_has_nothing_to_do_with_labels():
    model, task = toys.speaker(), toys.CopyTask()
    batch = task.collate(toys.sentences(8, seed=3, words=12))
    ggn = curvature.by_group(model, [batch], task, kind="ggn")
    assert (ggn > 0).all()
    assert curvature.top_eigenvalue(model, [batch], task, kind="ggn") >= ggn.max() * (1 - 1e-3)


Pair = namedtuple("Pair", ["logits", "extra"])


class Structured(Classification):
    """The same losses from outputs in a structure, one of them a function of the other."""

    def __init__(self, wrap):
        self.wrap = wrap

    def outputs(self, model, batch):
        hidden = model(batch[0])
        return self.wrap(hidden)

    def losses(self, outputs, batch):
        first, second = outputs.values() if isinstance(outputs, dict) else outputs[:2]
        return F.cross_entropy(first + second, batch[1], reduction="none")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: (z, 2 * z, "note", None),
        lambda z: [z, 2 * z, [], torch.arange(3)],
        lambda z: {"logits": z, "double": 2 * z},
        lambda z: Pair(z, 2 * z),
    ],
    ids=["tuple", "list", "dict", "namedtuple"],
)
def test_ggn_of_outputs_in_a_structure(wrap):
    class Tripled(Classification):
        def outputs(self, model, batch):
            return 3 * super().outputs(model, batch)

    model, batches = zoo.build("reused").double(), [(zoo.batch()[0].double(), zoo.batch()[1])]
    expected = curvature.top_eigenvalue(model, batches, Tripled(), kind="ggn", **EXACT)
    found = curvature.top_eigenvalue(model, batches, Structured(wrap), kind="ggn", **EXACT)
    assert found == pytest.approx(expected)


def test_what_does_not_converge_is_an_error_that_says_what_to_do():
    spectrum = list(1 - np.linspace(0, 1, 400) ** 4)
    with pytest.raises(ConvergenceError, match=r"within 1 iterations \(\d+ products\); allow a larger tol"):
        bowl_eigenvalues(spectrum, count=1, tol=1e-12, max_iterations=1)


class Bad(nn.Module):
    """A loss that is finite, with an infinite second derivative."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x * self.p.abs().pow(1.5).sum()


class Simple(torch.autograd.Function):
    """The identity, with a backward pass that torch cannot differentiate."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g


class Hindered(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(Simple.apply(self.body(x).tanh()))


class Once:
    """Batches that are there for one pass only, without being an iterator."""

    def __init__(self, batches):
        self.passes = [batches, batches[:1]]

    def __iter__(self):
        return iter(self.passes.pop(0))


class Detached(Classification):
    def outputs(self, model, batch):
        return super().outputs(model, batch).detach()


class Opaque(Classification):
    def outputs(self, model, batch):
        return Opaque.Box(super().outputs(model, batch))

    class Box:
        def __init__(self, logits):
            self.logits = logits

    def losses(self, outputs, batch):
        return super().losses(outputs.logits, batch)


class Reduced(Classification):
    def losses(self, outputs, batch):
        return super().losses(outputs, batch).mean()


X, Y = zoo.batch()


@pytest.mark.parametrize(
    ("model", "options", "error", "sentence"),
    [
        (zoo.build("nested"), {"batches": []}, DataError, "no examples to measure the curvature on"),
        (zoo.build("nested"), {"batches": (X, Y)}, DataError, r"pairs \(inputs, targets\), not a Tensor; for a single"),
        (zoo.build("nested"), {"batches": Once([(X, Y), (X, Y)])}, DataError, "gave 14 examples at first and 7 now"),
        (zoo.build("nested"), {"batches": [(X * float("nan"), Y)]}, NonFiniteError, "loss is not finite on some"),
        (Bad(), {"task": Given(), "batches": ONE}, NonFiniteError, "infinite derivative, such as a square root at 0"),
        (Hindered(), {}, InvalidArgumentError, "differentiated only once"),
        (Hindered(), {"kind": "ggn"}, InvalidArgumentError, "differentiated only once"),
        (zoo.build("nested"), {"task": Reduced()}, InvalidArgumentError, r"losses have shape \(\); they must be"),
        (zoo.build("nested"), {"task": Detached()}, InvalidArgumentError, "are its outputs detached"),
        (zoo.build("nested"), {"task": Opaque(), "kind": "ggn"}, InvalidArgumentError, "a Box; use kind='hessian'"),
        (zoo.build("nested"), {"kind": "gnn"}, UnknownNameError, "no curvature is called 'gnn'; did you mean 'ggn'"),
        (zoo.build("nested"), {"task": "clasification"}, UnknownNameError, "did you mean 'classification'"),
        (zoo.build("tied"), {"parameters": ["head.weight"]}, UnknownNameError, "did you mean 'embed.weight'"),
        (zoo.build("nested"), {"parameters": []}, InvalidArgumentError, "no floating-point parameters to measure"),
        (zoo.build("nested"), {"count": 36}, InvalidArgumentError, "between 1 and the 35 entries .*, got 36"),
        (zoo.build("nested"), {"tol": 0}, InvalidArgumentError, "tol must lie between 0 and 1, got 0"),
        (zoo.build("nested"), {"max_iterations": 0}, InvalidArgumentError, "max_iterations must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_measured(model, options, error, sentence):
    with pytest.raises(error, match=sentence):
        curvature.top_eigenvalues(model, **{"batches": [(X, Y)], "count": 1, **options})
    assert model.training


def test_an_unknown_end():
    with (
        pytest.raises(UnknownNameError, match="no end is called 'larges'; did you mean 'largest'"),
        curvature.operator(zoo.build("nested"), [(X, Y)]) as matrix,
    ):
        curvature.eigenvalues(matrix, end="larges")
