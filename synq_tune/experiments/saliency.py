"""How far a finished student's saliency maps are from its teacher's (SynQ, Table 5)."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.functional import interpolate

from synq_tune.config import FineTune
from synq_tune.data.labelled_cache import SPLIT_SEED
from synq_tune.data.split import stratified_rows
from synq_tune.graph.taps import record
from synq_tune.trial.trial import Trial
from synq_tune.views.cam import cam_tap, normalize_maps, saliency_map

NUM_IMAGES = 512
"""Reporting images, at most, that maps are compared on."""
BATCH = 32
"""Images of a batch, as in the paper."""
NUM_EXAMPLES = 4
"""Images whose maps a row keeps."""
LARGEST = 64
"""Pixels: larger images are kept reduced."""
_EVEN = 0.01
"""Share of an even map in each distribution. Maps have exact zeros, of which a divergence would be
infinite."""


def measure_saliency(trial: Trial) -> dict[str, Any]:
    """Divergence of the maps of the true class on labelled images, and a few maps to look at.

    Returns:
        `cam_kl`: KL(teacher ‖ student), 10⁻² nats, averaged over batches of 32; `cam_examples`: a
        dict an image, of `image` (C, h, w) uint8 and the maps `teacher`, `student` in [0, 1].
    """
    assets = trial.assets
    rows = stratified_rows(assets.report, NUM_IMAGES, SPLIT_SEED)
    rows = torch.arange(len(assets.report)) if rows is None else rows
    divergences, examples = [], []
    for batch in rows.split(BATCH):
        pixels, labels = assets.report.images[batch], assets.report.labels[batch]
        images = assets.teacher.preprocessing.normalize(pixels.to(assets.device))
        pair = (assets.teacher.graph, trial.student)
        maps = [maps_of(g, images, labels.to(assets.device), trial.config) for g in pair]
        divergences.append(100 * map_divergence(*maps))
        if not examples:
            examples = _examples(pixels, labels, *maps)
    return {"cam_kl": fmean(divergences), "cam_examples": examples}


def maps_of(graph: fx.GraphModule, images: Tensor, labels: Tensor, config: FineTune) -> Tensor:
    """Saliency maps (N, h, w), not below 0, of the labels' scores by the trial's technique."""
    tap = cam_tap(graph, config.cam)
    with torch.enable_grad(), record(graph, [tap]) as values:
        scores = graph(images).gather(1, labels[:, None])[:, 0]
        found = saliency_map(values[tap], scores, config.cam, config.cam_floor)
    return found.detach().cpu()


def map_divergence(teacher: Tensor, student: Tensor) -> float:
    """Mean KL(teacher ‖ student) of maps (N, h, w), each as a distribution over its cells, in
    nats; a map of zeros counts as an even one."""
    ours, theirs = _distribution(student), _distribution(teacher)
    return float((theirs * (theirs / ours).log()).sum(1).mean())


def _distribution(maps: Tensor) -> Tensor:
    flat = maps.double().flatten(1)
    total, even = flat.sum(1, keepdim=True), 1.0 / flat.shape[1]
    shares = torch.where(total > 0, flat / total.clamp_min(1e-300), even)
    return (1 - _EVEN) * shares + _EVEN * even


def _examples(
    pixels: Tensor, labels: Tensor, teacher: Tensor, student: Tensor
) -> list[dict[str, Any]]:
    kept = pixels[:NUM_EXAMPLES].float()
    if max(kept.shape[2:]) > LARGEST:
        kept = interpolate(kept, LARGEST, mode="area")
    maps = [normalize_maps(m[:NUM_EXAMPLES]) for m in (teacher, student)]
    return [
        {
            "label": int(labels[row]),
            "image": kept[row].round().to(torch.uint8).tolist(),
            "teacher": _rounded(maps[0][row]),
            "student": _rounded(maps[1][row]),
        }
        for row in range(len(kept))
    ]


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 3) for value in line] for line in values.tolist()]
