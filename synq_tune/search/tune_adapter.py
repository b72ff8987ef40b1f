"""Ray Tune's view of the ledger: a searcher that suggests, a callback that records.

Neither keeps state of its own. What Tune is told to run is in the ledger before Tune hears of it,
and what a trial reports is in the ledger before Tune acts on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from synq_tune import error_log
from synq_tune.errors import InputError, first_line, is_full_disk
from synq_tune.search import gpu_sharing
from synq_tune.search.checkpoints import save_student
from synq_tune.search.not_pickled import NotPickled
from synq_tune.search.progress import keep_state, load_state
from synq_tune.search.queue import WAIT, RunQueue
from synq_tune.study.files import prune
from synq_tune.study.ledger import Ledger
from synq_tune.study.state import Run

MAX_ATTEMPTS = 3
"""A run whose worker died this often without getting any further is `failed`."""


class LedgerSearcher(NotPickled, Searcher):
    """Suggests runs left unfinished by an earlier driver first, then the queue's proposals."""

    def __init__(
        self,
        ledger: Ledger,
        queue: RunQueue,
        deadline_passed: Callable[[], bool],
        max_trials: int,
    ) -> None:
        """Start with no trial.

        Args:
            ledger: of the study.
            queue: of proposals.
            deadline_passed: whether nothing more shall start.
            max_trials: suggested by this searcher, at most.
        """
        super().__init__(metric="objective", mode="max")
        self.ledger, self.queue = ledger, queue
        self.deadline_passed = deadline_passed
        self._left = max_trials
        self.active: dict[str, str] = {}
        """Tune's trial id → run key of what runs now."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next run as {"run": {key, kind, params, seed, epoch, state}}, None for not now, or
        FINISHED.
        """
        if self.deadline_passed() or self.is_full:
            return Searcher.FINISHED
        key = self._unfinished() or self._proposed()
        if key is None or key == WAIT:
            return Searcher.FINISHED if key is None else None
        self.active[trial_id] = key
        self._left -= 1
        run = self.ledger.state.runs[key]
        fields = {"key": key, "kind": run.kind, "params": run.params, "seed": run.seed}
        return {"run": fields | self._start_of(run)}

    def end(self) -> None:
        """Suggest no more: the rest belongs to the next round."""
        self._left = 0

    @property
    def is_full(self) -> bool:
        """Whether it has suggested as many trials as it may."""
        return self._left <= 0

    def _start_of(self, run: Run) -> dict[str, Any]:
        """From where a run starts: its last training state, sent to whichever machine takes it."""
        data = load_state(self.ledger.folder, run)
        if data is None:
            return {"epoch": 0, "position": 0, "state": None}
        place = {"epoch": run.kept_epoch, "position": run.kept_position}
        return {**place, "state": ray.put(data)}

    def _unfinished(self) -> str | None:
        taken = set(self.active.values())
        return next((key for key in self.ledger.state.tally.unfinished if key not in taken), None)

    def _proposed(self) -> str | None:
        event = self.queue.propose(self.ledger.state)
        if event is None or event == WAIT:
            return event
        self.ledger.append("proposed", **event)
        return event["key"]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Forget Tune's trial; its results are in the ledger."""
        self.active.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore, see `save`."""


class LedgerCallback(NotPickled, Callback):
    """Writes each transition to the ledger, then tells whoever listens (MLflow, the console)."""

    def __init__(
        self,
        ledger: Ledger,
        listener: Callable[[str], None],
        sharing: int = 1,
        end_round: Callable[[], None] = lambda: None,
    ) -> None:
        """Record what happens from now on.

        Args:
            ledger: of the study.
            listener: told the key of a run after each of its transitions.
            sharing: trials on one GPU.
            end_round: called when they do not fit on it.
        """
        self.ledger, self.listener = ledger, listener
        self.sharing, self.end_round = sharing, end_round
        self.attempts: dict[str, int] = {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker took the run."""
        key = trial.config["run"]["key"]
        self.attempts[key] = self.attempts.get(key, 0) + 1
        place = {name: trial.config["run"].get(name) for name in ("epoch", "position")}
        self._record("started", key, **{name: value for name, value in place.items() if value})

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch was evaluated or kept; Tune's scheduler has already set `done` to stop the
        run."""
        key = trial.config["run"]["key"]
        if result.get("gpu"):
            gpu_sharing.record_peak(self.ledger, result["gpu"])
        kept = {} if result.get("done") else self._keep(key, result)
        if "metrics" in result:
            self._record(
                "evaluated",
                key,
                epoch=result["epoch"],
                metrics=result["metrics"],
                losses=result["losses"],
                partial=result["partial"],
                **_position(result),
                **({"earlier": result["earlier"]} if result.get("earlier") else {}),
                **kept,
            )
        elif kept:
            self._record("kept", key, epoch=result["epoch"], **_position(result), **kept)
        if kept:
            prune(self.ledger.folder, self.ledger.state)
        if result.get("done"):
            self._finish(key, result)

    def _keep(self, key: str, result: dict[str, Any]) -> dict[str, str]:
        """Write the training state that came with a result; it got further: it may fail anew."""
        data = result["payload"].take()
        self.attempts[key] = 0
        sha256 = keep_state(self.ledger.folder, key, result["epoch"], data, **_position(result))
        return {"kept_sha256": sha256} if sha256 else {}

    def _finish(self, key: str, result: dict[str, Any]) -> None:
        optional = ("error", "report_top1", "report_agreement")
        self._record(
            "finished",
            key,
            state=result.get("state", "stopped"),
            epochs_run=result.get("epoch", self._epochs_run(key)),
            metrics={**result["metrics"], "epoch": result["epoch"]} if "metrics" in result else {},
            seconds=result["seconds"],
            **self._student(key, result),
            **{name: result[name] for name in optional if name in result},
        )

    def _student(self, key: str, result: dict[str, Any]) -> dict[str, str]:
        """Write the student that came with the last result of a completed search trial."""
        data = result["payload"].take() if "payload" in result else None
        if data is None or result.get("state") != "completed":
            return {}
        return {"checkpoint_sha256": save_student(data, self.ledger.folder, key)}

    def _epochs_run(self, key: str) -> int:
        history = self.ledger.state.runs[key].history
        return history[-1]["epoch"] if history else 0

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Let go of Tune's own statistics of the run: 2 kB a number, until the round ends."""
        trial.run_metadata.metric_analysis = {}
        trial.run_metadata.metric_n_steps = {}

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """The run raised, or its worker died; a dead worker's run is suggested again."""
        key = trial.config["run"]["key"]
        error = _raised_by(trial)
        if isinstance(error, RayActorError) and self.attempts.get(key, 0) < MAX_ATTEMPTS:
            return
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, torch.OutOfMemoryError) and self.sharing > 1:
            # Not this run's fault: it goes on, from its last checkpoint, with fewer neighbours.
            gpu_sharing.record_too_many(self.ledger, self.sharing)
            self.end_round()
            return
        if is_full_disk(cause):
            raise cause  # every run would fail: the study stops, and the run is not over
        self._record(
            "finished",
            key,
            state="failed",
            epochs_run=self._epochs_run(key),
            metrics={},
            seconds=0.0,
            error=_explained(key, error, cause, self.ledger.folder),
        )

    def _record(self, event: str, key: str, **fields: Any) -> None:
        self.ledger.append(event, key=key, **fields)
        self.listener(key)


