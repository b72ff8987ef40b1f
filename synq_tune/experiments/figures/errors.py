"""How often the teacher is wrong by the difficulty of an image (SynQ, Figure 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from synq_tune.experiments.figures.material import REAL, Material, answers
from synq_tune.report.paper.plots import Curves, Line
from synq_tune.views.difficulty import difficulty

NUM_BINS = 20
"""Bins of difficulty, even in [0, 1]."""


def difficulty_rows(logits: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """A row a bin of δ = 1 - p(label) (Eq. 3): images in it, and the percentage of them that the
    network answers with another class; None where the bin is empty.

    Args:
        logits: (N, K).
        labels: (N,) class indices.
    """
    bins = (difficulty(logits, labels) * NUM_BINS).long().clamp_max(NUM_BINS - 1)
    wrong = logits.argmax(1) != labels
    rows = []
    for at in range(NUM_BINS):
        inside = bins == at
        count = int(inside.sum())
        rate = 100.0 * float(wrong[inside].double().mean()) if count else None
        share = 100.0 * count / len(labels)
        ends = {"low": at / NUM_BINS, "high": (at + 1) / NUM_BINS}
        rows.append({**ends, "images": count, "share": share, "error_rate": rate})
    return rows


def draw_errors(
    found: Iterable[Material], parts: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[Curves]]:
    """Error rates on labelled images by difficulty, and how difficult each part's images are."""
    rows, rates, shares, taus = [], [], [], {}
    for material in found:
        taus |= {f"τ, {material.column}": material.spec.finetune.tau}
        for part in parts:
            mine = difficulty_rows(*_asked(material, part))
            rows += [{**material.about(part), **row} for row in mine]
            name = f"{material.column}, {material.named(part)}"
            full = [r for r in mine if r["images"]]
            shares.append(Line(name, [_middle(r) for r in full], [r["share"] for r in full]))
            if part == REAL:
                name = material.column
                y = [r["error_rate"] for r in full]
                rates.append(Line(name, [_middle(r) for r in full], y))
    upright = {name: tau for name, tau in taus.items() if tau is not None}
    axis = "difficulty δ = 1 - p(label)"
    left = Curves(
        "The teacher's errors on labelled images", axis, "error rate (%)", rates, marks=True
    )
    title = "How difficult images are"
    right = Curves(title, axis, "images (%)", shares, is_log_y=True, marks=True, upright=upright)
    return rows, [left, right]


def _asked(material: Material, part: str) -> tuple[Tensor, Tensor]:
    """The teacher's logits of all images of a part, and their labels."""
    if part == REAL:
        ground = material.ground
        images = ground.report.images.split(500)
        normalize = ground.teacher.preprocessing.normalize
        logits = torch.cat([answers(material, normalize(batch)) for batch in images])
        return logits, ground.report.labels
    count = len(material.dataset.train_labels)
    return answers(material, material.images(part, count)), material.dataset.train_labels


def _middle(row: dict[str, Any]) -> float:
    return (row["low"] + row["high"]) / 2
