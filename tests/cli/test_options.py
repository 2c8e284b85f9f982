"""What --help says: complete, true, and readable on any terminal."""

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from suture.cli.words import PLANS
from suture.localizers import DEFAULT, LOCALIZERS, RULES
from suture.tasks import TASKS
from suture.treatments import PRESETS
from tests.cli.conftest import Suture
from tests.golden.write import verbs

VERBS = verbs()


def options(verb: str) -> Iterator[tuple[str, Any, inspect.Parameter]]:
    """Flag or metavar, what typer was told, and the parameter, for every word of a verb."""
    for name, parameter in inspect.signature(VERBS[verb], eval_str=True).parameters.items():
        word = get_args(parameter.annotation)[1]
        yield str(word.default) if str(word.default).startswith("-") else word.metavar or name, word, parameter


def help_of(suture: Suture, *words: str) -> str:
    """--help as running text, borders and line breaks taken out."""
    answer = suture(*words, "--help")
    assert (answer.code, answer.err) == (0, "")
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", answer.out).split())


def test_there_are_verbs() -> None:
    assert {"run", "scan", "localize", "diagnose", "treat", "verify", "report", "apply", "revert"} <= VERBS.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_what_it_does_and_gives_an_example(suture: Suture, verb: str) -> None:
    text = help_of(suture, verb)
    doc = inspect.getdoc(VERBS[verb])
    assert doc is not None
    first = doc.splitlines()[0]
    assert first.endswith(".")
    assert first in text
    assert re.search(rf"Examples?: suture {verb}\b", text)


@pytest.mark.parametrize("verb", VERBS)
def test_every_word_of_a_verb_is_explained_and_shown_in_full(
    suture: Suture, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    text = help_of(suture, verb)
    for flag, word, _ in options(verb):
        assert word.help, f"{flag} has no help"
        assert word.help.rstrip().endswith("."), f"the help of {flag} is no sentence"
        assert flag in text
        assert word.help.replace("\\", "") in text, f"the help of {flag} is not shown as it is written"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_can_show_a_traceback(verb: str) -> None:
    assert "--debug" in [flag for flag, _, _ in options(verb)]


@pytest.mark.parametrize("verb", VERBS)
def test_examples_use_words_that_exist(verb: str) -> None:
    doc = " ".join((inspect.getdoc(VERBS[verb]) or "").split())
    known = {flag for flag, _, _ in options(verb)}
    for example in re.findall(r"suture \w+[^·]*", doc):
        words = shlex.split(example)
        assert words[1] in VERBS
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_fits_the_terminal(suture: Suture, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in ([], ["run"], ["verify"]):
        answer = suture(*words, "--help")
        assert answer.code == 0
        assert max(len(line) for line in answer.out.splitlines()) <= int(columns)


def test_the_names_in_help_are_those_of_the_registries() -> None:
    told = {flag: word.help for flag, word, _ in options("run")}
    assert all(name in told["--localizers"] for name in DEFAULT)
    assert set(DEFAULT) <= LOCALIZERS.keys()
    assert all(name in told["--rule"] for name in RULES)
    assert all(re.search(rf"\b{name}\b", told["--plan"]) for name in PRESETS)
    assert all(name in told["--task"] for name in TASKS)


def test_plans_are_known_before_they_are_imported() -> None:
    assert tuple(PRESETS) == PLANS


def test_one_name_means_one_thing_in_every_verb() -> None:
    kinds: dict[str, set[str]] = {}
    for verb in VERBS:
        for flag, _, parameter in options(verb):
            kind = get_args(parameter.annotation)[0]
            kinds.setdefault(flag, set()).add(str(kind).replace(" | None", "").replace("<class '", "").rstrip("'>"))
    split = {flag: found for flag, found in kinds.items() if flag.startswith("--") and len(found) > 1}
    assert not split


def test_nothing_at_all_shows_the_verbs(suture: Suture) -> None:
    assert suture().out == suture("--help").out == suture("-h").out
