"""The bench: answers that are known beforehand. Faults planted in one known group of a copy of a model."""

from suture.bench import overtraining as overtraining  # registers the kind that trains
from suture.bench.faults import applies, plant
from suture.bench.kinds import FAULTS, Kind, Site, fault
from suture.bench.layers import Layer
from suture.bench.severity import Fault, Planted, calibrate, plant_to_drop

__all__ = [
    "FAULTS",
    "Fault",
    "Kind",
    "Layer",
    "Planted",
    "Site",
    "applies",
    "calibrate",
    "fault",
    "plant",
    "plant_to_drop",
]
