"""--exclude-suspects, in run and in treat."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Suture, Toy

pytest.importorskip("cleanlab", reason="label suspects need cleanlab, which is the extra 'labels'")


def excluded(out: Path) -> int:
    return int(json.loads((out / "treat" / "result.json").read_text())["excluded"])


def test_treat_leaves_suspects_out_and_puts_them_back(suture: Suture, finished: Path) -> None:
    assert excluded(finished) == 0
    answer = suture("treat", finished, "--plan", "none", "--exclude-suspects")
    assert answer.code == 0, answer.err
    assert excluded(finished) > 0
    assert "suspected to be wrong" in " ".join(answer.out.split())
    assert suture("treat", finished, "--plan", "none").code == 0
    assert excluded(finished) == 0


def test_run_leaves_suspects_out(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    answer = suture(*toy.run(tmp_path / "run", "--exclude-suspects", "--until", "treat"))
    assert answer.code == 0, answer.err
    assert excluded(tmp_path / "run") > 0


def test_without_cleanlab_it_says_what_to_install(
    suture: Suture, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    answer = suture(*toy.run(tmp_path / "run", "--exclude-suspects"))
    assert answer.code == 2
    assert answer.error.endswith("pip install 'suture[labels]'")
    assert not (tmp_path / "run").exists()
