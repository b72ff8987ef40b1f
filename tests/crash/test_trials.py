"""Trials that break by themselves: the study counts them once and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.study.ledger import Ledger
from tests.crash.conftest import FaultTable
from tests.crash.study import TinyStudy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]

GREEDY = '''
"""A CAM technique that needs more memory than any machine has."""

import inspect

import torch


def weights(activations, gradients):
    in_training = any(f.filename.endswith("finetune/loop.py") for f in inspect.stack())
    if in_training:  # not while the teacher's maps are made
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 EiB.")
    return gradients.mean((2, 3))
'''


def test_a_trial_diverges(study: TinyStudy, table: FaultTable) -> None:
    """NaN ends it as `diverged`; a crash afterwards does not run it again."""
    study.sets += ["search.lr={choice: [1e30, 1e-2]}", "study.first=[{lr: 1e30}]"]
    study.start(crash="after:2:started").wait()
    study.finish()
    states = [
        run.state for run in Ledger.open(study.folder, read_only=True).state.of_kind("search")
    ]
    assert states[0] == "diverged" and "completed" in states
    table.check("a NaN trial", study)


def test_a_trial_runs_out_of_memory(study: TinyStudy, table: FaultTable, tmp_path: Path) -> None:
    """It is `failed`, with the reason; its neighbours are not."""
    greedy = tmp_path / "greedy.py"
    greedy.write_text(GREEDY)
    name = f"{greedy}:weights"
    study.sets += [
        f"search.cam={{choice: [gradcam, '{name}']}}",
        f"study.first=[{{cam: '{name}'}}, {{cam: gradcam}}]",
    ]
    study.finish()
    first, second, *_ = Ledger.open(study.folder, read_only=True).state.of_kind("search")
    assert first.state == "failed" and "out of memory" in first.error
    assert second.state == "completed"
    table.check("an out-of-memory trial", study)
