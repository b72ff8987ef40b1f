"""Figures of the paper: the numbers behind each kind, and a picture with its rows beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synq_tune.cli.reproduce import main
from synq_tune.errors import InputError
from synq_tune.experiments.figures.bars import draw_bars, draw_overhead
from synq_tune.experiments.figures.draw import make_figure
from synq_tune.experiments.figures.errors import difficulty_rows
from synq_tune.experiments.figures.frequencies import amplitude_rows, log_spectrum
from synq_tune.experiments.figures.sweeps import draw_sweep
from synq_tune.experiments.paper_figure import PaperFigure
from synq_tune.experiments.reproduce import jobs
from synq_tune.views.low_pass import low_pass
from tests.experiments.small_runs import SMALL

COLUMNS = {"W8A8": {"paper": "digits_w8a8", "small": "digits_w8a8"}}


def test_filtered_noise_has_its_energy_below_d0() -> None:
    """White noise is flat; behind the filter each ring is lower by the gain of Eq. 4."""
    noise = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, after = amplitude_rows(noise), amplitude_rows(low_pass(noise, 4.0))
    assert [row["frequency"] for row in before] == list(range(16))
    flat = [row["log10_amplitude"] for row in before[1:]]
    assert max(flat) - min(flat) < 0.05
    for f in range(16):
        lost = before[f]["log10_amplitude"] - after[f]["log10_amplitude"]
        assert lost == pytest.approx(f * f / 32 * math.log10(math.e), abs=0.02 + 0.01 * f)
    energy = [10 ** (2 * row["log10_amplitude"]) * row["frequency"] for row in after]
    assert sum(energy[:9]) > 0.95 * sum(energy)


def test_a_wave_stands_at_its_frequency() -> None:
    """Five waves across the image are bin 5, whatever their direction."""
    wave = torch.cos(2 * torch.pi * 5 * torch.arange(32) / 32)
    for image in (wave.expand(32, 32), wave[:, None].expand(32, 32)):
        rows = amplitude_rows(image.expand(1, 1, 32, 32) + 1e-3)
        assert max(rows[1:], key=lambda row: row["log10_amplitude"])["frequency"] == 5
    assert log_spectrum(torch.ones(1, 1, 8, 6))[0].argmax() == 4 * 6 + 3


def test_an_image_that_is_sure_to_be_right_is_easy() -> None:
    """Difficulty is 1 - p(label), and a bin's rate is of the images in it."""
    logits = torch.tensor([[8.0, 0.0], [0.0, 8.0], [0.0, 0.2], [0.0, 0.2]])
    rows = difficulty_rows(logits, torch.tensor([0, 0, 0, 1]))
    assert sum(row["images"] for row in rows) == 4 and sum(r["share"] for r in rows) == 100
    full = {row["low"]: row["error_rate"] for row in rows if row["images"]}
    assert full == {0.0: 0.0, 0.95: 100.0, 0.5: 100.0, 0.45: 0.0}
    assert rows[5]["error_rate"] is None


def _run(seed: int, top1: float, seconds: float = 1.0) -> dict[str, Any]:
    return {"seed": seed, "top1_report": top1, "seconds": seconds}


SWEEP = PaperFigure.model_validate({
    "title": "two panels", "kind": "sweep", "shows": "what a setting does.", "columns": COLUMNS,
    "panels": [
        {"title": "tau", "sweep": {"finetune.tau": [0, 0.5, 1]}, "small": {"finetune.tau": [0, 1]},
         "series": {"SynQ": {}}, "flat": {"plain": {"finetune": {"lambda_cam": 0}}}},
        {"title": "both", "sweep": {"finetune.lambda_ce": [0.5, 5], "finetune.lambda_cam": [20]},
         "series": {"SynQ": {"finetune": {"tau": None}}}},
    ],
})  # fmt: skip


def test_a_sweep_is_runs_with_one_setting_changed() -> None:
    """Each point is a run over the series' settings; the small scale has its own values."""
    small = SWEEP.settings_at("small")
    assert small["SynQ, tau 1"] == {"finetune": {"tau": 1}}
    assert small["plain"] == {"finetune": {"lambda_cam": 0}}
    both = {"tau": None, "lambda_ce": 5, "lambda_cam": 20}
    assert small["SynQ, lambda_ce 5, lambda_cam 20"] == {"finetune": both}
    assert set(SWEEP.settings_at("paper")) - set(small) == {"SynQ, tau 0.5"}


def test_what_is_swept_is_left_to_the_figure() -> None:
    """`--set` lies over the rows: it would make one run of all points of a curve."""
    flags = {"study": {"val_data": "digits"}}
    with pytest.raises(InputError, match=r"tau .*but got finetune.tau=0.3"):
        jobs(SWEEP, "small", assignments=["finetune.tau=0.3"], flags=flags)
    wanted = ["SynQ, lambda_ce 5, lambda_cam 20"]
    assert jobs(SWEEP, "small", wanted, assignments=["finetune.epochs=1"], flags=flags)


