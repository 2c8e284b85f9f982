"""Every verb on the toy problem, from the first word to the restored weights."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from suture.patch import base_sha256, same_bits
from suture.weights import load_checkpoint
from tests import pictures, toys
from tests.cli.conftest import Answer, Suture, Toy, digests

RESULTS = ("scan", "localize", "diagnose", "treat", "verify")


def result(run: Path, stage: str) -> dict[str, Any]:
    """What a stage's ``result.json`` says."""
    read: dict[str, Any] = json.loads((run / stage / "result.json").read_text())
    return read


def steps(answer: Answer) -> list[str]:
    """The stages that were begun, in a standard error that says nothing else but what a treatment will take."""
    lines = [line for line in answer.err.splitlines() if not line.startswith("treating by ")]
    assert all(line.endswith(" …") for line in lines)
    return [line.removesuffix(" …") for line in lines]


def without_clock(run: Path) -> dict[str, str]:
    """Digests of what a run holds, seconds and the time of its making aside."""
    named = digests(run)
    for path in run.rglob("*.safetensors"):  # the order of a file's metadata is random
        with safe_open(path, framework="pt") as file:
            metadata = sorted((file.metadata() or {}).items())
        named[path.relative_to(run).as_posix()] = str((metadata, base_sha256(load_file(path))))
    for name in ("case.json", "report.html", "treat/result.json", "treat/history.csv"):
        named.pop(name, None)
    treat = result(run, "treat")
    treat["history"]["rows"] = [row[:-1] for row in treat["history"]["rows"]]
    treat["cost"] = {name: value for name, value in treat["cost"].items() if not name.endswith("seconds")}
    return named | {"treat": json.dumps(treat, sort_keys=True)}


# run


