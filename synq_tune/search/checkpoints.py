"""The students of finished runs: saved by the driver, loaded for the export."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import load_file
from torch import fx

from synq_tune.quantization.student import quantize_student
from synq_tune.search.worker import run_spec
from synq_tune.store import sha256_file, write_bytes
from synq_tune.study.files import checkpoint_path
from synq_tune.study.state import Run
from synq_tune.trial.assets import Assets
from synq_tune.trial.trial import Trial


def save_student(data: bytes, folder: Path, key: str) -> str:
    """Write a finished run's student, `tensor_bytes` of its state; returns the SHA-256."""
    write_bytes(checkpoint_path(folder, key), data)
    return hashlib.sha256(data).hexdigest()


def load_student(assets: Assets, run: Run, folder: Path) -> fx.GraphModule:
    """The student of a finished run: from its checkpoint, or trained again if that is damaged.

    A trial is a function of its configuration and seed, so a lost file costs time, not the result.
    """
    if not is_kept(run, folder):
        return _train_again(assets, run)
    bits = run_spec(assets.spec, run.kind, run.params).bits
    student = quantize_student(assets.teacher, bits, assets.spec.quantizer)
    student.load_state_dict(load_file(checkpoint_path(folder, run.key)))
    return student.to(assets.device)


def is_kept(run: Run, folder: Path) -> bool:
    """Whether a run's student is there, whole."""
    path = checkpoint_path(folder, run.key)
    return path.is_file() and sha256_file(path) == run.checkpoint_sha256


def _train_again(assets: Assets, run: Run) -> fx.GraphModule:
    spec = run_spec(assets.spec, run.kind, run.params)
    trial = Trial(assets, spec.finetune, run.seed, reconstruct=spec.reconstruct, bits=spec.bits)
    for _ in trial.run():
        pass
    return trial.student
