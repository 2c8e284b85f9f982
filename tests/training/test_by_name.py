"""Any optimizer and schedule of ours or torch's: torch driven by hand leads to the same weights."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.optim import Optimizer, lr_scheduler

from suture.errors import InvalidArgumentError
from suture.optimizers import CubicDamping
from suture.patch import same_bits
from suture.rundir import validated
from suture.tasks import Classification
from suture.training import TRAININGS, Augment, Checkpoints, Recipe, train
from suture.training.by_name import NO_OPTIMIZERS, NO_SCHEDULES, OPTIMIZERS, SCHEDULES
from suture.training.loop import epoch_seed
from suture.training.presets import load_recipe
from suture.treatments import STANDARD
from tests import toys

POINTS = toys.points(103, seed=1)
EPOCHS, SIZE, SEED = 5, 32, 3


def recipe(**fields: Any) -> Recipe:
    return Recipe(epochs=EPOCHS, batch_size=SIZE, augment=Augment(pad=0, flip=False), **fields)


def fresh() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return toys.untrained()


def trained(made: Recipe, checkpoints: Checkpoints | None = None, until: int | None = None) -> dict[str, Tensor]:
    model = fresh()
    optimizer, schedules = made.build(model.parameters())
    train(
        model, POINTS, Classification(), optimizer, schedules, epochs=EPOCHS, batch_size=SIZE, seed=SEED,
        device=torch.device("cpu"), clip=made.clip, checkpoints=checkpoints, until=until,
    )  # fmt: skip
    return model.state_dict()


def by_hand(make: Callable[[Any], tuple[Optimizer, Any]]) -> dict[str, Tensor]:
    """A loop of torch's own, over the same batches."""
    model = fresh().train()
    optimizer, schedule = make(model.parameters())
    inputs, labels = torch.stack([x for x, _ in POINTS]), torch.tensor([y for _, y in POINTS])
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(len(POINTS), generator=torch.Generator().manual_seed(epoch_seed(SEED, epoch)))
        for chosen in order.split(SIZE):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[chosen]), labels[chosen], reduction="none").mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
    return model.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


def _rmsprop(p: Any) -> tuple[Optimizer, Any]:
    it = optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5, weight_decay=1e-3)
    return it, lr_scheduler.StepLR(it, 2, gamma=0.1)


def _nadam(p: Any) -> tuple[Optimizer, Any]:
    it = optim.NAdam(p, lr=0.01, betas=(0.8, 0.98), weight_decay=5e-4)
    return it, lr_scheduler.LambdaLR(it, lambda _: 1.0)


def _adagrad(p: Any) -> tuple[Optimizer, Any]:
    it = optim.Adagrad(p, lr=0.1, lr_decay=0.01, weight_decay=0)
    return it, lr_scheduler.LinearLR(it, start_factor=1, end_factor=0.001 / 0.1, total_iters=EPOCHS)


def _sgd(p: Any) -> tuple[Optimizer, Any]:
    it = optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return it, lr_scheduler.ExponentialLR(it, 0.7)


def _adamw(p: Any) -> tuple[Optimizer, Any]:
    it = optim.AdamW(p, lr=5e-4, betas=(0.9, 0.999), weight_decay=5e-4)
    return it, lr_scheduler.MultiStepLR(it, [2, 3], gamma=0.5)


def _adam(p: Any) -> tuple[Optimizer, Any]:
    it = optim.Adam(p, lr=0.01, betas=(0.95, 0.99), weight_decay=5e-4)
    return it, lr_scheduler.OneCycleLR(it, 0.01, total_steps=EPOCHS, cycle_momentum=False, pct_start=0.5)


def _cubic(p: Any) -> tuple[Optimizer, Any]:
    it = CubicDamping(p, lr=0.05, momentum=0.9, c=0.3, weight_decay=5e-4)
    return it, lr_scheduler.CosineAnnealingLR(it, EPOCHS, eta_min=1e-4)


