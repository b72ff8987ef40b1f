"""A study in MLflow: one parent run, and one child run per run of the ledger.

MLflow is a projection. The driver process alone writes it, in batches, from the ledger's state;
what MLflow already holds is read back when a study is opened again, so nothing is logged twice, and
a lost store can be filled again from the ledger. No telemetry, no pickle, no fluent (global) run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synq_tune import __version__
from synq_tune.config import StudySpec
from synq_tune.errors import InputError, lookup
from synq_tune.store import atomic_path, file_lock, sha256_file
from synq_tune.study.objective import mode_of
from synq_tune.study.redact import redact_uri
from synq_tune.study.state import Run, StudyState

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "synq-tune"
UI_ADDRESS = "http://127.0.0.1:5000"
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
STATUSES = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
"""MLflow's status of a run by the ledger's state."""

MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 5000
# MLflow refuses a request of more than 1000 metrics, 100 params or 1000 of all together.
METRICS_PER_BATCH = 800
PARAMS_PER_BATCH = 90

_FORCED_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # It would print the address of a run, credentials included.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_DEFAULT_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow's own (7 retries, 120 s each) would hold the driver for minutes when a server is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class TrackingError(RuntimeError):
    """MLflow could not be read or written; the ledger is whole and the study can go on."""


def default_tracking_uri(study_dir: Path) -> str:
    """One SQLite file beside the study folders, so that all studies show in one UI."""
    return f"sqlite:///{study_dir.resolve().parent / 'mlflow.db'}"


def resolve_tracking_uri(uri: str) -> str:
    """Check `uri` without MLflow, and make the path of a SQLite file absolute.

    Raises:
        InputError: it names no database and no tracking server.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme == "databricks" or (separator and scheme.partition("+")[0] in SCHEMES):
        is_relative = scheme.startswith("sqlite") and not rest.startswith("//")
        return f"{scheme}:///{Path(rest.lstrip('/')).absolute()}" if is_relative else uri
    raise InputError(
        f"`the tracking URI starts with one of {', '.join(f'{s}://' for s in SCHEMES)}` must hold, "
        f"but got {redact_uri(uri)!r}. For a file on this machine use sqlite:////path/to/mlflow.db."
    )


def is_server(uri: str) -> bool:
    """Whether `uri` is a tracking server, as opposed to a database this process writes itself."""
    return uri.startswith(("http://", "https://", "databricks"))


def is_local(uri: str) -> bool:
    """Whether what is logged to `uri` stays on this machine's disk."""
    return uri.startswith(("sqlite:", "file:"))


def ui_command(uri: str) -> str:
    """The command that shows `uri` in a browser; for a server, which needs none, its address."""
    shown = redact_uri(uri)
    return shown if is_server(uri) else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def study_page(tracker: Tracker) -> str:
    """Address of the table of the study's trials, best first, with accuracies and params.

    Opens once `ui_command` runs (its default host and port), or on the tracking server itself.
    """
    runs = f"{_web_address(tracker.uri)}/#/experiments/{tracker.experiment_id}/runs"
    return f"{runs}?workflowType=machine_learning&viewStateShareKey={tracker.study_id}"


def parent_page(tracker: Tracker) -> str:
    """Address of the page of the study itself: its settings, images, model and child runs."""
    runs = f"{_web_address(tracker.uri)}/#/experiments/{tracker.experiment_id}/runs"
    return f"{runs}/{tracker.parent_id}?workflowType=machine_learning"


def _web_address(uri: str) -> str:
    return redact_uri(uri).rstrip("/") if uri.startswith("http") else UI_ADDRESS


def study_params(spec: StudySpec) -> dict[str, str]:
    """The spec as MLflow params: `section.field` → text; a searched field → its domain."""
    params: dict[str, str] = {}
    for key, value in spec.model_dump(mode="json", by_alias=True).items():
        fields = {key: value} if not isinstance(value, dict) else _prefixed(key, value)
        params.update({name: _text(value) for name, value in fields.items()})
    return params


