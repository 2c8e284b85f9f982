"""Routes: two networks that answer as one, and the margin that a patch carries."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import suture
from suture.errors import DataError, InvalidArgumentError
from suture.patch import Patch, between, canonical_state, load_patch
from suture.patch.routed import Routed
from tests import toys

X = torch.stack([x for x, _ in toys.points(300, seed=7, shift=0.5)])


def pair() -> tuple[nn.Module, nn.Module]:
    """The toy network and another one that differs from it everywhere."""
    old = toys.network()
    new, generator = copy.deepcopy(old), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in new.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return old, new


def route(margin: float) -> Patch:
    old, new = pair()
    return replace(between(canonical_state(old), canonical_state(new), "route")[0], margin=margin)


@pytest.mark.parametrize("margin", [-1.0, -0.2, 0.0, 0.1, 1.0])
def test_each_example_is_answered_by_the_treated_network_where_it_is_surer(margin: float) -> None:
    old, new = pair()
    with torch.no_grad():
        found = Routed(old, new, margin).eval()(X)
        for x, logits in zip(X, found, strict=True):
            a, b = old(x[None])[0], new(x[None])[0]
            surer = float(b.softmax(0).max()) - float(a.softmax(0).max())
            if abs(surer - margin) > 1e-5:
                torch.testing.assert_close(logits, b if surer > margin else a, rtol=1e-4, atol=1e-4)
        taken = (found == new(X)).all(1).float().mean()
    assert taken == {-1.0: 1, 1.0: 0}.get(margin, taken)
    if abs(margin) < 1:
        assert 0.05 < taken < 0.95


def test_a_patched_copy_of_a_route_patch_answers_as_both_networks_do() -> None:
    old, new = pair()
    before = {n: t.clone() for n, t in old.state_dict().items()}
    found = suture.patched(old, route(-0.1))
    assert isinstance(found, Routed)
    assert not found.training
    with torch.no_grad():
        assert torch.equal(found(X), Routed(old, new, -0.1).eval()(X))
        for p in found.parameters():
            p.zero_()
    assert all(torch.equal(t, before[n]) for n, t in old.state_dict().items())
    assert isinstance(suture.patched(old, replace(route(0.0), margin=None)), toys.Net)


def test_the_margin_survives_the_disk(tmp_path: Path) -> None:
    old, _ = pair()
    for margin in (-0.1, 0.0, 0.30000000000000004, None):
        patch = replace(route(0.0), margin=margin)
        patch.save(tmp_path / "patch.safetensors")
        read = load_patch(tmp_path / "patch.safetensors")
        assert read.margin == margin
        with torch.no_grad():
            assert torch.equal(suture.patched(old, read)(X), suture.patched(old, patch)(X))
    # A program without suture reads the same tensors.
    assert set(load_file(tmp_path / "patch.safetensors")) == set(patch.tensors)


@pytest.mark.parametrize("word", ["1.5", "nan", "-inf", "much", ""])
def test_a_margin_that_is_none_is_a_damaged_patch(tmp_path: Path, word: str) -> None:
    patch = route(0.1)
    metadata = {"base_sha256": patch.base, "result_sha256": patch.result, "margin": word}
    save_file(dict(patch.tensors), tmp_path / "patch.safetensors", metadata=metadata)
    with pytest.raises(DataError, match="is a damaged patch"):
        load_patch(tmp_path / "patch.safetensors")


@pytest.mark.parametrize("margin", [1.5, float("nan")])
def test_such_a_margin_cannot_be_written(tmp_path: Path, margin: float) -> None:
    with pytest.raises(InvalidArgumentError, match="margin is no difference of probabilities"):
        route(margin).save(tmp_path / "patch.safetensors")
    assert not list(tmp_path.iterdir())


def test_networks_with_logits_in_an_object_can_be_routed() -> None:
    class Wrapped(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Any:
            return type("Output", (), {"logits": self.model(x)})()

    old, new = pair()
    with torch.no_grad():
        assert torch.equal(Routed(Wrapped(old), Wrapped(new), 0.0)(X), Routed(old, new, 0.0)(X))
