"""What one pass keeps of every example."""

import numpy as np
import pytest
import torch
from torch import nn

from suture.errors import DataError, InvalidArgumentError, NonFiniteError
from suture.tasks import Batch, Classification, Task, batches, evaluate
from suture.tasks.outcomes import to_device
from tests import toys

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_outcomes_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    model, data = toys.network(), toys.data()[:50]
    found = evaluate(model, data, Classification(), device=CPU, batch_size=batch_size)
    logits = model(torch.stack([x for x, _ in data])).detach()
    labels = torch.tensor([y for _, y in data])
    assert found.right.tolist() == (logits.argmax(1) == labels).tolist()
    assert np.allclose(found.losses, nn.functional.cross_entropy(logits, labels, reduction="none"), atol=1e-6)
    assert found.predictions is not None
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    assert found.errors.tolist() == [i for i in range(50) if not found.right[i]]
    assert found.accuracy == pytest.approx(found.right.mean())


def test_the_mode_of_the_model_is_left_as_found_and_eval_is_used() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.9)).train()
    first, second = (evaluate(model, toys.data()[:20], Classification(), device=CPU) for _ in range(2))
    assert model.training
    assert np.array_equal(first.losses, second.losses)


def test_outputs_that_are_not_finite_are_an_error_with_a_count_and_a_place() -> None:
    data = [(torch.zeros(2), 0), (torch.full((2,), float("nan")), 1)]
    with pytest.raises(NonFiniteError, match=r"1 of 2 .*example 1"):
        evaluate(nn.Linear(2, 3), data, Classification(), device=CPU)


@pytest.mark.parametrize(
    ("model", "target", "words"),
    [
        (nn.Linear(2, 3), 3, "label 3 is outside the model's 3 classes"),
        (nn.Linear(2, 3), -1, "label -1 is outside"),
        (nn.Linear(2, 3), 0.5, "labels must be integers"),
        (nn.Identity(), 0, None),
        (nn.Unflatten(1, (1, 2)), 0, "needs logits of shape"),
    ],
    ids=["high", "negative", "float", "fine", "shape"],
)
def test_labels_and_shapes_are_checked(model: nn.Module, target: float, words: str | None) -> None:
    data = [(torch.zeros(2), target)]
    if words is None:
        assert evaluate(model, data, Classification(), device=CPU).predictions is not None
    else:
        with pytest.raises(DataError, match=words):
            evaluate(model, data, Classification(), device=CPU)


def test_no_examples_are_an_error() -> None:
    with pytest.raises(DataError, match="there are no"):
        evaluate(nn.Linear(2, 3), [], Classification(), device=CPU)


def test_inputs_may_be_dicts_or_tuples_and_outputs_may_have_logits() -> None:
    class TwoInputs(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> object:
            return type("Output", (), {"logits": torch.stack([a, b], 1)})()

    for inputs in ({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, (torch.tensor(1.0), torch.tensor(2.0))):
        found = evaluate(TwoInputs(), [(inputs, 1)], Classification(), device=CPU)
        assert found.right.tolist() == [True]


def test_batches_of_a_task_of_ones_own_reach_the_device_whole() -> None:
    task = toys.CopyTask()
    ((inputs, targets),) = batches(toys.sentences(4, 0, 5), task, CPU, 10)
    assert isinstance(inputs, toys.Text)
    assert targets.shape == inputs.tokens.shape
    moved = to_device({"a": [inputs], "b": "text"}, CPU)
    assert isinstance(moved["a"][0], toys.Text)
    assert moved["b"] == "text"


class Mean(Classification):
    """A task whose losses are reduced."""

    def losses(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return super().losses(outputs, batch).mean()


class Shares(Classification):
    """A task whose verdicts are numbers."""

    def verdicts(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return super().verdicts(outputs, batch).float()


class Several(Classification):
    """A task whose verdicts are several per example."""

    def verdicts(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return outputs > 0


class Listed(Classification):
    """A task whose verdicts are no tensor."""

    def verdicts(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return super().verdicts(outputs, batch).tolist()


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Mean(), r"'losses' gave float32 of shape \(\) for 4 examples; .*: one loss per example, unreduced"),
        (Shares(), r"'verdicts' gave float32 of shape \(4,\) for 4 examples; .*one bool per example, True = right"),
        (Several(), r"'verdicts' gave bool of shape \(4, 3\) for 4 examples"),
        (Listed(), "'verdicts' gave list for 4 examples"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_tasks_that_do_not_give_one_value_per_example_are_told_which_method_is_wrong(task: Task, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"the task's method {said}"):
        evaluate(toys.network(), toys.data()[:9], task, device=CPU, batch_size=4)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([None, 1], "of type NoneType and int"),
        ([object(), 1], "of type object and int"),
        ([[0], [0, 1]], "of type list"),
    ],
)
def test_labels_that_are_no_numbers_are_said(labels: list[object], said: str) -> None:
    examples = [(torch.zeros(4), label) for label in labels]
    with pytest.raises(DataError, match=rf"examples make no batch .*labels are {said}; an example is a pair"):
        evaluate(nn.Linear(4, 3), examples, Classification(), device=torch.device("cpu"))
