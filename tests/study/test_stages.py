"""The stages of a study: read from a ledger's events, and written as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synq_tune.errors import InputError
from synq_tune.study.ledger import LEDGER_NAME, Ledger, encode_record
from synq_tune.study.stages import Budget, Gpu, Ladder, Rung, stage_of

EVENTS: dict[str, dict[str, Any]] = {
    "teacher": {"name": "net", "fingerprint": "ab", "top1": None, "reference": 98.5},
    "metric": {"metric": "top1", "mode": "max"},
    "dataset": {
        "path": "/s/datasets/a", "sha256": "ab", "num_images": 64, "num_holdout": 32, "method": "synq",
    },
    "budget": {"num_trials": 9},
    "gpu": {"trial_bytes": 1, "device_bytes": 2, "most": 3},
    "ladder": {"rungs": [
        {"name": "a", "agreement": 90.0, "probes": 96, "probes_chosen_on": 96, "top1": 91.0,
         "low": 89.0, "high": 93.0, "num_images": 899, "chosen_on": 898},
        {"name": "b", "agreement": None, "diverged": "loss is nan"},
        {"name": "c", "agreement": None},
    ]},
    "parity": {"logits": {"model.onnx": {"agreement": 100.0}}, "golden": {}},
    "best": {
        "key": "trial-0001", "number": 1, "params": {"lr": 0.01}, "metrics": {"top1": 91.0},
        "export_dir": "/s/best", "files": {"model.onnx": "ab"},
    },
    "tracking": {"uri": "sqlite:////s/mlflow.db"},
    "uploads": {"model": "models:/m", "version": None, "refused": {"best model": "away"}},
    "places": {"store": "/s", "tracking_uri": None},
}  # fmt: skip
"""By name, the data of an event that every version has written so."""


def _event(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"event": "stage", "at": 1.0, "name": name, "data": data}


@pytest.mark.parametrize("name", EVENTS)
def test_a_stage_is_written_as_it_was_read(name: str) -> None:
    """Byte for byte: a key without a value stays away, one that says null stays."""
    stage = stage_of(_event(name, EVENTS[name]))
    assert json.dumps(stage.to_event()) == json.dumps(EVENTS[name])


def test_keys_of_other_versions_are_no_error() -> None:
    """An older ledger lacks what was added since, a newer one has more."""
    assert stage_of(_event("budget", {"num_trials": 9, "later": 1})) == Budget(num_trials=9)
    assert stage_of(_event("gpu", {"most": 2})) == Gpu(most=2)
    assert stage_of(_event("later", {"key": 1})) is None


def test_a_stage_without_its_keys_is_refused_before_it_is_written(ledger: Ledger) -> None:
    """Whoever reads the ledger later must not meet it."""
    before = ledger.path.read_bytes()
    with pytest.raises(InputError, match="'mode' is missing"):
        ledger.append("stage", name="metric", data={"metric": "top1"})
    assert ledger.path.read_bytes() == before and ledger.state.stages.metric is None


def test_a_damaged_stage_is_named_by_its_line(ledger: Ledger) -> None:
    """Somebody edited the file: the line is said, and what it lacks."""
    folder: Path = ledger.folder
    ledger.close()
    with open(folder / LEDGER_NAME, "ab") as file:
        file.write(encode_record(_event("ladder", {"rungs": [{"agreement": 90.0}]})))
    with pytest.raises(InputError, match=rf"{LEDGER_NAME}, line 2: .*'name' is missing"):
        Ledger.open(folder)


def test_the_latest_stage_is_the_one_that_counts(ledger: Ledger) -> None:
    """A stage may come again, such as the ladder of an extended study."""
    first, second = (Ladder((Rung("full precision", agreement),)) for agreement in (98.0, 99.0))
    ledger.record(first)
    assert ledger.state.stages.says(first)
    ledger.record(second)
    stages = Ledger.open(ledger.folder).state.stages
    assert stages.says(second) and not stages.says(first)
    assert stages.ladder.rung("full precision").agreement == 99.0
    assert stages.ladder.rung("the best found") is None
