"""Shared small things: real teachers, a real dataset, the path of data beside the project."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test draws the same random numbers and uses one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session", autouse=True)
def _hears_hangups() -> Iterator[None]:
    """Under nohup SIGHUP is ignored, which every process that a test starts would inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and teachers beside the project; tests that need it skip without."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no shared data beside the project")
    return SHARED_DATA
