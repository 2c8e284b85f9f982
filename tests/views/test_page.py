"""The report, its Markdown and its JSON: complete, self-contained, and deaf to what names would do."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from suture.errors import RunError
from suture.stats import Flips, Verdict
from suture.views.export import markdown, to_json
from suture.views.page import report
from suture.views.run import short
from tests.views.results import (
    CASE,
    SCRIPT,
    diagnosed,
    diagnosed_without_classes,
    hostile_run,
    localized,
    localized_without_errors,
    routed,
    scanned,
    searched,
    treated,
    untreated,
    verified,
    verified_unchanged,
    verified_without_classes,
    write_run,
)
from tests.views.test_views import printed

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A strict reader: what is opened is closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", scanned(), localized(), diagnosed(), treated(), verified())


def test_a_complete_run_has_every_section_and_the_verdict_first(complete: Path) -> None:
    path = report(complete)
    assert path == complete / "report.html"
    page = read(path)
    sections = [attributes.get("id") for attributes in page.all("section")]
    assert sections == [None, "scan", "localize", "diagnose", "treat", "verify", "asked", "reading"]
    links = [str(attributes["href"]) for attributes in page.all("a")]
    assert links == [f"#{name}" for name in sections[1:]]
    assert "The repair fixes 30 and breaks 6 of 200 examples: better, p = 7.0 × 10⁻⁵" in page.text
    assert page.text.index("better") < page.text.index("How was it trained?")
    assert "fc, the same in 93 % of resamples" in page.text
    assert "Treated fc, by A" in page.text
    assert "75.0 % → 87.0 % +12.0 points" in page.text
    assert "30 : 6 5.0 : 1" in page.text


def test_it_is_one_file_that_fetches_and_runs_nothing(complete: Path) -> None:
    html = report(complete).read_text(encoding="utf-8")
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "action"):
            assert str(attributes.get(name, "#")).startswith(
                ("#", "data:image/png;base64,", "data:image/jpeg;base64,", "data:image/svg+xml;base64,")
            )
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in str(page.all("meta"))


def test_every_picture_says_what_it_shows_and_every_table_has_a_caption_and_scopes(complete: Path) -> None:
    page = read(report(complete))
    assert len(page.all("img")) >= 5 + 6 + 6
    assert all(len(str(attributes["alt"])) > 10 for attributes in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    assert all(attributes.get("scope") in {"row", "col"} for attributes in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    page = read(report(hostile_run(tmp_path / "run")))
    assert SCRIPT in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not page.all("script")
    assert all(str(attributes["src"]).startswith("data:image/") for attributes in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text


STOPPED: dict[str, tuple[Any, ...]] = {
    "nothing": (),
    "scan": (scanned,),
    "localize": (localized,),
    "diagnose": (localized, diagnosed),
    "treat": (localized, diagnosed, treated),
    "verify": (verified,),
    "search": (localized, diagnosed, searched, verified),
    "route": (localized, diagnosed, routed, verified),
    "healthy": (localized_without_errors, lambda: diagnosed_without_classes(0), untreated, verified_unchanged),
    "own task": (localized, diagnosed_without_classes, treated, verified_without_classes),
}


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize("asked", [CASE["asked"], None], ids=["command line", "python"])
def test_any_stage_may_be_missing(tmp_path: Path, name: str, asked: Any) -> None:
    run = write_run(tmp_path, *(make() for make in STOPPED[name]), asked=asked)
    page = read(report(run))
    assert ("Not verified yet" in page.text) == (name in {"nothing", "scan", "localize", "diagnose", "treat"})
    if name == "treat":
        goes_on = "suture run, without --until, goes on" if asked else "suture.run, without until, goes on"
        assert f"Not verified yet: the run stopped after treat; the same {goes_on}" in page.text
        assert not [attributes for attributes in page.all("span") if attributes.get("class") == "mark"]
    if name == "nothing":
        assert "no stage is finished" in page.text
    assert markdown(run).startswith("# ")
    json.dumps(to_json(run), allow_nan=False)


def test_sentences_stand_where_panels_would_be_empty(tmp_path: Path) -> None:
    healthy = read(report(write_run(tmp_path / "a", *(make() for make in STOPPED["healthy"])))).text
    for said in (
        "right on all 100 examples of the diagnose split",
        "there are no confusions",
        "Nothing was changed; the patch is empty.",
        "No example changed between right and wrong.",
    ):
        assert said in healthy
    own = read(report(write_run(tmp_path / "b", *(make() for make in STOPPED["own task"])))).text
    assert "The task has no predicted classes" in own
    assert "Per class" not in own


@pytest.mark.parametrize(
    ("verdict", "tone"),
    [(Verdict.BETTER, "good"), (Verdict.WORSE, "bad"), (Verdict.NO_CHANGE, "even"), (Verdict.CANNOT_TELL, "open")],
)
def test_the_banner_has_the_tone_of_its_verdict(tmp_path: Path, verdict: Verdict, tone: str) -> None:
    moves = Flips(fixed=5, broken=5, both_right=80, both_wrong=10)
    page = read(report(write_run(tmp_path, verified(verdict=verdict, moves=moves))))
    assert page.all("section")[0]["class"] == f"verdict {tone} drawn"
    assert f"breaks 5 of 100 examples: {verdict}, p = 1" in page.text


def test_it_warns_of_optimism_and_of_looking_twice(tmp_path: Path) -> None:
    plain = read(report(write_run(tmp_path / "a", verified()))).text
    warned = read(report(write_run(tmp_path / "b", verified(optimistic=True, looks=4)))).text
    for said in ("This gain is optimistic.", "These examples were looked at 4 times"):
        assert said in warned
        assert said not in plain
    assert "Optimistic: these examples were diagnosed too." in markdown(tmp_path / "b")


def test_it_says_what_was_asked_without_paths_of_the_machine(complete: Path) -> None:
    page = read(report(complete))
    for said in (
        "net.py:build",
        "photos.zip",
        "sha256 cccccccccccc…",
        "verify 200",
        "2026-01-02 03:04:05 UTC",
        "torch 2.9.0",
    ):
        assert said in page.text
    assert "/home/somebody" not in page.text
    assert "with the path of net.safetensors in place of WEIGHTS" in page.text
    assert "suture apply treat/patch.safetensors --weights WEIGHTS --out" in page.text


def test_it_is_written_where_it_is_asked_and_leaves_nothing_beside_it(complete: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    assert report(complete, out) == out
    assert [entry.name for entry in out.parent.iterdir()] == ["page.html"]
    assert not (complete / "report.html").exists()


def test_the_same_run_gives_the_same_bytes(complete: Path, tmp_path: Path) -> None:
    assert report(complete).read_bytes() == report(complete, tmp_path / "again.html").read_bytes()


def test_it_refuses_what_is_no_run(tmp_path: Path) -> None:
    for read_it in (report, markdown, to_json):
        with pytest.raises(RunError, match=r"is no run directory: it has no case\.json"):
            read_it(tmp_path)


def test_it_refuses_a_damaged_stage_and_writes_nothing(complete: Path) -> None:
    (complete / "verify" / "result.json").write_text('{"n": "many"}')
    with pytest.raises(RunError, match="damaged"):
        report(complete)
    assert not (complete / "report.html").exists()


def test_json_holds_the_case_and_every_stage_without_keys(complete: Path) -> None:
    data = json.loads(json.dumps(to_json(complete), allow_nan=False))
    assert list(data) == ["case", "scan", "localize", "diagnose", "treat", "verify"]
    assert data["verify"]["net"] == 24
    assert data["localize"]["scores"]["grad_norm"]["fc"] == 3.0
    assert data["case"]["identity"]["weights"] == "c" * 64
    assert not any("key" in stage for stage in data.values())


def test_markdown_has_the_verdict_and_the_tables(complete: Path) -> None:
    lines = markdown(complete).splitlines()
    assert lines[0] == "# build on photos.zip"
    assert lines[2].startswith("**Better:")
    assert sum("What was asked" in line for line in lines) == 1
    for title in ("Scan", "Localize", "Diagnose", "Treat", "Verify"):
        assert f"## {title}" in lines
    assert all(line.count(" | ") == lines[i + 1].count(" | ") for i, line in enumerate(lines) if lines[i + 1 : i + 2]
               and lines[i + 1].startswith("| ---"))  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/net.py:build", "net.py:build"),
        (r"C:\models\w.pt", "w.pt"),
        ("microsoft/resnet-18", "microsoft/resnet-18"),
        ("package.module:build", "package.module:build"),
        ("/", "/"),
    ],
)
def test_only_paths_are_shortened(path: str, name: str) -> None:
    assert short(path) == name


def test_markdown_has_all_that_diagnose_found(complete: Path) -> None:
    written = markdown(complete).replace("\N{NO-BREAK SPACE}", " ")
    for part in (
        "- Most often cat is taken for dog: 5 of 12 errors",
        "- cat taken for dog: texture. With the texture",
        "- slice 1: A region in which 41 of 89 examples are wrong (46 %)",
        "38 of 89 have cat = ship, against 9 % elsewhere",
        "- Labels in doubt: 3 of 220 in diagnose",
        "- A network that fails systematically is sure of wrong answers",
        "| cat.png | diagnose | cat → dog | 2.0 % | 90.0 % |",
    ):
        assert part in written


def test_markdown_cuts_no_names(tmp_path: Path) -> None:
    names = [f"a class with a name that is rather long and ends in {i}" for i in range(3)]
    written = markdown(write_run(tmp_path, localized(), diagnosed(names)))
    tables = [line for line in written.split("## Diagnose")[1].splitlines() if line.startswith(("|", "- slice"))]
    assert len(tables) > 10
    assert not [line for line in tables if "…" in line]
    assert f"{names[0]} → {names[1]} | 9 | texture" in written


def test_only_terms_that_a_page_uses_are_explained(complete: Path, tmp_path: Path) -> None:
    whole = read(report(complete)).text.split("How to read this")[-1]
    for term in (
        "McNemar p",
        "pulls most on",
        "cause, probe, swap",
        "nats, won back",
        "slice",
        "subgroup",
        "by chance",
        "damping",
    ):
        assert term in whole
    early = read(report(write_run(tmp_path / "early", localized()))).text.split("How to read this")[-1]
    assert "flagged, top" in early
    for term in ("McNemar", "nats", "slice", "subgroup", "damping", "churn", "drift"):
        assert term not in early
    assert "How to read this" not in read(report(write_run(tmp_path / "none", splits={}))).text


def test_a_model_that_guesses_is_a_warning_before_all_else(tmp_path: Path) -> None:
    guessing = localized(accuracy=0.5, n_errors=50)  # the most frequent of two classes is as frequent
    for text in (read(report(write_run(tmp_path, guessing))).text, markdown(tmp_path)):
        assert text.index("no better than guessing") < text.index("Localize")
    assert "no better than guessing" in printed(guessing.table(), 200).splitlines()[0]
    assert "guessing" not in read(report(write_run(tmp_path / "b", localized(accuracy=0.9, n_errors=10)))).text


def test_the_first_screen_names_the_cause(complete: Path) -> None:
    text = read(report(complete)).text
    assert text.index("Cause cat taken for dog: texture") < text.index("How was it trained?")
