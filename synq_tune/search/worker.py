"""The Ray side of a trial: one worker process, used again for trial after trial."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray
import torch

from synq_tune.config import StudySpec
from synq_tune.config.load import with_recipe
from synq_tune.config.metrics import objective
from synq_tune.errors import NonFiniteError, stage
from synq_tune.finetune.divergence import diverges_at
from synq_tune.finetune.loop import EpochMetrics
from synq_tune.finetune.training_state import about, tensor_bytes
from synq_tune.models.shared_teacher import check_identity, with_shared
from synq_tune.process.allocator import keep_freed_memory
from synq_tune.search import gpu_sharing
from synq_tune.search.environment import check_this_machine
from synq_tune.search.own_code_copies import receive
from synq_tune.search.payload import Payload
from synq_tune.search.reused_worker import ReusedWorker
from synq_tune.search.transfer import FileManifest, fetch_missing
from synq_tune.search.worker_folder import go_to, naming_missing_folder
from synq_tune.trial.assets import Assets, choose_device, load_assets
from synq_tune.trial.evaluation import top1
from synq_tune.trial.trial import Trial

KEEP_SECONDS = 60.0
"""Longest time without a checkpoint where `checkpoint_every` is `auto`, but for the epoch's rest and
for `KEEP_RATE`."""
KEEP_RATE = 100e6
"""Bytes a second that all trials together send to the driver as checkpoints, at most: it sums and
writes each, while all others wait."""

_ASSETS: dict[str, Assets] = {}
"""Loaded once per worker process and study, by the study's folder."""


def run_spec(spec: StudySpec, kind: str, params: dict[str, Any]) -> StudySpec:
    """The settings of a run: a rung of the ladder names a recipe instead of parameters."""
    return with_recipe(spec, params["recipe"]) if kind == "ladder" else spec.of_trial(params)


def keep_seconds(places: int, state_bytes: int) -> float:
    """Longest time without a checkpoint, in seconds.

    Args:
        places: trials at once.
        state_bytes: of a trial's last checkpoint; 0 before there was one.
    """
    return max(KEEP_SECONDS, places * state_bytes / KEEP_RATE)


def load_study(context: dict[str, Any]) -> Assets:
    """The study's assets on this machine, whether or not it has the driver's files."""
    spec = StudySpec.model_validate(context["spec"])
    dataset, store = Path(context["dataset"]), Path(context["store"])
    rest = (choose_device(), context["labelled"])
    manifest: FileManifest | None = context["manifest"]
    if manifest is None:
        return load_assets(spec, dataset, store, *rest)
    check_this_machine(context["facts"])
    here = fetch_missing(manifest)
    if manifest.teacher is not None and not manifest.is_from_here:
        shared = with_shared(spec.teacher, here / manifest.teacher)
        spec = spec.model_copy(update={"teacher": shared})
    assets = load_assets(spec, here / dataset.relative_to(store), here, *rest)
    check_identity(assets.teacher, manifest.teacher_identity)
    return assets


class TrialWorker(ReusedWorker):
    """Steps from one evaluated epoch to the next; `take` starts another run in place."""

    def setup(self, config: dict[str, Any], context: dict[str, Any]) -> None:
        """Load the study's assets, once per process.

        Args:
            config: {"run": {key, kind, params, seed, epoch, state}}; `state` is None, or refers to
                the bytes of the training state after `epoch` epochs.
            context: {spec, dataset, store, folder, cwd, metric, threads, places, sources, labelled,
                manifest, facts}, plain values.
        """
        keep_freed_memory()
        torch.set_num_threads(context["threads"])
        receive(context["sources"])
        go_to(context["cwd"])
        self.context = context
        self.folder = Path(context["folder"])
        self.take(config["run"])

    def take(self, run: dict[str, Any]) -> None:
        """Take a run; it starts at the first step."""
        self.run_info = run
        self.started = self.kept_at = time.monotonic()
        self.seconds_before, self.state_bytes = 0.0, 0
        self.trial: Trial | None = None

    def _assets(self) -> Assets:
        key = str(self.folder)
        if key not in _ASSETS:
            with naming_missing_folder(self.context["cwd"]):
                _ASSETS[key] = load_study(self.context)
        return _ASSETS[key]

    def _begin(self) -> None:
        gpu_sharing.forget_peak()
        assets, run = self._assets(), self.run_info
        spec = run_spec(assets.spec, run["kind"], run["params"])
        start = None if run["state"] is None else ray.get(run["state"])
        if start is not None:
            self.seconds_before = about(start)["seconds"]
        self.trial = Trial(
            assets, spec.finetune, run["seed"], reconstruct=spec.reconstruct, bits=spec.bits
        )
        self.epochs = self.trial.run(start, self._is_due)

    def _is_due(self, epoch: int) -> bool:
        """Whether the state is kept after an epoch that is not evaluated."""
        every = self._assets().spec.study.checkpoint_every
        if every == "auto":
            least = keep_seconds(self.context["places"], self.state_bytes)
            return time.monotonic() - self.kept_at > least
        return epoch % every == 0

    def step(self) -> dict[str, Any]:
        """Train up to the next epoch that is evaluated or kept, and report it.

        Raises:
            ForeignError: a library or the user's code raised; its text reaches the driver whole.
                Memory that a GPU's other trials took is for the driver to judge.
        """
        with stage(self.run_info["key"], passes=(torch.OutOfMemoryError,)):
            try:
                return self._step()
            except NonFiniteError as error:
                return {"state": "diverged", "error": str(error), **self._clock(), "done": True}

    def _step(self) -> dict[str, Any]:
        if self.trial is None:
            self._begin()
        row = next(self.epochs)
        result = {"epoch": row.epoch, **self._measured(row), **self._clock()}
        result |= {"position": row.position} if row.position else {}
        result["gpu"] = gpu_sharing.peak()
        if row.is_last:
            return result | {"state": "completed", "done": True, **self._finish()}
        self.kept_at = time.monotonic()
        state = self.trial.state(**self._clock())
        self.state_bytes = len(state)
        return result | {"payload": Payload(state)}

    def _measured(self, row: EpochMetrics) -> dict[str, Any]:
        """What an evaluated epoch reports; nothing of one that is only kept."""
        if not row.metrics:
            return {}
        return {
            "metrics": row.metrics,
            "losses": row.losses,
            "earlier": {
                str(epoch): losses for epoch, losses in row.earlier.items()
            },  # as JSON has it
            "partial": self._assets().is_partial(row.is_last),
            "objective": objective(row.metrics, self.context["metric"]),
        }

    def _clock(self) -> dict[str, float]:
        return {"seconds": self.seconds_before + time.monotonic() - self.started}

    def _finish(self) -> dict[str, Any]:
        """Send a search trial's student; measure the others on the images that only report."""
        if self.run_info["kind"] == "search":
            return {"payload": Payload(tensor_bytes(self.trial.student.state_dict()))}
        with diverges_at(self.trial.config.epochs, self.trial.config):
            return self._reported()

    def _reported(self) -> dict[str, Any]:
        """Accuracies on the images that only report."""
        assets, student, found = self._assets(), self.trial.student, {}
        if assets.report is not None:
            preprocessing = assets.teacher.preprocessing
            found["report_top1"] = top1(student, assets.report, preprocessing, assets.device)
        if self.run_info["kind"] == "ladder":
            compared = assets.report_probes.compare(student, assets.device)
            found["report_agreement"] = compared["agreement"]
        return found
