"""What the service adds to a trial, measured on trials that train nothing."""

from __future__ import annotations

import pytest
import torch

from synq_tune.bench.noop import accuracy_of
from synq_tune.bench.service import bench_search
from synq_tune.bench.shared_memory import shared_memory
from synq_tune.config.load import load_space
from synq_tune.search import resources


def test_a_trial_that_trains_nothing_scores_by_its_configuration() -> None:
    """The same configuration always scores the same, another one otherwise; both are percentages."""
    one, other = {"lr": 0.01, "cam": "gradcam"}, {"lr": 0.02, "cam": "gradcam"}
    assert accuracy_of(one) == accuracy_of(dict(reversed(one.items()))) != accuracy_of(other)
    assert 0 <= accuracy_of(one) < 100


@pytest.mark.long
def test_two_workers_hold_one_copy() -> None:
    """Dataset, views, probes and labelled images are common pages, whatever their size."""
    space = load_space("digits_w3a3", ["synthesis.num_images=8192", "study.eval_images=20000"])
    found = shared_memory(space)
    assert found["shared_bytes"] > 4_000_000
    assert found["private_bytes_per_worker"] < found["shared_bytes"] / 2
    assert found["pss_bytes_per_worker"] < found["shared_bytes"]


@pytest.mark.slow
def test_a_study_of_nothing_runs_on_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, Optuna, the ledger and MLflow take part; every trial is there once, over several rounds."""
    monkeypatch.setattr(resources, "ROUND_TRIALS", 8)
    numbers = bench_search(load_space("digits_w3a3"), 20, torch.device("cpu")).numbers
    assert numbers["wanted"] == 20
    assert numbers["trials"] == 20
    assert numbers["seconds_per_trial"] > 0
    assert numbers["tracking_seconds_per_report"] < numbers["seconds_per_trial"]
