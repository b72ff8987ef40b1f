"""Which run is chosen, and what summary.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.study.stages import Best, Dataset, Ladder, Metric, Rung, Stage, Teacher, Tracking
from synq_tune.study.state import StudyState, apply
from synq_tune.study.summary import (
    best_run,
    finalists,
    resolve_metric,
    score,
    summarize,
    write_summary,
)


@pytest.fixture
def state() -> StudyState:
    return StudyState(load_space("digits_w3a3"), {})


def add(
    state: StudyState, number: int, how: str = "completed", kind: str = "search", repeat: int = 0,
    **metrics: float,
) -> None:  # fmt: skip
    key = f"trial-{number:04d}" if kind == "search" else f"confirm-{number:04d}-{repeat}"
    common = {"at": 1_700_000_000.0, "key": key}
    params = {"lr": 0.01}
    fields = {"kind": kind, "number": number, "params": params, "seed": number}
    apply(state, {"event": "proposed", **common, **fields})
    apply(state, {"event": "started", **common})
    if how != "running":
        end = {"state": how, "metrics": metrics, "seconds": 2.0, "epochs_run": 24}
        apply(state, {"event": "finished", **common, **end})


def apply_stage(state: StudyState, stage: Stage) -> None:
    apply(state, {"event": "stage", "at": 0.0, "name": stage.NAME, "data": stage.to_event()})


def best_number(state: StudyState) -> int | None:
    run = best_run(state)
    return None if run is None else run.number


def test_nothing_completed_means_no_best(state: StudyState) -> None:
    """Stopped, diverged and running trials are never the best."""
    add(state, 0, "stopped", top1=99.0)
    add(state, 1, "diverged", top1=99.0)
    add(state, 2, "running")
    assert best_run(state) is None
    assert summarize(state, Path("x"))["best"] is None


def test_best_is_by_the_last_epoch(state: StudyState) -> None:
    """A peak in the middle of a trial chooses nothing."""
    add(state, 0, top1=90.0, top1_best_epoch=97.0)
    add(state, 1, top1=91.0, top1_best_epoch=91.0)
    assert best_number(state) == 1


def test_equal_agreement_goes_to_the_lower_kl(state: StudyState) -> None:
    """Agreement has few values; the divergence tells equals apart."""
    apply_stage(state, Metric("agreement", "max"))
    add(state, 0, agreement=90.0, holdout_kl=0.3)
    add(state, 1, agreement=90.0, holdout_kl=0.1)
    assert best_number(state) == 1


def test_equal_top1_goes_to_the_lower_kl(state: StudyState) -> None:
    """As with agreement; the earlier trial only where this is equal too."""
    add(state, 0, top1=90.0, holdout_kl=0.3)
    add(state, 1, top1=90.0, holdout_kl=0.1)
    add(state, 2, top1=90.0, holdout_kl=0.1)
    assert best_number(state) == 1


def test_a_mean_is_a_count_of_right_images(state: StudyState) -> None:
    """Two means over 225 right images tie, though their floats differ in the last bit."""
    shares = [[100 * n / 448 for n in pair] for pair in ((4, 221), (0, 225))]
    assert sum(shares[0]) / 2 > sum(shares[1]) / 2, "else this shows nothing"
    for number, (first, second) in enumerate(shares):
        kl = 0.3 - 0.2 * number
        add(state, number, top1=first, holdout_kl=kl)
        add(state, number, kind="confirm", repeat=1, top1=second, holdout_kl=kl)
    assert best_number(state) == 1


def test_finalists_are_sorted_by_score(state: StudyState) -> None:
    """The best come first, and only as many as asked for."""
    for number, top1 in enumerate([90.0, 95.0, 80.0]):
        add(state, number, top1=top1)
    found = finalists(state, 2)
    assert [run.number for run in found] == [1, 0]
    assert score(found[0], "top1") > score(found[1], "top1")


def test_confirmed_finalists_compare_by_their_mean(state: StudyState) -> None:
    """One lucky seed does not win."""
    add(state, 0, top1=95.0)
    add(state, 1, top1=94.0)
    add(state, 2, top1=93.0)
    add(state, 0, kind="confirm", repeat=1, top1=85.0)
    add(state, 1, kind="confirm", repeat=1, top1=93.0)
    assert best_number(state) == 1


def test_finalists_wait_for_all_their_repeats(state: StudyState) -> None:
    """A mean over half of the seeds does not compete."""
    add(state, 0, top1=95.0)
    add(state, 1, top1=94.0)
    add(state, 0, kind="confirm", repeat=1, how="running")
    assert best_number(state) == 0
    add(state, 1, kind="confirm", repeat=1, top1=60.0)
    assert best_number(state) == 1


def test_diverged_repeats_leave_the_mean_to_the_others(state: StudyState) -> None:
    """A repeat without a metric is not counted as zero."""
    add(state, 0, top1=95.0)
    add(state, 1, top1=94.0)
    for number in (0, 1):
        add(state, number, kind="confirm", repeat=1, how="diverged")
    assert best_number(state) == 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("study.seed=0", "top1"),
        ("study.val_data=null", "agreement"),
        ("study.metric=agreement", "agreement"),
    ],
    ids=["labels", "no labels", "asked for"],
)
def test_metric_follows_the_spec(setting: str, expected: str) -> None:
    """`auto` is top1 with labels, else agreement."""
    assert resolve_metric(StudyState(load_space("digits_w3a3", [setting]), {})) == expected


def test_summary_keeps_the_contract(state: StudyState, tmp_path: Path) -> None:
    """Keys, order and units of summary.json are what other programs read."""
    apply_stage(state, Teacher("digits_resnet26", "ab", top1=97.0))
    apply_stage(state, Dataset("/d", "c", num_images=512, num_holdout=64, method="synq"))
    add(state, 0, "failed")
    add(state, 1, top1=91.0)
    write_summary(state, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == summarize(state, tmp_path)
    contract = "format study space metric mode seed teacher dataset trials best tracking_uri"
    assert set(contract.split()) <= set(summary)
    assert [t["number"] for t in summary["trials"]] == [0, 1]
    assert list(summary["trials"][1]) == [
        "number", "state", "params", "metrics", "epochs_run", "started_at", "finished_at",
        "seconds", "error",
    ]  # fmt: skip
    assert summary["trials"][1]["started_at"] == "2023-11-14T22:13:20.000+00:00"
    assert summary["best"]["number"] == 1 and summary["best"]["export_dir"] is None
    assert summary["study"] == tmp_path.name and summary["space"] == "digits_w3a3"
    assert summary["counts"]["completed"] == 1 and summary["counts"]["running"] == 0


@pytest.mark.parametrize("metric", ["holdout_kl", "holdout_mse"])
def test_a_distance_chooses_its_smallest(tmp_path: Path, metric: str) -> None:
    """With a distance the best run is the nearest to the teacher, whatever else it has."""
    state = StudyState(load_space("digits_w3a3", [f"study.metric={metric}"]), {})
    add(state, 0, top1=93.0, agreement=92.0, **{metric: 0.5})
    add(state, 1, top1=91.0, agreement=90.0, **{metric: 0.2})
    add(state, 2, top1=99.0, agreement=99.0)
    assert best_number(state) == 1
    assert [run.number for run in finalists(state, 3)] == [1, 0]
    summary = summarize(state, tmp_path)
    assert (summary["metric"], summary["mode"]) == (metric, "min")


def test_a_run_that_ends_ends_in_the_summary(state: StudyState, tmp_path: Path) -> None:
    """What was written of a run while it went on is not what is written of it afterwards."""
    add(state, 0, "running")
    write_summary(state, tmp_path)
    end = {"state": "completed", "metrics": {"top1": 91.0}, "seconds": 2.0, "epochs_run": 24}
    apply(state, {"event": "finished", "at": 1_700_000_009.0, "key": "trial-0000", **end})
    for _ in range(2):
        write_summary(state, tmp_path)
        assert json.loads((tmp_path / "summary.json").read_text()) == summarize(state, tmp_path)


def test_repeats_and_rungs_stay_out_of_trials(state: StudyState) -> None:
    """`trials` are the search; confirm runs and the ladder have their own lists."""
    add(state, 0, top1=91.0)
    add(state, 0, kind="confirm", repeat=1, top1=90.0)
    apply_stage(state, Ladder((Rung("full precision", top1=97.0),)))
    summary = summarize(state, Path("x"))
    assert len(summary["trials"]) == 1
    assert [c["key"] for c in summary["confirm"]] == ["confirm-0000-1"]
    assert summary["ladder"][0]["name"] == "full precision"


def test_exported_best_is_shown_until_another_is_better(state: StudyState) -> None:
    """After an extension found a better trial the old export is not called the best."""
    add(state, 0, top1=91.0)
    told = {"number": 0, "params": {}, "metrics": {"top1": 91.0}, "export_dir": "/s/best"}
    apply_stage(state, Best("trial-0000", **told, files={"model.onnx": "ab"}))
    assert summarize(state, Path("x"))["best"] == told
    add(state, 1, top1=92.0)
    best = summarize(state, Path("x"))["best"]
    assert (best["number"], best["export_dir"]) == (1, None)


def test_summary_holds_no_credentials(state: StudyState) -> None:
    """A summary may be passed on."""
    apply_stage(state, Tracking("https://ann:secret@host/x?token=abc"))
    text = json.dumps(summarize(state, Path("x")))
    assert "secret" not in text and "abc" not in text and "host/x" in text
