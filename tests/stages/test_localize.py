"""Localize as a stage: both answers, their nulls and intervals, what it costs, and input it has to refuse."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import suture
from suture.errors import DataError, GroupError, InvalidArgumentError, NonFiniteError
from suture.localizers import DEFAULT, LOCALIZERS, Evidence, Finding, gather, localizer, pays
from suture.localizers import panel as panels
from suture.localizers.nulls import random_twins, thinned
from suture.localizers.passes import Passes
from suture.patch import base_sha256, canonical_state
from suture.stages import localize as stage
from suture.wording import percent
from tests import toys, zoo


def right(n: int = 600) -> toys.Pairs:
    """Examples that the toy network gets right."""
    return [(x, int(toys.network()(x[None]).argmax())) for x, _ in toys.data()[:n]]


def wrong(n: int = 600) -> toys.Pairs:
    return [(x, (y + 1) % 3) for x, y in right(n)]


@pytest.fixture
def temporary(request: pytest.FixtureRequest) -> Any:
    """Registers localizers that are gone afterwards."""
    known = set(LOCALIZERS)
    yield localizer
    for name in set(LOCALIZERS) - known:
        del LOCALIZERS._things[name]


# What it says


def test_scores_have_intervals_ranks_and_nulls() -> None:
    found = suture.localize(toys.case(), ("grad_norm", "relative"))
    assert (found.low <= found.high).all(axis=None)
    assert (found.low["grad_norm"] < found.scores["grad_norm"]).any()
    assert found.first_share.sum().to_numpy() == pytest.approx(1)
    assert found.scores.index[found.first_share["grad_norm"].argmax()] == found.scores["grad_norm"].idxmax()
    for null in (found.null_correct, found.null_random):
        assert null.notna().all(axis=None)
        assert list(null.columns) == ["grad_norm", "relative"]


def test_the_same_case_gives_the_same_numbers() -> None:
    first, second = (suture.localize(toys.case()).to_dict() for _ in range(2))
    assert first == second


def test_what_exceeds_its_null_stands_out_with_the_share_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame(
        {"difference": [0.1, 0.3, 0.2, -0.6], "low": [0.01, 0.1, -0.1, -0.7], "first": [0.05, 0.9, 0.05, 0]},
        index=["first", "norm", "second", "last"],
    )
    monkeypatch.setattr(panels, "excess", lambda *_, **__: table)
    found = suture.localize(toys.case(), rule="exceeds_null")
    assert (found.top, found.confidence, found.flagged) == ("norm", 0.9, ["first", "norm"])
    share = found.scores["grad_norm"]["norm"] / found.scores["grad_norm"].sum()
    assert f"{percent(share)} on errors" in found.why


def test_what_exceeds_its_null_surely_but_not_by_most_does_not_stand_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # So the last layer of a healthy network does: by little, with certainty.
    table = pd.DataFrame(
        {"difference": [0.3, 0.0, -0.31, 0.01], "low": [-0.1, -0.1, -0.4, 0.005], "first": [0.9, 0, 0, 0.1]},
        index=["first", "norm", "second", "last"],
    )
    monkeypatch.setattr(panels, "excess", lambda *_, **__: table)
    found = suture.localize(toys.case(), rule="exceeds_null")
    assert (found.top, found.confidence, found.flagged) == (None, None, ["last"])
    assert found.why.startswith("last exceeds the null by more than chance, but first exceeds it by more")


def test_no_group_stands_out_where_errors_are_like_the_rest() -> None:
    # Random labels: what is an error and what is not has nothing to do with the network.
    generator = torch.Generator().manual_seed(3)
    data = [(x, int(torch.randint(0, 3, (), generator=generator))) for x, _ in toys.points(600, seed=5)]
    found = suture.localize(suture.Case(toys.Net(), data), "grad_norm")
    assert found.top is None
    assert found.confidence is None
    assert found.why.startswith("No group's share of grad_norm on errors exceeds")


def test_a_localizer_that_decides_by_itself_is_believed(temporary: Any) -> None:
    @temporary("decides", reads="network")
    def decides(found: Evidence) -> Finding:
        return Finding(pd.Series(1.0, index=list(found.groups)), "second", 0.7, "It squeaks.")

    @temporary("abstains", reads="network")
    def abstains(found: Evidence) -> Finding:
        return Finding(pd.Series(1.0, index=list(found.groups)), None, None, "Nothing squeaks.")

    @temporary("errs", reads="network")
    def errs(found: Evidence) -> Finding:
        return Finding(pd.Series(1.0, index=list(found.groups)), "third", 0.7, "It squeaks.")

    @temporary("ranks", reads="network")
    def ranks(found: Evidence) -> pd.Series:
        return pd.Series([1.0, 3, 2, 0], index=list(found.groups))

    found = suture.localize(toys.case(), ("decides", "grad_norm"), "first")
    assert (found.top, found.confidence, found.why) == ("second", 0.7, "It squeaks.")
    assert found.null_correct["decides"].isna().all()
    assert found.null_random["decides"].isna().all()
    assert found.low["decides"].isna().all()
    assert found.null_correct["grad_norm"].notna().all()
    assert suture.localize(toys.case(), "abstains").why == "Nothing squeaks."
    ranked = suture.localize(toys.case(), "ranks", "top_1")
    assert (ranked.top, ranked.flagged) == (None, ["norm"])
    with pytest.raises(InvalidArgumentError, match="names 'third', which is no group"):
        suture.localize(toys.case(), "errs")


def test_what_runs_the_network_has_the_nulls_that_it_can_have() -> None:
    names = ("ochiai", "friction", "probe", "norm_statistics")
    case = toys.case()
    found = suture.localize(case, names, "top_1")
    known = {
        null: set(getattr(found, null).dropna(how="all", axis="columns")) for null in ("null_correct", "null_random")
    }
    assert known == {"null_correct": {"ochiai", "friction"}, "null_random": {"ochiai", "friction", "probe"}}
    evidence, null = gather(case, case.outcomes("diagnose").right)
    for name in ("ochiai", "friction"):
        assert found.null_correct[name].to_numpy() == pytest.approx(LOCALIZERS[name](null), nan_ok=True)
    (random,) = random_twins(case.model, None, case.seed, 1)  # one network, where the others see three
    assert found.null_random["probe"].to_numpy() == pytest.approx(LOCALIZERS["probe"](evidence.of(random)), nan_ok=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [([1.0, 2.0], "gave list"), (pd.Series([1.0, 2.0]), r"gave index \[0, 1\]"), (None, "gave NoneType")],
)
def test_a_localizer_that_gives_no_scores_by_group_is_told(temporary: Any, given: Any, said: str) -> None:
    temporary("odd", reads="network")(lambda found: given)
    with pytest.raises(InvalidArgumentError, match=f"the localizer 'odd' {said}; it gives a Series"):
        suture.localize(toys.case(), "odd")


def test_a_null_that_cannot_be_had_leaves_the_others(temporary: Any) -> None:
    @temporary("own", reads="network", nulls=("random",))
    def own(found: Evidence) -> pd.Series:
        if found.model is not found.case.model:
            raise InvalidArgumentError("not at random")
        return pd.Series(1.0, index=list(found.groups))

    found = suture.localize(toys.case(), ("grad_norm", "own"))
    assert found.null_random["own"].isna().all()
    assert found.null_random["grad_norm"].notna().all()


def test_weights_have_a_null_at_random_and_none_on_correct_examples(temporary: Any) -> None:
    @temporary("largest", reads="weights")
    def largest(found: Evidence) -> pd.Series:
        return found.weight_norm

    found = suture.localize(toys.case(), "largest", "first")
    assert found.null_correct["largest"].isna().all()
    assert found.null_random["largest"].notna().all()
    assert found.low.isna().all(axis=None)


# What is asked by default


class Plain(toys.Net):
    """The toy without BatchNorm: it remembers nothing of its healthy time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()


