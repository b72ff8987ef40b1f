"""Files that are damaged, moved, or cannot be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from synq_tune.study.files import state_files
from synq_tune.study.ledger import LEDGER_NAME, Ledger
from tests.crash.conftest import FaultTable
from tests.crash.study import TinyStudy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]


def _flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_last_line_of_the_ledger_is_cut(small: TinyStudy, table: FaultTable) -> None:
    """What was not whole did not happen."""
    small.start(crash="after:2:evaluated").wait()
    path = small.folder / LEDGER_NAME
    os.truncate(path, path.stat().st_size - 20)
    small.finish()
    table.check("a truncated last ledger line", small, rework=2)


def test_a_bit_flips_in_the_dataset(small: TinyStudy, table: FaultTable) -> None:
    """It is noticed by its sum, in one line; deleted as it says, the same images are made again."""
    small.start(crash="after:2:evaluated").wait()
    path = Path(Ledger.open(small.folder, read_only=True).state.stages.dataset.path)
    shard = max(path.rglob("*.safetensors"), key=lambda p: p.stat().st_size)
    before = shard.read_bytes()
    _flip(shard)
    refused = small.start()
    assert refused.wait() == 2 and f"Delete {path}" in refused.said().splitlines()[-1]
    shutil.rmtree(path)
    small.finish()
    assert shard.read_bytes() == before
    table.check("a flipped bit in a dataset shard", small)


def test_a_bit_flips_in_a_checkpoint(small: TinyStudy, table: FaultTable) -> None:
    """The run begins again, and one line says so."""
    small.start(crash="after:2:evaluated").wait()
    for path in state_files(small.folder):
        _flip(path)
    driver = small.finish()
    assert driver.said().count("cannot be used") == 1
    table.check("a flipped bit in a checkpoint", small, rework=2)


def test_the_disk_is_full_while_exporting(small: TinyStudy, table: FaultTable) -> None:
    """Half an export is no export; with space again, resume makes it whole."""
    driver = small.start(crash="full:1:stage:ladder")
    assert driver.wait() not in (0, -signal.SIGKILL)
    assert os.strerror(errno.ENOSPC) in driver.said()
    assert "Traceback" not in driver.said()
    small.finish()
    table.check("a full disk while exporting", small)


def test_the_folder_moves(small: TinyStudy, table: FaultTable) -> None:
    """Nothing in it depends on where it is; MLflow's runs stay the same ones."""
    small.start(crash="after:2:evaluated").wait()
    moved = small.folder.parent / "elsewhere" / "renamed"
    moved.parent.mkdir()
    small.folder.rename(moved)
    small.folder = moved
    small.arguments = ("--store", str(moved.parent.parent / "store"))
    small.finish()
    best = json.loads((moved / "summary.json").read_text())["best"]
    assert Path(best["export_dir"]) == moved / "best"
    table.check("a folder moved to another path", small)
