"""The picture of `scripts/choosing.py`: each metric of finished trials against their top1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synq_tune.experiments.choosing import REFERENCE, Measured, metrics_of, read_trials
from synq_tune.report.scatter import Panel, save_scatter


def plot_choosing(paths: Sequence[Path], file: Path) -> None:
    """Write a PNG: each metric against top1, a row of panels per study, trials not diverged.

    Raises:
        InputError: see `read_trials`.
    """
    studies = {path.resolve().name: read_trials(path) for path in paths}
    rows = [
        [_panel(name, trials, metric) for metric in metrics_of(trials)]
        for name, trials in studies.items()
    ]
    save_scatter(rows, file)


def _panel(name: str, trials: list[Measured], metric: str) -> Panel:
    groups = {
        state: [
            (t.metrics[metric], t.metrics[REFERENCE])
            for t in trials
            if t.state == state and {metric, REFERENCE} <= t.metrics.keys()
        ]
        for state in ("completed", "stopped")
    }
    return Panel(name, metric, "top-1 (%)", groups)
