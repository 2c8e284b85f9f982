"""Checkpoints of a training under way: one file of safetensors, written atomically after each epoch."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from suture.errors import RunError
from suture.rundir import fingerprint, replacing


@dataclass(frozen=True)
class Checkpoints:
    """Where a training keeps its state, and what it was made from.

    Attributes:
        directory: of ``checkpoint-EPOCH.safetensors``; only the newest is kept.
        key: a checkpoint of another key is not resumed from.
    """

    directory: Path
    key: str

    def save(
        self,
        epoch: int,
        model: nn.Module,
        optimizer: Optimizer,
        schedules: list[LRScheduler],
        rows: list[Any],
    ) -> None:
        """Write the state after an epoch, then delete older ones.

        Raises:
            RunError: the disk is full, or cannot be written to; what was there before stays.
        """
        tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
        optimizer_state = optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for index, state in optimizer_state["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{index}/{name}"] = value
                else:
                    plain.setdefault(str(index), {})[name] = value
        metadata = {
            "key": self.key,
            "epoch": epoch,
            "param_groups": optimizer_state["param_groups"],
            "plain": plain,
            "schedules": [schedule.state_dict() for schedule in schedules],
            "rows": rows,
        }
        path = self.directory / f"checkpoint-{epoch:04d}.safetensors"
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        try:
            with replacing(path) as temporary:
                save_file(copies, temporary, metadata={"state": json.dumps(metadata)})
        except RunError as error:
            before = f" and go on after epoch {epoch - 1}, whose checkpoint is intact" if epoch > 1 else ""
            raise RunError(f"{error}, and run again{before}") from error
        for older in self._files():
            if older != path:
                older.unlink()

    def rows(self) -> list[Any]:
        """The history of the newest state of this key; empty without one."""
        return next((list(metadata["rows"]) for metadata, _ in self._newest_first()), [])

    def resume(self, model: nn.Module, optimizer: Optimizer, schedules: list[LRScheduler]) -> tuple[int, list[Any]]:
        """Load the newest state of this key; how many epochs are done and the rows of their history."""
        for metadata, tensors in self._newest_first():
            model.load_state_dict({n[6:]: t for n, t in tensors.items() if n.startswith("model/")})
            state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in metadata["plain"].items()}
            for name, tensor in tensors.items():
                if name.startswith("optimizer/"):
                    _, index, field = name.split("/", 2)
                    state.setdefault(int(index), {})[field] = tensor
            groups = _tuples(metadata["param_groups"], optimizer.param_groups)
            optimizer.load_state_dict({"state": state, "param_groups": groups})
            for schedule, saved in zip(schedules, metadata["schedules"], strict=True):
                # JSON turned the numbers that milestones go by into text; like every setting, they are there already.
                schedule.load_state_dict({name: value for name, value in saved.items() if not isinstance(value, dict)})
            return int(metadata["epoch"]), list(metadata["rows"])
        return 0, []

    def below(self, name: str) -> "Checkpoints":
        """The checkpoints of a training that is part of this one."""
        return Checkpoints(self.directory / f"checkpoint-of-{fingerprint(name)[:12]}", fingerprint(self.key, name))

    def clear(self) -> None:
        """Delete the checkpoints, those below included: the result that they led to has been written."""
        for path in self._files():
            path.unlink()
        for path in self.directory.glob("checkpoint-of-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _newest_first(self) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
        """Metadata and tensors of the readable states of this key."""
        for path in reversed(self._files()):
            try:
                with safetensors.safe_open(path, framework="pt") as file:
                    metadata = json.loads((file.metadata() or {})["state"])
                tensors = load_file(path)
            except (safetensors.SafetensorError, OSError, KeyError, ValueError):
                continue  # not a checkpoint of ours: begin from an older one, or from the start
            if metadata["key"] == self.key:
                yield metadata, tensors

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("checkpoint-*.safetensors"))


def _tuples(saved: list[dict[str, Any]], groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON turned tuples, such as Adam's betas, into lists; what is a tuple in the optimizer becomes one again."""
    return [
        {name: tuple(value) if isinstance(own.get(name), tuple) else value for name, value in group.items()}
        for group, own in zip(saved, groups, strict=True)
    ]