def test_a_sweep_draws_what_was_run() -> None:
    """Means over seeds; a point without a run is no point, and an empty panel no plot."""
    mine = {"SynQ, tau 0": [_run(0, 80.0), _run(1, 84.0)], "plain": [_run(0, 70.0)]}
    rows, (plot,) = draw_sweep(SWEEP, {"W8A8": mine}, "small")
    assert [(r["row"], r["mean"], r["seeds"]) for r in rows] == [
        ("SynQ, tau 0", 82.0, [0, 1]), ("plain", 70.0, [0])]  # fmt: skip
    assert rows[0]["std"] == pytest.approx(math.sqrt(8))
    curve, flat = plot.lines
    assert (list(curve.x), list(curve.y), list(flat.x), list(flat.y)) == ([0], [82.0], [], [70.0])
    mine = {"SynQ, lambda_ce 5, lambda_cam 20": [_run(0, 90.0)]}
    _, (grid,) = draw_sweep(SWEEP, {"W8A8": mine}, "small")
    assert np.isnan(grid.values[0, 0]) and grid.values[0, 1] == 90.0


def test_overhead_is_of_seeds_that_both_ran() -> None:
    """Of 10 seconds with SynQ the method takes 8 alone: a fifth is added."""
    tree = {"title": "t", "kind": "overhead", "shows": "s.", "columns": COLUMNS}
    rows = {"GDFQ": {"settings": {}}, "GDFQ + SynQ": {"settings": {}, "over": "GDFQ"}}
    figure = PaperFigure.model_validate({**tree, "rows": rows})
    mine = {"GDFQ": [_run(0, 1, 8.0), _run(1, 1, 99.0)], "GDFQ + SynQ": [_run(0, 1, 10.0)]}
    (row,), (bars,) = draw_overhead(figure, {"W8A8": mine})
    assert row["overhead"] == pytest.approx(20.0) and row["seeds"] == [0]
    assert (bars.names, list(bars.heights)) == (["GDFQ"], [pytest.approx(20.0)])
    rows, (bars,) = draw_bars(figure, {"W8A8": mine})
    assert bars.names == ["GDFQ", "GDFQ + SynQ"] and [r["mean"] for r in rows] == [1, 1]


def _figure(kind: str, **more: Any) -> PaperFigure:
    rows = {"SynQ": {"settings": {}}, "plain": {"settings": {"finetune": {"lambda_cam": 0}}}}
    tree = {"title": kind, "kind": kind, "shows": "words.", "columns": COLUMNS, "rows": rows}
    return PaperFigure.model_validate({**tree, **more})


@pytest.mark.long
@pytest.mark.parametrize(
    ("figure", "count"),
    [
        (_figure("amplitude"), 2 * 3 * 4),
        (_figure("spectrum", parts=["real", "synthetic"]), 2 * 2),
        (_figure("images", parts=["synthetic", "filtered"]), 2 * 16),
        (_figure("errors", parts=["real", "filtered"]), 2 * 2 * 20),
        (_figure("maps", metric="cam_kl"), 2),
        (_figure("bars"), 2),
        pytest.param(SWEEP, 3 + 2, marks=pytest.mark.slow),
    ],
    ids=lambda x: x.kind if isinstance(x, PaperFigure) else "",
)
def test_a_figure_is_a_picture_with_its_rows(
    figure: PaperFigure, count: int, tmp_path: Path
) -> None:
    """Of a small study; a second call draws the same rows and trains nothing."""
    flags = {"study": {"val_data": "digits"}}
    found = jobs(figure, "small", assignments=SMALL, flags=flags)
    rest = (found, "small", 1, tmp_path / "out", tmp_path / "store", ["figure9"])
    lines = list(make_figure("figure9", figure, *rest))
    data = (tmp_path / "out" / "figure9.jsonl").read_text()
    rows = [json.loads(line) for line in data.splitlines()]
    assert len(rows) == count and all(row["column"] == "W8A8" for row in rows)
    with Image.open(tmp_path / "out" / "figure9.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert lines[-1].startswith("wrote ") and len(list(make_figure("figure9", figure, *rest))) == 1
    assert (tmp_path / "out" / "figure9.jsonl").read_text() == data


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    """Images are no runs; and runs that nobody made cannot be drawn."""
    given = ["--val-data", "digits", "--report", "--output", str(tmp_path)]
    with pytest.raises(InputError, match="figure5 is drawn from runs"):
        main(["figure5", *given])
    with pytest.raises(InputError, match="figure6 has something to draw"):
        main(["figure6", *given])


def test_what_has_nothing_to_run_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Notation and the drawing of the method; ranges stand beside ours."""
    for name in ("table4", "figure4"):
        assert main([name]) == 0 and len(capsys.readouterr().out.splitlines()) == 1
    assert main(["table10", "--scale", "paper"]) == 0
    out = capsys.readouterr().out
    tau = "0.5, 0.55, 0.6, 0.65, 0.7"
    assert f"| τ | {tau} | finetune.tau | {tau} |" in out
    assert "| α2 | 0.01, 0.04, 0.1 | synthesis.alpha_layered | 0.02, not searched |" in out
