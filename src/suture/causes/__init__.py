"""What the errors have in common: confusion pairs, and later the causes behind them."""

from suture.causes.pairs import confusion_pairs

__all__ = ["confusion_pairs"]
