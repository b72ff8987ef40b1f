"""Which is better: comparisons, recorded searches and coverage."""
