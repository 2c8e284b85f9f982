"""Where a treatment reaches: names in, parameters out."""

import pytest
import torch
from torch import nn

from suture.case import Case
from suture.errors import GroupError
from suture.localizers import LOCALIZERS, RULES, Ranking
from suture.treatments import Everything, Flagged, Groups
from suture.treatments.entries import evidence_of
from suture.treatments.where import Blocks, Early, Entries, Last, Norms, Random, Ranked, Tensors, last_linear
from tests import toys, zoo
from tests.treatments import jobs

ALL = {name for name, _ in toys.Net().named_parameters()}


def test_flagged_groups_named_groups_and_everything() -> None:
    case = toys.case()
    assert Flagged().places(case, ["last", "norm"]).groups == ["norm", "last"]  # in model order
    assert Flagged().places(case, []).parameters == frozenset()
    assert Groups(names=("second",)).places(case, ["last"]).parameters == {"second.weight", "second.bias"}
    assert Everything().places(case, []).parameters == ALL
    with pytest.raises(GroupError, match="'secnd'; did you mean 'second'"):
        Groups(names=("secnd",)).places(case, [])


def test_tensors_by_glob_belong_to_their_groups() -> None:
    found = Tensors(globs=("*.bias", "last.*")).places(toys.case(), [])
    assert found.parameters == {"first.bias", "norm.bias", "second.bias", "last.bias", "last.weight"}
    assert found.groups == ["first", "norm", "second", "last"]
    with pytest.raises(GroupError, match=r"glob 'layer9\.\*' matches no parameter"):
        Tensors(globs=("layer9.*",)).places(toys.case(), [])


def test_ranked_follows_the_localizer_and_the_rule() -> None:
    case = toys.case()
    for localizer, rule in [("grad_norm", "first"), ("friction", "above_median")]:
        expected = RULES[rule](Ranking(LOCALIZERS[localizer](evidence_of(case))))
        found = Ranked(localizer=localizer, rule=rule).places(case, [])
        assert found.groups == [group for group in case.groups if group in expected]
        assert found.groups


def test_random_groups_are_as_many_as_were_flagged_and_follow_the_seed() -> None:
    case = toys.case()
    draws = [Random(seed=seed).places(case, ["first", "last"]).groups for seed in range(20)]
    assert all(len(groups) == 2 for groups in draws)
    assert len({tuple(groups) for groups in draws}) > 3
    assert Random(seed=3).places(case, ["first", "last"]).groups == draws[3]
    assert Random().places(case, ["first"]).groups == Random(seed=case.seed).places(case, ["first"]).groups
    assert Random(count=99).places(case, []).groups == list(case.groups)
    assert Random().places(case, []).groups == []


def test_early_is_the_stem_and_the_first_stage() -> None:
    assert Early().places(jobs.zoo_case("convolutions"), []).groups == ["stem", "layer1"]
    # No group of the toy has two layers of weights, so everything is early.
    assert Early().places(toys.case(), []).groups == ["first", "norm", "second", "last"]


def test_blocks_of_the_flagged_groups_or_by_name() -> None:
    case = jobs.zoo_case("convolutions")
    assert Blocks().chosen(case, ["layer2"]) == ["layer2.0", "layer2.1"]
    found = Blocks(names=("layer1.1",)).places(case, ["layer2"])
    assert found.groups == ["layer1"]
    assert found.parameters == {n for n, _ in case.model.named_parameters() if n.startswith("layer1.1.")}
    with pytest.raises(GroupError, match=r"'layer9\.0'"):
        Blocks(names=("layer9.0",)).places(case, [])


def test_norms_are_all_or_those_of_the_flagged_groups() -> None:
    case = jobs.zoo_case("norms")
    batch, layer = {"first.1.weight", "first.1.bias"}, {"second.1.weight", "second.1.bias"}
    assert Norms().places(case, ["second"]).parameters == batch | layer
    assert Norms(flagged=True).places(case, ["second"]).parameters == layer
    assert Norms().places(jobs.zoo_case("nested"), []).parameters == frozenset()


def test_the_last_linear_layer() -> None:
    assert Last().places(toys.case(), []).parameters == {"last.weight", "last.bias"}
    # The head of this network is the embedding under another name, and parameters go by their first.
    assert Last().places(jobs.zoo_case("tied"), []).parameters == {"embed.weight"}
    assert last_linear(nn.Sequential(nn.Conv2d(1, 1, 1))) is None


@pytest.mark.parametrize("score", ["friction", "gradient", "gradient_weight", "fisher"])
@pytest.mark.parametrize("share", [0.07, 0.15, 0.3, 1.0])
def test_exactly_the_share_of_entries_is_chosen(score: str, share: float) -> None:
    case = toys.case()
    n = sum(p.numel() for p in case.model.parameters())
    found = Entries(score=score, share=share).places(case, [])  # type: ignore[arg-type]
    assert sum(int(mask.sum()) for mask in found.masks.values()) == -(-round(share * 100) * n // 100)
    assert found.parameters == set(found.masks)
    assert all(mask.any() for mask in found.masks.values())


def test_the_chosen_entries_are_those_with_the_highest_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    case, generator = toys.case(), torch.Generator().manual_seed(1)
    scores = {n: torch.rand(p.shape, generator=generator) for n, p in case.model.named_parameters()}
    scores["last.bias"][0] = float("nan")  # is no score, so it comes last
    monkeypatch.setattr("suture.treatments.where.SCORES", {"fisher": lambda _: scores})
    masks = Entries(score="fisher", share=0.2).places(case, []).masks
    chosen = torch.cat([scores[n][masks[n]] for n in masks])
    left = torch.cat([scores[n][~masks[n]] if n in masks else scores[n].flatten() for n in scores])
    assert chosen.min() > left.nan_to_num(0).max()
    equal = {n: torch.ones_like(values) for n, values in scores.items()}
    monkeypatch.setattr("suture.treatments.where.SCORES", {"fisher": lambda _: equal})
    masks = Entries(score="fisher", share=0.05).places(case, []).masks  # of 403; the first in model order
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"first.weight": 21}


def test_without_errors_there_are_no_entries_to_choose() -> None:
    easy = [(x, int(toys.network()(x[None]).argmax())) for x, _ in toys.points(100, seed=2)]
    case = Case(toys.network(), easy)
    for score in ("friction", "gradient", "gradient_weight", "fisher"):
        assert not Entries(score=score).places(case, []).parameters  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:no rule for")
@pytest.mark.parametrize("name", zoo.ZOO)
def test_places_of_the_zoo_are_parameters_that_it_has(name: str) -> None:
    case = jobs.zoo_case(name)
    known = {n for n, _ in case.model.named_parameters()}
    flagged = list(case.groups)[:1]
    for where in (Early(), Blocks(), Norms(), Last(), Random(), Ranked(), Entries(score="gradient")):
        found = where.places(case, flagged)
        assert found.parameters <= known
        owners = [g for g, names in case.groups.items() if set(names) & found.parameters]
        assert found.groups == owners
        assert all(found.masks[n].shape == case.model.get_parameter(n).shape for n in found.masks)
