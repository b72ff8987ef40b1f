"""A study's MLflow side: opened once, kept in step with the ledger, never a reason to stop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from synq_tune.errors import InputError
from synq_tune.export.load import load_onnx
from synq_tune.study.ledger import Ledger
from synq_tune.study.redact import redact_uri
from synq_tune.study.state import StudyState
from synq_tune.study.summary import resolve_metric
from synq_tune.tracking import (
    Tracker,
    TrackingError,
    default_tracking_uri,
    study_page,
    study_params,
    study_tags,
    ui_command,
)

_HOLD_IMAGES = ("golden.npz",)


class TrackedStudy:
    """Writes to MLflow; an outage is reported and made up for at a later transition."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    @classmethod
    def open(cls, ledger: Ledger, uri: str | None, folder: Path) -> TrackedStudy:
        """Open the store once: the one asked for, the ledger's, or the default.

        The ledger holds no credentials: a store that needs them is named again on resume.
        """
        recorded = ledger.state.stages.get("tracking", {}).get("uri")
        uri = uri or recorded or default_tracking_uri(folder)
        try:
            study = cls(Tracker.open(uri, folder, ledger.state))
        except TrackingError as error:
            raise InputError(
                f"`the tracking store can be opened` must hold, but got: {error} "
                "Start it, or choose another --tracking-uri."
            ) from None
        shown = redact_uri(study.tracker.uri)
        if recorded != shown:
            ledger.append("stage", name="tracking", data={"uri": shown})
        return study

    def sync(self, state: StudyState) -> None:
        """Bring MLflow's runs up to the ledger."""
        self._attempt(lambda: self.tracker.sync(state))

    def describe(self, state: StudyState) -> None:
        """Parameters and tags of the parent run."""
        dataset = state.stages.get("dataset", {}).get("sha256", "")
        tags = study_tags(state.spec, resolve_metric(state), dataset)
        tags["teacher_fingerprint"] = state.stages["teacher"]["fingerprint"]
        self._attempt(lambda: self.tracker.log_parent(study_params(state.spec), tags))

    def log_image_grid(self, path: Path) -> None:
        """The picture of synthetic images before and after the filter."""
        self._attempt(lambda: self.tracker.log_image_grid(path))

    def log_best(self, folder: Path, state: StudyState, input_example: np.ndarray) -> None:
        """The exported files, the model ready to serve, and the accuracies on the parent."""
        files = sorted(folder.iterdir())
        pictures = [path for path in files if path.name in _HOLD_IMAGES]
        plain = [path for path in files if path not in pictures]
        self._attempt(lambda: self.tracker.log_artifact_files(plain, "best"))
        self._attempt(lambda: self.tracker.log_artifact_files(pictures, "best", holds_images=True))
        model = load_onnx(folder / "model.onnx")
        self._attempt(lambda: self.tracker.log_best_model(model, input_example))
        tags = {"best": state.stages["best"]["key"]}
        self._attempt(lambda: self.tracker.log_parent(tags=tags, metrics=_parent_metrics(state)))

    def finish(self, status: str) -> None:
        """End the parent run with MLflow's status FINISHED, FAILED or KILLED."""
        self._attempt(lambda: self.tracker.finish(status))

    def closing_lines(self) -> list[str]:
        """How to browse the study."""
        return [
            f"browse    {ui_command(self.tracker.uri)}",
            f"          {study_page(self.tracker)}",
        ]

    @staticmethod
    def _attempt(write: Callable[[], object]) -> None:
        try:
            write()
        except TrackingError as error:
            print(f"tracking: {error} The study goes on.", file=sys.stderr)


def _parent_metrics(state: StudyState) -> dict[str, float]:
    """Accuracies of the best run, and of each rung of the ladder on the reporting half."""
    best = state.stages["best"]["metrics"]
    rungs = state.stages["ladder"]["rungs"]
    metrics = {f"best/{name}": value for name, value in best.items()}
    # MLflow allows no apostrophe in a name.
    named = {"ladder/" + r["name"].replace("'", ""): r["top1"] for r in rungs if "top1" in r}
    return metrics | named
