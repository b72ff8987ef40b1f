"""A study's MLflow side: opened once, kept in step with the ledger, never a reason to stop."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from synq_tune.errors import InputError, stage
from synq_tune.export.load import load_onnx
from synq_tune.redact import redact_uri
from synq_tune.study.ledger import Ledger
from synq_tune.study.places import tracking_of
from synq_tune.study.stages import Tracking, Uploads
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import best_bits, resolve_metric
from synq_tune.tracking import (
    Tracker,
    TrackingError,
    default_tracking_uri,
    is_local,
    is_server,
    study_page,
    study_params,
    study_tags,
    ui_command,
)
from synq_tune.tracking.describe import text_of, widths
from synq_tune.tracking.inputs import Labelled, dataset_inputs
from synq_tune.tracking.sentences import study_sentences

_HOLD_IMAGES = ("golden.npz",)
_BEST = ("best files", "golden vectors", "best model")
RETRY_AFTER = (2.0, 8.0, 30.0)
"""Seconds before what a store refused is tried again, once the study has nothing else to do."""


class TrackedStudy:
    """Writes to MLflow; an outage is reported and made up for at a later transition, or at the end.

    One thread of its own does all the writing, in the order asked for: a locked database or a slow
    server holds up no trial. What changes while it writes is written together.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._lock = threading.Lock()
        self._waiting: dict[str, Run] = {}
        """What changed since the writer last looked, by key; copies, since the driver goes on."""
        self._is_asked = False
        """Whether the writer is going to look."""
        self._job: Future[None] | None = None
        self._refused: dict[str, tuple[Callable[[], object], str]] = {}
        """By name, what the store did not take, and why."""
        self._model = Uploads()

    @classmethod
    def open(
        cls, ledger: Ledger, uri: str | None, folder: Path, upload_images: bool = False
    ) -> TrackedStudy:
        """Open the store once: the one asked for, the ledger's, or the default.

        The ledger holds no credentials: a store that needs them is named again on resume. That
        images may be sent is remembered.
        """
        recorded = ledger.state.stages.tracking
        upload_images = upload_images or bool(recorded and recorded.upload_images)
        uri = uri or tracking_of(ledger.state, folder) or default_tracking_uri(folder)
        try:
            with stage("opening the tracking store", f"--tracking-uri {redact_uri(uri)}"):
                study = cls(Tracker.open(uri, folder, ledger.state, upload_images))
        except TrackingError as error:
            raise InputError(
                f"`the tracking store can be opened` must hold, but got: {error} "
                "Start it, or choose another --tracking-uri."
            ) from None
        told = Tracking(redact_uri(study.tracker.uri), upload_images or None)
        if recorded != told:
            ledger.record(told)
        return study

    def sync(self, state: StudyState, key: str | None = None) -> None:
        """Have MLflow's runs brought up to the ledger; returns at once.

        Args:
            state: of the ledger.
            key: of the run that changed; None stands for all of them.
        """
        runs = state.runs.values() if key is None else [state.runs[key]]
        copies = {
            run.key: replace(run, history=list(run.history), moments=dict(run.moments))
            for run in runs
        }
        with self._lock:
            self._waiting |= copies
            if self._is_asked:
                return
            self._is_asked = True
        if self._job is not None and self._job.done():
            self._job.result()  # a defect of ours in its last turn is raised here
        self._job = self._writer.submit(self._write_waiting, state)

    def _write_waiting(self, state: StudyState) -> None:
        with self._lock:
            runs, self._waiting, self._is_asked = self._waiting, {}, False
        if self._attempt(lambda: self.tracker.sync(replace(state, runs=runs))) is not None:
            with self._lock:
                # Tried again together with whatever changes next, or at the end.
                self._waiting = runs | self._waiting

    def describe(self, state: StudyState, labelled: Labelled | None = None) -> None:
        """Parameters, tags and description of the parent run, and the datasets once they are
        there."""
        dataset = state.stages.dataset.sha256 if state.stages.dataset else ""
        tags = study_tags(state.spec, resolve_metric(state), dataset)
        tags["teacher_fingerprint"] = state.stages.teacher.fingerprint
        self._send("parameters", lambda: self.tracker.log_parent(study_params(state.spec), tags))
        self._send("description", lambda: self.tracker.describe_parent(study_sentences(state)))
        if state.stages.dataset is not None:
            self._send("datasets", lambda: self._put_inputs(state, labelled))

    def _put_inputs(self, state: StudyState, labelled: Labelled | None) -> None:
        """Without paths, unless the store is on this machine."""
        told = state.spec, state.stages.dataset, labelled
        self.tracker.log_inputs(dataset_inputs(*told, with_paths=is_local(self.tracker.uri)))

    def log_image_grid(self, path: Path) -> None:
        """The picture of synthetic images before and after the filter."""
        self._send("synthetic images", lambda: self.tracker.log_image_grid(path))

    @property
    def may_log_images(self) -> bool:
        """See `Tracker.may_log_images`."""
        return self.tracker.may_log_images

    def log_report(self, path: Path) -> None:
        """A study's page, which shows no images unless they may be logged.

        What the store refuses is not asked for again: the page lies in the study's folder.
        """
        self._do(lambda: self.tracker.log_artifact_files([path], "report"))

    def log_best(self, folder: Path, state: StudyState, input_example: np.ndarray) -> Uploads:
        """The exported files, the model ready to serve, and the accuracies on the parent.

        What the store refuses is tried again for a while, with all that it refused before.

        Returns: what is in the store, and what is not.
        """
        files = sorted(folder.iterdir())
        pictures = [path for path in files if path.name in _HOLD_IMAGES]
        plain = [path for path in files if path not in pictures]
        log_files = self.tracker.log_artifact_files
        model = load_onnx(folder / "model.onnx")
        in_files, in_vectors, in_model = _BEST
        self._send(in_files, lambda: log_files(plain, "best"))
        self._send(in_vectors, lambda: log_files(pictures, "best", holds_images=True))
        self._send(in_model, lambda: self._put_model(model, state, input_example))
        tags = {"best": state.stages.best.key}
        metrics = _parent_metrics(state)
        self._send("best accuracies", lambda: self.tracker.log_parent(tags=tags, metrics=metrics))
        values = _best_params(state)
        self._send("best parameters", lambda: self.tracker.replace_tags("best.", values))
        self._send("description", lambda: self.tracker.describe_parent(study_sentences(state)))
        self._send_refused()
        return replace(self._model, refused=self.refused)

    def _put_model(self, model: Any, state: StudyState, input_example: np.ndarray) -> None:
        uri = self.tracker.log_best_model(
            model,
            input_example,
            metrics=_parent_metrics(state),
            name=f"{state.spec.name}-{widths(best_bits(state))}",
            params={**_best_params(state), **_made_of(state)},
        )
        version = self.tracker.register_best(uri, state.spec.name, _version_tags(state))
        self._model = Uploads(uri, version)

    @property
    def refused(self) -> dict[str, str]:
        """Why something is not in the store, by its name."""
        return {name: error for name, (_, error) in self._refused.items()}

    @property
    def missing(self) -> list[str]:
        """Parts of the best that are not in the store: without them a study is not done."""
        return [name for name in _BEST if name in self._refused]

    def _send(self, name: str, write: Callable[[], object]) -> None:
        """Have something written, see `_do`; what the store does not take is kept for later."""
        error = self._do(write)
        if error is None:
            self._refused.pop(name, None)
        else:
            self._refused[name] = write, error

    def _send_refused(self) -> None:
        for seconds in RETRY_AFTER:
            if not self._refused:
                return
            names = ", ".join(self._refused)
            print(f"tracking: {names}: again in {seconds:g} s", file=sys.stderr, flush=True)
            time.sleep(seconds)
            for name, (write, _) in list(self._refused.items()):
                self._send(name, write)

    def wait(self) -> None:
        """Until all that was asked for so far is written, or refused."""
        self._do(lambda: None)

    def finish(self, status: str) -> None:
        """Write what is left, end the parent run with MLflow's status FINISHED, FAILED or
        KILLED."""
        self._do(lambda: self.tracker.finish(status))
        self._writer.shutdown()

    def _do(self, write: Callable[[], object]) -> str | None:
        """Write behind what was asked for before, and wait for it; returns why MLflow refused
        it."""
        error = self._writer.submit(self._attempt, write).result()
        if self._job is not None:
            self._job.result()
        return error

    def closing_lines(self) -> list[str]:
        """How to browse the study, and to name its model."""
        page = study_page(self.tracker)
        lines = [f"browse    {page}"]
        if not is_server(self.tracker.uri):  # a server runs already: its page is all it takes
            lines = [f"browse    {ui_command(self.tracker.uri)}", f"          {page}"]
        if self._model.version:
            lines.append(f"model     models:/{self._model.version}")
        elif self._model.model:
            lines.append(f"model     {self._model.model} (the store has no registry for us)")
        return lines

    @staticmethod
    def _attempt(write: Callable[[], object]) -> str | None:
        """Why MLflow did not take it; None if it did."""
        try:
            write()
        except TrackingError as error:
            print(f"tracking: {error} The study goes on.", file=sys.stderr)
            return str(error)
        return None


def _best_params(state: StudyState) -> dict[str, str]:
    return {key: text_of(value) for key, value in state.stages.best.params.items()}


def _made_of(state: StudyState) -> dict[str, str]:
    """What a model is a version of."""
    tags = study_tags(state.spec, resolve_metric(state))
    tags["bits"] = widths(best_bits(state))
    return {key: tags[key] for key in ("teacher", "bits", "quantizer", "recipe", "space")}


def _version_tags(state: StudyState) -> dict[str, str]:
    """What to tell the versions of a space's registered model by."""
    best = state.stages.best
    measured = {name: best.metrics.get(name) for name in ("top1", "agreement")}
    return {
        "metric": resolve_metric(state),
        "trial": best.key,
        **{name: f"{value:.4f}" for name, value in measured.items() if value is not None},
    }


def _parent_metrics(state: StudyState) -> dict[str, float]:
    """Accuracies of the best run, and of each rung of the ladder on the reporting half."""
    rungs = state.stages.ladder.rungs
    metrics = {f"best/{name}": value for name, value in state.stages.best.metrics.items()}
    # MLflow allows no apostrophe in a name.
    named = {"ladder/" + r.name.replace("'", ""): r.top1 for r in rungs if r.top1 is not None}
    return metrics | named
