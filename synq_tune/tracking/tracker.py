"""One study in one MLflow store: its parent run, its children, its artifacts."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synq_tune.config import StudySpec
from synq_tune.redact import redact_uri
from synq_tune.store import sha256_file
from synq_tune.study.state import Run, StudyState
from synq_tune.tracking.address import is_local, resolve_tracking_uri
from synq_tune.tracking.batch import (
    MAX_TAG_LENGTH,
    changed,
    epoch_points,
    final_points,
    log_batch,
    milliseconds,
    points,
    run_params,
    shown,
)
from synq_tune.tracking.database import first_use_lock, make_database, sqlite_path
from synq_tune.tracking.describe import study_id_of, trials_view
from synq_tune.tracking.experiment import EXPERIMENT, find_or_create, runs_of
from synq_tune.tracking.guard import tracking_errors
from synq_tune.tracking.model import model_name, save_model, upload_model
from synq_tune.tracking.records import BEST, STATE, STATUSES, Child, is_of_best, is_waiting
from synq_tune.tracking.registry import is_there, register, registered_name
from synq_tune.tracking.sentences import NOTE, note_tags, run_sentence

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput


class Tracker:
    """Writes one study to MLflow; every method raises `TrackingError` when MLflow fails."""

    def __init__(self, uri: str, study_dir: Path, study_id: str, upload_images: bool) -> None:
        """Use `Tracker.open`."""
        self.uri = uri
        self.study_dir = study_dir
        self.study_id = study_id
        self.upload_images = upload_images
        self.experiment_id = ""
        self.parent_id = ""
        self._client: MlflowClient
        self._parent_status = "RUNNING"
        self._parent_params: set[str] = set()
        self._parent_tags: dict[str, str] = {}
        self._parent_metrics: dict[str, float] = {}
        self._parent_has_inputs = False
        self._inputs: list[DatasetInput] = []
        self._children: dict[str, Child] | None = None

    @classmethod
    def open(
        cls, uri: str, study_dir: Path, state: StudyState, upload_images: bool = False
    ) -> Tracker:
        """Find the study in MLflow, or create its experiment and parent run.

        Args:
            uri: database or tracking server.
            study_dir: names the parent run; its parent keeps the artifacts of a database.
            state: of the study; `header["id"]` is its identity in MLflow.
            upload_images: send images to a store that is not on this machine, too.

        Raises:
            InputError: `uri` is not one.
            TrackingError: MLflow cannot be reached or used.
        """
        study_dir = study_dir.resolve()
        study_id = study_id_of(state, study_dir)
        tracker = cls(resolve_tracking_uri(uri), study_dir, study_id, upload_images)
        with tracking_errors(tracker.uri), first_use_lock(tracker.uri):
            from mlflow import MlflowClient

            make_database(tracker.uri)
            tracker._client = MlflowClient(tracker.uri, registry_uri=tracker.uri)
            tracker.experiment_id = find_or_create(tracker._client, tracker.uri, study_dir)
            tracker._read_back()
            view = json.dumps(trials_view(state.spec, tracker.parent_id))
            key = f"mlflow.sharedViewState.{study_id}"
            tracker._client.set_experiment_tag(tracker.experiment_id, key, view)
        return tracker

    @classmethod
    def find(cls, uri: str, study_dir: Path, state: StudyState) -> Tracker | None:
        """The study as MLflow has it, for looking only; None if the store or the study is not
        there.

        Raises:
            InputError: `uri` is not one.
            TrackingError: MLflow cannot be reached or used.
        """
        tracker = cls(
            resolve_tracking_uri(uri), study_dir.resolve(), study_id_of(state, study_dir), False
        )
        if tracker.uri.startswith("sqlite") and not sqlite_path(tracker.uri).exists():
            return None
        with tracking_errors(tracker.uri):
            from mlflow import MlflowClient

            tracker._client = MlflowClient(tracker.uri, registry_uri=tracker.uri)
            experiment = tracker._client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                return None
            tracker.experiment_id = experiment.experiment_id
            parents = [r for r in tracker._search() if r.data.tags.get("synq.kind") == "study"]
        if not parents:
            return None
        tracker.parent_id, tracker._parent_status = parents[0].info.run_id, parents[0].info.status
        return tracker

    @property
    def status(self) -> str:
        """MLflow's status of the parent run."""
        return self._parent_status

    def children(self) -> list[dict[str, Any]]:
        """Every run of the study's trials in MLflow: {id, key, parent, status, state, metrics}."""
        with tracking_errors(self.uri):
            return [
                {
                    "id": r.info.run_id,
                    "key": r.data.tags["synq.key"],
                    "status": r.info.status,
                    "parent": r.data.tags.get("mlflow.parentRunId"),
                    "state": r.data.tags.get("synq.state", ""),
                    "metrics": dict(r.data.metrics),
                }
                for r in self._search()
                if "synq.key" in r.data.tags
            ]

    def delete_run(self, run_id: str) -> None:
        """Take a run out of the study; MLflow keeps it among its deleted ones."""
        with tracking_errors(self.uri):
            self._client.delete_run(run_id)

    @property
    def may_log_images(self) -> bool:
        """Whether synthetic images, which resemble the private training data, may be logged."""
        return self.upload_images or is_local(self.uri)

    def sync(self, state: StudyState) -> None:
        """Bring MLflow up to `state`; costs nothing when there is nothing new."""
        with tracking_errors(self.uri), self._records() as children:
            for run in state.runs.values():
                if not is_waiting(run):
                    self._sync_run(run, state, children)

    def log_parent(
        self,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Update the parent run; params keep their first value, unchanged metrics add no point.

        Args:
            params: see `study_params`.
            tags: see `study_tags`.
            metrics: `best/top1` and the like.
        """
        with tracking_errors(self.uri), self._records():
            params = {k: v for k, v in (params or {}).items() if k not in self._parent_params}
            tags = changed(tags or {}, self._parent_tags)
            rounded = {name: shown(name, value) for name, value in (metrics or {}).items()}
            metrics = changed(rounded, self._parent_metrics)
            log_batch(self._client, self.parent_id, points(metrics, step=0), params, tags)
            self._parent_params.update(params)
            self._parent_tags.update(tags)
            self._parent_metrics.update(metrics)

    def describe_parent(self, text: str) -> None:
        """The parent run's description; one that somebody wrote stays as it is."""
        with tracking_errors(self.uri), self._records():
            tags = note_tags(text, self._parent_tags)
        self.log_parent(tags=tags)

    def replace_tags(self, prefix: str, values: Mapping[str, str]) -> None:
        """Let these be the parent run's only tags that begin with `prefix`.

        Args:
            prefix: such as `best.`.
            values: by the rest of the name.
        """
        tags = {f"{prefix}{key}": value for key, value in values.items()}
        self.log_parent(tags=tags)
        with tracking_errors(self.uri), self._records():
            old = [key for key in self._parent_tags if key.startswith(prefix) and key not in tags]
            for key in old:
                self._client.delete_tag(self.parent_id, key)
                del self._parent_tags[key]

    def log_inputs(self, datasets: Sequence[DatasetInput]) -> None:
        """The datasets of the study; its runs get them at the next `sync`, too."""
        self._inputs = list(datasets)
        with tracking_errors(self.uri), self._records():
            if not self._parent_has_inputs:
                self._client.log_inputs(self.parent_id, self._inputs)
                self._parent_has_inputs = True

    def log_image_grid(self, path: Path) -> bool:
        """Log a picture of synthetic images; returns whether it was allowed to."""
        return self.log_artifact_files([path], "images", holds_images=True)

    def log_artifact_files(
        self, paths: Iterable[Path], folder: str, holds_images: bool = False
    ) -> bool:
        """Log files under `folder` of the parent run.

        Args:
            paths: existing files.
            folder: in the parent run's artifacts.
            holds_images: they show synthetic images, or hold them as golden vectors do.

        Returns:
            Whether they were logged: images stay on this machine unless asked for.
        """
        if holds_images and not self.may_log_images:
            return False
        with tracking_errors(self.uri):
            for path in paths:
                self._client.log_artifact(self.parent_id, str(path), folder)
        return True

    def log_best_model(
        self,
        model: Any,
        input_example: np.ndarray,
        extra_files: Sequence[Path] = (),
        metrics: Mapping[str, float] | None = None,
        name: str = "best",
        params: Mapping[str, str] | None = None,
    ) -> str:
        """Log the exported student as an MLflow model of the parent run, ready to serve.

        A model that is already logged is not logged again.

        Args:
            model: the loaded `onnx.ModelProto`; one input, single file.
            input_example: (n, C, H, W) float32, RGB in [0, 1]; only its shape is used where
                images may not be logged.
            extra_files: copied next to the model.
            metrics: shown with the model, and with the parent run.
            name: of the model, cleaned of what MLflow does not take.
            params: shown with the model.

        Returns:
            `models:/ID`, for `mlflow.pyfunc.load_model` and `mlflow models serve`.
        """
        with tracking_errors(self.uri), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            description = save_model(
                model, path, self.parent_id, input_example, self.may_log_images, extra_files
            )
            tags = {"synq.study": self.study_id, "synq.sha256": sha256_file(path / "model.onnx")}
            told = model_name(name), tags, dict(params or {})
            logged = upload_model(self._client, self.experiment_id, description, path, *told)
            self._log_model_metrics(logged, metrics or {})
        return f"models:/{logged.model_id}"

    def _log_model_metrics(self, model: Any, metrics: Mapping[str, float]) -> None:
        """Those that the model has not; a driver may have died before it had them."""
        known = {metric.key: metric.value for metric in model.metrics or ()}
        rounded = {name: shown(name, value) for name, value in metrics.items()}
        of_model = points(changed(rounded, known), step=0, model_id=model.model_id)
        log_batch(self._client, self.parent_id, of_model, {}, {})
        self._parent_metrics.update(rounded)

    def register_best(self, model_uri: str, space: str, tags: Mapping[str, str]) -> str | None:
        """Make a logged model a version of the space's registered model; its alias names it then.

        Args:
            model_uri: what `log_best_model` returned.
            space: name of the study's space.
            tags: of a new version, besides the study's id and the file's SHA-256.

        Returns:
            `NAME/VERSION`, which is served as `models:/NAME/VERSION`; None without a registry.
        """
        name = registered_name(space)
        with tracking_errors(self.uri):
            model = self._client.get_logged_model(model_uri.removeprefix("models:/"))
            own = {key: model.tags[key] for key in ("synq.study", "synq.sha256")}
            version = register(self._client, name, model, {**own, **tags})
        return None if version is None else f"{name}/{version}"

    def has_model(self, model_uri: str, version: str | None) -> bool:
        """Whether a model that was logged, and its version if it got one, are still there.

        Args:
            model_uri: what `log_best_model` returned.
            version: what `register_best` returned.
        """
        with tracking_errors(self.uri):
            return is_there(self._client, model_uri, version)

    def finish(self, status: str = "FINISHED") -> None:
        """End the parent run with MLflow's status FINISHED, FAILED or KILLED."""
        if status == self._parent_status:
            return
        with tracking_errors(self.uri):
            self._client.set_terminated(self.parent_id, status)
        self._parent_status = status

    @contextlib.contextmanager
    def _records(self) -> Iterator[dict[str, Child]]:
        """The children by key; after a failure they are read from MLflow again.

        A request may have succeeded although its answer was lost.
        """
        if self._children is None:
            self._read_back()
        children, self._children = self._children, None
        assert children is not None
        yield children
        self._children = children

    def _read_back(self) -> None:
        """Read what MLflow holds of the study; create the parent run if there is none."""
        runs = list(self._search())
        parents = [r for r in runs if r.data.tags.get("synq.kind") == "study"]
        parent = parents[0] if parents else self._create_parent()
        self.parent_id, self._parent_status = parent.info.run_id, parent.info.status
        self._parent_params = set(parent.data.params)
        self._parent_tags = dict(parent.data.tags)
        self._parent_metrics = dict(parent.data.metrics)
        self._parent_has_inputs = bool(parent.inputs and parent.inputs.dataset_inputs)
        self._children = {
            r.data.tags["synq.key"]: Child.from_mlflow(r)
            for r in runs
            if r.data.tags.get("mlflow.parentRunId") == self.parent_id
        }

    def _search(self) -> Iterator[Any]:
        return runs_of(self._client, self.experiment_id, self.study_id)

    def _create_parent(self) -> Any:
        tags = {"synq.study": self.study_id, "synq.kind": "study"}
        return self._client.create_run(self.experiment_id, tags=tags, run_name=self.study_dir.name)

    def _create_child(self, run: Run, spec: StudySpec) -> Child:
        tags = {
            "mlflow.parentRunId": self.parent_id,
            "synq.study": self.study_id,
            "synq.key": run.key,
            "synq.kind": run.kind,
            **({"synq.label": run.label[:MAX_TAG_LENGTH]} if run.label else {}),
            NOTE: run_sentence(spec, run),
        }
        created = self._client.create_run(
            self.experiment_id, milliseconds(run.started_at), tags, run_name=run.key
        )
        return Child(created.info.run_id)

    def _sync_run(self, run: Run, state: StudyState, children: dict[str, Child]) -> None:
        child, is_best = children.get(run.key), is_of_best(run, state)
        if child is None:
            child = children[run.key] = self._create_child(run, state.spec)
        if not child.shows(run, is_best):
            self._set_status(run, child)
            self._log_run(run, child, is_best)
        if self._inputs and not child.has_inputs:
            self._client.log_inputs(child.run_id, self._inputs)
            child.has_inputs = True

    def _set_status(self, run: Run, child: Child) -> None:
        """Before the metrics: their batch carries the state that says all is logged."""
        status = STATUSES[run.state]
        if self._parent_status != "RUNNING":
            self._client.update_run(self.parent_id, "RUNNING")
            self._parent_status = "RUNNING"
        if status == child.status:
            return
        if status == "RUNNING":
            self._client.update_run(child.run_id, status)
        else:
            end = milliseconds(run.finished_at)
            self._client.set_terminated(child.run_id, status, end)
        child.status = status

    def _log_run(self, run: Run, child: Child, is_best: bool) -> None:
        logged = child.logged.after(run.history)
        missing = child.logged.missing(run.history)
        metrics = [m for e in missing for m in epoch_points(e, run.moments[e["epoch"]][0])]
        metrics += final_points(run, logged.last_step)
        params = {} if child.has_params else run_params(run)
        tags = {"synq.state": run.state, STATE: run.state, "synq.logged": str(logged)}
        if is_best:
            tags[BEST] = "yes"
        elif child.is_best:
            self._client.delete_tag(child.run_id, BEST)
        if run.error:
            tags["synq.error"] = redact_uri(run.error)
        log_batch(self._client, child.run_id, metrics, params, tags)
        child.state, child.logged, child.has_params = run.state, logged, True
        child.is_best = is_best
