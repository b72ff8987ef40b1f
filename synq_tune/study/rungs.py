"""The rungs of the ladder, the final table, in its order, as tables and the ledger name them."""

from __future__ import annotations

FULL_PRECISION = "full precision"
CALIBRATED_ON_NOISE = "calibrated on noise"
CALIBRATED = "calibrated on the synthetic set"
PAPER = "the paper's defaults"
BEST = "the best found"
