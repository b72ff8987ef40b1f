"""Nothing that runs during a study can be reached from another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.conftest import Watched, watched

_LISTEN = """
import socket, time
everywhere, here = socket.create_server(("", 0)), socket.create_server(("127.0.0.1", 0))
time.sleep(1)
"""


@pytest.mark.ray
@pytest.mark.long
def test_ray_listens_on_localhost_only(study: Watched) -> None:
    """Every port that took connections was on 127.0.0.1 or ::1, and there was no dashboard's (8265)."""
    assert study.listening.keys() <= {"127.0.0.1", "::1"}, study.listening
    assert study.listening["127.0.0.1"], "Ray's own ports were not seen"
    assert 8265 not in study.listening["127.0.0.1"]


@pytest.mark.ray
@pytest.mark.long
def test_the_ui_named_at_the_end_is_on_localhost(study: Watched) -> None:
    """`mlflow ui` binds 127.0.0.1 unless told otherwise; nobody is told otherwise."""
    (line,) = [line for line in study.said.splitlines() if "mlflow ui" in line]
    assert "--host" not in line and "0.0.0.0" not in line
    assert "http://127.0.0.1:5000/" in study.said


def test_the_watch_sees_a_port_open_to_the_network(tmp_path: Path) -> None:
    """This is what makes the other a proof."""
    found = watched(tmp_path / "control", "-c", _LISTEN)
    assert found.listening.keys() == {"0.0.0.0", "127.0.0.1"}, found.said
