"""Momentum schedules: what an LR scheduler is to lr, for the momentum of SGD or the betas[0] of Adam.

    lr_scheduler = CosineAnnealingLR(optimizer, epochs)
    momentum_scheduler = CriticalMomentum(optimizer)
    for epoch in range(epochs):
        train(...)                       # optimizer.step() as often as it likes
        lr_scheduler.step()
        momentum_scheduler.step()

They follow torch's ``LRScheduler`` (``step``, ``state_dict``, ``load_state_dict``, ``last_epoch``) but read
lr and never write it. Momentum is set again from the lr of the moment whenever the optimizer steps, so it
does not matter which scheduler was constructed or stepped first, nor whether they are stepped per
epoch or per batch. Keep a reference to the schedule: when it is gone, momentum stays where it is.

Two hands on one momentum are refused: by a clear error at construction where an ``OneCycleLR`` or
``CyclicLR`` with ``cycle_momentum`` shows, and at the latest when the optimizer steps and momentum is no
longer what the schedule had set.

``torch.optim.SGD`` built with ``momentum=0`` (its default) is welcome: it makes its momentum_buffer at
the first step with a momentum above 0, from that step's gradient. At a momentum of exactly 0 it leaves an
existing buffer as it was, to return when momentum does; a lower clamp above 0 avoids that.
"""

from suture.schedules.base import MomentumScheduler
from suture.schedules.checks import PerGroup
from suture.schedules.constant import ConstantMomentum
from suture.schedules.critical import CriticalMomentum, Curvature, Track
from suture.schedules.hybrid import HybridMomentum
from suture.schedules.inverse_coupled import InverseCoupledMomentum

__all__ = [
    "ConstantMomentum",
    "CriticalMomentum",
    "Curvature",
    "HybridMomentum",
    "InverseCoupledMomentum",
    "MomentumScheduler",
    "PerGroup",
    "Track",
]
