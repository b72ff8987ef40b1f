"""The students worth keeping: load the best, delete the rest."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import fx

from synq_tune.quantization.student import quantize_student
from synq_tune.search.trainable import checkpoint_path, run_config
from synq_tune.store import sha256_file
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import finalists
from synq_tune.trial import Assets, Trial


def prune_checkpoints(folder: Path, state: StudyState) -> None:
    """Keep the best `keep_checkpoints` students, and every one `confirm` may still choose."""
    study = state.spec.study
    count = max(study.keep_checkpoints, study.confirm.top if study.confirm else 1)
    kept = {checkpoint_path(folder, run.key) for run in finalists(state, count)}
    finished = {checkpoint_path(folder, run.key) for run in state.runs.values() if run.is_final}
    for path in finished - kept:
        path.unlink(missing_ok=True)


def load_student(assets: Assets, run: Run, folder: Path) -> fx.GraphModule:
    """The student of a finished run: from its checkpoint, or trained again if that is damaged.

    A trial is a function of its configuration and seed, so a lost file costs time, not the result.
    """
    path = checkpoint_path(folder, run.key)
    if not path.is_file() or sha256_file(path) != run.checkpoint_sha256:
        return _train_again(assets, run)
    student = quantize_student(assets.teacher, assets.spec.bits, assets.spec.quantizer)
    student.load_state_dict(load_file(path))
    return student.to(assets.device)


def _train_again(assets: Assets, run: Run) -> fx.GraphModule:
    trial = Trial(assets, run_config(assets.spec, run.kind, run.params), run.seed)
    for _ in trial.run():
        pass
    return trial.student