@pytest.mark.parametrize(
    ("fields", "make"),
    [
        (
            {
                "optimizer": "rmsprop", "options": {"alpha": 0.9}, "lr": 0.01, "momentum": 0.5, "weight_decay": 1e-3,
                "schedule": "step", "schedule_options": {"step_size": 2},
            },
            _rmsprop,
        ),
        ({"optimizer": "NAdam", "options": {"betas": (0.8, 0.98)}, "lr": 0.01, "schedule": "constant"}, _nadam),
        (
            {
                "optimizer": "adagrad", "options": {"lr_decay": 0.01}, "lr": 0.1, "weight_decay": 0,
                "schedule": "linear",
            },
            _adagrad,
        ),
        (
            {
                "options": {"nesterov": True}, "lr": 0.05, "momentum": 0.9,
                "schedule": "exponentiallr", "schedule_options": {"gamma": 0.7},
            },
            _sgd,
        ),
        (
            {
                "optimizer": "adamw", "schedule": "multisteplr",
                "schedule_options": {"milestones": [2, 3], "gamma": 0.5},
            },
            _adamw,
        ),
        (
            {
                "optimizer": "adam", "options": {"betas": [0.95, 0.99]}, "lr": 0.01,
                "schedule": "onecyclelr", "schedule_options": {"pct_start": 0.5},
            },
            _adam,
        ),
        ({"optimizer": "cubic_damping", "options": {"c": 0.3}, "lr": 0.05, "momentum": 0.9}, _cubic),
    ],
    ids=["rmsprop, step", "nadam", "adagrad, linear", "nesterov", "adamw, milestones", "adam, onecycle", "cubic"],
)  # fmt: skip
def test_torch_driven_by_hand_gives_the_same_weights(fields: dict[str, Any], make: Any) -> None:
    made, found = by_hand(make), trained(recipe(**fields))
    assert same(made, found)
    assert not same(found, fresh().state_dict())


def test_options_and_schedules_matter() -> None:
    plain = trained(recipe(optimizer="rmsprop"))
    assert not same(plain, trained(recipe(optimizer="rmsprop", options={"alpha": 0.5})))
    assert not same(plain, trained(recipe(optimizer="rmsprop", schedule="step")))


def needed(schedule: str) -> dict[str, Any]:
    return {"multisteplr": {"milestones": [2, 4]}, "exponentiallr": {"gamma": 0.7}}.get(schedule, {})


RESUMED = [
    *({"optimizer": name, "schedule": "step"} for name in OPTIMIZERS),
    *({"schedule": name, "schedule_options": needed(name), "momentum": 0.9} for name in SCHEDULES),
    {"optimizer": "rmsprop", "schedule": "step", "momentum": "critical", "options": {"centered": True}},
    {"optimizer": "adam", "schedule": "onecyclelr", "momentum": 0.9, "schedule_options": {"cycle_momentum": True}},
]


@pytest.mark.parametrize("fields", RESUMED, ids=lambda f: f"{f.get('optimizer', '')} {f['schedule']}")
def test_a_killed_training_ends_like_an_undisturbed_one(tmp_path: Path, fields: dict[str, Any]) -> None:
    made = recipe(**fields)
    whole = trained(made)
    checkpoints = Checkpoints(tmp_path, "key")
    half = trained(made, checkpoints, until=3)  # what is left of a training that was killed in epoch 4
    assert not same(half, whole)
    assert same(trained(made, checkpoints), whole)


def lrs(made: Recipe) -> list[float]:
    optimizer, schedules = made.build(nn.Linear(2, 2).parameters())
    found = []
    for _ in range(made.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    return found


def test_our_schedules() -> None:
    assert lrs(Recipe(epochs=4, lr=0.1, schedule="constant")) == [0.1] * 4
    assert lrs(Recipe(epochs=4, lr=0.1, lr_min=0, schedule="linear")) == pytest.approx([0.1, 0.075, 0.05, 0.025])
    thirds = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001]
    assert lrs(Recipe(epochs=8, lr=0.1, schedule="step")) == pytest.approx(thirds)


OURS = {"lr": 0.003, "lr_min": 3e-5, "momentum": 0.9, "weight_decay": 0.0}  # of the standard recipe


