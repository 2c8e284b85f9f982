"""Augmentation of batches of pictures; anything else passes through unchanged."""

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from suture.images import ImageFormat
from suture.wording import percent


class Augment(BaseModel):
    """Random crop and horizontal flip, the augmentation of the paper (section 4.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pad: int = Field(4, ge=0, description="pixels of black added on every side before a random crop; 0: no crop")
    flip: bool = Field(True, description="mirror every second picture, by chance")

    @property
    def nothing(self) -> bool:
        """Whether pictures are left as they are."""
        return not self.pad and not self.flip

    def doubt(self, inputs: object) -> str:
        """What speaks against crops of a picture (c, h, w) by so many pixels; empty where nothing does."""
        if not isinstance(inputs, Tensor) or inputs.dim() != 3 or not inputs.is_floating_point():
            return ""
        height, width = inputs.shape[1:]
        if not self.pad or 4 * self.pad < min(height, width):
            return ""
        kept = max(1 - self.pad / height, 0) * max(1 - self.pad / width, 0)
        return (
            f"[augment] pad = {self.pad} is a quarter or more of the side of pictures of {width}x{height}, so that a "
            f"crop may keep as little as {percent(kept, 0)} of one; an eighth is usual"
        )

    def apply(self, inputs: Any, generator: torch.Generator, image: ImageFormat | None = None) -> Any:
        """Augmented pictures (n, c, h, w); inputs of another shape or type are returned as they are."""
        if not isinstance(inputs, Tensor) or inputs.dim() != 4 or not inputs.is_floating_point():
            return inputs
        if self.pad:
            inputs = self._cropped(inputs, generator, image)
        if self.flip:
            mirrored = torch.rand(len(inputs), generator=generator) < 0.5
            inputs = torch.where(mirrored.to(inputs.device)[:, None, None, None], inputs.flip(3), inputs)
        return inputs

    def _cropped(self, inputs: Tensor, generator: torch.Generator, image: ImageFormat | None) -> Tensor:
        n, c, h, w = inputs.shape
        black = torch.zeros(c)
        if image is not None and len(image.mean) == c:
            black = -torch.tensor(image.mean) / torch.tensor(image.std)
        black = black.to(inputs)[:, None, None]
        # Shifted by black, so that the zeros of padding are black after shifting back.
        padded = F.pad(inputs - black, (self.pad,) * 4) + black
        top, left = torch.randint(0, 2 * self.pad + 1, (2, n), generator=generator).to(inputs.device)
        rows = top[:, None] + torch.arange(h, device=inputs.device)
        columns = left[:, None] + torch.arange(w, device=inputs.device)
        examples = torch.arange(n, device=inputs.device)[:, None, None]
        return padded[examples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
