"""The rungs of the ladder, the final table, by the names that tables and the ledger give them."""

from __future__ import annotations

FULL_PRECISION = "full precision"
CALIBRATED_ON_NOISE = "calibrated on noise"
CALIBRATED = "calibrated on the synthetic set"
PAPER = "the paper's defaults"
BEST = "the best found"

RUNGS = (FULL_PRECISION, CALIBRATED_ON_NOISE, CALIBRATED, PAPER, BEST)
"""From the teacher to the student that is exported."""
