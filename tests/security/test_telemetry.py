"""Usage statistics and telemetry are off whatever else the environment asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.conftest import Watched, environment

_RAY = """
import synq_tune.search.engine
from ray._common.usage.usage_lib import usage_stats_enabled
print(usage_stats_enabled())
"""
_MLFLOW = """
from pathlib import Path
from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.study.state import StudyState
from synq_tune.tracking import Tracker
state = StudyState(load_space("digits_w3a3"), {"id": "0" * 32})
Tracker.open(f"sqlite:///{Path.cwd() / 'mlflow.db'}", Path("study"), state)
from mlflow.telemetry import get_telemetry_client
from mlflow.telemetry.utils import is_telemetry_disabled
print(not is_telemetry_disabled() or get_telemetry_client() is not None)
"""


def _is_on(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(folder), text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.long
def test_ray_counts_nothing(tmp_path: Path) -> None:
    """Ray's own answer, in a shell with RAY_USAGE_STATS_ENABLED=1."""
    assert _is_on(_RAY, tmp_path) == "False"


@pytest.mark.long
def test_onnxruntime_reports_nothing(trial: Watched) -> None:
    """It exported and checked a model, and made no identity for this user, which its reports carry.

    test_no_connections.py looks for the reports themselves.
    """
    assert (trial.folder / "exported/model.onnx").is_file()
    assert not (trial.folder / "home/.cache/Microsoft").exists()


@pytest.mark.long
def test_mlflow_reports_nothing(tmp_path: Path) -> None:
    """MLflow's own answer after a study was opened, in a shell that asks for telemetry."""
    assert _is_on(_MLFLOW, tmp_path) == "False"
