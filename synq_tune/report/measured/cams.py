"""Where teacher and students look: class activation maps of a few images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor, fx

from synq_tune.config import FineTune
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.graph.taps import record
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.report.blocks import Picture
from synq_tune.report.measured.synthetic import class_name
from synq_tune.report.pixels import picture, picture_of
from synq_tune.views.cam import cam_tap, normalize_maps, resize_maps, saliency_map

NUM_IMAGES = 6
_SHARE = 0.55
"""Of the map in what is shown; the rest is the image, in grey."""
_COLORS = "viridis"  # colour-blind readers see its order


@dataclass(frozen=True)
class Cams:
    """One image, and the maps of each network."""

    name: str
    """Of the class that the maps explain."""
    image: Picture
    maps: list[Picture]
    """Teacher first."""
    likeness: list[float]
    """Cosine of each map and the teacher's, in [0, 1]; the teacher's own is 1."""


def cams(
    teacher: LoadedTeacher,
    students: Mapping[str, fx.GraphModule],
    dataset: SyntheticDataset,
    config: FineTune,
) -> list[Cams]:
    """Maps of held-out images, on which nothing was trained, by the technique of `config`.

    Args:
        students: by what they are, such as "calibrated".

    Raises:
        InputError: the network has no place for the technique.
    """
    held = dataset.num_holdout
    images = dataset.holdout_images[:NUM_IMAGES].float()
    labels = dataset.labels[len(dataset.labels) - held :][:NUM_IMAGES]
    device = next(teacher.graph.parameters()).device
    graphs = {"teacher": teacher.graph, **students}
    maps = {n: _maps(g, images.to(device), labels.to(device), config) for n, g in graphs.items()}
    return [
        Cams(
            class_name(teacher, int(labels[row])),
            picture(images[row], teacher.preprocessing, "synthetic image", "image"),
            [_overlay(images[row], m[row], teacher, name) for name, m in maps.items()],
            [_cosine(m[row], maps["teacher"][row]) for m in maps.values()],
        )
        for row in range(len(images))
    ]


def _maps(graph: fx.GraphModule, images: Tensor, labels: Tensor, config: FineTune) -> Tensor:
    """(N, H, W) in [0, 1], at the images' size."""
    tap = cam_tap(graph, config.cam)
    with torch.enable_grad(), record(graph, [tap]) as values:
        logits = graph(images)
    scores = logits.gather(1, labels[:, None])[:, 0]
    found = saliency_map(values[tap], scores, config.cam, config.cam_floor).detach()
    return normalize_maps(resize_maps(found, images.shape[2:])).cpu()


def _overlay(image: Tensor, cam: Tensor, teacher: LoadedTeacher, name: str) -> Picture:
    pixels = teacher.preprocessing.denormalize(image[None])[0].clamp(0, 1).mean(0)
    colored = torch.from_numpy(np.asarray(colormaps[_COLORS](cam.numpy()))[..., :3]).float()
    mixed = _SHARE * colored.permute(2, 0, 1) + (1 - _SHARE) * pixels[None]
    return picture_of(mixed, f"where the {name} looks", name)


def _cosine(one: Tensor, other: Tensor) -> float:
    norms = one.norm() * other.norm()
    return float((one * other).sum() / norms) if norms > 0 else 0.0
