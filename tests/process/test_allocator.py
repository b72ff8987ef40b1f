"""Freed memory is used again instead of being mapped anew in every pass."""

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
    for repetition in range(12):
        if repetition == 4:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.relu(layer(images))
after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
@pytest.mark.long
def test_a_layers_values_are_mapped_once() -> None:
    """Two tensors of 64 MB in each of eight passes: glibc alone maps every one anew.

    With freed blocks kept the heap may still grow once late, where a small block of the process
    happened to split a large one: that is one tensor of sixteen, on some machines.
    """
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", _COUNT, how], capture_output=True, check=True
            ).stdout
        )
        for how in ("given-back", "kept")
    }
    assert faults["given-back"] > 1000
    assert faults["kept"] < faults["given-back"] / 4