@pytest.mark.parametrize(
    ("fields", "lr", "lr_min", "momentum", "decay"),
    [
        ({}, 0.01, 1e-4, "critical", 5e-4),
        ({"optimizer": "ikfad"}, 0.01, 1e-4, "critical", 5e-4),
        ({"optimizer": "adam"}, 5e-4, 5e-6, 0.9, 5e-4),
        ({"optimizer": "adamw"}, 5e-4, 5e-6, 0.9, 5e-4),
        ({"optimizer": "rmsprop"}, 5e-4, 5e-6, 0.0, 5e-4),
        ({"optimizer": "nadam", "options": {"betas": [0.8, 0.99]}}, 5e-4, 5e-6, 0.8, 5e-4),
        ({"optimizer": "adamw", "lr": 1e-3}, 1e-3, 1e-5, 0.9, 5e-4),
        ({"optimizer": "adamw", "momentum": "critical"}, 5e-4, 5e-6, "critical", 5e-4),
        ({"optimizer": "cadam"}, 1e-3, 1e-5, 0.9, 5e-4),
        ({"optimizer": "adadelta"}, 1.0, 0.01, 0.0, 5e-4),
        ({"optimizer": "asgd"}, 0.01, 1e-4, 0.0, 5e-4),
        ({"optimizer": "rprop"}, 0.01, 1e-4, 0.0, 0.0),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_is_not_given_suits_the_optimizer(
    fields: dict[str, Any], lr: float, lr_min: float, momentum: object, decay: float
) -> None:
    made = Recipe(**fields)
    assert (made.lr, made.momentum, made.weight_decay) == (lr, momentum, decay)
    assert made.lr_min == pytest.approx(lr_min)
    saved = made.model_dump(mode="json")
    assert (saved["lr"], saved["momentum"]) == (lr, momentum), "a result says what it came to"
    assert Recipe.model_validate(saved) == made


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, OURS),
        ({"optimizer": "sgd"}, OURS),
        ({"optimizer": "cubic_damping", "momentum": 0.8}, OURS | {"momentum": 0.8}),
        ({"optimizer": "adamw"}, OURS | {"lr": 5e-4, "lr_min": 5e-6}),
        ({"optimizer": "AdamW", "lr": 1e-4}, OURS | {"lr": 1e-4, "lr_min": 1e-6}),
        ({"optimizer": "rmsprop"}, OURS | {"lr": 5e-4, "lr_min": 5e-6, "momentum": 0.0}),
        ({"optimizer": "asgd"}, OURS | {"momentum": 0.0}),
    ],
    ids=str,
)
def test_a_recipe_on_another_one_takes_over_what_suits_it(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    made = Recipe.model_validate(STANDARD.fields_with(changes))
    assert {name: getattr(made, name) for name in expected} == pytest.approx(expected)
    assert (made.epochs, made.batch_size) == (8, 64)


PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_page_tells_what_is_not_given() -> None:
    rows = re.findall(r"^\| ([\w, ]+) \| ([\d.]+) \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    told = {name: values for names, *values in rows for name in names.split(", ")}
    assert told.keys() == OPTIMIZERS.keys()
    for name, (lr, lr_min, momentum) in told.items():
        made = Recipe(optimizer=name)
        lowest = float(lr) / 100 if lr_min == "lr / 100" else float(lr_min)
        assert (made.lr, made.lr_min) == (float(lr), pytest.approx(lowest))
        assert made.momentum == (momentum if momentum == "critical" else float(momentum))


def test_the_recipe_of_torch_s_on_the_page_can_be_read() -> None:
    (block,) = re.findall(r"^ {4}optimizer = .*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    made = Recipe.model_validate(tomllib.loads(block))
    assert (made.optimizer, made.options, made.schedule) == ("rmsprop", {"alpha": 0.9}, "multisteplr")
    chapter = PAGE[PAGE.index("| schedule | learning rate") :].split("\n\n")[0]
    assert set(re.findall(r"^\| (\w+) \| (?!learning)", chapter, re.MULTILINE)) == set(list(SCHEDULES)[:4])


def test_options_do_not_pass_to_another_optimizer_or_schedule() -> None:
    base = Recipe(options={"nesterov": True}, schedule="step", schedule_options={"gamma": 0.5})
    assert Recipe.model_validate(base.fields_with({"lr": 0.1})).options == {"nesterov": True}
    other = Recipe.model_validate(base.fields_with({"optimizer": "ikfad", "schedule": "linear"}))
    assert (other.options, other.schedule_options) == (None, None)
    betas = Recipe(optimizer="adam").fields_with({"options": {"betas": [0.8, 0.9]}})
    assert Recipe.model_validate(betas).momentum == 0.8
    assert load_recipe("baseline", optimizer="adam").lr == 5e-4


def test_recipes_of_earlier_versions_go_by_the_same_hash() -> None:
    old = {
        "epochs": 30, "batch_size": 128, "optimizer": "sgd", "lr": 0.01, "lr_min": 0.0001, "momentum": "critical",
        "threshold": 0.9, "switch_epoch": None, "match_effective_lr": False, "weight_decay": 0.0005, "clip": 1.0,
        "augment": {"pad": 4, "flip": True},
    }  # fmt: skip
    assert Recipe().model_dump(mode="json") == old
    assert Recipe.model_validate(old) == Recipe()
    adam = old | {"optimizer": "adam", "lr": 0.01, "momentum": "critical"}
    assert Recipe.model_validate(adam).model_dump(mode="json") == adam
    assert {frozenset(made.model_dump()) for made in TRAININGS.values()} == {frozenset(old)}
    later = Recipe(optimizer="rmsprop", options={"alpha": 0.9}, schedule="step").model_dump(mode="json")
    assert later.keys() - old.keys() == {"options", "schedule"}


@pytest.mark.parametrize("lr", [1e-4, 1e-5, 1e-9])
@pytest.mark.parametrize("base", [Recipe(), Recipe(optimizer="adam"), Recipe(lr=0.1)], ids=["sgd", "adam", "fast"])
def test_a_learning_rate_below_the_least_one_falls_too(base: Recipe, lr: float) -> None:
    for recipe in (Recipe(lr=lr), validated(Recipe, base.fields_with({"lr": lr}), "mine.toml")):
        optimizer, schedules = recipe.build([torch.nn.Parameter(torch.zeros(1))])
        rates = []
        for _ in range(recipe.epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            for schedule in schedules:
                schedule.step()
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == pytest.approx(lr)
        assert rates[-1] < 0.2 * lr


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer": "admw"}, "'optimizer': no optimizer is called 'admw'; did you mean 'adamw'"),
        ({"optimizer": "rmsprop", "options": {"alhpa": 1}}, "no option 'alhpa'; did you mean 'alpha'"),
        ({"optimizer": "sgd", "options": {"alpha": 1}}, "sgd has no option 'alpha'; there are dampening, nesterov"),
        ({"options": {"lr": 1}}, "'lr' is a field of the recipe itself"),
        ({"optimizer": "rmsprop", "options": {"alpha": -1}}, "rmsprop refuses its options: Invalid alpha value: -1"),
        ({"momentum": 0, "options": {"nesterov": True}}, "sgd refuses its options: Nesterov"),
        ({"options": {"dampening": float("nan")}}, "'options': dampening must be a finite number"),
        ({"options": {"nesterov": {"very": True}}}, "'options': nesterov must be a finite number, a word"),
        ({"optimizer": "adagrad", "momentum": "critical"}, "adagrad has no momentum"),
        ({"optimizer": "adagrad", "momentum": 0.9}, "adagrad has no momentum"),
        ({"optimizer": "rprop", "weight_decay": 0.1}, "rprop has no weight_decay"),
        ({"optimizer": "adam", "options": {"betas": [0.9]}}, r"betas must be two numbers.*not \[0.9\]"),
        ({"optimizer": "adam", "momentum": 0.9, "options": {"betas": [0.8, 0.9]}}, "momentum 0.9 is betas.0., which"),
        ({"schedule": "steps"}, "'schedule': no schedule is called 'steps'; did you mean 'step'"),
        ({"schedule": "step", "schedule_options": {"gama": 1}}, "step has no option 'gama'; did you mean 'gamma'"),
        ({"schedule": "multisteplr"}, "multisteplr needs milestones; write schedule_options = { milestones"),
        ({"schedule": "step", "schedule_options": {"step_size": 0}}, "the schedule step refuses.*zero"),
        (
            {"schedule": "step", "schedule_options": {"gamma": -1}, "momentum": 0.9},
            "learning rate would be -0.01 in epoch 11",
        ),
        ({"schedule": "onecyclelr", "schedule_options": {"total_steps": 7}}, "refuses.*Tried to step 8 times"),
        ({"schedule": "onecyclelr", "schedule_options": {"cycle_momentum": True}}, "cycles the momentum"),
        ({"schedule": "linear", "lr_min": 1}, "lr_min 1 is above lr 0.01, and linear falls"),
        ({"lr": 1e-3, "lr_min": 1e-2}, "lr_min 0.01 is above lr 0.001, and cosine falls"),
        ({"momentum": -0.5}, "'momentum': it must be at least 0 and less than 1, not -0.5"),
        ({"momentum": 1}, "'momentum': it must be at least 0 and less than 1, not 1"),
        ({"momentum": "critcal"}, "'momentum': it must be a number, or critical, inverse or hybrid, not 'critcal'"),
        ({"weight_decay": float("inf")}, "'weight_decay'.*finite"),
        ({"momentum": "hybrid", "threshold": 90}, "'threshold'.*less than or equal to 1"),
        ({"schedule": "step", "match_effective_lr": True, "momentum": 0.9}, "goes with the schedule cosine"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_built_is_refused_when_it_is_read(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        validated(Recipe, fields, "mine.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NO_OPTIMIZERS)
def test_optimizers_that_no_training_can_use_say_why(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} .*; take "):
        Recipe(optimizer=name)


@pytest.mark.parametrize("name", NO_SCHEDULES)
def test_schedules_that_no_recipe_can_hold_say_why(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} .*; take "):
        Recipe(schedule=name)


def test_all_of_torch_is_there_or_refused() -> None:
    there = {n.lower() for n, kind in vars(optim).items() if isinstance(kind, type) and issubclass(kind, Optimizer)}
    assert there - {"optimizer"} <= OPTIMIZERS.keys() | NO_OPTIMIZERS.keys()
    assert {"rmsprop", "nadam", "adagrad", "radam", "adamax", "adadelta", "asgd", "rprop"} <= OPTIMIZERS.keys()


def test_only_muon_does_not_take_the_parameters_of_a_network() -> None:
    if hasattr(optim, "Muon"):
        with pytest.raises(ValueError, match="2D"):
            optim.Muon(toys.untrained().parameters())
