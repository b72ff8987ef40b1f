"""Runs a study on Ray Tune: workers reused, weak trials stopped, everything recorded."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler

from synq_tune.config import StudySpec
from synq_tune.data.labelled_cache import halves_path
from synq_tune.data.synthetic import dataset_files
from synq_tune.models.shared_teacher import identity, share_teacher
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.search.environment import environment_probe
from synq_tune.search.own_code_copies import Sources
from synq_tune.search.queue import RunQueue
from synq_tune.search.resources import Plan
from synq_tune.search.transfer import FileManifest, pack
from synq_tune.search.tune_adapter import LedgerCallback, LedgerSearcher, StopRequest
from synq_tune.study.files import ray_folders, ray_prefix
from synq_tune.study.ledger import Ledger

MAX_ROUNDS = 3


@dataclass(frozen=True)
class Work:
    """What `run_trials` needs."""

    ledger: Ledger
    queue: RunQueue
    stop: StopRequest
    context: dict[str, Any]
    """Plain values every worker gets: spec, dataset, store, folder, metric, sources, labelled."""
    plan: Callable[[], Plan]
    """How the cluster is divided; asked before each round, since it depends on what was
    measured."""
    listener: Callable[[str], None]
    """Told the key of a run after each of its transitions."""
    worker: type[tune.Trainable] | None = None
    """What runs a trial; None is `TrialWorker`."""


def _by_key(trial: Any) -> SimpleNamespace:
    return SimpleNamespace(trial_id=trial.config["run"].get("key", trial.trial_id))


def run_trials(work: Work, scheduler: Callable[[], TrialScheduler]) -> None:
    """Run everything the queue proposes, or stop at the stop request.

    A run whose worker died is tried again; one that never finishes stays `interrupted`.
    """
    # Tune would print the traceback of a failed run, credentials and all; the callback keeps it in
    # a log.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    left = MAX_ROUNDS
    while left:
        is_full = _run_round(work, scheduler())
        if work.stop.stop_all() or work.queue.is_done(work.ledger.state):
            return
        left -= not is_full


def _run_round(work: Work, scheduler: TrialScheduler) -> bool:
    """Whether there shall be another round: this one had its trials, or they did not fit on a
    GPU."""
    from synq_tune.search.worker import TrialWorker

    plan = work.plan()
    for left in ray_folders(work.ledger.state):  # by drivers of this study that were killed
        shutil.rmtree(left, ignore_errors=True)
    storage = tempfile.mkdtemp(prefix=ray_prefix(work.ledger.state))
    searcher = LedgerSearcher(work.ledger, work.queue, work.stop.stop_all, plan.round_trials)
    callback = LedgerCallback(work.ledger, work.listener, plan.trials_per_gpu, searcher.end)
    trainable = tune.with_resources(
        tune.with_parameters(
            work.worker or TrialWorker,
            context=work.context | {"threads": plan.threads, "places": plan.max_concurrent},
        ),
        {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial},
    )
    try:
        tune.Tuner(
            trainable,
            tune_config=_tune_config(plan, searcher, scheduler),
            run_config=tune.RunConfig(
                storage_path=storage,
                # Tune would write one on the worker's machine, where this folder need not be.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[callback],
                stop=work.stop,
                verbose=0,
            ),
        ).fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        gc.collect()  # Tune's trials are cycles, and Python seldom looks among so many objects
    return searcher.is_full


def _tune_config(
    plan: Plan, searcher: LedgerSearcher, scheduler: TrialScheduler
) -> tune.TuneConfig:
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,
        max_concurrent_trials=plan.max_concurrent,
        reuse_actors=True,
    )


def worker_context(
    spec: StudySpec,
    dataset: Path,
    store: Path,
    folder: Path,
    metric: str,
    sources: Sources,
    labelled: str | None,
    manifest: FileManifest | None = None,
) -> dict[str, Any]:
    """The plain values every worker gets in every round.

    Args:
        manifest: files for workers on other machines; None where there are none.
    """
    return {
        "spec": spec.model_dump(mode="json", by_alias=True),
        "dataset": str(dataset),
        "store": str(store),
        "folder": str(folder),
        "cwd": os.getcwd(),
        "metric": metric,
        "sources": sources.for_workers(),
        "labelled": labelled,
        "manifest": manifest,
        "facts": None if manifest is None else environment_probe()(),
    }


def manifest_of(
    teacher: LoadedTeacher, dataset: Path, store: Path, labelled: str | None
) -> FileManifest:
    """The files that workers of the joined cluster read: dataset, labelled images, teacher."""
    files = [*dataset_files(dataset), *([halves_path(labelled, store)] if labelled else [])]
    return pack(store, files, share_teacher(teacher, store), identity(teacher))
