"""Gradients by group: of a batch, and per example (per-sample)."""

from suture.gradients.engine import group_norms, mean_gradients, per_example_norms

__all__ = ["group_norms", "mean_gradients", "per_example_norms"]
