"""Shifted pictures: what the rows say of errors that nobody planted."""

import pytest
import torch
from torch import Generator

from suture.bench.natural import SHIFTS, cell, summary
from suture.bench.networks import load_subject
from suture.errors import UnknownNameError
from tests.bench.fakes import GROUPS


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    return cell("digits", "camera", 0, localizers=["grad_norm", "alpha", "friction"])


def test_every_localizer_is_held_against_the_oracle(rows: list[dict[str, object]]) -> None:
    assert [row["localizer"] for row in rows] == ["grad_norm", "alpha", "friction", "flagged", "all"]
    gains = {g: float(x) for g, x in (each.split() for each in str(rows[0]["gains"]).split(", "))}
    assert list(gains) == GROUPS
    best = max(gains, key=gains.__getitem__)
    for row in rows:
        assert gains[row["best"]] == gains[best]
        assert row["best_gain"] == pytest.approx(gains[best], abs=1e-4)
        if row["named"] is not None and row["gain"] is not None and row["localizer"] in ("grad_norm", "alpha"):
            assert row["gain"] == pytest.approx(gains[row["named"]], abs=1e-4)
            assert row["gain_share"] == pytest.approx(gains[row["named"]] / gains[best], abs=0.01)
            assert row["enough"] == (gains[row["named"]] >= 0.9 * gains[best])
    assert 0 <= rows[0]["confidence"] <= 1
    assert rows[1]["confidence"] is None
    assert rows[0]["alarm"] in (True, False)
    assert rows[1]["alarm"] is None


def test_the_groups_that_would_be_treated_are_treated_together(rows: list[dict[str, object]]) -> None:
    flagged, everything = rows[-2:]
    chosen = str(flagged["flagged"]).split()
    assert set(chosen) <= set(GROUPS)
    assert (flagged["gain"] is None) == (not chosen)
    assert everything["gain"] > 0.05
    assert everything["gain_share"] == pytest.approx(everything["gain"] / everything["best_gain"])


def test_the_shift_costs_accuracy_and_is_the_same_each_time(rows: list[dict[str, object]]) -> None:
    subject = load_subject("digits")
    pool = subject.pools(0)["diagnose"]
    with torch.no_grad():
        clean = float((subject.model(pool.inputs).argmax(1) == pool.targets).float().mean())
    assert rows[0]["accuracy"] < clean - 0.1
    again = cell("digits", "camera", 0, localizers=["alpha"])
    assert again[0] == rows[1]


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shifts_keep_shape_and_follow_their_generator(name: str, channels: int) -> None:
    pictures = torch.rand(4, channels, 16, 16)
    first, again, other = (SHIFTS[name](pictures.clone(), Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == pictures.shape
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in ("noise", "camera"))
    assert torch.equal(first, pictures) == (name == "none")


def test_a_blur_keeps_a_flat_picture_inside_and_contrast_keeps_the_mean() -> None:
    flat = torch.full((1, 3, 16, 16), 0.5)
    assert torch.allclose(SHIFTS["blur"](flat, Generator())[..., 4:-4, 4:-4], flat[..., 4:-4, 4:-4], atol=1e-6)
    pictures = torch.rand(2, 1, 8, 8)
    weaker = SHIFTS["contrast"](pictures, Generator())
    assert torch.allclose(weaker.mean((1, 2, 3)), pictures.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(weaker.std((1, 2, 3)), 0.4 * pictures.std((1, 2, 3)), atol=1e-6)


def test_a_misspelt_shift_is_said() -> None:
    with pytest.raises(UnknownNameError, match="no shift is called 'blurr'; did you mean 'blur'"):
        cell("digits", "blurr", 0)


def test_the_summary_says_what_is_named_and_how_stably(rows: list[dict[str, object]]) -> None:
    axes = {"network": "digits", "shift": "camera"}
    said = [{"named": name, "gain_share": share} for name, share in (("conv1", 1.0), ("conv1", 1.0), (None, None))]
    same = axes | {"localizer": "grad_norm", "confidence": 0.5, "enough": True, "error": None}
    fake = [same | {"seed": i, "alarm": i > 0} | one for i, one in enumerate(said)]
    broken = axes | dict.fromkeys(("alarm", "confidence", "enough", "named", "gain_share"))
    files = summary([*fake, broken | {"seed": 3, "localizer": "grad_norm", "error": "ValueError: no"}])
    assert files["summary.csv"].splitlines()[1] == 'digits,camera,grad_norm,3,"conv1 x2, none x1",' + ",".join(
        [str(2 / 3), str(2 / 3), "0.5", "1.0", "1.0"]
    )
    assert "| `grad_norm` | 3 | conv1 x2, none x1 | 0.67 |" in files["summary.md"]
    real = summary([axes | {"seed": 0} | row for row in rows])
    assert len(real["summary.csv"].splitlines()) == 1 + len(rows)
    told = {row["localizer"]: row for row in rows}
    best, flagged = told["all"]["best"], told["flagged"]["flagged"] or "none"
    (line,) = (line for line in real["summary.md"].splitlines() if line.startswith("| digits | camera | 0 |"))
    assert line.startswith(f"| digits | camera | 0 | {best} (+")
    assert line.endswith(
        f" points) | {flagged} | {told['flagged']['gain_share']:.2f} | {told['all']['gain_share']:.2f} |"
    )
    other = [axes | {"seed": 0, "network": "other"} | row for row in rows]
    assert "| other | `alpha` | 1 |" in summary([*(axes | {"seed": 0} | row for row in rows), *other])["summary.md"]
    assert summary([]) == {}
