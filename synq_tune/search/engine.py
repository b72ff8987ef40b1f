"""Runs a study on Ray Tune: workers reused, weak trials stopped, everything recorded."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Read when Ray is imported: no usage statistics, whatever else is asked for; no per-trial loggers,
# which pin every trial in the driver's memory; a result without an objective (a diverged trial) is
# not an error.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray._private import ray_constants, services
from ray.exceptions import AuthenticationError
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from synq_tune.config import StudySpec
from synq_tune.data.shared_halves import halves_path
from synq_tune.data.synthetic import dataset_files
from synq_tune.errors import InputError
from synq_tune.models.shared_teacher import identity, share_teacher
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.search.cargo import Cargo, pack
from synq_tune.search.feeders import Feeder
from synq_tune.search.nodes import check_nodes
from synq_tune.search.ordered_halving import OrderedHalving
from synq_tune.search.resources import Machine, Plan
from synq_tune.search.searcher import LedgerCallback, LedgerSearcher, StopRequest
from synq_tune.search.sources import Sources
from synq_tune.study.files import ray_folders, ray_prefix
from synq_tune.study.ledger import Ledger
from synq_tune.study.objective import objective
from synq_tune.study.state import Run, StudyState
from synq_tune.trial import REDUCTION_FACTOR, grace_epochs

MAX_ROUNDS = 3
_OBJECT_STORE_BYTES = 256 * 2**20
_STARTS = 3
_TOKEN = "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token."


@dataclass(frozen=True)
class Work:
    """What `run_trials` needs."""

    ledger: Ledger
    feeder: Feeder
    stop: StopRequest
    context: dict[str, Any]
    """Plain values every worker gets: spec, dataset, store, folder, metric, sources, labelled."""
    plan: Callable[[], Plan]
    """How the cluster is divided; asked before each round, since it depends on what was measured."""
    listener: Callable[[str], None]
    """Told the key of a run after each of its transitions."""
    worker: type[tune.Trainable] | None = None
    """What runs a trial; None is `TrialWorker`."""


@contextlib.contextmanager
def ray_cluster(address: str | None, py_modules: Sequence[str] = ()) -> Iterator[list[Machine]]:
    """Start Ray on this machine, or join the cluster at `address`; yields its machines.

    Args:
        address: a running cluster's, or None.
        py_modules: packages and modules of the user that a cluster's machines may not have.

    Raises:
        InputError: the cluster cannot be joined, or a machine of it does not run what this one does.
    """
    common: dict[str, Any] = {
        "log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False,
    }  # fmt: skip
    if address:
        shipped = {"runtime_env": {"py_modules": list(py_modules)}} if py_modules else {}
        _join(address, shipped)
    else:
        _start(common)
    try:
        if address:
            check_nodes()
        alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
        yield [(there.get("CPU", 0.0), there.get("GPU", 0.0)) for there in alive]
    finally:
        ray.shutdown()


def _start(common: dict[str, Any]) -> None:
    """Start Ray here; it gives itself 30 s, which on a busy machine may not be enough.

    What a failed start leaves running ends with this process.
    """
    for left in reversed(range(_STARTS)):
        try:
            # "local": by default Ray would join any cluster that runs on this machine.
            with _for_this_machine():
                ray.init("local", object_store_memory=_OBJECT_STORE_BYTES, **common)
            _hide_token()
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise
            print(f"Ray did not start, once more: {error}"[:200], file=sys.stderr)


@contextlib.contextmanager
def _for_this_machine() -> Iterator[None]:
    """Let Ray start for this machine alone; it has no settings of its own for these two.

    With 127.0.0.1 as its address, as it does by itself on macOS and Windows: otherwise its ports would be
    open to the network. And without its API server, which asks Azure, Google and AWS over the network
    whether this machine is theirs, even without a dashboard and with usage statistics switched off.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER, services.start_api_server
    ray_constants.ENABLE_RAY_CLUSTER = False
    services.start_api_server = lambda *arguments, **options: (
        None,
        None,
    )  # as after a failed start
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.start_api_server = before


