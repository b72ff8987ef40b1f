"""With local weights no packet is meant for another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.conftest import Watched, watched

_OUTWARD = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("example.com", 443)
with contextlib.suppress(OSError):
    socket.create_connection(("192.0.2.1", 443), timeout=0.5)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.2", 9))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
def test_a_study_reaches_nobody(study: Watched) -> None:
    """Teacher, synthesis, Ray, Optuna, MLflow and export: all that is sent stays here."""
    assert (study.foreign, study.lost) == ({}, 0)


@pytest.mark.long
def test_a_trial_without_ray_reaches_nobody(trial: Watched) -> None:
    """Nor does `scripts/finetune.py`."""
    assert (trial.foreign, trial.lost) == ({}, 0)


@pytest.mark.long
def test_the_watch_sees_who_reaches_out(tmp_path: Path) -> None:
    """Connections and datagrams to other machines are seen; this is what makes the others a proof."""
    found = watched(tmp_path / "control", "-c", _OUTWARD)
    assert {"192.0.2.1:443", "192.0.2.2:9"} <= found.foreign.keys(), found.said
