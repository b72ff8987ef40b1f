"""The search: proposals from Optuna, workers from Ray; the only place that imports either."""

import os
import sys

from synq_tune import SearchPackage

# Read when Ray is imported: no usage statistics, whatever else is asked for; no per-trial loggers,
# which pin every trial in the driver's memory; a result without an objective (a diverged trial) is
# not an error.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

sys.modules[__name__].__class__ = SearchPackage
