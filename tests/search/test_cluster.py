"""Starting and joining Ray: what is refused, and whose the signals are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from synq_tune.errors import InputError
from synq_tune.search.cluster import ray_cluster


def test_a_driver_outside_the_cluster_is_refused() -> None:
    """Machines without the driver's files read them where it runs, which must be one of them."""
    with pytest.raises(InputError, match="ray job submit"), ray_cluster("ray://head:10001"):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "no.such.host.invalid:6379"])
def test_an_address_where_nobody_answers_is_refused(address: str) -> None:
    """At once, and not when Ray gives up, a quarter of an hour later."""
    with (
        pytest.raises(
            InputError, match=f"can be joined` must hold, but got --ray-address={address}"
        ),
        ray_cluster(address),
    ):
        pass


_SIGNALS = """
import os, signal
from synq_tune.search.cluster import ray_cluster

signal.signal(signal.SIGTERM, lambda number, frame: print("told", flush=True))
with ray_cluster(None):
    os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.ray
@pytest.mark.long
def test_signals_stay_the_drivers() -> None:
    """While Ray runs and after it: left to Ray, SIGTERM would end the driver without a record."""
    done = subprocess.run([sys.executable, "-c", _SIGNALS], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["told", "told"]), done.stderr
