"""Label-error suspects: flipped labels are found, awkward input is refused, and a failing network is not believed."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from suture.case import Case
from suture.causes.label_errors import COLUMNS, label_suspects, suspects_of
from suture.errors import DataError, InvalidArgumentError, NonFiniteError
from tests import toys

pytest.importorskip("cleanlab", reason="label suspects need cleanlab, which is the extra 'labels'")


class Digits(nn.Module):
    """A logistic model of digits: inputs (n, 64), logits (n, 10)."""

    def __init__(self, fitted: LogisticRegression) -> None:
        super().__init__()
        self.body = nn.Linear(64, 10)
        with torch.no_grad():
            self.body.weight.copy_(torch.tensor(fitted.coef_))
            self.body.bias.copy_(torch.tensor(fitted.intercept_))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def digits(seed: int, share: float, *, columns: int = 0) -> tuple[nn.Module, np.ndarray, np.ndarray, np.ndarray]:
    """A model of 800 digits; inputs and labels of the others, of which a share is flipped, and which these are.

    Args:
        columns: by how many columns the others are moved to the side, which the model never saw.
    """
    data = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data.target))
    x, y, own, rest = data.data / 16, data.target, order[:800], order[800:]
    model = Digits(LogisticRegression(max_iter=500).fit(x[own], y[own]))
    labels, flipped = y[rest].copy(), np.zeros(len(rest), bool)
    flipped[rng.choice(len(rest), round(share * len(rest)), replace=False)] = True
    labels[flipped] = (labels[flipped] + rng.integers(1, 10, flipped.sum())) % 10
    moved = np.roll(x[rest].reshape(-1, 8, 8), columns, 2).reshape(-1, 64)
    return model.eval(), moved.astype(np.float32), labels, flipped


def probabilities(model: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(x)).softmax(1).double().numpy()


def test_flipped_labels_are_found() -> None:
    precision, recall = [], []
    for seed in range(5):
        model, x, labels, flipped = digits(seed, 0.05)
        found = label_suspects(probabilities(model, x), labels)
        hits = flipped[found["position"]]
        precision.append(hits.mean())
        recall.append(hits.sum() / flipped.sum())
    assert np.mean(precision) >= 0.9  # measured .96 over ten seeds
    assert np.mean(recall) >= 0.7  # measured .78


def test_sound_labels_give_few_suspects() -> None:
    model, x, labels, _ = digits(0, 0.0)
    assert len(label_suspects(probabilities(model, x), labels)) <= 0.005 * len(labels)


def test_a_failing_network_suspects_right_labels() -> None:
    """What the documentation warns of: with no wrong label at all most of its errors are suspects."""
    model, x, labels, _ = digits(0, 0.0, columns=1)
    p = probabilities(model, x)
    wrong = p.argmax(1) != labels
    assert len(label_suspects(p, labels)) > 0.5 * wrong.sum() > 100


def test_the_table_says_what_was_given_and_what_is_suggested() -> None:
    model, x, labels, _ = digits(1, 0.05)
    p = probabilities(model, x)
    found = label_suspects(p, labels)
    assert list(found.columns) == COLUMNS
    assert found["confidence"].is_monotonic_increasing
    assert found["position"].is_unique
    assert (found["label"].to_numpy() == labels[found["position"]]).all()
    assert (found["suggested"].to_numpy() == p[found["position"]].argmax(1)).all()
    assert (found["suggested"] != found["label"]).all()
    assert found["confidence"].to_numpy() == pytest.approx(p[found["position"], found["label"]])
    assert found["suggested_confidence"].to_numpy() == pytest.approx(p[found["position"], found["suggested"]])


@pytest.mark.parametrize("case", ["none at all", "all right", "one class", "an unused class", "classes of one example"])
def test_awkward_input_gives_a_table(case: str) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.2), 60)
    inputs = {
        "none at all": (np.zeros((0, 3)), np.zeros(0, int)),
        "all right": (p, p.argmax(1)),
        "one class": (np.ones((20, 1)), np.zeros(20, int)),
        "an unused class": (np.hstack([p, np.zeros((60, 2))]), rng.integers(0, 3, 60)),
        "classes of one example": (rng.dirichlet(np.full(1000, 0.01), 1000), np.arange(1000)),
    }
    found = label_suspects(*inputs[case])
    assert list(found.columns) == COLUMNS
    assert len(found) == 0 or case in ("an unused class", "classes of one example")


@pytest.mark.parametrize(
    ("p", "labels", "kind", "said"),
    [
        (np.full((3, 2), np.nan), np.zeros(3, int), NonFiniteError, "NaN or infinite"),
        (np.ones((3, 2)), np.zeros(4, int), DataError, r"\(3, 2\) and labels of shape \(4,\) do not go together"),
        (np.ones(3), np.zeros(3, int), DataError, "do not go together"),
        (np.ones((3, 2)) / 2, np.array([0, 1, 2]), DataError, "integers from 0 to 1"),
        (np.ones((3, 2)) / 2, np.array([0, 1, -1]), DataError, "integers from 0 to 1"),
        (np.ones((3, 2)) / 2, np.array([0.0, 1.0, 1.0]), DataError, "integers from 0 to 1"),
    ],
)
def test_nonsense_is_refused(p: Any, labels: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        label_suspects(p, labels)


def test_suspects_of_a_split_are_the_flipped_ones() -> None:
    model, x, labels, flipped = digits(2, 0.05)
    case = Case(model, [(torch.tensor(a), int(b)) for a, b in zip(x, labels, strict=True)])
    found = suspects_of(case, "repair")
    hits = flipped[[case.splits["repair"].indices[i] for i in found["position"]]]
    assert len(found) >= 5
    assert hits.mean() >= 0.8
    assert (found["label"].to_numpy() == [case.splits["repair"].strata[i] for i in found["position"]]).all()


def test_further_training_examples_are_no_suspects() -> None:
    model, x, labels, flipped = digits(2, 0.05)
    pairs = [(torch.tensor(a), int(b)) for a, b in zip(x, labels, strict=True)]
    sound = [pair for pair, wrong in zip(pairs, flipped, strict=True) if not wrong]
    wrong = [pair for pair, wrong in zip(pairs, flipped, strict=True) if wrong]
    case = Case(model, sound, repair_extra=wrong)
    assert set(suspects_of(case, "repair")["position"]) <= set(range(len(case.splits["repair"]) - len(wrong)))


def test_tasks_without_classes_are_told_so() -> None:
    with pytest.raises(InvalidArgumentError, match="which the task CopyTask does not offer"):
        suspects_of(toys.sequence_case(), "repair")


def test_without_cleanlab_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, toy_case: Case) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    said = r"cleanlab, which is not installed; pip install 'suture\[labels\]'"
    with pytest.raises(InvalidArgumentError, match=said):
        label_suspects(np.ones((1, 1)), np.zeros(1, int))
    with pytest.raises(InvalidArgumentError, match=said):
        suspects_of(toy_case, "repair")


def test_labels_of_one_class_are_no_matter_for_confident_learning() -> None:
    with pytest.raises(DataError, match="labels of two classes at least"):
        label_suspects(np.array([[0.2, 0.8], [0.9, 0.1]]), np.array([0, 0]))
