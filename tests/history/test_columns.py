"""Names of columns as the tools of the field write them."""

import doctest

import pytest

from suture.errors import DataError
from suture.history import family
from suture.history.columns import find_columns, has_lr, is_held_out, nearest

NAMES = {
    "epoch": ["epoch", "Epoch", "epochs", "train/epoch"],
    "step": ["step", "global_step", "train/global_step", "trainer/global_step", "iteration", "Iter"],
    "batch": ["batch", "batch_idx", "Batch Index"],
    "lr": [
        "lr", "LR", "learning_rate", "Learning Rate", "LearningRate", "learningRate", "train/lr", "Train/LearningRate",
        "epoch_learning_rate", "lr-SGD", "lr-AdamW", "lr-SGD-1", "lr-SGD/pg1", "lr/group0", "group0/lr", "lr_0",
        "param_groups/0/lr", "alpha", "α",
    ],
    "momentum": [
        "momentum", "Momentum", "mu", "μ", "µ", "beta1", "beta_1", "betas_0", "adam_beta1", "lr-SGD-momentum",
        "lr-SGD/pg1-momentum", "train/momentum", "momentum_0",
    ],
    "loss": ["loss", "Loss/train", "train_loss", "train_loss_epoch", "train/loss", "epoch_loss", "eval_loss", "nll"],
    "accuracy": [
        "accuracy", "acc", "Accuracy/test", "test_accuracy", "val_acc", "valAcc", "acc@1", "top1", "Acc@1 (val)",
        "eval/accuracy", "validation/epoch_accuracy", "mean_token_accuracy", "val_top1_acc",
    ],
    "curvature": ["curvature", "sharpness", "lambda_max", "λ_max", "hessian/top_eigenvalue"],
    "optimizer": ["optimizer", "Optimizer"],
}  # fmt: skip
OTHERS = [
    "lr-SGD-weight_decay", "lr_scale", "lr-max", "weight_decay", "loss_scale", "grad_norm", "acc@5", "top5",
    "top_5_accuracy", "best_acc", "num_epochs", "steps_per_epoch", "batch_size", "eval_runtime", "epoch_time", "λ",
    "lambda", "seconds", "train_acc_auto_0", "eval_steps_per_second", "train", "test", "", "μ_c", "time", "gpu",
]  # fmt: skip


@pytest.mark.parametrize(("role", "name"), [(role, name) for role, names in NAMES.items() for name in names])
def test_known_names(role: str, name: str) -> None:
    names = [name] if role == "lr" else ["lr", name]
    assert find_columns(names, {}, "x").names[role] == name


@pytest.mark.parametrize("name", OTHERS)
def test_other_columns_are_not_taken_for_them(name: str) -> None:
    assert find_columns(["lr", name], {}, "x").names == {"lr": "lr"}


@pytest.mark.parametrize(
    ("names", "role", "best"),
    [
        (["accuracy", "val_acc"], "accuracy", "val_acc"),
        (["test_acc", "accuracy", "val_acc"], "accuracy", "val_acc"),
        (["val_loss", "train_loss"], "loss", "train_loss"),
        (["val_loss", "loss"], "loss", "loss"),
        (["train_loss_step", "train_loss_epoch"], "loss", "train_loss_epoch"),
        (["train/loss", "train/train_loss"], "loss", "train/loss"),
        (["val_loss"], "loss", "val_loss"),
    ],
)
def test_of_several_the_one_that_is_meant(names: list[str], role: str, best: str) -> None:
    assert find_columns(["lr", *names], {}, "x").names[role] == best


def test_param_groups_are_said() -> None:
    found = find_columns(["lr-Adam/pg1", "lr-Adam/pg2"], {}, "x")
    assert found.optimizer == "Adam"
    assert found.notes == ["2 learning rates were logged; 'lr-Adam/pg1' is the one that is scanned"]
    assert not find_columns(["lr-Adam/pg1", "lr-Adam/pg2"], {"lr": "lr-Adam/pg2"}, "x").notes


@pytest.mark.parametrize(
    ("names", "role", "best"),
    [
        (["alpha", "base_lr", "lr"], "lr", "lr"),
        (["mu", "momentum"], "momentum", "momentum"),
        (["beta1", "train/momentum_step"], "momentum", "train/momentum_step"),
        (["nll", "loss"], "loss", "loss"),
        (["acc", "test_accuracy", "val_acc"], "accuracy", "val_acc"),
    ],
)
def test_the_usual_name_comes_first_wherever_it_stands(names: list[str], role: str, best: str) -> None:
    for order in (names, names[::-1]):
        columns = order if role == "lr" else ["lr", *order]
        assert find_columns(columns, {}, "x").names[role] == best


def test_choices_are_said() -> None:
    found = find_columns(["mu", "momentum", "alpha", "lr", "sharpness", "lambda"], {}, "x")
    assert found.notes == [
        "2 learning rates were logged; 'lr' is the one that is scanned",
        "2 momenta were logged; 'momentum' is the one that is scanned",
        "'sharpness' is taken for the curvature λ of each epoch, unless one is given",
    ]
    own = {"lr": "alpha", "momentum": "mu", "curvature": "lambda"}
    assert not find_columns(["mu", "momentum", "alpha", "lr", "lambda"], own, "x").notes


def test_what_is_suggested_can_be_pasted() -> None:
    with pytest.raises(DataError, match=r"say --column 'lr=vivid-sun-12 - lr' \(in Python columns=\{'lr': 'vivid-sun"):
        find_columns(["Step", "vivid-sun-12 - lr"], {}, "x")


def test_a_misspelt_learning_rate_is_suggested() -> None:
    for name in ("lrate", "learn_rate", "laerning rate", "learning_rte"):
        assert nearest("lr", ["epoch", name, "loss"]) == name
    assert nearest("lr", ["epoch", "loss", "seconds"]) is None
    with pytest.raises(DataError, match=r"no column 'lr' but c0, c1, .* and 88 more; scan needs it"):
        find_columns([f"c{i}" for i in range(100)], {}, "x")
    assert has_lr(["a", "train/lr"])
    assert not has_lr(["a", "lr_scale"])


def test_held_out_is_said_by_the_name() -> None:
    assert all(is_held_out(name) for name in ("val_acc", "eval/accuracy", "testAcc", "Accuracy (dev)"))
    assert not any(is_held_out(name) for name in ("acc", "train_acc", "latest_accuracy", ""))


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(family).failed == 0


@pytest.mark.parametrize(
    ("name", "rescales"),
    [
        ("adamw_torch_fused", True), ("paged_adamw_32bit", True), ("AdamW8bit", True), ("CADAM", True), ("Lion", True),
        ("torch.optim.RMSprop", True), ("Adafactor", True), ("Muon", True), ("SGD", False), ("sgd_nesterov", False),
        ("CubicDamping", False), ("cubic_damping", False), ("IKFAD", False), ("MyOptimizer", None), ("", None),
    ],
)  # fmt: skip
def test_optimizers_by_name(name: str, rescales: bool | None) -> None:
    assert family.is_preconditioned(name) is rescales
