"""Searches replayed against a table: the real rules, no training, never more epochs than allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from synq_tune.cli import regret
from synq_tune.commands.ending import exit_code
from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.experiments.grid import Grid, configurations, read_grid, record_grid
from synq_tune.experiments.lookup import METHODS, Outcome, replay
from synq_tune.experiments.regret import BUNDLED, luck, search_once, summary

ROOT = Path(__file__).parents[2]
SEARCH = {
    "lr": "{choice: [0.001, 0.01, 0.1]}", "tau": "{choice: [0.5, 0.7]}", "d0": "{choice: [2, 8]}",
    "lambda_ce": "{choice: [0.005]}", "lambda_cam": "{choice: [20, 300]}", "cam": "{choice: [gradcam]}",
}  # fmt: skip
EPOCHS = 9


def _spec(*sets: str) -> StudySpec:
    sizes = {"num_images": 32, "num_holdout": 16, "iterations": 2, "center_iterations": 2}
    small = [f"synthesis.{key}={value}" for key, value in sizes.items()]
    searched = [f"search.{key}={domain}" for key, domain in SEARCH.items()]
    return load_space("digits_w3a3", [*small, f"finetune.epochs={EPOCHS}", *searched, *sets])


def _top1(params: dict) -> float:
    """Best at lr = 0.01, tau = 0.7, d0 = 8, lambda_cam = 300."""
    lr = {0.001: 0.0, 0.01: 10.0, 0.1: 5.0}[params["lr"]]
    return 80 + lr + params["tau"] + params["d0"] / 10 + params["lambda_cam"] / 1000


def _row(params: dict, diverges: bool) -> dict:
    last = _top1(params)
    history = [
        {"epoch": e, "metrics": {"top1": last - 9 + e, "agreement": 100 - last, "holdout_kl": 0.1}}
        for e in (1, 3, EPOCHS)
    ]
    if diverges:
        return {"params": params, "seed": 0, "state": "diverged", "history": history[:1]}
    return {"params": params, "seed": 0, "state": "completed", "history": history}


@pytest.fixture
def make_grid(tmp_path: Path) -> Callable[..., Grid]:
    """A table by hand: 24 configurations, those with `diverging` learning rates diverge."""

    def make(*diverging: float) -> Grid:
        spec = _spec().model_dump(mode="json", by_alias=True)
        head = {"format": 1, "machine": "by hand", "spec": spec}
        rows = [_row(params, params["lr"] in diverging) for params in configurations(_spec())]
        path = tmp_path / "table.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in (head, *rows)))
        return read_grid(path)

    return make


def _runs(outcome: Outcome) -> list[tuple]:
    return [(r.params, r.state, r.history) for r in outcome.state.runs.values()]


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_has_one_outcome(name: str, make_grid: Callable[..., Grid]) -> None:
    """The same search twice is the same; another seed is another search."""
    grid = make_grid()
    first, again, other = (replay(grid, METHODS[name], 8 * EPOCHS, 12, seed) for seed in (3, 3, 4))
    assert _runs(first) == _runs(again)
    assert _runs(first) != _runs(other)


@pytest.mark.parametrize("budget", [5, 20, 60])
@pytest.mark.parametrize("name", METHODS)
def test_no_more_epochs_than_allowed(
    name: str, budget: int, make_grid: Callable[..., Grid]
) -> None:
    """What is trained is counted, that of stopped and diverged trials too."""
    outcome = replay(make_grid(0.1), METHODS[name], budget, 24, seed=0)
    runs = outcome.state.runs.values()
    diverged = sum(run.state == "diverged" for run in runs)
    assert outcome.epochs <= budget
    assert outcome.epochs == sum(run.epochs_run for run in runs) + diverged


@pytest.mark.parametrize("name", METHODS)
def test_the_whole_table_holds_the_best(name: str, make_grid: Callable[..., Grid]) -> None:
    """With every configuration tried, none twice, the regret is zero."""
    grid = make_grid()
    outcome = replay(grid, METHODS[name], 1000, 24, seed=1)
    assert len({json.dumps(run.params) for run in outcome.state.runs.values()}) == 24
    assert grid.value(outcome.found) == grid.best == pytest.approx(91.8)


def test_weak_trials_are_stopped(make_grid: Callable[..., Grid]) -> None:
    """At the first rung at most about a third survive; without early stopping all do."""
    grid = make_grid()
    stopped = {
        name: [r.epochs_run for r in replay(grid, METHODS[name], 1000, 24, 0).state.runs.values()
               if r.state == "stopped"]
        for name in ("random + ASHA", "random search")
    }  # fmt: skip
    assert 10 < len(stopped["random + ASHA"]) < 24 and set(stopped["random + ASHA"]) <= {1, 3}
    assert stopped["random search"] == []


def test_a_search_by_agreement_finds_its_own_best(make_grid: Callable[..., Grid]) -> None:
    """Where agreement says the contrary of top1, choosing by it ends with the worst."""
    grid = make_grid()
    outcome = replay(grid, METHODS["synq-tune"], 1000, 24, seed=0, metric="agreement")
    assert grid.best - grid.value(outcome.found) == pytest.approx(11.08)


def test_what_diverged_is_not_found(make_grid: Callable[..., Grid]) -> None:
    """The best learning rate diverges: one of the others is found."""
    grid = make_grid(0.01)
    outcome = replay(grid, METHODS["synq-tune"], 1000, 24, seed=0)
    assert {r.state for r in outcome.state.runs.values() if r.params["lr"] == 0.01} == {"diverged"}
    assert grid.best == pytest.approx(86.8)
    assert grid.best - grid.value(outcome.found) < 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], "every configuration is recorded"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "line 25: `the line is one trial`"),
        (lambda lines: lines[1:], "head of a grid"),
    ],
    ids=["incomplete", "torn", "headless"],
)
def test_a_damaged_table_is_refused(
    damage: Callable, message: str, make_grid: Callable[..., Grid]
) -> None:
    """It says which line, or what is missing."""
    path = make_grid().path
    path.write_text("\n".join(damage(path.read_text().splitlines())))
    with pytest.raises(InputError, match=message):
        read_grid(path)


def test_an_interval_is_no_grid() -> None:
    """It names the key and the way out."""
    with pytest.raises(InputError, match=r"search.lr: `a grid has choices only`"):
        configurations(_spec("search.lr={float: [1e-3, 1e-1]}"))


@pytest.mark.long
def test_a_recording_goes_on_where_it_was(tmp_path: Path) -> None:
    """Two configurations and three baselines are trained once; another space is refused."""
    narrow = [f"search.{key}={{choice: [{value}]}}" for key, value in
              {"lr": "1e-3, 1e-2", "tau": 0.5, "d0": 2, "lambda_cam": 20}.items()]  # fmt: skip
    sets = [*narrow, "finetune.epochs=1"]
    path, store = tmp_path / "table.jsonl", tmp_path / "store"
    recording = record_grid(_spec(*sets), path, store)
    next(recording)
    recording.close()
    assert len(list(record_grid(_spec(*sets), path, store))) == 4
    assert list(record_grid(_spec(*sets), path, store)) == []
    grid = read_grid(path)
    assert {"top1", "agreement", "holdout_kl", "holdout_mse"} == grid.row("paper", 0)["history"][
        -1
    ]["metrics"].keys()
    assert grid.row("calibrated", 0)["history"][-1]["epoch"] == 0
    with pytest.raises(InputError, match="same space"):
        list(record_grid(_spec(*sets, "finetune.temperature=1"), path, store))


def test_the_summary_of_regrets() -> None:
    """Median, mean, and Student's t interval by hand: 2 ± 4.303 · 1 / √3."""
    assert summary([1.0, 2.0, 3.0]) == ["2.00", "2.00 [-0.48, 4.48]"]
    assert summary([1.0]) == ["1.00", "1.00"]


