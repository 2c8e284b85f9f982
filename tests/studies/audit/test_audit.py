"""Every finding of the audit against another computation, and the page against the command that writes it."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from suture.errors import UnknownNameError
from suture.studies.audit import CHECKS, Finding, findings_at, network, printed
from suture.studies.audit.diagnosis import above_median, overlap_chance
from suture.studies.audit.findings import compared, rounds_to
from suture.studies.audit.repair import holm
from suture.studies.definitions import load_study
from suture.studies.engine import run_study
from tests.studies.audit import oracle_counts, oracle_physics  # noqa: F401 - they register what is expected
from tests.studies.audit.expected import EXPECTED

ROOT = Path(__file__).parents[3]


def found(place: str, what: str) -> dict[str, str]:
    (row,) = [row for row in findings_at(place) if row["what"] == what]
    return row


@pytest.mark.parametrize("place", CHECKS)
def test_every_finding_comes_out_of_another_computation_too(place):
    rows = findings_at(place)
    assert {row["what"]: (row["recomputed"], row["verdict"]) for row in rows} == EXPECTED[place]()
    assert len({row["what"] for row in rows}) == len(rows)


@pytest.mark.parametrize("place", CHECKS)
def test_every_finding_is_one_line_each(place):
    for row in findings_at(place):
        assert list(row) == ["where", *Finding.__dataclass_fields__]
        for text in row.values():
            assert text.strip() == text != ""
            assert "\n" not in text
        assert len(row["why"]) <= 160


def test_the_study_asks_for_every_place_and_the_tests_know_each():
    places = load_study("paper/audit").study.axes["place"]
    assert sorted(places) == sorted(CHECKS) == sorted(EXPECTED)
    with pytest.raises(UnknownNameError, match=r"nothing is checked at 'Table 19'; did you mean 'Table"):
        findings_at("Table 19")


def test_the_page_in_docs_is_what_the_command_gives(tmp_path):
    outcome = run_study("paper/audit", tmp_path / "audit")
    assert not outcome.failed
    assert (ROOT / "docs" / "audit.md").read_text() == (tmp_path / "audit" / "page.md").read_text(), (
        "docs/audit.md is out of date: suture study paper/audit --out audit && cp audit/page.md docs/audit.md"
    )
    counts = Counter(row["verdict"] for row in outcome.rows)
    assert sum(counts.values()) == sum(len(expected()) for expected in EXPECTED.values())


@pytest.mark.parametrize(
    ("value", "text", "fits"),
    [
        (0.3675, "0.37", True),
        (0.3651, "0.37", True),
        (0.365, "0.37", True),
        (0.3649, "0.37", False),
        (0.375, "0.37", True),
        (0.3751, "0.37", False),
        (-0.0794, "-0.079", True),
        (0.0794, "-0.079", False),
        (0.1325, "+0.13", True),
        (12.49, "12", True),
        (12.51, "12", False),
    ],
)
def test_rounding_as_printed(value, text, fits):
    assert rounds_to(value, text) is fits


def test_a_compared_number_shows_one_digit_more():
    finding = compared("w", "1.9", 1.9231, "100 / 52", unit="×")
    assert (finding.paper, finding.recomputed, finding.verdict) == ("1.9×", "1.92×", "agrees")
    assert compared("w", "+0.13", 0.2, "", more=0).recomputed == "+0.20"
    assert compared("w", "+0.13", 0.2, "").verdict == "differs"


def test_a_right_number_in_the_paper_would_agree(monkeypatch):
    """The verdicts follow the numbers: with what comes out printed in place of what is, they turn."""
    monkeypatch.setitem(printed.REGIMES, "Physics", ((66, 134, 0), ("33", "67", "0")))
    assert found("Table 6", "Physics: epochs underdamped/critical/overdamped")["verdict"] == "agrees"
    assert found("Table 6", "sums and percentages of the rows")["verdict"] == "agrees"
    monkeypatch.setitem(printed.SCAN, 170, ("0.00591", "0.846", "underdamped", "+0.054"))
    assert found("Table 15", "epoch 170: α, μ_c, regime, Δμ")["verdict"] == "agrees"
    monkeypatch.setattr(printed, "ALL_TENSORS", 62)
    assert found("Section 5.5", "parameter tensors of the network")["verdict"] == "agrees"
    monkeypatch.setitem(printed.TRAINED, "CD", ("95.62", 438))
    assert found("Table 11", "CD: errors at 95.62 %")["verdict"] == "agrees"


def test_a_wrong_number_in_the_paper_would_differ(monkeypatch):
    monkeypatch.setitem(printed.CORRECTIONS, "B", (62, 40, 23, "95.69"))
    assert found("Table 13", "B: net, accuracy after")["verdict"] == "differs"
    monkeypatch.setitem(printed.REPAIR_LOG, 20, ("0.00304", "0.8890", "95.48", "0.00"))
    assert found("Table 16", "epoch 20: α, μ, Δ accuracy")["verdict"] == "differs"
    monkeypatch.setitem(printed.EARLY, "Physics", (47.88, 86.0, 89.16))
    row = found("Table 5", "accuracies at epochs 1, 10, 50 against Table 4")
    assert (row["verdict"], row["recomputed"]) == ("differs", "contradicted by Physics at epoch 10")
    monkeypatch.setitem(printed.REGIMES, "Baseline", ((170, 21, 8), ("85", "10.5", "4.5")))
    assert found("Table 6", "sums and percentages of the rows")["verdict"] == "differs"
    monkeypatch.setattr(printed, "FIXED_EXAMPLES", (("bird", "horse", "layer4"),))
    assert found("Table 17", "layers attributed in Tables 17 and 9")["verdict"] == "differs"
    monkeypatch.setattr(printed, "NET", 7)
    assert found("Table 10", "net improvement")["verdict"] == "differs"


def test_a_large_net_would_be_no_chance(monkeypatch):
    monkeypatch.setitem(printed.CORRECTIONS, "B", (62, 10, 52, "95.99"))
    assert found("Table 13", "B: 62 fixed, 10 new is not chance")["verdict"] == "agrees"
    assert (
        found("Table 13", "surgical correction improves a model: all five together")["verdict"] == "cannot be decided"
    )


def test_without_torchvision_the_rows_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    network.counts.cache_clear()
    try:
        rows = [*findings_at("Section 4.1"), *findings_at("Section 5.5")]
        needing = [row for row in rows if row["recomputed"] == "needs torchvision"]
        assert [(row["paper"], row["verdict"], row["why"]) for row in needing] == [
            (paper, "cannot be decided", "pip install suture[vision]") for paper in ("11.2M", "120", "35", "29 %")
        ]
        savings = found("Table 10", "compute savings")
        assert savings["verdict"] == "differs"
        assert "operations" not in savings["recomputed"]
        assert found("Table 10", "at least 80 % savings (H2)")["recomputed"] == "85.0 % (epochs)"
    finally:
        network.counts.cache_clear()


def test_names_that_contain_a_layers_name():
    counts = network.counts()
    assert counts is not None
    extra = set(counts.matching) - set(counts.flagged)
    assert extra == {f"layer{i}.{j}.conv1.weight" for i in (1, 4) for j in (0, 1)}
    assert len(counts.matching) == printed.TRAINED_TENSORS
    assert counts.training_cost(list(counts.sizes)) == pytest.approx(1)


def test_small_parts():
    assert overlap_chance(0) == 1
    assert overlap_chance(3) == pytest.approx(1 / 35)
    assert above_median({"a": 1.0, "b": 2.0, "c": 3.0}) == {"c"}
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