def test_run_does_everything_and_says_what_came_out(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    answer = suture(*toy.run(tmp_path / "run", "--history", toy.log))
    assert answer.code == 0, answer.err
    assert steps(answer) == list(RESULTS)
    assert "Better: on 240 unseen examples the repair fixes more than it breaks." in answer.out
    lines = answer.out.splitlines()
    stages = [line.split()[0] for line in lines if line.startswith(tuple(stage.capitalize() for stage in RESULTS))]
    assert [stage.lower() for stage in stages] == list(RESULTS), "a paragraph each, in order"
    assert any(line.startswith("Diagnose") and " is taken for " in line for line in lines)
    assert len(lines) <= 45, "what a run found fits on a screen"
    assert answer.out.rstrip().endswith(f"report: {tmp_path / 'run' / 'report.html'}")
    assert all((tmp_path / "run" / stage / "result.json").is_file() for stage in RESULTS)
    verification = result(tmp_path / "run", "verify")
    assert verification["net"] == verification["fixed"] - verification["broken"] > 0
    assert verification["verdict"] == "better"
    localization = result(tmp_path / "run", "localize")
    assert list(localization["scores"]) == ["norm_statistics", "grad_norm"]
    assert localization["flagged"]
    assert ("No group stands out" if localization["top"] is None else f"{localization['top']} stands out") in answer.out
    patch = load_file(tmp_path / "run" / "treat" / "patch.safetensors")
    undo = load_file(tmp_path / "run" / "treat" / "undo.safetensors")
    assert patch.keys() == undo.keys()
    treated = tuple(f"{group}." for group in localization["flagged"])
    assert all(name.startswith(treated) for name in patch)
    assert toys.Net().load_state_dict(patch, strict=False).unexpected_keys == []


def test_run_again_does_nothing_and_says_the_same(suture: Suture, toy: Toy, finished: Path) -> None:
    before = digests(finished)
    answer = suture(*toy.run(finished, "--history", toy.log))
    assert (answer.code, answer.err) == (0, "")
    assert "Better: on 240 unseen examples" in answer.out
    after = digests(finished)
    assert {name for name in after if after[name] != before.get(name)} <= {"report.html"}


def test_further_examples_from_every_place_that_is_named(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    code = tmp_path / "more.py"
    code.write_text(
        "from tests import toys\ndef a(): return toys.points(6, seed=11)\ndef b(): return toys.points(9, seed=12)\n"
    )
    repair = []
    for more in ([], ["a"], ["a", "b"]):
        out = tmp_path / f"run{len(more)}"
        extra = [word for name in more for word in ("--repair-extra", f"{code}:{name}")]
        assert suture(*toy.run(out, "--until", "localize", *extra)).code == 0
        repair.append((out / "splits.csv").read_text().count("\nrepair,"))
    assert [n - repair[0] for n in repair] == [0, 6, 15]
    assert suture("diagnose", out).code == 0, "the run is built again from its case.json"


def test_the_same_words_give_the_same_results(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    assert suture(*toy.run(tmp_path / "twin", "--history", toy.log)).code == 0
    assert without_clock(tmp_path / "twin") == without_clock(finished)


def test_run_until_a_stage_and_on(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "steps"
    reached = []
    for stage in RESULTS:
        answer = suture(*toy.run(out, "--history", toy.log, "--until", stage))
        assert answer.code == 0
        assert steps(answer) == [stage]
        reached.append(stage)
        assert [name for name in RESULTS if (out / name / "result.json").exists()] == reached
    assert without_clock(out) == without_clock(finished)


def test_redo_does_a_stage_and_what_follows_again(suture: Suture, toy: Toy, finished: Path) -> None:
    before = without_clock(finished)
    answer = suture(*toy.run(finished, "--history", toy.log, "--redo", "diagnose"))
    assert (answer.code, steps(answer)) == (0, ["diagnose", "treat", "verify"])
    assert without_clock(finished) == before


def test_relative_paths_and_another_working_directory(
    suture: Suture, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy.folder)
    words = ("--weights", "weights.safetensors", "--plan", "plan.toml")
    assert suture(*toy.run(tmp_path / "run", *words, "--until", "localize")).code == 0
    monkeypatch.chdir(tmp_path)
    assert suture("diagnose", "run").code == 0


def test_run_takes_three_data_sets(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    code = "from tests import toys\n" + "\n".join(
        f"def part{i}(): return toys.points(150, seed={i + 20}, shift=0.9)" for i in range(3)
    )
    (tmp_path / "parts.py").write_text(code)
    splits = ("diagnose", "repair", "verify")
    three = [word for i, name in enumerate(splits) for word in (f"--{name}", f"{tmp_path}/parts.py:part{i}")]
    words = (
        "run",
        "--model",
        toy.model,
        "--weights",
        toy.weights,
        *three,
        "--plan",
        toy.plan,
        "--out",
        tmp_path / "run",
    )
    assert suture(*words).code == 0
    assert result(tmp_path / "run", "verify")["n"] == 150


def test_run_on_pictures_in_a_zip(suture: Suture, tmp_path: Path) -> None:
    name = "<b>two words</b>".replace("/", "∕")
    data = pictures.archive(tmp_path / "photos.zip", pictures.files({name: 20, "Größe": 20}))
    model = pictures.network(tmp_path / "model.py")
    words = ("run", "--model", model, "--data", data, "--size", 9, "--mean", ".5,.5,.5", "--std", ".25,.25,.25")
    answer = suture(*words, "--out", tmp_path / "run", "--until", "diagnose")
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "run" / "case.json").read_text())["classes"] == [name, "Größe"]
    assert (tmp_path / "run" / "diagnose" / "pictures.safetensors").is_file()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<b>two" not in page
    assert "Größe" in page


def test_run_with_groups_of_ones_own(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "groups.json").write_text('{"body": ["first", "norm"], "head": ["last.*"]}')
    words = toy.run(
        tmp_path / "run", "--groups", tmp_path / "groups.json", "--until", "localize", "--localizers", "rms"
    )
    assert suture(*words).code == 0
    assert list(result(tmp_path / "run", "localize")["scores"]) == ["rms"]
    assert list(result(tmp_path / "run", "localize")["groups"]) == ["body", "rest", "head"]


# Nothing to repair


def test_without_errors_there_is_nothing_to_repair_and_that_is_no_failure(
    suture: Suture, toy: Toy, tmp_path: Path
) -> None:
    code = "from tests import toys\n"
    code += "def easy():\n    net = toys.network()\n"
    code += "    return [(x, int(net(x[None]).argmax())) for x, _ in toys.points(150, seed=3)]"
    (tmp_path / "easy.py").write_text(code)
    out = tmp_path / "run"
    answer = suture(*toy.run(out, "--data", f"{tmp_path}/easy.py:easy"))
    assert answer.code == 0, answer.err
    assert result(out, "localize")["n_errors"] == 0
    assert result(out, "localize")["flagged"] == []
    assert result(out, "localize")["top"] is None
    assert "nothing to treat" in result(out, "treat")["note"]
    assert "the patch is empty" in answer.out
    assert load_file(out / "treat" / "patch.safetensors") == {}
    verification = result(out, "verify")
    assert (verification["fixed"], verification["broken"], verification["p_value"]) == (0, 0, 1)
    assert (out / "report.html").is_file()
    required = suture(*toy.run(out, "--data", f"{tmp_path}/easy.py:easy", "--require", "better"))
    assert required.code == 3
    repaired = tmp_path / "same.safetensors"
    assert suture("apply", out / "treat" / "patch.safetensors", "--weights", toy.weights, "--out", repaired).code == 0
    assert equal(load_file(repaired), load_file(toy.weights))


def test_the_plan_to_change_nothing(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    answer = suture(*toy.run(tmp_path / "run", "--plan", "none"))
    assert answer.code == 0
    assert "the patch is empty" in answer.out
    assert result(tmp_path / "run", "treat")["kept"] == "none"


# The stages of a run


@pytest.mark.parametrize("stage", RESULTS)
def test_a_stage_of_a_finished_run_shows_its_table_and_changes_nothing(
    suture: Suture, toy: Toy, finished: Path, stage: str
) -> None:
    before = digests(finished)
    answer = suture(stage, finished, *(["--plan", toy.plan] if stage == "treat" else []))
    assert (answer.code, answer.err) == (0, "")
    assert len(answer.out.splitlines()) > 3
    assert digests(finished) == before


def test_stages_one_by_one_give_what_run_gives(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "steps"
    assert suture(*toy.run(out, "--history", toy.log, "--until", "localize")).code == 0
    for words in (["diagnose", out], ["treat", out, "--plan", toy.plan], ["verify", out]):
        answer = suture(*words)
        assert (answer.code, steps(answer)) == (0, [words[0]])
    assert without_clock(out) == without_clock(finished)


def test_localize_with_other_words_is_done_again(suture: Suture, finished: Path) -> None:
    answer = suture("localize", finished, "--localizers", "rms, grad_norm", "--rule", "first")
    assert (answer.code, answer.err) == (0, "localize …\n")
    localization = result(finished, "localize")
    assert list(localization["scores"]) == ["rms", "grad_norm"]
    scores = localization["scores"]["rms"]
    assert localization["flagged"] == [max(scores, key=scores.__getitem__)]
    assert not (finished / "verify" / "result.json").exists()


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("peft", "first -> 1 module"), ("axolotl", "^first[.].+$ -> 2 parameters"), ("json", "first ->")],
)
def test_localize_exports_what_is_flagged(
    suture: Suture, finished: Path, tmp_path: Path, form: str, pattern: str
) -> None:
    out = tmp_path / "deep" / "file"
    answer = suture("localize", finished, "--rule", "first", "--export", form, "--out", out)
    assert answer.code == 0, answer.err
    assert pattern in answer.out
    assert answer.out.splitlines()[-1] == str(out)
    assert "first" in out.read_text()
    assert suture("localize", finished, "--rule", "first", "--export", form).code == 0
    (inside,) = [path for path in finished.iterdir() if path.is_file() and path.read_bytes() == out.read_bytes()]
    assert inside.suffix in (".json", ".yaml")


def test_an_export_that_matches_nothing_is_an_error(suture: Suture, finished: Path, tmp_path: Path) -> None:
    localization = result(finished, "localize")
    (finished / "localize" / "result.json").write_text(json.dumps(localization | {"flagged": ["norm"]}))
    answer = suture("localize", finished, "--export", "peft", "--out", tmp_path / "lora.json")
    assert answer.code == 2
    assert "norm -> 0 modules" in answer.error
    assert not (tmp_path / "lora.json").exists()


def test_memory_bounds_no_result(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    assert suture(*toy.run(tmp_path / "run", "--until", "localize", "--max-memory", "64kB")).code == 0
    bounded, free = (result(run, "localize") for run in (tmp_path / "run", finished))
    assert bounded.keys() == free.keys()
    for name, scores in free["scores"].items():
        for group, score in scores.items():
            assert bounded["scores"][name][group] == (None if score is None else pytest.approx(score, rel=1e-5))
    assert bounded["flagged"] == free["flagged"]


def test_what_another_stage_found_stays(suture: Suture, toy: Toy, finished: Path) -> None:
    kept = {stage: (finished / stage / "result.json").read_bytes() for stage in ("localize", "treat", "verify")}
    assert suture("scan", finished, "--history", toy.log).code == 0
    assert suture("diagnose", finished, "--causes", "1").code == 0
    assert suture("localize", finished, "--export", "json").code == 0
    assert {stage: (finished / stage / "result.json").read_bytes() for stage in kept} == kept


def test_a_stage_without_options_shows_what_was_asked(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    words = toy.run(tmp_path / "run", "--until", "localize", "--rule", "first")
    assert suture(*words).code == 0
    asked = (tmp_path / "run/localize/result.json").read_bytes()
    assert suture("localize", tmp_path / "run").code == 0
    assert (tmp_path / "run/localize/result.json").read_bytes() == asked
    assert suture("localize", tmp_path / "run", "--rule", "top_1").code == 0
    assert (tmp_path / "run/localize/result.json").read_bytes() != asked


def test_files_of_others_in_a_stage_s_folder_stay(suture: Suture, finished: Path) -> None:
    for name in ("notes.txt", "repaired.safetensors", "mine.csv", "report.html"):
        (finished / "treat" / name).write_text("mine")
    assert suture("treat", finished, "--plan", "none").code == 0
    assert {path.name for path in (finished / "treat").iterdir()} >= {
        "notes.txt", "repaired.safetensors", "mine.csv", "report.html",
    }  # fmt: skip
    assert not (finished / "treat/history.csv").exists(), "what the other plan left is gone"


def test_a_run_goes_on_where_its_files_were_moved(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    assert suture(*toy.run(tmp_path / "run")).code == 0
    moved = tmp_path / "moved.safetensors"
    words = list(map(str, toy.run(tmp_path / "run")))
    old = Path(words[words.index("--weights") + 1])
    moved.write_bytes(old.read_bytes())
    words[words.index("--weights") + 1] = str(moved)
    assert suture(*words).code == 0
    assert json.loads((tmp_path / "run/case.json").read_text())["asked"]["weights"] == str(moved)


def test_another_plan_is_another_treatment(suture: Suture, finished: Path) -> None:
    assert suture("treat", finished, "--plan", "none").code == 0
    assert result(finished, "treat")["kept"] == "none"
    assert suture("verify", finished).code == 0
    assert result(finished, "verify")["looks"] == 2


# scan


def test_scan_of_a_log(suture: Suture, toy: Toy) -> None:
    answer = suture("scan", toy.log)
    assert (answer.code, answer.err) == (0, "")
    for regime in ("underdamped", "critical", "overdamped"):
        assert re.search(rf"{regime}\s*│\s*1", answer.out)


def test_scan_of_a_run_with_another_log(suture: Suture, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("lr,momentum\n0.1,0.9\n0.1,0.9\n")
    answer = suture("scan", finished, "--history", tmp_path / "other.csv")
    assert (answer.code, answer.err) == (0, "scan …\n")
    assert result(finished, "scan")["counts"] == {"underdamped": 2, "critical": 0, "overdamped": 0}


# report


def test_report_again_and_elsewhere(suture: Suture, finished: Path, tmp_path: Path) -> None:
    (finished / "report.html").unlink()
    answer = suture("report", finished)
    assert (answer.code, answer.out) == (0, f"{finished / 'report.html'}\n")
    answer = suture("report", finished, "--out", tmp_path / "pages" / "page.html")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'pages' / 'page.html'}\n")
    first, second = (finished / "report.html").read_text(), (tmp_path / "pages" / "page.html").read_text()
    assert first == second
    assert first.lstrip().lower().startswith("<!doctype html>")
    assert "http-equiv" not in first or "src=" in first


def test_report_of_a_run_that_has_only_begun(suture: Suture, toy: Toy, tmp_path: Path) -> None:
    assert suture(*toy.run(tmp_path / "run", "--until", "localize")).code == 0
    assert suture("report", tmp_path / "run").code == 0


# apply and revert

State = dict[str, Tensor]


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


def _prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


FORMS: dict[str, tuple[str, Callable[[State], Any]]] = {
    "plain torch": ("w.pt", lambda s: s),
    "wrapped torch": ("w.pth", lambda s: {"model": {"state_dict": _prefixed(s, "module.")}, "epoch": 3, "log": [1, 2]}),
    "compiled": ("w.ckpt", lambda s: {"state_dict": _prefixed(s, "_orig_mod."), "epoch": 3}),
    "safetensors": ("w.safetensors", lambda s: s),
    "prefixed safetensors": ("w.safetensors", lambda s: _prefixed(s, "module.")),
}


def plain(thing: Any) -> Any:
    """Dicts and values as they are, tensors as their bytes."""
    if isinstance(thing, dict):
        return {key: plain(value) for key, value in thing.items()}
    return (str(thing.dtype), tuple(thing.shape), thing.numpy().tobytes()) if isinstance(thing, Tensor) else thing


def read(path: Path) -> Any:
    return plain(load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True))


@pytest.fixture(params=FORMS)
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The toy's weights in a file of some form."""
    name, wrap = FORMS[request.param]
    content = wrap(dict(toys.trained()))
    if name.endswith(".safetensors"):
        save_file(content, tmp_path / name, metadata={"by": "me"})
    else:
        torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("weight", [None, 0, 0.5, 1], ids=["full", "0", "half", "1"])
def test_apply_then_revert_gives_every_byte_back(
    suture: Suture, finished: Path, original: Path, weight: float | None
) -> None:
    patch = finished / "treat" / "patch.safetensors"
    repaired, restored = (original.with_stem(stem) for stem in ("repaired", "restored"))
    before = digests(finished), original.read_bytes()
    more = [] if weight is None else ["--weight", weight]
    answer = suture("apply", patch, "--weights", original, "--out", repaired, *more)
    assert (answer.code, answer.err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(repaired))}: \d+ of 11 tensors changed\n", answer.out)
    answer = suture("revert", patch, "--weights", repaired, "--out", restored)
    assert (answer.code, answer.err) == (0, "")
    assert read(restored) == read(original)
    assert (read(repaired) == read(original)) is (weight == 0)
    assert (digests(finished), original.read_bytes()) == before
    if original.suffix == ".safetensors":
        assert load_checkpoint(restored).metadata == {"by": "me"}


def test_applied_weights_hold_the_patch_and_are_what_verify_measured(
    suture: Suture, toy: Toy, finished: Path, tmp_path: Path
) -> None:
    patch, out = finished / "treat" / "patch.safetensors", tmp_path / "repaired.safetensors"
    assert suture("apply", patch, "--weights", toy.weights, "--out", out).code == 0
    assert equal(load_file(out), load_file(toy.weights) | load_file(patch))
    model = toys.Net()
    model.load_state_dict(load_file(out))
    before, after = (_right(m) for m in (toys.network(), model.eval()))
    assert after > before


def _right(model: torch.nn.Module) -> int:
    inputs, labels = zip(*toys.data(), strict=True)
    with torch.no_grad():
        return int((model(torch.stack(inputs)).argmax(1) == torch.tensor(labels)).sum())


def test_half_way_lies_in_the_middle(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    patch, out = finished / "treat" / "patch.safetensors", tmp_path / "half.safetensors"
    assert suture("apply", patch, "--weights", toy.weights, "--out", out, "--weight", "0.5").code == 0
    old, new, half = (load_file(path) for path in (toy.weights, patch, out))
    for name in new:
        torch.testing.assert_close(
            half[name], (old[name] + new[name]) / 2 if new[name].is_floating_point() else new[name]
        )


def test_revert_takes_the_undo_file_itself(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    repaired, restored = tmp_path / "repaired.safetensors", tmp_path / "restored.safetensors"
    assert (
        suture("apply", finished / "treat" / "patch.safetensors", "--weights", toy.weights, "--out", repaired).code == 0
    )
    undo = shutil.move(finished / "treat" / "undo.safetensors", tmp_path / "my-undo.safetensors")
    assert suture("revert", undo, "--weights", repaired, "--out", restored).code == 0
    assert equal(load_file(restored), load_file(toy.weights))


def test_a_patch_is_applied_once(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    patch, repaired = finished / "treat" / "patch.safetensors", tmp_path / "repaired.safetensors"
    assert suture("apply", patch, "--weights", toy.weights, "--out", repaired).code == 0
    answer = suture("apply", patch, "--weights", repaired, "--out", tmp_path / "twice.safetensors")
    assert answer.code == 2
    assert "patched already" in answer.error
    assert not (tmp_path / "twice.safetensors").exists()


def test_a_folder_for_the_new_file_is_made(suture: Suture, toy: Toy, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "repaired.pt"
    assert suture("apply", finished / "treat" / "patch.safetensors", "--weights", toy.weights, "--out", out).code == 0
    assert [path.name for path in out.parent.iterdir()] == ["repaired.pt"]
    assert torch.load(out, weights_only=True).keys() == load_file(toy.weights).keys()


# Help


def test_doctor_names_versions_devices_and_extras(suture: Suture) -> None:
    answer = suture("doctor")
    assert (answer.code, answer.err) == (0, "")
    for name in ("suture", "python", "torch", "numpy", "safetensors", "torchvision", "device", "threads"):
        assert re.search(rf"^{name}\s+\S", answer.out, re.MULTILINE)
    assert torch.__version__.split("+")[0] in answer.out


def test_demo_prepares_a_network_and_repairs_it(
    suture: Suture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suture import demo

    def quick(directory: Path) -> tuple[Path, Path, Path]:
        directory.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        weights, log, plan = (directory / name for name in ("weights.safetensors", "history.csv", "plan.toml"))
        save_file(demo.network().state_dict(), weights)
        log.write_text("lr,momentum\n0.1,0.9\n")
        plan.write_text("[how]\nkind = 'finetune'\n[how.recipe]\nepochs = 1\n")
        return weights, log, plan

    monkeypatch.setattr(demo, "prepare", quick)
    answer = suture("demo", "--out", tmp_path / "demo")
    assert answer.code == 0, answer.err
    by_hand = next(line.split() for line in answer.err.splitlines() if line.startswith("  suture run"))
    again = suture(*by_hand[1:])
    assert (again.code, again.err) == (0, ""), "the words shown do not continue the demo's run"


# As processes


@pytest.mark.parametrize("words", [["-m", "suture"], ["-m", "suture", "--help"], ["-m", "suture", "-h"]], ids=" ".join)
def test_as_a_module_it_shows_its_verbs(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for verb in ("run", "scan", "localize", "diagnose", "treat", "verify", "report", "apply", "revert", "doctor"):
        assert re.search(rf"\b{verb}\b", done.stdout)


def test_version(suture: Suture) -> None:
    from importlib.metadata import version

    answer = suture("--version")
    assert (answer.code, answer.out, answer.err) == (0, f"suture {version('suture')}\n", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from suture.cli.app import main; sys.argv = ['suture', 'run', '--help']; main()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_a_terminal_that_knows_only_ascii_is_no_error(toy: Toy) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "suture", "scan", str(toy.log)], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "underdamped" in done.stdout


@pytest.mark.parametrize(("form", "begins"), [("html", "<!doctype html>"), ("md", "# "), ("json", "{")])
def test_a_report_in_each_format(suture: Suture, toy: Toy, tmp_path: Path, form: str, begins: str) -> None:
    assert suture(*toy.run(tmp_path / "run", "--plan", "none")).code == 0
    answer = suture("report", tmp_path / "run", "--format", form)
    assert answer.code == 0
    assert (tmp_path / f"run/report.{form}").read_text().lower().startswith(begins)
    assert suture("report", tmp_path / "run", "--format", "pdf").code == 2
