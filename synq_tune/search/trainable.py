"""The Ray side of a trial: one worker process, used again for trial after trial."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from ray import tune
from safetensors.torch import save_file
from torch import nn

from synq_tune.config import FineTune, StudySpec
from synq_tune.errors import NonFiniteLossError
from synq_tune.evaluation import top1
from synq_tune.recipes.merge import with_recipe
from synq_tune.search.sources import receive
from synq_tune.store import atomic_path, sha256_file
from synq_tune.trial import Assets, Trial, choose_device, load_assets

_ASSETS: dict[str, Assets] = {}
"""Loaded once per worker process and study, by the study's folder."""


def run_config(spec: StudySpec, kind: str, params: dict[str, Any]) -> FineTune:
    """Training settings of a run: a rung of the ladder names a recipe instead of parameters."""
    if kind == "ladder":
        return with_recipe(spec, params["recipe"]).finetune
    return spec.trial_config(params)


def checkpoint_path(folder: Path, key: str) -> Path:
    """Where the student of a finished run is kept."""
    return folder / "checkpoints" / f"{key}.safetensors"


def save_student(student: nn.Module, path: Path) -> str:
    """Write a student's parameters and grids; returns the file's SHA-256."""
    with atomic_path(path) as temporary:
        state = student.state_dict()
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary)
    return sha256_file(path)


class TrialWorker(tune.Trainable):
    """Steps from one evaluated epoch to the next; `reset_config` starts another run in place."""

    def setup(self, config: dict[str, Any], context: dict[str, Any]) -> None:
        """Load the study's assets, once per process.

        Args:
            config: {"run": {key, kind, params, seed}}.
            context: {spec, dataset, store, folder, threads, sources}, plain values.
        """
        torch.set_num_threads(context["threads"])
        receive(context["sources"])
        self.context = context
        self.folder = Path(context["folder"])
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another run in this process."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        self.run_info = config["run"]
        self.started = time.monotonic()
        self.trial: Trial | None = None

    def _assets(self) -> Assets:
        key = str(self.folder)
        if key not in _ASSETS:
            spec = StudySpec.model_validate(self.context["spec"])
            paths = (Path(self.context["dataset"]), Path(self.context["store"]))
            _ASSETS[key] = load_assets(spec, *paths, choose_device())
        return _ASSETS[key]

    def _begin(self) -> None:
        assets, run = self._assets(), self.run_info
        config = run_config(assets.spec, run["kind"], run["params"])
        self.trial = Trial(assets, config, run["seed"])
        self.epochs = self.trial.run()

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluated epoch and report it."""
        if self.trial is None:
            self._begin()
        assets = self._assets()
        try:
            row = next(self.epochs)
        except NonFiniteLossError as error:
            return {"state": "diverged", "error": str(error), **self._clock(), "done": True}
        result = {
            "epoch": row.epoch,
            "metrics": row.metrics,
            "losses": row.losses,
            "partial": assets.is_partial(row.epoch == self.trial.config.epochs),
            "objective": row.metrics[self.context["metric"]],
            **self._clock(),
        }
        if row.epoch == self.trial.config.epochs:
            result |= {"state": "completed", "done": True, **self._finish()}
        return result

    def _clock(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self.started}

    def _finish(self) -> dict[str, Any]:
        """Keep a search trial's student; measure the others on the reporting half."""
        if self.run_info["kind"] == "search":
            path = checkpoint_path(self.folder, self.run_info["key"])
            return {"checkpoint_sha256": save_student(self.trial.student, path)}
        assets = self._assets()
        if assets.report is None:
            return {}
        preprocessing = assets.teacher.preprocessing
        value = top1(self.trial.student, assets.report, preprocessing, assets.device)
        return {"report_top1": value}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: the ledger is the only state (Tune insists on the method)."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, see `save_checkpoint`."""
