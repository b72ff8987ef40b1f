"""Where the networks look on the same images (SynQ, Figure 2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from synq_tune.experiments.compare_table import Row
from synq_tune.experiments.figures.recorded import Drawn, Runs
from synq_tune.experiments.paper_figure import PaperFigure
from synq_tune.report.paper.overlay import overlaid
from synq_tune.report.paper.plots import Pictures


def draw_maps(figure: PaperFigure, runs: Runs) -> Drawn:
    """Images, the teacher's maps on them, and those of each row's first run."""
    rows, plots = [], []
    for column, mine in runs.items():
        firsts = {name: mine[name][0] for name in figure.rows if mine.get(name)}
        rows += [_about(column, name, row) for name, row in firsts.items()]
        if firsts:
            plots.append(Pictures(f"saliency maps of the true class, {column}", _lines(firsts)))
    return rows, plots


def _about(column: str, name: str, row: Row) -> dict[str, Any]:
    measured = {key: row[key] for key in ("seed", "top1_report", "cam_kl", "cam_examples")}
    return {"column": column, "row": name, **measured}


def _lines(firsts: dict[str, Row]) -> dict[str, np.ndarray]:
    examples = next(iter(firsts.values()))["cam_examples"]
    images = np.stack([_image(example["image"]) for example in examples])
    lines = {"image": images, "teacher": overlaid(images, _maps(examples, "teacher"))}
    for name, row in firsts.items():
        says = f"{name}\n{row['cam_kl']:.2f}"
        lines[says] = overlaid(images, _maps(row["cam_examples"], "student"))
    return lines


def _maps(examples: list[dict[str, Any]], of: str) -> np.ndarray:
    return np.stack([np.asarray(example[of], dtype=np.float32) for example in examples])


def _image(pixels: list) -> np.ndarray:
    """(C, H, W) bytes → (H, W, 3) in [0, 1]."""
    image = np.asarray(pixels, dtype=np.float32) / 255
    image = image if len(image) == 3 else image.mean(0, keepdims=True).repeat(3, 0)
    return image.transpose(1, 2, 0)