def test_luck_of_single_runs_costs_points(make_grid: Callable[..., Grid]) -> None:
    """With one seed the best run is the best configuration; a lucky run of another costs a point."""
    grid = make_grid()
    assert luck(grid) == 0.0
    rows = dict(grid.rows)
    for key in grid.keys:
        row = json.loads(json.dumps(grid.row(key, 0)))
        row["history"][-1]["metrics"]["top1"] = 92.0 if key == grid.keys[0] else 80.0
        rows[key, 1] = row
    two = replace(grid, rows=rows, seeds=(0, 1))
    lucky = grid.value(grid.keys[0])
    assert two.best == pytest.approx((lucky + 92.0) / 2)
    # Half of the draws see the lucky run, and with it the best mean; the others take the 91.8.
    assert luck(two) == pytest.approx((two.best - (91.8 + 80.0) / 2) / 2, rel=0.2)


def _mean_regret(grid: Grid, name: str, full_trials: int) -> float:
    found = [search_once(grid, METHODS[name], full_trials, seed, "top1") for seed in range(20)]
    return fmean(one.regret for one in found)


@pytest.mark.long
def test_the_search_is_not_worse_than_random() -> None:
    """On the bundled table, at the epochs of eight full trials."""
    grid = read_grid(BUNDLED)
    assert _mean_regret(grid, "synq-tune", 8) <= _mean_regret(grid, "random search", 8)


@pytest.mark.slow
def test_a_longer_search_is_not_worse_than_random() -> None:
    """The same at sixteen."""
    grid = read_grid(BUNDLED)
    # On this table both end at the same regret, but for rounding.
    assert _mean_regret(grid, "synq-tune", 16) <= _mean_regret(grid, "random search", 16) + 1e-9


def test_the_bundled_table_is_small_and_names_no_machine_folder() -> None:
    """It ships: three seeds of 80 configurations in less than 120 kB."""
    grid, text = read_grid(BUNDLED), BUNDLED.read_text()
    assert (len(grid.keys), grid.seeds) == (80, (0, 1, 2))
    assert len(text) < 120_000 and "/tmp" not in text and "/home" not in text
    assert {"command", "machine", "versions"} <= grid.head.keys()


def _main(*arguments: str) -> int:
    return exit_code(regret.main, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--seeds", "0"], "--seeds >= 1"), (["--table", "no.jsonl"], "no.jsonl"),
     (["--record", "x.jsonl"], "--space")],
    ids=["seeds", "table", "space"],
)  # fmt: skip
def test_wrong_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what to change."""
    assert _main(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
