"""A study of two objectives, killed at its transitions: the same front, each value logged once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from synq_tune.study.ledger import Ledger
from synq_tune.study.state import StudyState
from synq_tune.study.summary import best_run, front
from synq_tune.tracking import default_tracking_uri
from tests.crash.rayless import FRONT_SPEC
from tests.crash.test_without_ray import WHERE, _check, _child, _ended, _finals, _story

KILLS = 6


def _study(folder: Path, kills: int) -> list[str]:
    """Run a study to its end; returns the lines of the ledger that said how runs ended."""
    Ledger.create(folder, FRONT_SPEC).close()
    draw, finals = random.Random(5), []
    for number in range(kills + 1):
        crash = f"{draw.choice(WHERE)}:{draw.randint(1, 9)}" if number < kills else ""
        _ended(_child(folder, number, crash), folder)
        now = _finals(folder)
        assert now[: len(finals)] == finals
        finals = now
    return finals


def _front(state: StudyState) -> list[tuple]:
    return [(point.run.key, point.values, point.seeds) for point in front(state)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_or_not_the_front_is_the_same(tmp_path: Path) -> None:
    """No trial is lost or doubled, and MLflow has each objective of each trial once."""
    whole, killed = (tmp_path / name / "study" for name in ("whole", "killed"))
    _study(whole, 0)
    finals = _study(killed, KILLS)
    states = [Ledger.open(folder, read_only=True).state for folder in (whole, killed)]
    assert _front(states[0]) == _front(states[1]) and len(front(states[0])) > 1
    assert best_run(states[0]).key == best_run(states[1]).key
    # Every point was repeated, however many `confirm.top` says.
    repeated = {run.number for run in states[1].of_kind("confirm")}
    assert repeated >= {point.run.number for point in front(states[1])}
    verdict = _check(killed, finals, _story(states[0]))
    assert (verdict.lost, verdict.doubled) == (0, 0)
    client = MlflowClient(default_tracking_uri(killed))
    children = list(_children(client, states[1]))
    assert len(children) == len(states[1].runs)
    for child in children:
        run = states[1].runs[child.data.tags["synq.key"]]
        for name in ("size", "agreement"):
            points = client.get_metric_history(child.info.run_id, name)
            expected = sum(name in row["metrics"] for row in run.history)
            assert len(points) == len({point.step for point in points}) == expected
            assert not expected or points[-1].value == pytest.approx(run.metrics[name])


def _children(client: MlflowClient, state: StudyState) -> Iterator[Run]:
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, f"tags.`synq.study` = '{state.header['id']}'")
    return (run for run in runs if "synq.key" in run.data.tags)
