"""The same momentum throughout."""

from torch.optim import Optimizer

from suture.schedules.base import MomentumScheduler
from suture.schedules.checks import check_momentum


class ConstantMomentum(MomentumScheduler):
    """The same momentum throughout: the paper's baseline (Table 2).

    Args:
        optimizer: see MomentumScheduler.
        momentum: in [0, 1).
        last_epoch: −1 to begin.

    Raises:
        InvalidArgumentError: momentum is outside [0, 1), or as MomentumScheduler.
    """

    def __init__(self, optimizer: Optimizer, momentum: float = 0.9, last_epoch: int = -1) -> None:
        self.momentum = check_momentum("momentum", momentum)
        super().__init__(optimizer, last_epoch)

    def get_momentum(self) -> list[float]:
        return [self.momentum] * len(self.optimizer.param_groups)
