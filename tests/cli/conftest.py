"""The command line in this process, and the toy problem as files."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import save_file

from suture.cli.app import _run
from tests import toys

# Method A, but short, as a file.
PLAN = """\
name = "short"

[where]
kind = "flagged"

[how]
kind = "finetune"

[how.recipe]
epochs = 6
batch_size = 32
lr = 0.05

[how.recipe.augment]
pad = 0
flip = false
"""
LOG = "epoch,lr,momentum,loss\n1,0.1,0.9,2.0\n2,0.1,0.37,1.0\n3,0.1,0.2,0.5\n"


@dataclass(frozen=True)
class Answer:
    """What a command left behind: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The sentence, where there is one and nothing else that begins like one."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line


Suture = Callable[..., Answer]


@pytest.fixture
def suture(capsys: pytest.CaptureFixture[str]) -> Suture:
    """Runs a command line in this process."""

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = _run([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return call


@dataclass(frozen=True)
class Toy:
    """The toy problem by name."""

    folder: Path
    model: str = f"{toys.__file__}:untrained"
    data: str = f"{toys.__file__}:data"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.toml"

    @property
    def log(self) -> Path:
        return self.folder / "history.csv"

    def run(self, out: Path, *more: object) -> tuple[object, ...]:
        """The words of a whole run; an option given again replaces the one here."""
        options = {
            "--model": self.model,
            "--weights": self.weights,
            "--data": self.data,
            "--plan": self.plan,
            "--out": out,
        }
        words = [word for pair in options.items() if pair[0] not in more for word in pair]
        return ("run", *words, *more)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Weights, plan and log of the toy problem in a folder."""
    made = Toy(tmp_path_factory.mktemp("toy"))
    save_file(dict(toys.trained()), made.weights)
    made.plan.write_text(PLAN)
    made.log.write_text(LOG)
    return made


@pytest.fixture
def finished(toy: Toy, tmp_path: Path, finished_once: Path) -> Path:
    """A run directory with all stages done, to do anything with."""
    import shutil

    return Path(shutil.copytree(finished_once, tmp_path / "run"))


@pytest.fixture(scope="session")
def finished_once(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run directory with all stages done, not to be touched."""
    out = tmp_path_factory.mktemp("once") / "run"
    assert _run([str(word) for word in toy.run(out, "--history", toy.log)]) == 0
    before = digests(out)
    yield out
    assert digests(out) == before


def digests(folder: Path) -> dict[str, str]:
    """File → sha256, for everything below a folder but the log, the lock and Python's own caches."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("log.txt", "lock") and "__pycache__" not in path.parts
    }
