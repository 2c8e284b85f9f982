"""Atomic writes, the lock between processes, and fingerprints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from suture.errors import InvalidArgumentError, MissingFileError, RunError
from suture.rundir import RunDir, fingerprint, read_json, replacing, write_atomic, write_json


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(RunError, match=r"a\.txt cannot be written \(disk full\).* stays; make room"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_read_by_whom_the_umask_says_whoever_writes_it(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a.txt", "new")
        with replacing(tmp_path / "b.safetensors") as temporary:
            save_file({"a": torch.zeros(2)}, temporary)  # writes a file of its own with mode 0600 and renames it
    finally:
        os.umask(old)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o640, 0o640]


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="is a folder; give the name of a file"):
        write_atomic(tmp_path, "text")
    assert not list(tmp_path.iterdir())


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    with pytest.raises(MissingFileError):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(RunError, match="delete it and run again"):
        read_json(tmp_path / "x.json")


def test_fingerprints_do_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint("1") != fingerprint(1)
    assert len(fingerprint()) == 64


def test_a_stage_is_finished_only_with_its_result(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.key("treat") is None
    (tmp_path / "treat").mkdir()
    (tmp_path / "treat/patch.safetensors").write_bytes(b"half")
    assert run.key("treat") is None
    write_json(tmp_path / "treat/result.json", {"key": "k"})
    assert run.key("treat") == "k"


def test_forgetting_a_stage_forgets_what_was_made_from_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("localize", "treat", "verify"):
        write_json(tmp_path / name / "result.json", {"key": name})
    run.forget("treat")
    assert [run.key(n) for n in ("localize", "treat", "verify")] == ["localize", None, None]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    program = (
        "import sys\nfrom suture.rundir import RunDir\n"
        f"with RunDir({str(tmp_path)!r}).lock():\n print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another suture process"), run.lock():
            pass
    finally:
        other.kill()  # the system releases the lock of a killed process
        other.communicate()
    with run.lock():
        assert (tmp_path / "lock").exists()


def test_the_log_is_appended_with_times(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "new")
    run.log("one")
    run.log("two")
    lines = (tmp_path / "new/log.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "two"]
    assert all("+00:00" in line for line in lines)
    assert json.dumps(lines)
