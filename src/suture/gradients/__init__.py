"""Gradients by group: of a batch, and per example (per-sample)."""

from suture.gradients.engine import differentiable, group_norms, mean_gradients, per_example_norms
from suture.gradients.meter import Measurement, Meter
from suture.gradients.rules import rule

__all__ = ["Measurement", "Meter", "differentiable", "group_norms", "mean_gradients", "per_example_norms", "rule"]
