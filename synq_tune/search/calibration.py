"""The run that only calibrates: seconds of work, done by the driver before any search."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synq_tune.config import StudySpec
from synq_tune.errors import NonFiniteError, stage
from synq_tune.finetune.training_state import tensor_bytes
from synq_tune.search.checkpoints import save_student
from synq_tune.seeds import trial_seed
from synq_tune.study.ledger import Ledger
from synq_tune.trial.assets import Assets
from synq_tune.trial.trial import Trial

KEY = "trial-0000"


def calibrates_first(spec: StudySpec) -> bool:
    """Whether the study's first trial trains nothing: it cannot, or a target may be met without."""
    return not spec.is_varied or spec.study.target_loss is not None


def _untrained(spec: StudySpec) -> dict[str, Any]:
    """The parameters of a trial that calibrates only."""
    off = {"reconstruct.iterations": 0} if spec.reconstruct.is_on else {}
    return {**({"epochs": 0} if spec.finetune.epochs else {}), **off}


def run_calibration(
    ledger: Ledger, assets: Callable[[], Assets], folder: Path, listener: Callable[[str], None]
) -> None:
    """Calibrate as trial 0, with the transitions a worker's run has; nothing if it is over.

    A study that got its target later has another trial 0 and keeps it.
    """
    run = ledger.state.runs.get(KEY)
    if run is None:
        spec = ledger.state.spec
        seed = trial_seed(spec.study.seed, 0)
        params = _untrained(spec)
        ledger.append(
            "proposed", key=KEY, kind="search", number=0, params=params, seed=seed, label=""
        )
    elif run.is_final or ledger.state.spec.of_trial(run.params).is_trained:
        return
    _record(ledger, listener, "started")
    _run(ledger, assets(), folder, listener)


def _run(ledger: Ledger, assets: Assets, folder: Path, listener: Callable[[str], None]) -> None:
    run, started = ledger.state.runs[KEY], time.monotonic()
    spec = assets.spec.of_trial(run.params)
    trial = Trial(assets, spec.finetune, run.seed, reconstruct=spec.reconstruct, bits=spec.bits)
    try:
        with stage("calibration", f"teacher.model={assets.spec.teacher.model}"):
            (row,) = trial.run()
    except NonFiniteError as error:
        _record(
            ledger,
            listener,
            "finished",
            state="diverged",
            epochs_run=0,
            metrics={},
            seconds=time.monotonic() - started,
            error=str(error),
        )
        return
    _record(ledger, listener, "evaluated", epoch=0, metrics=row.metrics, losses={})
    sha256 = save_student(tensor_bytes(trial.student.state_dict()), folder, KEY)
    _record(
        ledger,
        listener,
        "finished",
        state="completed",
        epochs_run=0,
        metrics={**row.metrics, "epoch": 0},
        seconds=time.monotonic() - started,
        checkpoint_sha256=sha256,
    )


def _record(ledger: Ledger, listener: Callable[[str], None], event: str, **fields: Any) -> None:
    ledger.append(event, key=KEY, **fields)
    listener(KEY)
