"""A worker that becomes free is not taken to a trial whose own worker is about to start."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from synq_tune.bench.noop import NoOpWorker
from synq_tune.config.load import load_space
from synq_tune.search.engine import Work, run_trials
from synq_tune.search.queue import RunQueue
from synq_tune.search.resources import plan_resources
from synq_tune.search.sampler import Sampler
from synq_tune.search.schedulers import make_scheduler
from synq_tune.search.tune_adapter import StopRequest
from synq_tune.study.ledger import Ledger

METRIC = "agreement"


class LateWorker(NoOpWorker):
    """The first one starts at once, any other while the first is through with some trials."""

    def setup(self, config: dict[str, Any], context: dict[str, Any]) -> None:
        """Be late unless nobody was here."""
        super().setup(config, context)
        try:
            (Path(context["folder"]) / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(2.0)


@pytest.fixture
def two_cores() -> Iterator[None]:
    """A Ray of this test's own."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.usefixtures("two_cores")
@pytest.mark.long
def test_two_workers_are_enough_for_two_places(tmp_path: Path) -> None:
    """Ray is asked for two places in all; Tune's own order asks for one more with each trial."""
    settings = ["num_trials=10", "confirm=null", "max_concurrent=2"]
    spec = load_space("digits_w3a3", [f"study.{setting}" for setting in settings])
    ledger = Ledger.create(tmp_path / "study", spec)
    plan = plan_resources(spec.study, [(2, 0)])
    work = Work(
        ledger,
        RunQueue(spec, Sampler(spec, lambda run: run.metrics.get(METRIC))),
        StopRequest(threading.Event(), lambda: False),
        {"metric": METRIC, "epochs": spec.finetune.epochs, "folder": str(tmp_path)},
        lambda: plan,
        lambda key: None,
        LateWorker,
    )
    run_trials(work, lambda: make_scheduler(spec, ledger.state, METRIC))
    assert {run.state for run in ledger.state.runs.values()} == {"completed"}
    assert len(ledger.state.runs) == 11  # and the paper's defaults
    assert len(ray.util.placement_group_table()) == 2