def _prefixed(section: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    if section == "search":
        fields = {k: {f: v for f, v in d.items() if v} for k, d in fields.items()}
    return {f"{section}.{key}": value for key, value in fields.items()}


def study_tags(spec: StudySpec, metric: str, dataset: str = "") -> dict[str, str]:
    """What to find a study by.

    Args:
        spec: of the study.
        metric: the resolved one, `top1`, `agreement` or `holdout_kl`.
        dataset: SHA-256 of the synthetic dataset.
    """
    tags = {
        "teacher": spec.teacher.model,
        "bits": f"W{spec.bits.weights}A{spec.bits.activations}",
        "recipe": spec.recipe,
        "space": spec.name,
        "quantizer": spec.quantizer,
        "metric": metric,
        # A param cannot change, but a resumed study may have more trials than it began with.
        "num_trials": str(spec.study.num_trials),
        "synq_tune.version": __version__,
    }
    return {**tags, "dataset": dataset} if dataset else tags


def _trials_view(spec: StudySpec, parent_id: str) -> dict[str, Any]:
    """What MLflow's "share view" stores in a tag of the experiment: filter, order and columns.

    Filter and order could be part of an address, but the columns could not, and MLflow shows no
    metric unless told to.
    """
    unasked = "top1" if spec.study.val_data else "agreement"
    metric = unasked if spec.study.metric == "auto" else spec.study.metric
    trials = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.`synq.kind` = 'search'"
    shown = ("top1", "agreement", *(() if metric in ("top1", "agreement") else (metric,)))
    columns = ["attributes.`Duration`", *(f"metrics.`{name}`" for name in shown)]
    return {
        "searchFilter": trials,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": mode_of(metric) == "min",
        "selectedColumns": [*columns, *(f"params.`{key}`" for key in spec.search)],
    }


def _text(value: Any) -> str:
    return redact_uri(value if isinstance(value, str) else json.dumps(value))


@dataclass(frozen=True)
class _Logged:
    """How much of a run's history MLflow holds; kept in a tag of the child run.

    A run that was killed goes through its last epochs again, as a rule with the same numbers. Until its
    history is as long as what is logged, nothing is; then the digest tells whether it is the same.
    """

    entries: int = 0
    last_step: int = -1
    """Highest step of any attempt."""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> _Logged:
        entries, last_step, digest = text.split(":")
        return cls(int(entries), int(last_step), digest)

    def __str__(self) -> str:
        return f"{self.entries}:{self.last_step}:{self.digest}"

    def missing(self, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Entries of `history` not logged yet."""
        if len(history) < self.entries:
            return []
        is_same = self.digest == _digest(history[: self.entries])
        return history[self.entries :] if is_same else history

    def after(self, history: list[dict[str, Any]]) -> _Logged:
        """The record once all of `history` is logged."""
        if len(history) < max(1, self.entries):
            return self
        last_step = max([self.last_step, *(entry["epoch"] for entry in history)])
        return _Logged(len(history), last_step, _digest(history))


def _digest(history: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(history, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class _Child:
    """What MLflow holds of one run."""

    run_id: str
    status: str = "RUNNING"
    state: str = ""
    has_params: bool = False
    logged: _Logged = _Logged()

    @classmethod
    def from_mlflow(cls, run: Any) -> _Child:
        tags = run.data.tags
        logged = _Logged.parse(tags["synq.logged"]) if "synq.logged" in tags else _Logged()
        state = tags.get("synq.state", "")
        return cls(run.info.run_id, run.info.status, state, bool(run.data.params), logged)

    def shows(self, run: Run) -> bool:
        """Whether MLflow is up to date with `run`."""
        if self.state != run.state or self.status != STATUSES[run.state]:
            return False
        return run.is_final or not self.logged.missing(run.history)


@contextlib.contextmanager
def _tracking_errors(uri: str) -> Iterator[None]:
    """Turn every failure of MLflow's store, network or files into a TrackingError."""
    _prepare_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = redact_uri(" ".join(str(error).split()))
        # Not chained: the original message quotes the address with its credentials.
        raise TrackingError(f"MLflow at {redact_uri(uri)}: {reason}") from None


def _prepare_mlflow() -> None:
    """Set what MLflow reads while it is imported, and silence its first use of a database."""
    os.environ.update(_FORCED_ENVIRONMENT)
    for key, value in _DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)


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
        self._children: dict[str, _Child] | None = None

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
        study_id = _study_id(state, study_dir)
        tracker = cls(resolve_tracking_uri(uri), study_dir, study_id, upload_images)
        with _tracking_errors(tracker.uri), tracker._first_use_lock():
            from mlflow import MlflowClient

            tracker._make_database()
            tracker._client = MlflowClient(tracker.uri, registry_uri=tracker.uri)
            tracker.experiment_id = tracker._find_or_create_experiment()
            tracker._read_back()
            view = json.dumps(_trials_view(state.spec, tracker.parent_id))
            key = f"mlflow.sharedViewState.{study_id}"
            tracker._client.set_experiment_tag(tracker.experiment_id, key, view)
        return tracker

    @classmethod
    def find(cls, uri: str, study_dir: Path, state: StudyState) -> Tracker | None:
        """The study as MLflow has it, for looking only; None if the store or the study is not there.

        Raises:
            InputError: `uri` is not one.
            TrackingError: MLflow cannot be reached or used.
        """
        tracker = cls(
            resolve_tracking_uri(uri), study_dir.resolve(), _study_id(state, study_dir), False
        )
        if tracker.uri.startswith("sqlite") and not tracker._sqlite_path().exists():
            return None
        with _tracking_errors(tracker.uri):
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
        with _tracking_errors(self.uri):
            return [
                {
                    "id": r.info.run_id, "key": r.data.tags["synq.key"], "status": r.info.status,
                    "parent": r.data.tags.get("mlflow.parentRunId"),
                    "state": r.data.tags.get("synq.state", ""), "metrics": dict(r.data.metrics),
                }
                for r in self._search()
                if "synq.key" in r.data.tags
            ]  # fmt: skip

    def delete_run(self, run_id: str) -> None:
        """Take a run out of the study; MLflow keeps it among its deleted ones."""
        with _tracking_errors(self.uri):
            self._client.delete_run(run_id)

    @property
    def may_log_images(self) -> bool:
        """Whether synthetic images, which resemble the private training data, may be logged."""
        return self.upload_images or is_local(self.uri)

    def sync(self, state: StudyState) -> None:
        """Bring MLflow up to `state`; costs nothing when there is nothing new."""
        with _tracking_errors(self.uri), self._records() as children:
            for run in state.runs.values():
                if not _is_waiting(run):
                    self._sync_run(run, children)

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
        with _tracking_errors(self.uri), self._records():
            params = {k: v for k, v in (params or {}).items() if k not in self._parent_params}
            tags = _changed(tags or {}, self._parent_tags)
            metrics = _changed(metrics or {}, self._parent_metrics)
            self._log_batch(self.parent_id, _points(metrics, step=0), params, tags)
            self._parent_params.update(params)
            self._parent_tags.update(tags)
            self._parent_metrics.update(metrics)

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
        with _tracking_errors(self.uri):
            for path in paths:
                self._client.log_artifact(self.parent_id, str(path), folder)
        return True

    def log_best_model(
        self,
        model: Any,
        input_example: np.ndarray,
        extra_files: Sequence[Path] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        """Log the exported student as an MLflow model of the parent run, ready to serve.

        A model that is already logged is not logged again.

        Args:
            model: the loaded `onnx.ModelProto`; one input, single file.
            input_example: (n, C, H, W) float32, RGB in [0, 1]; only its shape is used where
                images may not be logged.
            extra_files: copied next to the model.
            metrics: shown with the model.

        Returns:
            `models:/ID`, for `mlflow.pyfunc.load_model` and `mlflow models serve`.
        """
        with _tracking_errors(self.uri), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            description = self._save_model(model, input_example, extra_files, path)
            sha256 = sha256_file(path / "model.onnx")
            model_id = self._logged_model(sha256)
            if model_id is None:
                model_id = self._upload_model(description, path, sha256)
                points = _points(metrics or {}, step=0, model_id=model_id)
                self._log_batch(self.parent_id, points, {}, {})
        return f"models:/{model_id}"

    def finish(self, status: str = "FINISHED") -> None:
        """End the parent run with MLflow's status FINISHED, FAILED or KILLED."""
        if status == self._parent_status:
            return
        with _tracking_errors(self.uri):
            self._client.set_terminated(self.parent_id, status)
        self._parent_status = status

    @contextlib.contextmanager
    def _first_use_lock(self) -> Iterator[None]:
        """One process at a time creates a database: MLflow's migrations cannot run side by side."""
        if not self.uri.startswith("sqlite"):
            yield
            return
        path = self._sqlite_path()
        with file_lock(path.with_name(path.name + ".lock")):
            yield

    def _make_database(self) -> None:
        """Make a new SQLite file aside, then rename it: MLflow cannot go on from half a migration."""
        from mlflow import MlflowClient

        if not self.uri.startswith("sqlite") or self._sqlite_path().exists():
            return
        with atomic_path(self._sqlite_path()) as temporary:
            uri = f"sqlite:///{temporary}"
            MlflowClient(uri, registry_uri=uri).search_experiments()

    def _sqlite_path(self) -> Path:
        return Path(self.uri.partition(":///")[2].partition("?")[0])

    def _find_or_create_experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return self._client.create_experiment(EXPERIMENT, self._artifact_location())
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _artifact_location(self) -> str | None:
        """Beside the database; a server has its own. MLflow's default depends on the cwd."""
        if is_server(self.uri):
            return None
        beside = self._sqlite_path() if self.uri.startswith("sqlite") else self.study_dir
        return (beside.parent / "mlartifacts").as_uri()

    @contextlib.contextmanager
    def _records(self) -> Iterator[dict[str, _Child]]:
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
        self._children = {
            r.data.tags["synq.key"]: _Child.from_mlflow(r)
            for r in runs
            if r.data.tags.get("mlflow.parentRunId") == self.parent_id
        }

    def _search(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                f"tags.`synq.study` = '{self.study_id}'",
                max_results=1000,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _create_parent(self) -> Any:
        tags = {"synq.study": self.study_id, "synq.kind": "study"}
        return self._client.create_run(self.experiment_id, tags=tags, run_name=self.study_dir.name)

    def _create_child(self, run: Run) -> _Child:
        tags = {
            "mlflow.parentRunId": self.parent_id,
            "synq.study": self.study_id,
            "synq.key": run.key,
            "synq.kind": run.kind,
            **({"synq.label": run.label[:MAX_TAG_LENGTH]} if run.label else {}),
        }
        created = self._client.create_run(
            self.experiment_id, _milliseconds(run.started_at), tags, run_name=run.key
        )
        return _Child(created.info.run_id)

    def _sync_run(self, run: Run, children: dict[str, _Child]) -> None:
        child = children.get(run.key)
        if child is None:
            child = children[run.key] = self._create_child(run)
        if not child.shows(run):
            self._set_status(run, child)
            self._log_run(run, child)

    def _set_status(self, run: Run, child: _Child) -> None:
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
            end = _milliseconds(run.finished_at)
            self._client.set_terminated(child.run_id, status, end)
        child.status = status

    def _log_run(self, run: Run, child: _Child) -> None:
        logged = child.logged.after(run.history)
        metrics = [m for e in child.logged.missing(run.history) for m in _epoch_points(e)]
        metrics += _final_points(run, logged.last_step)
        params = {} if child.has_params else _run_params(run)
        tags = {"synq.state": run.state, "synq.logged": str(logged)}
        if run.error:
            tags["synq.error"] = redact_uri(run.error)
        self._log_batch(child.run_id, metrics, params, tags)
        child.state, child.logged, child.has_params = run.state, logged, True

    def _log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> None:
        """As few requests as MLflow's limits allow; the tags go with the last one."""
        from mlflow.entities import Param, RunTag

        values = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in params.items()]
        labels = [RunTag(key, value[:MAX_TAG_LENGTH]) for key, value in tags.items()]
        requests = list(
            zip_longest(
                _chunks(metrics, METRICS_PER_BATCH), _chunks(values, PARAMS_PER_BATCH), fillvalue=[]
            )
        )
        if labels and not requests:
            requests = [([], [])]
        for number, (some_metrics, some_params) in enumerate(requests, start=1):
            some_tags = labels if number == len(requests) else []
            self._client.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)

    def _save_model(
        self, model: Any, input_example: np.ndarray, extra_files: Sequence[Path], path: Path
    ) -> Any:
        """Write an MLflow model folder; nothing is inferred from a run of it or downloaded."""
        import mlflow.onnx
        from mlflow.models import Model

        description = Model(run_id=self.parent_id)
        mlflow.onnx.save_model(
            model,
            path,
            mlflow_model=description,
            signature=_signature(model, input_example),
            input_example=input_example if self.may_log_images else None,
            pip_requirements=_requirements(),
            # MLflow's default names CUDA first, which warns on every load without a GPU.
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            extra_files=[str(file) for file in extra_files] or None,
        )
        return description

    def _logged_model(self, sha256: str) -> str | None:
        found = self._client.search_logged_models(
            [self.experiment_id], f"source_run_id = '{self.parent_id}'"
        )
        same = (m for m in found if m.tags.get("synq.sha256") == sha256 and m.status == "READY")
        return next((m.model_id for m in same), None)

    def _upload_model(self, description: Any, path: Path, sha256: str) -> str:
        from mlflow.entities import LoggedModelOutput

        tags = {"synq.study": self.study_id, "synq.sha256": sha256}
        logged = self._client.create_logged_model(
            self.experiment_id, "best", self.parent_id, tags, model_type="onnx"
        )
        description.model_id = description.model_uuid = logged.model_id
        description.artifact_path = logged.artifact_location
        description.save(str(path / "MLmodel"))
        self._client.log_model_artifacts(logged.model_id, str(path))
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(self.parent_id, [LoggedModelOutput(logged.model_id, step=0)])
        return logged.model_id


def _study_id(state: StudyState, study_dir: Path) -> str:
    """The study's identity, which stands in search filters, tag names and addresses."""
    return re.sub(r"[^\w.-]", "_", str(state.header.get("id") or study_dir.resolve().name))


def _is_waiting(run: Run) -> bool:
    return run.state == "running" and run.started_at is None


def _milliseconds(seconds: float | None) -> int:
    return int(1000 * (time.time() if seconds is None else seconds))


def _changed(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in new.items() if key not in old or old[key] != value}


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _points(metrics: Mapping[str, float], step: int, model_id: str | None = None) -> list[Metric]:
    from mlflow.entities import Metric

    now = _milliseconds(None)
    return [Metric(k, float(v), now, step, model_id=model_id) for k, v in metrics.items()]


def _epoch_points(entry: Mapping[str, Any]) -> list[Metric]:
    losses = {f"loss/{name}": value for name, value in (entry.get("losses") or {}).items()}
    return _points({**entry["metrics"], **losses}, entry["epoch"])


def _final_points(run: Run, last_step: int) -> list[Metric]:
    """The final metrics that MLflow does not show already as the latest ones.

    They go to the highest step of all attempts, because MLflow sorts by the value of the last step.
    """
    if not run.is_final:
        return []
    last = run.history[-1] if run.history else {"epoch": None, "metrics": {}}
    shown = last["metrics"] if last["epoch"] == last_step else {}
    step = max(last_step, run.epochs_run if last_step < 0 else 0)
    return _points(_changed(run.metrics, shown), step)


def _run_params(run: Run) -> dict[str, str]:
    return {key: _text(value) for key, value in {**run.params, "seed": run.seed}.items()}


def _requirements() -> list[str]:
    """What a server of the model installs; written out, because MLflow would infer it by a run."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime", "numpy")]


def _signature(model: Any, input_example: np.ndarray) -> Any:
    """Any number of images in, logits by the graph's own output name out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    output = next(islice(model.graph.output, 1))
    classes = [d.dim_value or -1 for d in output.type.tensor_type.shape.dim][1:]
    images = TensorSpec(np.dtype(np.float32), (-1, *input_example.shape[1:]))
    logits = TensorSpec(np.dtype(np.float32), (-1, *classes), output.name)
    return ModelSignature(Schema([images]), Schema([logits]))


def download_exported(uri: str, run_id: str, format_: str, folder: Path) -> Path:
    """Fetch the exported model file of a study from MLflow.

    Args:
        uri: tracking store.
        run_id: the study's run, or one of its trials'.
        format_: key of `EXPORTERS`.
        folder: gets the file.

    Raises:
        InputError: `uri` is not one, or the run has no exported model.
        TrackingError: MLflow cannot be reached or used.
    """
    from synq_tune.export import FILE_NAMES

    uri = resolve_tracking_uri(uri)
    name = FILE_NAMES[lookup("format", format_, FILE_NAMES)]
    _prepare_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = MlflowClient(uri, registry_uri=uri)
    try:
        tags = client.get_run(run_id).data.tags
        study = tags.get("mlflow.parentRunId", run_id)
        # Not the client's own listing, which asks the global store for the study's logged model.
        place = client.get_run(study).info.artifact_uri
        artifacts = get_artifact_repository(place, tracking_uri=uri, registry_uri=uri)
        known = {file.path for file in artifacts.list_artifacts("best")}
    except MlflowException as error:
        raise InputError(
            f"`the run exists` must hold, but got run={run_id!r} in {redact_uri(uri)}: "
            f"{redact_uri(str(error))}."
        ) from None
    if f"best/{name}" not in known:
        raise InputError(
            f"`the run's study has an exported {name}` must hold, but run {run_id!r} has none."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _tracking_errors(uri):
        return Path(artifacts.download_artifacts(f"best/{name}", str(folder)))