def _hide_token() -> None:
    """Ray writes its token, with which code can be run in its workers, for everyone to read."""
    path = Path.home() / ".ray" / "auth_token"
    if path.is_file() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _join(address: str, shipped: dict[str, Any]) -> None:
    if address.startswith("ray://"):  # Ray Client: a driver outside, whose files nobody can read
        raise _not_joined(address, "run the driver on a machine of it, or with `ray job submit`.")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **shipped)
    except AuthenticationError as error:
        raise _not_joined(address, f"{error.message}. {_TOKEN}") from None
    except (ConnectionError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("Version mismatch"):
            raise  # Ray's own demand: the head's Python and Ray are this process's
        raise _not_joined(address, str(error.__cause__ or error)) from None


def _not_joined(address: str, reason: str) -> InputError:
    line = " ".join(reason.split())[-300:]
    return InputError(
        f"`the Ray cluster can be joined` must hold, but got --ray-address={address}: {line}"
    )


class SearchAsha(AsyncHyperBandScheduler):
    """ASHA over the search trials; repeats and rungs of the ladder always run to their end."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give a search trial its bracket."""
        if _is_searched(trial):
            super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a search trial below its rung's cut-off."""
        if not _is_searched(trial):
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget a search trial's bracket."""
        if _is_searched(trial):
            super().on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget a search trial's bracket."""
        if _is_searched(trial):
            super().on_trial_remove(tune_controller, trial)


def _is_searched(trial: Any) -> bool:
    return trial.config["run"]["kind"] == "search"


def make_scheduler(spec: StudySpec, state: StudyState, metric: str) -> TrialScheduler:
    """ASHA as it stood when the ledger was last written, or in logical time, or no early stopping."""
    epochs = spec.finetune.epochs
    if spec.study.scheduler == "none" or epochs < REDUCTION_FACTOR:
        return FIFOScheduler()
    if spec.study.deterministic is not None:
        return OrderedHalving(spec, state, metric)
    scheduler = SearchAsha(
        time_attr="epoch", metric="objective", mode="max", max_t=epochs,
        grace_period=grace_epochs(epochs), reduction_factor=REDUCTION_FACTOR,
        stop_last_trials=False,
    )  # fmt: skip
    for run in state.of_kind("search"):
        if run.is_final:
            _replay(scheduler, run, metric)
    return scheduler


def _replay(scheduler: TrialScheduler, run: Run, metric: str) -> None:
    """Let a fresh scheduler see what a finished run reported."""
    trial = SimpleNamespace(trial_id=run.key, config={"run": {"kind": run.kind}})
    scheduler.on_trial_add(None, trial)
    for row in run.history:
        result = {"epoch": row["epoch"], "objective": objective(row["metrics"], metric)}
        scheduler.on_trial_result(None, trial, result)


def run_trials(work: Work, scheduler: Callable[[], TrialScheduler]) -> None:
    """Run everything the feeder proposes, or stop at the stop request.

    A run whose worker died is tried again; one that never finishes stays `interrupted`.
    """
    left = MAX_ROUNDS
    while left:
        is_full = _run_round(work, scheduler())
        if work.stop.stop_all() or work.feeder.is_done(work.ledger.state):
            return
        left -= not is_full


def _run_round(work: Work, scheduler: TrialScheduler) -> bool:
    """Whether there shall be another round: this one had its trials, or they did not fit on a GPU."""
    from synq_tune.search.trainable import TrialWorker

    plan = work.plan()
    for left in ray_folders(work.ledger.state):  # by drivers of this study that were killed
        shutil.rmtree(left, ignore_errors=True)
    storage = tempfile.mkdtemp(prefix=ray_prefix(work.ledger.state))
    searcher = LedgerSearcher(work.ledger, work.feeder, work.stop.stop_all, plan.round_trials)
    callback = LedgerCallback(work.ledger, work.listener, plan.trials_per_gpu, searcher.end)
    trainable = tune.with_resources(
        tune.with_parameters(
            work.worker or TrialWorker, context=work.context | {"threads": plan.threads}
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
    cargo: Cargo | None = None,
) -> dict[str, Any]:
    """The plain values every worker gets in every round.

    Args:
        cargo: files for workers on other machines; None where there are none.
    """
    return {
        "spec": spec.model_dump(mode="json", by_alias=True),
        "dataset": str(dataset),
        "store": str(store),
        "folder": str(folder),
        "metric": metric,
        "sources": sources.for_workers(),
        "labelled": labelled,
        "cargo": cargo,
    }


def cargo_of(teacher: LoadedTeacher, dataset: Path, store: Path, labelled: str | None) -> Cargo:
    """The files that workers of the joined cluster read: dataset, labelled images, teacher."""
    files = [*dataset_files(dataset), *([halves_path(labelled, store)] if labelled else [])]
    return pack(store, files, share_teacher(teacher, store), identity(teacher))