def _position(result: dict[str, Any]) -> dict[str, int]:
    return {"position": result["position"]} if result.get("position") else {}


def _explained(key: str, error: BaseException, cause: BaseException, folder: Path) -> str:
    """One line on a run that raised; the full text goes into the study's folder."""
    line = str(cause) if isinstance(cause, InputError) else first_line(cause)
    # Ray's error shows the worker's traceback, ours carries it.
    text = "\n".join([getattr(cause, "full_text", ""), str(error)])
    place = error_log.place(error_log.keep(text, key, folder))
    return error_log.one_line(f"{line.removeprefix(f'{key}: ').removesuffix('.')}. {place}")


def _raised_by(trial: Any) -> BaseException:
    """What a trial of Tune raised, or how its worker died.

    Tune's own `get_error` looks in the storage, where the error arrives only after callbacks are
    told. The files are Ray's, written a moment ago by this process.
    """
    if trial.pickled_error_file is not None:
        with open(trial.pickled_error_file, "rb") as file:
            return cloudpickle.load(file)
    return RuntimeError(Path(trial.error_file).read_text(encoding="utf-8", errors="replace"))


class StopRequest(NotPickled, Stopper):
    """Ends a Tune run when a signal arrived, the study's time is over or its target is met."""

    def __init__(self, interrupted: threading.Event, deadline_passed: Callable[[], bool]) -> None:
        self.interrupted, self.deadline_passed = interrupted, deadline_passed

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether everything shall stop now."""
        return self.interrupted.is_set() or self.deadline_passed()
