"""The search: proposals from Optuna, workers from Ray; the only place that imports either."""
