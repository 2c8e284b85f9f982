"""SGD with momentum as a splitting, with friction that depends on the momentum itself.

One file per optimizer: equations, plain twin, foreach twin.
"""

from suture.optimizers.cadam import CADAM
from suture.optimizers.cubic_damping import CubicDamping
from suture.optimizers.ikfad import IKFAD

__all__ = ["CADAM", "IKFAD", "CubicDamping"]
