"""The precision of forward passes, and whether this processor has it."""

import platform
from typing import Any

import torch
from torch import Tensor, nn

from suture.tasks import Batch, Task


class _Autocast:
    """A task whose forward passes run in bfloat16 where that is safe."""

    def __init__(self, task: Task, device: str) -> None:
        self._task, self._device = task, device

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        with torch.autocast(self._device, torch.bfloat16):
            outputs = self._task.outputs(model, batch)
        return outputs.float() if isinstance(outputs, Tensor) else outputs

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._task, name)


def precise(task: Task, precision: str, device: str = "cpu") -> Task:
    """The task in the precision asked for."""
    return task if precision == "float32" else _Autocast(task, device)


def is_emulated(precision: str, device: torch.device) -> bool:
    """Whether a precision is one that the processor has no instructions for, so that it is slower than float32."""
    return precision == "bfloat16" and device.type == "cpu" and not has_bfloat16()


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported())  # oneDNN's own answer is yes wherever it can imitate it
    return hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
