"""As many trials share a GPU as fit by what the first ones took; one that does not fit is tried again."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray import cloudpickle

from synq_tune.bench.noop import NoOpWorker
from synq_tune.config import Study
from synq_tune.config.load import load_space
from synq_tune.search import gpu_sharing
from synq_tune.search.engine import Work, run_trials
from synq_tune.search.queue import RunQueue
from synq_tune.search.resources import plan_resources
from synq_tune.search.sampler import Sampler
from synq_tune.search.schedulers import make_scheduler
from synq_tune.search.tune_adapter import LedgerCallback, StopRequest
from synq_tune.study.ledger import Ledger

GIB = 2**30
KEY = "trial-0000"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A study with one run."""
    settings = ["num_trials=6", "confirm=null", "scheduler=none", "max_concurrent=4"]
    spec = load_space("digits_w3a3", [f"study.{setting}" for setting in settings])
    return Ledger.create(tmp_path / "study", spec)


def _propose(ledger: Ledger) -> None:
    ledger.append("proposed", key=KEY, kind="search", number=0, params={}, seed=1, label="")


@pytest.mark.parametrize(
    ("settings", "room", "expected"),
    [
        ({}, (None, None), (2, 1.0, 2)),
        ({}, (3, None), (6, 0.3333, 250)),
        ({}, (7, None), (14, 0.1428, 250)),
        ({}, (3, 2), (4, 0.5, 250)),
        ({}, (100, None), (16, 0.125, 250)),
        ({"max_concurrent": 3}, (7, None), (3, 0.1428, 250)),
        ({"gpus_per_trial": 0.25}, (None, None), (8, 0.25, 250)),
        ({"gpus_per_trial": 0.25}, (None, 3), (6, 1 / 3, 250)),
        ({"gpus_per_trial": 2.0}, (None, 1), (1, 2.0, 250)),
    ],
)
def test_memory_decides_how_many_share(
    settings: dict[str, Any], room: tuple[int | None, int | None], expected: tuple
) -> None:
    """On 2 GPUs and 16 cores: one each until one is measured, then what fits, but a core for each."""
    plan = plan_resources(Study(**settings), [(16, 2)], *room)
    assert (plan.max_concurrent, plan.gpus_per_trial, plan.round_trials) == expected


def test_the_largest_trial_counts(ledger: Ledger) -> None:
    """Trials of several sizes are planned for by the largest, with a tenth of the device left."""
    assert gpu_sharing.fitting(ledger.state) is None
    for trial_bytes in (3 * GIB, 5 * GIB, 4 * GIB):
        gpu_sharing.record_peak(ledger, {"trial_bytes": trial_bytes, "device_bytes": 24 * GIB})
    assert gpu_sharing.fitting(Ledger.open(ledger.folder).state) == 4  # 21.6 / 5
    line = gpu_sharing.memory_line(ledger.state.stages.gpu)
    assert line == "a trial takes 5.0 of 24.0 GiB of a GPU"


def test_out_of_memory_lowers_the_number_once_per_round(ledger: Ledger) -> None:
    """Neighbours that fail together say the same; what was measured stays."""
    gpu_sharing.record_peak(ledger, {"trial_bytes": GIB, "device_bytes": 24 * GIB})
    for sharing in (4, 4, 3):
        gpu_sharing.record_too_many(ledger, sharing)
    assert gpu_sharing.most(ledger.state) == 2
    assert gpu_sharing.fitting(ledger.state) == 21
    assert len([line for line in ledger.path.read_text().splitlines() if '"gpu"' in line]) == 3


@pytest.mark.parametrize(("sharing", "state"), [(2, "running"), (1, "failed")])
def test_only_a_trial_alone_can_fail_for_memory(
    ledger: Ledger, tmp_path: Path, sharing: int, state: str
) -> None:
    """With neighbours the round ends and the run is left to the next; alone it is `failed`."""
    _propose(ledger)
    ended = threading.Event()
    callback = LedgerCallback(ledger, lambda key: None, sharing, ended.set)
    path = tmp_path / "error.pkl"
    path.write_bytes(cloudpickle.dumps(torch.OutOfMemoryError("CUDA out of memory.")))
    trial = SimpleNamespace(config={"run": {"key": KEY, "epoch": 0}}, pickled_error_file=path)
    callback.on_trial_start(0, [], trial)
    callback.on_trial_error(0, [], trial)
    assert ledger.state.runs[KEY].state == state
    assert ended.is_set() == (state == "running")
    assert gpu_sharing.most(ledger.state) == (1 if state == "running" else None)


class CrowdedWorker(NoOpWorker):
    """Says it takes a fifth of its GPU, but there is room for two of it."""

    def step(self) -> dict[str, Any]:
        place = Path(self.context["room"]) / self.run_info["key"]
        place.touch()
        time.sleep(2.0)  # until the neighbours are there, too
        crowd = len(list(place.parent.iterdir()))
        try:
            if crowd > 2:
                time.sleep(2.0)  # until they have seen it
                raise torch.OutOfMemoryError(f"CUDA out of memory, {crowd} are here.")
        finally:
            place.unlink()
        return super().step() | {"gpu": {"trial_bytes": GIB, "device_bytes": 5 * GIB}}


@pytest.mark.slow
def test_a_crowd_thins_out_until_it_fits(ledger: Ledger, tmp_path: Path) -> None:
    """One, then four at a time, which do not fit, then three, then two: every trial completes, once.

    Ray believes in the GPU; only its memory is played.
    """
    spec, room, plans = ledger.state.spec, tmp_path / "room", []
    room.mkdir()

    def plan() -> Any:
        known = gpu_sharing.fitting(ledger.state), gpu_sharing.most(ledger.state)
        plans.append(plan_resources(spec.study, [(4, 1)], *known))
        return plans[-1]

    context = {"metric": "agreement", "epochs": spec.finetune.epochs, "room": str(room)}
    work = Work(
        ledger,
        RunQueue(spec, Sampler(spec, lambda run: run.metrics.get("agreement"))),
        StopRequest(threading.Event(), lambda: False),
        context,
        plan,
        lambda key: None,
        CrowdedWorker,
    )
    ray.init("local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        run_trials(work, lambda: make_scheduler(spec, ledger.state, "agreement"))
    finally:
        ray.shutdown()
    assert [plan.max_concurrent for plan in plans] == [1, 4, 3, 2]
    runs = Ledger.open(ledger.folder).state.runs
    assert {run.state for run in runs.values()} == {"completed"}
    assert len(runs) == 7  # six trials and the paper's defaults
