"""Choosing without labels: rank correlation, what it costs, and where the numbers come from."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from synq_tune.cli import choosing
from synq_tune.commands.ending import exit_code
from synq_tune.config.load import load_space
from synq_tune.experiments.choosing import (
    Measured,
    chosen,
    correlation,
    lost,
    mean_lost,
    read_trials,
    report,
    spearman,
    top_quarter,
)
from synq_tune.experiments.choosing_plot import plot_choosing
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Metric
from synq_tune.study.summary import finalists

ROOT = Path(__file__).parents[2]
TRIALS = [
    ("completed", 97.0, 90.0, 0.30),
    ("completed", 98.0, 91.0, 0.20),
    ("completed", 96.0, 91.0, 0.10),
    ("completed", 99.0, 80.0, 0.40),
    ("stopped", 50.0, 99.0, 0.01),
]
"""(state, top1, agreement, holdout_kl)."""


def _measured() -> list[Measured]:
    names = ("top1", "agreement", "holdout_kl")
    return [
        Measured(f"trial-{number:04d}", state, dict(zip(names, values, strict=True)))
        for number, (state, *values) in enumerate(TRIALS)
    ]


def _study(folder: Path, labels: bool = True, metric: str = "top1") -> Ledger:
    ledger = Ledger.create(folder, load_space("digits_w3a3"))
    ledger.record(Metric(metric, "max"))
    for number, (state, top1, agreement, kl) in enumerate(TRIALS):
        key = f"trial-{number:04d}"
        metrics = {"agreement": agreement, "holdout_kl": kl, "margin": agreement / 100}
        metrics |= {"top1": top1} if labels else {}
        ledger.append("proposed", key=key, kind="search", number=number, params={"lr": 0.1}, seed=0)
        ledger.append("started", key=key)
        # An earlier epoch ranks the other way round: it must not count.
        early = {name: -value for name, value in metrics.items()}
        ledger.append("evaluated", key=key, epoch=1, metrics=early, losses={})
        ledger.append("evaluated", key=key, epoch=3, metrics=metrics, losses={})
        ledger.append("finished", key=key, state=state, epochs_run=3, metrics={}, seconds=1.0)
    return ledger


def test_ties_share_their_average_rank() -> None:
    """By hand: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4 give 4.5 / sqrt(4.5 * 5)."""
    assert spearman([1, 2, 2, 4], [10, 30, 20, 40]) == pytest.approx(4.5 / 22.5**0.5)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed: int) -> None:
    """On values of which many are equal."""
    generator = random.Random(seed)
    x, y = ([generator.randint(0, 6) for _ in range(30)] for _ in range(2))
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)


@pytest.mark.parametrize("pair", [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_undefined_correlation_is_none(pair: tuple[list[int], list[int]]) -> None:
    """Two points always lie on a line; equal values have no order."""
    assert spearman(*pair) is None


def test_different_lengths_are_refused() -> None:
    """Pairs have two sides."""
    with pytest.raises(ValueError, match=r"len\(x\) == len\(y\)"):
        spearman([1, 2, 3], [1, 2])


def test_ties_go_to_the_lower_kl_and_stopped_trials_are_not_chosen() -> None:
    """91 % twice: the third trial has the lower KL and three points less than the best."""
    assert chosen(_measured(), "agreement").name == "trial-0002"
    assert lost(_measured(), "agreement") == pytest.approx(3.0)
    assert lost(_measured(), "holdout_kl") == pytest.approx(3.0)
    assert lost(_measured(), "top1") == 0.0
    assert lost(_measured()[4:], "agreement") is None


@pytest.mark.parametrize("metric", ["agreement", "holdout_kl", "top1"])
@pytest.mark.parametrize("drawn", [1, 2, 3, 4])
def test_the_mean_loss_is_that_of_all_draws(metric: str, drawn: int) -> None:
    """The formula against drawing in every way; a stopped trial is never drawn."""
    losses = [lost(draw, metric) for draw in itertools.combinations(_measured()[:4], drawn)]
    assert mean_lost(_measured(), metric, drawn) == pytest.approx(sum(losses) / len(losses))


def test_no_mean_loss_of_more_trials_than_there_are() -> None:
    """Four completed: five cannot be drawn."""
    assert mean_lost(_measured(), "agreement", 5) is None


def test_a_distance_counts_from_below() -> None:
    """The smaller KL is the better: rho is that of its negative."""
    rho, count = correlation(_measured()[:4], "holdout_kl")
    assert (rho, count) == (pytest.approx(-0.8), 4)


def test_the_top_quarter_is_rounded_up() -> None:
    """Four completed trials: one; the stopped one is not among them."""
    assert [trial.name for trial in top_quarter(_measured())] == ["trial-0003"]


def test_a_study_is_read_at_its_last_epochs(tmp_path: Path) -> None:
    """Last values, and numbers that the summary leaves out."""
    ledger = _study(tmp_path / "study")
    trials = read_trials(ledger.folder)
    assert [(t.state, t.metrics["top1"], t.metrics["agreement"]) for t in trials] == [
        row[:3] for row in TRIALS
    ]
    lines = list(report([ledger.folder]))
    assert "4 completed, 1 stopped, 0 diverged" in lines
    assert any(line.startswith("| margin | ") for line in lines)
    row = next(line for line in lines if line.startswith("| agreement"))
    assert row == "| agreement | -0.63 (4) | – (1) | -0.82 (5) | trial-0002 | 96.00 | 3.00 | – |"


def test_the_rule_is_the_studys(tmp_path: Path) -> None:
    """A study that chooses by agreement takes the same trial."""
    ledger = _study(tmp_path / "study", metric="agreement")
    best = finalists(ledger.state, 1)[0]
    assert chosen(read_trials(ledger.folder), "agreement").name == best.key


def test_rows_of_a_comparison(tmp_path: Path) -> None:
    """Each line is a trial; what is no metric and what was not measured is left out."""
    row = {"variant": "base", "seed": 0, "state": "completed", "top1": 90.0, "agreement": 80.0,
           "holdout_kl": 0.5, "sharpness_loss": 2.0, "updates": 100, "epochs": 9, "error": None}  # fmt: skip
    worse = {**row, "seed": 1, "top1": 89.0, "agreement": 70.0, "sharpness_loss": 1.0}
    broken = {**row, "seed": 2, "state": "diverged", "top1": None, "agreement": None}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (row, worse, broken)))
    trials = read_trials(path)
    assert trials[0].metrics.keys() == {"top1", "agreement", "holdout_kl", "sharpness_loss"}
    assert [t.state for t in trials] == ["completed", "completed", "diverged"]
    assert lost(trials, "agreement") == 0.0
    assert lost(trials, "sharpness_loss") == pytest.approx(1.0)
    assert any("-sharpness_loss" in line for line in report([path]))


def test_several_studies_are_summed_up(tmp_path: Path) -> None:
    """Mean and largest loss of each metric."""
    folders = [_study(tmp_path / name).folder for name in ("a", "b")]
    assert "| agreement | 2 | -0.63 | 3.00 | 3.00 |" in list(report(folders))


def _main(*arguments: str) -> int:
    return exit_code(choosing.main, arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "have top1 and another metric"), ('{"top1": 1', "line 1"), ("[1]\n", "line 1")],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    """A study without labels, a torn line, a line that is no trial: exit code 2, nothing printed."""
    path = tmp_path / "rows.jsonl"
    if text is None:
        path = _study(tmp_path / "study", labels=False).folder
    else:
        path.write_text(text)
    assert _main(str(path)) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names what was looked for."""
    assert _main(str(tmp_path / "nothing")) == 2
    assert "nothing" in capsys.readouterr().err


def test_a_scatter_is_drawn(tmp_path: Path) -> None:
    """A PNG with a panel for each metric, also where studies differ in what they measured."""
    row = {"variant": "v", "state": "completed", "top1": 90.0, "agreement": 80.0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    plot_choosing([_study(tmp_path / "s").folder, tmp_path / "rows.jsonl"], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
