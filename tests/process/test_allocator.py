"""Freed memory is used again: no page is mapped twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

_COUNT = """
import resource, sys, torch
from synq_tune.process.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
layer, images = torch.nn.Conv2d(3, 64, 3), torch.rand(16, 3, 128, 128)
with torch.no_grad():
    for repetition in range(6):
        if repetition == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.relu(layer(images))
after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_a_layers_values_are_mapped_once() -> None:
    """Two tensors of 64 MB in each pass: none is mapped again, where glibc maps both each time."""
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", _COUNT, how], capture_output=True, check=True
            ).stdout
        )
        for how in ("given-back", "kept")
    }
    assert faults["kept"] < 16 < faults["given-back"]