def test_a_network_s_own_record_decides_and_the_gradients_stand_beside_it() -> None:
    model = toys.network()
    with torch.no_grad():
        model.first.weight.mul_(-1)
    healthy, sick = (suture.localize(suture.Case(each, toys.points(600, seed=2))) for each in (toys.network(), model))
    assert list(healthy.scores) == ["norm_statistics", "grad_norm"]
    assert healthy.top is None
    assert healthy.why.startswith("No activation is further from its record than a mild input shift takes it.")
    assert (healthy.scores["norm_statistics"].dropna() < 1).all()
    assert sick.top is not None
    assert sick.scores["norm_statistics"].idxmax() == sick.top
    assert sick.scores["norm_statistics"].max() > 1
    assert sick.confidence is not None
    assert sick.confidence > 0.9
    for table in (sick.null_correct, sick.null_random, sick.low, sick.first_share):
        assert table["grad_norm"].notna().all()
        assert table["norm_statistics"].isna().all()


def test_without_a_record_it_is_said_what_to_do() -> None:
    found = suture.localize(suture.Case(Plain(), toys.points(600, seed=2)))
    assert found.first == "norm_statistics"
    assert found.why.startswith("The network keeps no record of healthy activations")
    for way in ("suture train", "--reference"):
        assert way in found.why


def test_with_a_reference_a_network_without_a_record_has_one() -> None:
    model, reference = Plain(), Plain()
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        model.second.weight.mul_(-1)
    found = suture.localize(suture.Case(model, toys.points(600, seed=2), reference=reference))
    assert (found.first, found.top) == ("norm_statistics", "second")


def test_what_scores_no_group_is_skipped_with_its_reason_unless_it_was_named(
    temporary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @temporary("mute", reads="network")
    def mute(found: Evidence) -> Finding:
        return Finding(pd.Series(float("nan"), index=list(found.groups)), None, None, "There is nothing to go by.")

    monkeypatch.setattr("suture.localizers.choice.DEFAULT", ("mute", "grad_norm"))
    found = suture.localize(toys.case())
    assert (found.first, found.skipped) == ("grad_norm", {"mute": "There is nothing to go by."})
    assert "grad_norm" in found.why
    named = suture.localize(toys.case(), "mute")
    assert (named.first, named.top, named.why) == ("mute", None, "There is nothing to go by.")


@pytest.mark.parametrize("rule", ["top_k", "top_1", "first", "above_median", "exceeds_null"])
def test_rules_that_read_scores_read_the_gradients_by_default(known_gains: pd.DataFrame, rule: str) -> None:
    found = suture.localize(toys.case(), rule=rule)
    assert list(found.scores) == ["grad_norm", "norm_statistics"]
    alone = suture.localize(toys.case(), "grad_norm", rule)
    assert (found.flagged, found.top, found.why) == (alone.flagged, alone.top, alone.why)
    assert list(suture.localize(toys.case(), ("norm_statistics", "grad_norm"), "first").flagged) == ["norm"]


def test_all_keeps_the_default_s_order(monkeypatch: pytest.MonkeyPatch, known_gains: pd.DataFrame) -> None:
    known = {name: LOCALIZERS[name] for name in ("relative", "norm_statistics", "grad_norm")}
    monkeypatch.setattr("suture.localizers.choice.LOCALIZERS", known)
    assert list(suture.localize(toys.case(), "all").scores) == ["norm_statistics", "grad_norm", "relative"]
    assert list(suture.localize(toys.case(), "all", "top_1").scores) == ["grad_norm", "norm_statistics", "relative"]


@pytest.mark.parametrize("names", ["norm_statistics", "alpha", ("alpha", "norm_statistics")])
def test_gradients_that_nobody_reads_are_not_measured(monkeypatch: pytest.MonkeyPatch, names: Any) -> None:
    monkeypatch.setattr(Evidence, "_measured", lambda *_: pytest.fail("gradients were measured"))
    found = suture.localize(toys.case(), names)
    assert found.n_errors > 0
    assert found.low.isna().all(axis=None)


# Where treating pays


@pytest.fixture
def known_gains(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    gains = pd.DataFrame(
        {"gain": [0.1, 0.0, 0.2, 0.08], "low": [0.0, -0.1, 0.05, 0.01], "high": [0.2, 0.1, 0.3, 0.04]},
        index=["first", "norm", "second", "last"],
    )
    monkeypatch.setattr(stage, "estimate", lambda evidence: gains)
    return gains


def test_by_default_what_pays_is_flagged(known_gains: pd.DataFrame) -> None:
    found = suture.localize(toys.case())
    assert found.rule == "pays"
    assert found.flagged == ["second"]
    pd.testing.assert_frame_equal(found.pays, known_gains)


def test_without_gains_the_median_decides_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = pd.DataFrame(float("nan"), index=["first", "norm", "second", "last"], columns=pays.GAIN)
    monkeypatch.setattr(stage, "estimate", lambda evidence: nothing)
    found = suture.localize(toys.case(), "relative")
    assert found.rule == "above_median"
    scores = found.scores["relative"]
    assert found.flagged == list(scores.index[scores > scores.median()])


def test_the_paper_s_protocol_reads_the_paper_s_scores_and_no_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "estimate", lambda evidence: pytest.fail("gains were estimated"))
    found = suture.localize(toys.case(protocol="paper"))
    assert found.rule == "above_median"
    assert found.first == "grad_norm"
    assert len(found.pays) == 0


# A healthy reference


def test_a_reference_divides_its_profile_out() -> None:
    case = toys.case(reference=toys.network())
    found = suture.localize(case, "grad_norm", "above_median")
    assert found.null_reference is not None
    pd.testing.assert_frame_equal(found.null_reference, found.scores)
    assert found.flagged == []  # it is its own reference: every ratio is 1
    assert found.top is None


def test_a_reference_names_the_group_that_was_damaged() -> None:
    model = toys.network()
    with torch.no_grad():
        model.second.weight.mul_(-1)
    case = suture.Case(model, toys.points(600, seed=2), reference=toys.network())
    found = suture.localize(case, rule="top_1")
    assert found.null_reference is not None
    ratio = found.scores["grad_norm"] / found.null_reference["grad_norm"]
    assert found.flagged == [ratio.idxmax()]
    assert found.first_share["grad_norm"].idxmax() == ratio.idxmax()


def test_a_distance_from_the_reference_ranks_as_it_is() -> None:
    model = toys.network()
    with torch.no_grad():
        model.second.weight.mul_(-1)
    case = suture.Case(model, toys.data(), reference=toys.network())
    found = suture.localize(case, "weight_change", "top_1")
    assert found.null_reference is not None
    assert (found.null_reference["weight_change"] == 0).all()  # it does not differ from itself
    assert found.flagged == ["second"]


def test_a_reference_of_another_architecture() -> None:
    with pytest.raises(InvalidArgumentError, match=r"no twin of the model: 'first.weight' is \(16, 2\)"):
        suture.localize(toys.case(reference=nn.Linear(2, 3)))


def test_what_needs_a_reference_is_skipped_in_all_and_refused_by_name(temporary: Any) -> None:
    @temporary("distance", needs="reference", reads="weights")
    def distance(found: Evidence) -> pd.Series:
        return found.weight_norm

    for name in [name for name in LOCALIZERS if name not in (*DEFAULT, "distance", "coherence")]:
        LOCALIZERS._things[name], kept = LOCALIZERS["coherence"], LOCALIZERS[name]
        temporary.__dict__.setdefault("kept", {})[name] = kept
    try:
        found = suture.localize(toys.case(), "all")
        assert "reference" in found.skipped["distance"]
        assert "distance" not in found.scores
        assert found.first == DEFAULT[0]
        assert "distance" in suture.localize(toys.case(reference=toys.network()), "all").scores
    finally:
        LOCALIZERS._things.update(temporary.__dict__.pop("kept"))
    with pytest.raises(InvalidArgumentError, match="'distance' cannot be used here"):
        suture.localize(toys.case(), "distance")


def test_what_a_network_does_not_have_is_skipped_unless_it_was_named(
    temporary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @temporary("picky", reads="network")
    def picky(found: Evidence) -> pd.Series:
        raise InvalidArgumentError("there is no BatchNorm")

    monkeypatch.setattr("suture.localizers.choice.DEFAULT", ("picky", "grad_norm"))
    found = suture.localize(toys.case())
    assert found.skipped == {"picky": "there is no BatchNorm"}
    assert found.first == "grad_norm"
    with pytest.raises(InvalidArgumentError, match="there is no BatchNorm"):
        suture.localize(toys.case(), "picky")
    monkeypatch.setattr("suture.localizers.choice.DEFAULT", ("picky",))
    with pytest.raises(InvalidArgumentError, match=r"no localizer can be used here \(picky: there is no BatchNorm"):
        suture.localize(toys.case())


# Nulls


def test_a_factory_draws_the_random_networks_where_it_can() -> None:
    model = toys.network()
    drawn = [base_sha256(canonical_state(twin)) for twin in random_twins(model, toys.untrained, 1)]
    assert len(set(drawn)) == 3
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert drawn[0] == base_sha256(canonical_state(toys.untrained()))


@pytest.mark.parametrize("factory", [toys.network, lambda: nn.Linear(2, 3), None], ids=["trained", "other", "none"])
def test_a_factory_that_cannot_is_not_used(factory: Any) -> None:
    model = toys.network()
    drawn = [twin.state_dict() for twin in random_twins(model, factory, 1)]
    assert drawn[0].keys() == model.state_dict().keys()
    assert len({base_sha256(state) for state in [*drawn, model.state_dict()]}) == 4


def test_a_network_that_blows_up_at_random_has_no_null_there() -> None:
    class Explosive(toys.Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1.0 if self.norm.num_batches_tracked > 0 else float("inf"))

    model = Explosive()
    model.load_state_dict(toys.trained())
    found = suture.localize(suture.Case(model.eval(), toys.data()), "grad_norm")
    assert found.null_random.isna().all(axis=None)
    assert found.scores.notna().all(axis=None)


def test_the_random_null_takes_a_hundred_errors() -> None:
    assert thinned(np.arange(50)).tolist() == list(range(50))
    drawn = thinned(np.arange(5000))
    assert len(set(drawn)) == 100
    assert (drawn[0], drawn[-1]) == (0, 4999)


# Parents and children


@pytest.mark.parametrize("name", ["convolutions", "attention", "tied", "rootparameters", "norms"])
@pytest.mark.filterwarnings("ignore:no rule for", "ignore:.*used outside of its module")
def test_squared_scores_of_the_levels_add_up(name: str) -> None:
    inputs, targets = zoo.batch(60)
    data = list(zip(inputs, targets.tolist(), strict=True))
    levels = {
        level: suture.localize(suture.Case(zoo.build(name), diagnose=data, groups=level), ("grad_norm",), "first")
        for level in ("top", "block", "tensor")
    }
    tensor = levels["tensor"]
    for level in ("top", "block"):
        found = levels[level]
        for table, fine in ((found.scores, tensor.scores), (found.null_correct, tensor.null_correct)):
            for group, parameters in found.groups.items():
                squares = (fine.loc[parameters, "grad_norm"] ** 2).sum()
                assert table.loc[group, "grad_norm"] ** 2 == pytest.approx(squares, rel=1e-5)


# Cost and memory


def test_costs_are_counted_in_passes() -> None:
    case = toys.case(batch_size=1000)
    found = suture.localize(case, ("grad_norm", "rms"))
    n_errors = found.n_errors / found.n
    assert found.cost["verdicts"] == pytest.approx(1 / 3)
    assert n_errors <= found.cost["grad_norm"] <= n_errors + 10 / found.n  # and a few to check the hooks
    assert found.cost["rms"] == 0
    assert found.cost["nulls"] >= 4 * n_errors
    assert not isinstance(case.task, Passes)


def test_a_task_that_counts_is_the_task_otherwise() -> None:
    task = toys.CopyTask()
    passes = Passes(task, 10)
    assert passes.collate == task.collate
    assert not hasattr(passes, "predictions")
    assert isinstance(passes, suture.tasks.Task)
    speaker, batch = toys.Speaker(), task.collate(toys.sentences(5, seed=0, words=9))
    with passes.charged_to("a"), torch.no_grad():
        passes.outputs(speaker, batch)
    with pytest.raises(TypeError), passes.charged_to("b"):
        passes.losses(passes.outputs(speaker, batch), None)  # type: ignore[arg-type]
    assert passes.cost == pytest.approx({"a": 0.5 / 3, "b": 0.5})


def test_memory_changes_no_score() -> None:
    free, bounded = (suture.localize(toys.case(), max_memory=most) for most in (None, 64_000))
    for name in ("scores", "low", "high", "null_correct", "null_random"):
        pd.testing.assert_frame_equal(getattr(free, name), getattr(bounded, name), rtol=1e-4)
    assert free.flagged == bounded.flagged
    with pytest.raises(InvalidArgumentError, match="at least one byte"):
        suture.localize(toys.case(), max_memory=0)


# Older files


def test_a_result_of_the_first_schema_is_read(tmp_path: Any) -> None:
    import json

    suture.localize(toys.case(), "grad_norm", "first").save(tmp_path)
    data = json.loads((tmp_path / "result.json").read_text())
    for name in ("low", "high", "first_share", "confidence", "why", "cost", "skipped"):
        del data[name]
    (tmp_path / "result.json").write_text(json.dumps(data | {"schema": 1}))
    old = suture.Localization.load(tmp_path)
    assert old.confidence is None
    assert old.table().row_count > 0


# Input to refuse, and input that is merely odd


def test_all_examples_right_leaves_nothing_to_explain_but_networks_are_still_asked(temporary: Any) -> None:
    @temporary("loud", reads="network")
    def loud(found: Evidence) -> Finding:
        return Finding(pd.Series(1.0, index=list(found.groups)), "second", 0.9, "It squeaks.")

    found = suture.localize(suture.Case(toys.network(), right()), ("grad_norm", "loud"), "first")
    assert found.scores["grad_norm"].isna().all()
    assert found.scores["loud"].notna().all()
    assert (found.n_errors, found.flagged, found.top) == (0, [], None)
    assert (len(found.pays), found.cost["pays"]) == (0, 0)  # nothing is treated where nothing is to be gained
    assert found.why == "There are no errors to explain."
    assert suture.localize(suture.Case(toys.network(), right()), "loud", "first").top == "second"


def test_all_examples_wrong_has_no_null_to_compare_with() -> None:
    found = suture.localize(suture.Case(toys.network(), wrong()), "grad_norm")
    assert found.null_correct.isna().all(axis=None)
    assert found.null_random.notna().all(axis=None)
    assert found.top is None
    assert found.why.startswith("No example was right")


@pytest.mark.parametrize("examples", [right, wrong])
def test_one_example(examples: Callable[[int], toys.Pairs]) -> None:
    found = suture.localize(suture.Case(toys.network(), diagnose=examples(1)))
    assert found.n == 1
    assert found.top is None
    assert found.low.isna().all(axis=None)
    assert found.table().row_count > 0
    assert "stands out" in found._repr_html_()


def test_too_few_examples_to_tell() -> None:
    found = suture.localize(suture.Case(toys.network(), diagnose=[*right(3), *wrong(9)[3:6]]), "grad_norm")
    assert found.why == "There are too few examples to tell a difference from chance."


def test_groups_without_parameters() -> None:
    with pytest.raises(GroupError, match="the group 'none' has no globs, so no parameters"):
        toys.case(groups={"none": [], "all": ["*"]})
    with pytest.raises(GroupError, match="matches no parameter"):
        toys.case(groups={"none": ["layer9.*"]})
    with pytest.raises(GroupError, match="Flatten has no parameters"):
        suture.Case(nn.Flatten(), toys.data())


class Slope(toys.Net):
    """Finite outputs whose slope is infinite, in one layer."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.relu(self.norm(self.first(x)))
        return self.last(hidden + (self.second(hidden) * 0).sqrt())


def test_gradients_that_are_not_finite_name_their_layer() -> None:
    model = Slope()
    model.load_state_dict(toys.trained())
    with pytest.raises(NonFiniteError, match=r"the gradient of '(first|second)\.weight' is not finite"):
        suture.localize(suture.Case(model, toys.data()))


class Mumbling(toys.Net):
    """Dropout that nobody can switch off."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.3)


class Stubborn(toys.Net):
    """A dropout layer that stays in training mode."""

    class Always(nn.Dropout):
        def train(self, mode: bool = True) -> "Stubborn.Always":
            return super().train(True)

    def __init__(self) -> None:
        super().__init__()
        self.noise = self.Always(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.noise(x))


@pytest.mark.parametrize(
    ("kind", "part"), [(Mumbling, "is dropout left on"), (Stubborn, "dropout is left on in noise")]
)
def test_a_model_that_answers_differently_is_refused_before_any_long_work(
    monkeypatch: pytest.MonkeyPatch, kind: type[toys.Net], part: str
) -> None:
    monkeypatch.setattr(suture.Case, "outcomes", lambda *_, **__: pytest.fail("it was evaluated"))
    with pytest.raises(InvalidArgumentError, match=part):
        suture.localize(suture.Case(kind(), toys.data()))


@pytest.mark.parametrize(
    ("label", "part"), [(0.5, "labels must be integers"), (7, "is outside the model's 3 classes"), (-1, "label -1")]
)
def test_labels_of_the_wrong_kind(label: float, part: str) -> None:
    with pytest.raises(DataError, match=part):
        suture.localize(suture.Case(toys.network(), [(x, label) for x, _ in toys.data()]))


def test_rules_that_cannot_work_here() -> None:
    with pytest.raises(InvalidArgumentError, match="'exceeds_null' needs a score on correct examples"):
        suture.localize(toys.case(), "alpha", "exceeds_null")
    with pytest.raises(InvalidArgumentError, match="one or more different names"):
        suture.localize(toys.case(), ())


def test_exports_from_the_result() -> None:
    found = suture.localize(toys.case(), rule="first")
    assert found.export("json", toys.network()).config == {found.flagged[0]: found.groups[found.flagged[0]]}
    with pytest.raises(InvalidArgumentError, match="no group is flagged"):
        replace(found, flagged=[]).export("peft", toys.network())
